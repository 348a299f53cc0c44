import copy

import pytest

from kubelocal.codec import decoder
from kubelocal.codec.kinds import KINDS
from kubelocal.registry import defaults
from kubelocal.registry.update_validation import validate_update


def made(kind, manifest):
    checked, _ = decoder.check(KINDS[kind], manifest, strict="Strict")
    defaults.apply_defaults(KINDS[kind], checked)
    return checked


def pod(**spec):
    containers = [{"name": "base", "image": "a:1"}]
    return made("Pod", {"metadata": {"name": "p", "resourceVersion": "1"}, "spec": {"containers": containers, **spec}})


def job(**spec):
    template = {"spec": {"containers": [{"name": "base", "image": "a:1"}], "restartPolicy": "Never"}}
    return made("Job", {"metadata": {"name": "j", "uid": "u"}, "spec": {"template": template, **spec}})


def set_at(path, value):
    def change(manifest):
        *parents, last = path
        for step in parents:
            manifest = manifest[step]
        if value is None:
            manifest.pop(last, None)
        else:
            manifest[last] = value

    return change


def changed(kind, old, *changes, subresource=""):
    new = copy.deepcopy(old)
    for change in changes:
        change(new)
    return [(cause.field, cause.message) for cause in validate_update(KINDS[kind], old, new, subresource)]


INIT = {"initContainers": [{"name": "i", "image": "a:1"}]}
LATE = {"name": "late", "image": "a"}
TOLERATION = {"key": "k", "operator": "Exists", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("old", "change"),
    [
        (pod(), set_at(("spec", "containers", 0, "image"), "b:2")),
        (pod(**INIT), set_at(("spec", "initContainers", 0, "image"), "b:2")),
        (pod(), set_at(("spec", "activeDeadlineSeconds"), 500)),
        (pod(activeDeadlineSeconds=500), set_at(("spec", "activeDeadlineSeconds"), 400)),
        (pod(), set_at(("spec", "tolerations"), [TOLERATION])),
        (pod(tolerations=[TOLERATION]), set_at(("spec", "tolerations"), [{**TOLERATION, "tolerationSeconds": 3}])),
        (pod(schedulingGates=[{"name": "g"}]), set_at(("spec", "schedulingGates"), None)),
        (pod(schedulingGates=[{"name": "g"}]), set_at(("spec", "nodeSelector"), {"a": "b"})),
        (pod(), set_at(("metadata", "labels"), {"a": "b"})),
    ],
)
def test_a_few_fields_of_a_pod_may_change(old, change):
    assert changed("Pod", old, change) == []


@pytest.mark.parametrize(
    ("old", "change", "field", "words"),
    [
        (pod(), lambda p: p["spec"]["containers"].append(LATE), "spec.containers", "may not add or remove containers"),
        (
            pod(**INIT),
            set_at(("spec", "initContainers"), None),
            "spec.initContainers",
            "may not add or remove containers",
        ),
        (
            pod(),
            set_at(("spec", "containers", 0, "command"), ["x"]),
            "spec",
            "pod updates may not change fields other than",
        ),
        (
            pod(),
            set_at(("spec", "containers", 0, "name"), "other"),
            "spec",
            "pod updates may not change fields other than",
        ),
        (pod(), set_at(("spec", "nodeName"), "node"), "spec", "changed: spec.nodeName"),
        (pod(), set_at(("spec", "nodeSelector"), {"a": "b"}), "spec", "pod updates may not change fields other than"),
        (
            pod(),
            set_at(("spec", "ephemeralContainers"), [LATE]),
            "spec",
            "pod updates may not change fields other than",
        ),
        (
            pod(activeDeadlineSeconds=400),
            set_at(("spec", "activeDeadlineSeconds"), 450),
            "spec.activeDeadlineSeconds",
            "Invalid value: 450: must be less than or equal to previous value",
        ),
        (
            pod(activeDeadlineSeconds=400),
            set_at(("spec", "activeDeadlineSeconds"), None),
            "spec.activeDeadlineSeconds",
            "Invalid value: null: must not update from a positive integer to nil value",
        ),
        (
            pod(tolerations=[TOLERATION]),
            set_at(("spec", "tolerations"), None),
            "spec.tolerations",
            "existing toleration can not be modified",
        ),
        (
            pod(),
            set_at(("spec", "schedulingGates"), [{"name": "g"}]),
            "spec.schedulingGates",
            'found new scheduling gate "g"',
        ),
    ],
)
def test_the_rest_of_a_pod_is_fixed(old, change, field, words):
    ((seen, message),) = changed("Pod", old, change)
    assert (seen, words in message) == (field, True), message


def test_ephemeral_containers_may_be_added_but_neither_changed_nor_removed():
    one = {"name": "one", "image": "a", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}
    old = pod()
    assert changed("Pod", old, set_at(("spec", "ephemeralContainers"), [one]), subresource="ephemeralcontainers") == []
    old["spec"]["ephemeralContainers"] = [one]
    for change, word in (
        (set_at(("spec", "ephemeralContainers"), None), "removed"),
        (set_at(("spec", "ephemeralContainers", 0, "image"), "b"), "changed"),
    ):
        ((field, message),) = changed("Pod", old, change, subresource="ephemeralcontainers")
        assert field == "spec.ephemeralContainers"
        assert message == f'Forbidden: existing ephemeral containers "one" may not be {word}\n'


def test_ephemeral_containers_are_validated():
    late = {
        "name": "base",
        "image": "a",
        "imagePullPolicy": "Always",
        "terminationMessagePolicy": "File",
        "ports": [{}],
    }
    found = changed("Pod", pod(), set_at(("spec", "ephemeralContainers"), [late]), subresource="ephemeralcontainers")
    assert {field.removeprefix("spec.ephemeralContainers[0].") for field, _ in found} >= {"name", "ports"}


def test_a_jobs_template_is_fixed_but_may_choose_other_nodes_while_suspended():
    policy = set_at(("spec", "template", "spec", "restartPolicy"), "OnFailure")
    nodes = set_at(("spec", "template", "spec", "nodeSelector"), {"a": "b"})
    for suspend, change, wanted in ((False, nodes, 1), (True, nodes, 0), (True, policy, 1), (False, policy, 1)):
        found = changed("Job", job(suspend=suspend), change)
        assert [field for field, _ in found] == ["spec.template"] * wanted
        assert all(message.endswith("field is immutable") for _, message in found)
    assert changed("Job", job(), set_at(("spec", "parallelism"), 3), set_at(("spec", "suspend"), True)) == []
    assert changed("Job", job(), set_at(("spec", "completions"), 3))[0][0] == "spec.completions"


@pytest.mark.parametrize(
    ("kind", "old", "change", "wanted"),
    [
        (
            "Secret",
            {"type": "Opaque"},
            set_at(("type",), "other"),
            [("type", 'Invalid value: "other": field is immutable')],
        ),
        ("ConfigMap", {"data": {"a": "1"}}, set_at(("data",), {"a": "2"}), []),
        (
            "RoleBinding",
            {"roleRef": {"kind": "Role", "name": "a"}},
            set_at(("roleRef", "name"), "b"),
            [("roleRef", 'Invalid value: {"kind": "Role", "name": "b"}: cannot change roleRef')],
        ),
        (
            "ConfigMap",
            {"metadata": {"name": "x", "deletionTimestamp": "2030-01-01T00:00:00Z", "finalizers": ["a/b"]}},
            set_at(("metadata", "finalizers"), ["a/b", "c/d"]),
            [
                (
                    "metadata.finalizers",
                    "Forbidden: no new finalizers can be added if the object is being deleted, "
                    'found new finalizers []string{"c/d"}',
                )
            ],
        ),
    ],
)
def test_other_kinds_have_fixed_fields_too(kind, old, change, wanted):
    assert changed(kind, {"metadata": {"name": "x"}, **old}, change) == wanted


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
def test_what_is_immutable_stays_so(kind):
    old = made(kind, {"metadata": {"name": "x"}, "data": {"a": "MQ=="}, "immutable": True})
    message = "Forbidden: field is immutable when `immutable` is set"
    assert changed(kind, old, set_at(("data", "a"), "Mg==")) == [("data", message)]
    assert changed(kind, old, set_at(("immutable",), None)) == [("immutable", message)]
    assert changed(kind, old, set_at(("immutable",), False)) == [("immutable", message)]
    assert changed(kind, old, set_at(("metadata", "labels"), {"a": "b"})) == []
    loose = made(kind, {"metadata": {"name": "x"}, "data": {"a": "MQ=="}})
    assert changed(kind, loose, set_at(("data", "a"), "Mg=="), set_at(("immutable",), True)) == []

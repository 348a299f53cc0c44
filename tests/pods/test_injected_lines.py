from __future__ import annotations

import yaml

from crosswind.pods.injected_lines import yaml_lines

POD = {"kind": "Pod", "spec": {"containers": [{"name": "base", "image": "x"}]}}


def test_a_container_that_the_manifest_does_not_declare_is_marked_in_its_section() -> None:
    seen = [
        {"name": "istio-init", "kind": "init"},
        {"name": "istio-proxy", "kind": "native"},
        {"name": "base", "kind": "ordinary"},
        {"name": "linkerd-proxy", "kind": "ordinary"},
    ]
    lines = yaml_lines(POD, seen)
    assert [line.text.split()[2] for line in lines if line.injected] == ["linkerd-proxy", "istio-init", "istio-proxy"]
    spec = yaml.safe_load("\n".join(line.text for line in lines))["spec"]
    assert [container["name"] for container in spec["containers"]] == ["base", "linkerd-proxy"]
    assert [container["name"] for container in spec["initContainers"]] == ["istio-init", "istio-proxy"]


def test_a_manifest_alone_has_no_marks_and_stays_as_it_is() -> None:
    lines = yaml_lines(POD, [{"name": "base", "kind": "ordinary"}])
    assert not any(line.injected for line in lines)
    assert yaml.safe_load("\n".join(line.text for line in lines)) == POD


def test_secrets_are_hidden_in_the_whole_text() -> None:
    lines = yaml_lines(POD, (), (), lambda text: text.replace("image: x", "image: '***'"))
    assert "    image: '***'" in [line.text for line in lines]


def test_any_manifest_has_lines() -> None:
    assert yaml_lines({"spec": None}, [{"name": "x", "kind": "init"}])


ADDED = (
    "labels/istio.io/rev",
    "annotations/sidecar.istio.io/status",
    "volumes/istio-proxy",
    "env/base/HTTP_PROXY",
    "volumeMounts/base//var/run/secrets/a: b",
    "env/of-no-container/X",
)


def test_each_added_field_is_marked_in_its_section() -> None:
    lines = yaml_lines(POD, [{"name": "istio-proxy", "kind": "ordinary"}], ADDED)
    assert len([line for line in lines if line.injected]) == 6
    shown = yaml.safe_load("\n".join(line.text for line in lines))
    assert shown["metadata"] == {"labels": {"istio.io/rev": None}, "annotations": {"sidecar.istio.io/status": None}}
    assert shown["spec"]["volumes"] == [{"name": "istio-proxy"}]
    assert shown["spec"]["containers"] == [
        {
            "name": "base",
            "image": "x",
            "env": [{"name": "HTTP_PROXY"}],
            "volumeMounts": [{"mountPath": "/var/run/secrets/a: b"}],
        },
        {"name": "istio-proxy"},
    ]


def test_a_field_that_the_manifest_has_by_now_is_not_marked() -> None:
    pod = {"metadata": {"labels": {"team": "a"}}, "spec": {"containers": [{"name": "base", "env": [{"name": "X"}]}]}}
    assert not any(line.injected for line in yaml_lines(pod, (), ["labels/team", "env/base/X"]))


def test_names_of_added_fields_are_redacted_too() -> None:
    lines = yaml_lines(POD, (), ["labels/hunter2"], lambda text: text.replace("hunter2", "***"))
    assert not any("hunter2" in line.text for line in lines)
    assert any("***" in line.text for line in lines if line.injected)

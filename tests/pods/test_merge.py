from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.client import ApiClient

from crosswind.errors import OverrideError
from crosswind.pods.merge import merge_pods

GOLDEN = Path(__file__).parent / "golden"
TEMPLATE = yaml.safe_load((GOLDEN / "template.yaml").read_text())
EXAMPLES = sorted(path.stem for path in GOLDEN.glob("*.yaml") if path.stem != "template")


def _example(name: str) -> tuple[dict, dict, dict]:
    *template, override, merged = yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text())
    return (template[0] if template else TEMPLATE), override, merged


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_override_gives_the_pod_in_the_golden_file(name: str) -> None:
    template, override, merged = _example(name)
    before = copy.deepcopy((template, override))
    assert merge_pods(template, override) == merged
    assert (template, override) == before, "the inputs stay as they are"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_override_that_is_applied_again_changes_nothing(name: str) -> None:
    _template, override, merged = _example(name)
    assert merge_pods(merged, override) == merged


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("start_task", "airflow-annotation"),
        ("test_volume_mount", "airflow-volume"),
        ("test_sharedvolume_mount", "airflow-sidecar"),
        ("non_root_task", "airflow-label"),
        ("task_with_resource_limits", "airflow-resources"),
    ],
)
def test_the_golden_overrides_are_those_of_airflows_own_example_dag(task: str, name: str) -> None:
    from airflow.example_dags.example_kubernetes_executor import dag

    override = dag.get_task(task).executor_config["pod_override"]
    assert ApiClient().sanitize_for_serialization(override) == _example(name)[1]


def _pod(**container: object) -> dict:
    return {"spec": {"containers": [{"name": "base", **container}]}}


def _base(pod: dict) -> dict:
    return next(container for container in pod["spec"]["containers"] if container["name"] == "base")


@pytest.mark.parametrize(
    ("field", "old", "new", "merged"),
    [
        ("env", [{"name": "A", "value": "1"}], [], [{"name": "A", "value": "1"}]),
        (
            "env",
            [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            [{"name": "C", "value": "3"}, {"name": "A", "value": "4"}],
            [{"name": "A", "value": "4"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
        ),
        (
            "envFrom",
            [{"secretRef": {"name": "s"}}, {"prefix": "X_", "secretRef": {"name": "s"}}],
            [{"configMapRef": {"name": "s"}}, {"secretRef": {"name": "s", "optional": True}}],
            [
                {"secretRef": {"name": "s", "optional": True}},
                {"prefix": "X_", "secretRef": {"name": "s"}},
                {"configMapRef": {"name": "s"}},
            ],
        ),
        (
            "volumeDevices",
            [{"devicePath": "/dev/a", "name": "a"}],
            [{"devicePath": "/dev/a", "name": "b"}, {"devicePath": "/dev/c", "name": "c"}],
            [{"devicePath": "/dev/a", "name": "b"}, {"devicePath": "/dev/c", "name": "c"}],
        ),
        (
            "ports",
            [{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}],
            [{"containerPort": 53, "protocol": "TCP", "name": "dns"}],
            [{"containerPort": 53, "protocol": "TCP", "name": "dns"}, {"containerPort": 53, "protocol": "UDP"}],
        ),
        (
            "ports",
            [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "b"}],
            [{"containerPort": 2, "name": "a"}],
            [{"containerPort": 2, "name": "a"}],
        ),
        ("args", ["a", "b"], ["c"], ["c"]),
        ("args", ["a", "b"], [], []),
        ("workingDir", "/a", "", ""),
        ("workingDir", "/a", None, "/a"),
        ("livenessProbe", {"exec": {"command": ["x"]}}, {"httpGet": {"port": 1}}, {"httpGet": {"port": 1}}),
        (
            "lifecycle",
            {"preStop": {"exec": {"command": ["x"]}}, "postStart": {"sleep": {"seconds": 1}}},
            {"preStop": {"sleep": {"seconds": 5}}},
            {"preStop": {"sleep": {"seconds": 5}}, "postStart": {"sleep": {"seconds": 1}}},
        ),
    ],
)
def test_each_field_of_a_container_has_its_rule(field: str, old: object, new: object, merged: object) -> None:
    assert _base(merge_pods(_pod(**{field: old}), _pod(**{field: new})))[field] == merged


def test_base_is_found_by_name_wherever_it_stands() -> None:
    template = {"spec": {"containers": [{"name": "proxy", "image": "p"}, {"name": "base", "image": "a"}]}}
    merged = merge_pods(template, _pod(image="b"))
    assert merged["spec"]["containers"] == [{"name": "proxy", "image": "p"}, {"name": "base", "image": "b"}]


def test_finalizers_and_owners_are_added_once() -> None:
    owner = {"uid": "1", "name": "a", "kind": "Job", "apiVersion": "batch/v1"}
    other = {**owner, "uid": "2"}
    base = {"metadata": {"finalizers": ["x"], "ownerReferences": [owner]}}
    merged = merge_pods(base, {"metadata": {"finalizers": ["x", "y"], "ownerReferences": [owner, other]}})
    assert merged["metadata"] == {"finalizers": ["x", "y"], "ownerReferences": [owner, other]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("text", "pod_override: the document is text, not a Pod"),
        ({"kind": "Deployment"}, "kind is 'Deployment', not 'Pod'; write kind: Pod"),
        ({"spec": []}, "spec is a list; write a mapping of fields"),
        ({"spec": {"containers": {"name": "base"}}}, "spec.containers is a mapping; write a list"),
        ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers[0].name is missing; write name: with a value"),
        (_pod(volume_mounts=[]), "spec.containers[0].volume_mounts is not a field of Kubernetes; write volumeMounts"),
        (_pod(env=[{"name": "A", "value": 1}]), "spec.containers[0].env[0].value is 1; put it into quotes"),
        (_pod(env=[{"value": "1"}]), "spec.containers[0].env[0].name is missing; write name: with a value"),
        (_pod(args="echo"), "spec.containers[0].args is 'echo'; write a list"),
        (_pod(resources={"limits": []}), "spec.containers[0].resources.limits is a list; write a mapping"),
        ({"metadata": {"labels": {"a": True}}}, "metadata.labels.a is true; put it into quotes"),
        ({"metadata": {"labels": ["a"]}}, "metadata.labels is a list; write a mapping"),
        ({"metadata": {"uid": "1"}}, "metadata.uid cannot be overridden, the API server sets it; leave it out"),
        ({"status": {"phase": "Running"}}, "status cannot be overridden"),
        (
            {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}},
            "spec.containers[1].name is 'a' a second time; give each container its own name",
        ),
    ],
)
def test_an_override_that_is_no_pod_is_refused_with_field_and_fix(override: object, message: str) -> None:
    with pytest.raises(OverrideError) as caught:
        merge_pods(TEMPLATE, override)  # type: ignore[arg-type]
    assert message in str(caught.value)


_names = st.sampled_from(["base", "a", "b", "c"])
_env = st.lists(st.builds(lambda n, v: {"name": n, "value": v}, _names, st.text(max_size=3)), max_size=4)
_container = st.builds(lambda n, e: {"name": n, "env": e}, _names, _env)
_pods = st.lists(_container, max_size=4, unique_by=lambda c: c["name"]).map(lambda cs: {"spec": {"containers": cs}})


@given(_pods, _pods)
def test_names_stay_unique_and_the_override_wins(base: dict, override: dict) -> None:
    base["spec"]["containers"] = [
        c | {"env": list({e["name"]: e for e in c["env"]}.values())} for c in base["spec"]["containers"]
    ]
    merged = {c["name"]: c for c in merge_pods(base, override)["spec"]["containers"]}
    assert len(merged) == len(merge_pods(base, override)["spec"]["containers"])
    for container in override["spec"]["containers"]:
        env = merged[container["name"]]["env"]
        assert len({e["name"] for e in env}) == len(env)
        last = {e["name"]: e["value"] for e in container["env"]}
        assert last.items() <= {e["name"]: e["value"] for e in env}.items()

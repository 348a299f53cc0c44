from __future__ import annotations

from typing import Any

import pytest

from crosswind.deploy.findings import ClusterFacts, findings
from crosswind.deploy.meshes import pod_annotations, pod_labels
from crosswind.deploy.values import Values

HEALTHY = ClusterFacts(version=(1, 33), execution=(200, "{}"))


def examine(values: dict[str, Any], **known_facts: Any) -> list[tuple[str, str, str]]:
    facts = ClusterFacts(**{**HEALTHY.__dict__, **known_facts})
    parsed = Values.model_validate({"image": "x", **values}).with_workers_apart(True)
    return [(finding.level, finding.check, finding.description) for finding in findings(parsed, facts)]


def namespace(**labels: str) -> dict[str, Any]:
    """Return the namespace with labels; ``enforce`` is Pod Security's."""
    names = {"enforce": "pod-security.kubernetes.io/enforce", "injection": "istio-injection"}
    return {"airflow": {"metadata": {"labels": {names[key]: value for key, value in labels.items()}}}}


def control_plane(image: str) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"image": image}]}}}}


def pod(*containers: str, image: str = "x", **metadata: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": name, "image": image} for name in containers]}
    return {"metadata": {"name": "p", **metadata}, "spec": spec, "status": {"phase": "Running"}}


ISTIO = Values.model_validate({"image": "x", "mesh": {"kind": "istio"}})
INJECTED_LABELS, NATIVE_ANNOTATIONS = pod_labels(ISTIO), pod_annotations(ISTIO)


def test_a_pod_with_its_sidecar_and_the_image_of_the_values_has_no_finding() -> None:
    meshed_pod = pod("scheduler", "istio-proxy", image="x:1", labels=INJECTED_LABELS, annotations=NATIVE_ANNOTATIONS)
    checks = {check for _, check, _ in examine({"image": "x:1", "mesh": {"kind": "istio"}}, pods=[meshed_pod])}
    assert checks == {"server", "mesh", "execution API"}


@pytest.mark.parametrize("options", [{}, {"worker_shim": True}, {"worker_shim": False, "infra_retries": 0}])
def test_losses_are_no_finding_where_they_cost_no_retry_or_shall(options: dict[str, Any]) -> None:
    assert "losses" not in {check for _, check, _ in examine({"config": {"crosswind": options}})}


@pytest.mark.parametrize(
    ("values", "known_facts", "expected"),
    [
        ({}, {}, ("ok", "server", "Kubernetes 1.33")),
        ({}, {"version": (1, 28)}, ("fail", "server", "Kubernetes is 1.28")),
        ({}, {"version": None}, ("warn", "server", "reports no version")),
        ({}, {"kubelets": {"a": "v1.28.3", "b": "v1.30.0"}}, ("fail", "nodes", "a have no native sidecars")),
        (
            {"config": {"crosswind": {"worker_shim": False}}},
            {},
            (
                *("warn", "losses"),
                "[crosswind] worker_shim is off: workers store the failure that an eviction causes, which costs a"
                " retry",
            ),
        ),
        (
            {"config": {"crosswind": {"workload_delivery": "args"}}},
            {},
            (
                *("warn", "losses"),
                "[crosswind] workload_delivery is args: workers store the failure that an eviction causes, which costs"
                " a retry",
            ),
        ),
        ({}, {"namespaces": {"airflow": None}}, ("warn", "namespace airflow", "is not there")),
        ({"createNamespaces": False}, {"namespaces": {"airflow": None}}, ("fail", "namespace airflow", "is not there")),
        ({}, {"namespaces": namespace()}, ("ok", "namespace airflow", "is there")),
        (
            {},
            {"unserved": {"ExternalSecret (external-secrets.io/v1)": ["secrets/a.yaml"]}},
            (
                "fail",
                "kind ExternalSecret (external-secrets.io/v1)",
                "is not served, and apply fails on secrets/a.yaml",
            ),
        ),
        (
            {"mesh": {"kind": "istio"}},
            {"namespaces": namespace(injection="disabled")},
            ("fail", "namespace airflow", "has the label istio-injection=disabled, which overrides the pods' labels"),
        ),
        (
            {},
            {"namespaces": namespace(injection="enabled")},
            ("warn", "namespace airflow", "injects Istio sidecars, and the values name no mesh"),
        ),
        (
            {"mesh": {"kind": "istio", "cni": False}},
            {"namespaces": namespace(enforce="restricted")},
            (
                "fail",
                "namespace airflow",
                "enforces restricted pods, and sidecars without a CNI plug-in need more rights",
            ),
        ),
        (
            {"mesh": {"kind": "linkerd"}},
            {},
            ("fail", "mesh", "no control plane of linkerd was found in linkerd"),
        ),
        (
            {"mesh": {"kind": "istio"}},
            {"control_planes": [control_plane("docker.io/istio/pilot:1.18.2")]},
            ("fail", "mesh", "Istio 1.18 injects no native sidecars"),
        ),
        (
            {"mesh": {"kind": "istio"}},
            {"control_planes": [control_plane("registry:5000/pilot:1.27.1")]},
            ("ok", "mesh", "istio 1.27"),
        ),
        ({}, {"denied": ["a:b may not create pods in c"]}, ("fail", "permissions", "a:b may not create pods in c")),
        ({}, {"checked": 3}, ("ok", "permissions", "all 3 that were checked are granted")),
        ({}, {"quotas": [("airflow", "pods", 0.95)]}, ("warn", "quota", "95% of pods is used in airflow")),
        ({}, {"quotas": [("airflow", "pods", 0.5)]}, ("ok", "quota", "has capacity left")),
        (
            {},
            {"referred": {("Secret", "airflow", "s"): None}},
            ("fail", "Secret s in airflow", "is not there, and pods wait for it"),
        ),
        (
            {},
            {
                "referred": {("Secret", "airflow", "s"): {"data": {"a": ""}}},
                "keys": {("Secret", "airflow", "s"): frozenset("ab")},
            },
            ("fail", "Secret s in airflow", "has no key b"),
        ),
        (
            {},
            {"referred": {("PersistentVolumeClaim", "airflow", "c"): {"status": {"phase": "Pending"}}}},
            ("warn", "PersistentVolumeClaim c in airflow", "is Pending"),
        ),
        ({"image": "a/b:latest"}, {}, ("warn", "image", "a/b:latest may be a different image on each node")),
        (
            {"image": "a/b:2"},
            {"pods": [pod("scheduler", image="a/b:1")]},
            ("warn", "image", "scheduler in p runs a/b:1"),
        ),
        (
            {"mesh": {"kind": "istio"}},
            {"pods": [pod("scheduler", labels=INJECTED_LABELS, annotations=NATIVE_ANNOTATIONS)]},
            ("fail", "pod p", "asked istio for a sidecar and has none"),
        ),
        ({}, {"refusals": {"airflow": ""}}, ("ok", "workers in airflow", "the API server accepts their pods")),
        ({}, {"execution": None}, ("warn", "execution API", "no API server runs")),
        ({}, {"execution": (503, "no")}, ("fail", "execution API", "responds with 503: no")),
        ({}, {"execution": (0, "refused")}, ("fail", "execution API", "does not answer: refused")),
        (
            {"image": "a/b:2"},
            {"bytecode": (0, 1344)},
            ("warn", "bytecode", "a/b:2 has bytecode of 0 of Airflow's 1,344 modules: imports take twice as long"),
        ),
        ({}, {"bytecode": (1344, 1344)}, ("ok", "bytecode", "of 1,344 of Airflow's 1,344 modules is in the image")),
        (
            {"config": {"crosswind": {"bytecode_volume": "cache"}}},
            {"bytecode": (0, 1344)},
            ("ok", "bytecode", "of 0 of Airflow's 1,344 modules is in the image"),
        ),
        ({}, {"unseen": {"nodes": "forbidden"}}, ("warn", "nodes", "could not be checked: forbidden")),
    ],
)
def test_fact_becomes_a_finding(
    values: dict[str, Any], known_facts: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    assert expected in examine(values, **known_facts)


def test_a_pod_that_cannot_start_is_a_finding_with_its_cause() -> None:
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    status = {"phase": "Pending", "containerStatuses": [{"name": "scheduler", "state": state, "image": "x"}]}
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "scheduler", "image": "x"}]}, "status": status}
    ((level, _, description),) = [finding for finding in examine({}, pods=[pod]) if finding[1] == "pod p"]
    assert level == "fail"
    assert "image" in description


def test_each_failure_has_a_fix() -> None:
    facts = ClusterFacts(
        version=(1, 20),
        kubelets={"a": "v1.20.0"},
        namespaces={"airflow": None},
        denied=["x"],
        quotas=[("a", "pods", 1.0)],
        referred={("Secret", "a", "b"): None},
        refusals={"a": "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"},
        execution=(500, ""),
        bytecode=(0, 1344),
    )
    results = findings(Values.model_validate({"image": "x", "mesh": {"kind": "istio"}}), facts)
    assert all(finding.fix or finding.check.startswith("workers") for finding in results)
    assert not [finding for finding in results if finding.level == "ok"]


def test_workers_beside_airflows_secrets_are_a_warning() -> None:
    levels = {check: level for level, check, _ in examine({"workers": {"namespaces": ["airflow"]}})}
    assert levels["workers"] == "warn"
    assert "workers" not in {check for _, check, _ in examine({})}

from __future__ import annotations

from typing import Any

import pytest

from crosswind.deploy.findings import Facts, findings
from crosswind.deploy.meshes import pod_annotations, pod_labels
from crosswind.deploy.values import Values

HEALTHY = Facts(version=(1, 33), execution=(200, "{}"))


def told(values: dict[str, Any], **seen: Any) -> list[tuple[str, str, str]]:
    facts = Facts(**{**HEALTHY.__dict__, **seen})
    given = Values.model_validate({"image": "x", **values}).with_workers_apart(True)
    return [(one.level, one.check, one.what) for one in findings(given, facts)]


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
ASKED, NATIVE = pod_labels(ISTIO), pod_annotations(ISTIO)


def test_a_pod_with_its_sidecar_and_the_image_of_the_values_is_not_told_of() -> None:
    given = pod("scheduler", "istio-proxy", image="x:1", labels=ASKED, annotations=NATIVE)
    found = {check for _, check, _ in told({"image": "x:1", "mesh": {"kind": "istio"}}, pods=[given])}
    assert found == {"server", "mesh", "execution API"}


@pytest.mark.parametrize(
    ("values", "seen", "wanted"),
    [
        ({}, {}, ("ok", "server", "Kubernetes 1.33")),
        ({}, {"version": (1, 28)}, ("fail", "server", "Kubernetes is 1.28")),
        ({}, {"version": None}, ("warn", "server", "tells no version")),
        ({}, {"kubelets": {"a": "v1.28.3", "b": "v1.30.0"}}, ("fail", "nodes", "a know no native sidecars")),
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
            ("fail", "namespace airflow", "has the label istio-injection=disabled, which wins over pods"),
        ),
        (
            {},
            {"namespaces": namespace(injection="enabled")},
            ("warn", "namespace airflow", "has Istio sidecars injected, which the values do not know"),
        ),
        (
            {"mesh": {"kind": "istio", "cni": False}},
            {"namespaces": namespace(enforce="restricted")},
            (
                "fail",
                "namespace airflow",
                "enforces restricted pods, and sidecars without a CNI plug-in need more",
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
            ("fail", "mesh", "Istio 1.18 makes no native sidecars"),
        ),
        (
            {"mesh": {"kind": "istio"}},
            {"control_planes": [control_plane("registry:5000/pilot:1.27.1")]},
            ("ok", "mesh", "istio 1.27"),
        ),
        ({}, {"denied": ["a:b may not create pods in c"]}, ("fail", "permissions", "a:b may not create pods in c")),
        ({}, {"asked": 3}, ("ok", "permissions", "all 3 that were asked for are there")),
        ({}, {"quotas": [("airflow", "pods", 0.95)]}, ("warn", "quota", "95% of pods is used in airflow")),
        ({}, {"quotas": [("airflow", "pods", 0.5)]}, ("ok", "quota", "there is room")),
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
        ({"image": "a/b:latest"}, {}, ("warn", "image", "a/b:latest may be another one on each node")),
        (
            {"image": "a/b:2"},
            {"pods": [pod("scheduler", image="a/b:1")]},
            ("warn", "image", "scheduler in p runs a/b:1"),
        ),
        (
            {"mesh": {"kind": "istio"}},
            {"pods": [pod("scheduler", labels=ASKED, annotations=NATIVE)]},
            ("fail", "pod p", "asked istio for a sidecar and has none"),
        ),
        ({}, {"refusals": {"airflow": ""}}, ("ok", "workers in airflow", "would be taken by the server")),
        ({}, {"execution": None}, ("warn", "execution API", "no API server runs")),
        ({}, {"execution": (503, "no")}, ("fail", "execution API", "answers 503: no")),
        ({}, {"execution": (0, "refused")}, ("fail", "execution API", "does not answer: refused")),
        ({}, {"unseen": {"nodes": "forbidden"}}, ("warn", "nodes", "could not be looked at: forbidden")),
    ],
)
def test_fact_becomes_a_finding(values: dict[str, Any], seen: dict[str, Any], wanted: tuple[str, str, str]) -> None:
    assert wanted in told(values, **seen)


def test_pod_that_cannot_start_is_told_with_its_cause() -> None:
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    status = {"phase": "Pending", "containerStatuses": [{"name": "scheduler", "state": state, "image": "x"}]}
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "scheduler", "image": "x"}]}, "status": status}
    ((level, _, what),) = [one for one in told({}, pods=[pod]) if one[1] == "pod p"]
    assert level == "fail"
    assert "image" in what


def test_all_that_is_wrong_has_a_mend() -> None:
    facts = Facts(
        version=(1, 20),
        kubelets={"a": "v1.20.0"},
        namespaces={"airflow": None},
        denied=["x"],
        quotas=[("a", "pods", 1.0)],
        referred={("Secret", "a", "b"): None},
        refusals={"a": "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"},
        execution=(500, ""),
    )
    found = findings(Values.model_validate({"image": "x", "mesh": {"kind": "istio"}}), facts)
    assert all(one.mend or one.check.startswith("workers") for one in found)
    assert not [one for one in found if one.level == "ok"]


def test_workers_beside_airflows_secrets_are_warned_of() -> None:
    levels = {check: level for level, check, _ in told({"workers": {"namespaces": ["airflow"]}})}
    assert levels["workers"] == "warn"
    assert "workers" not in {check for _, check, _ in told({})}

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubelocal.admission.plugins import TOKEN_PATH, mutators
from kubelocal.codec.status_errors import StatusError
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.settings import LocalSettings
from kubelocal.storage.store import Store


@pytest.fixture
def cluster() -> ClusterRegistry:
    registry = ClusterRegistry(Store(), mutators(LocalSettings()))
    for name, labels in (("plain", {}), ("meshed", {"istio-injection": "enabled"})):
        registry.create("Namespace", "", {"metadata": {"name": name, "labels": labels}})
        registry.create("ServiceAccount", name, {"metadata": {"name": "default"}})
    return registry


def add(cluster: ClusterRegistry, namespace: str = "plain", name: str = "p", **spec: Any) -> dict[str, Any]:
    base = {"name": "base", "image": "x", **spec.pop("base", {})}
    return cluster.create("Pod", namespace, {"metadata": {"name": name}, "spec": {"containers": [base], **spec}})


def token_mounts(pod: dict[str, Any]) -> dict[str, list[str]]:
    containers = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    return {
        one["name"]: [mount["name"] for mount in one.get("volumeMounts", ()) if mount["mountPath"] == TOKEN_PATH]
        for one in containers
    }


def test_a_pod_gets_account_token_priority_and_tolerations(cluster: ClusterRegistry) -> None:
    pod = add(cluster)
    spec = pod["spec"]
    assert (spec["serviceAccountName"], spec["priority"], spec["preemptionPolicy"]) == (
        "default",
        0,
        "PreemptLowerPriority",
    )
    (volume,) = spec["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    assert volume["projected"] == {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
            {
                "downwardAPI": {
                    "items": [
                        {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
                    ]
                }
            },
        ],
    }
    assert spec["containers"][0]["volumeMounts"] == [
        {"name": volume["name"], "readOnly": True, "mountPath": TOKEN_PATH}
    ]
    assert [(one["key"], one["tolerationSeconds"]) for one in spec["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 300),
        ("node.kubernetes.io/unreachable", 300),
    ]


def test_injected_containers_get_the_token_of_the_same_volume(cluster: ClusterRegistry) -> None:
    mounts = token_mounts(add(cluster, "meshed"))
    assert list(mounts) == ["istio-init", "base", "istio-proxy"]
    assert len({tuple(names) for names in mounts.values()}) == 1


@pytest.mark.parametrize("where", ["pod", "account"])
def test_no_token_where_pod_or_account_forbid_it(cluster: ClusterRegistry, where: str) -> None:
    if where == "account":
        cluster.update("ServiceAccount", "plain", "default", lambda one: one.update(automountServiceAccountToken=False))
    pod = add(cluster, **({"automountServiceAccountToken": False} if where == "pod" else {}))
    assert token_mounts(pod) == {"base": []}
    assert "volumes" not in pod["spec"]


def test_a_mount_of_the_users_at_the_tokens_path_stays(cluster: ClusterRegistry) -> None:
    own = {"volumeMounts": [{"name": "own", "mountPath": TOKEN_PATH}]}
    pod = add(cluster, base=own, volumes=[{"name": "own", "emptyDir": {}}])
    assert token_mounts(pod) == {"base": ["own"]}


def test_pull_secrets_come_from_the_account(cluster: ClusterRegistry) -> None:
    cluster.update("ServiceAccount", "plain", "default", lambda one: one.update(imagePullSecrets=[{"name": "hub"}]))
    assert add(cluster)["spec"]["imagePullSecrets"] == [{"name": "hub"}]


def test_a_toleration_of_the_users_is_not_doubled(cluster: ClusterRegistry) -> None:
    own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    seconds = [one["tolerationSeconds"] for one in add(cluster, tolerations=[own])["spec"]["tolerations"]]
    assert seconds == [5, 300]


def test_priority_classes_are_resolved(cluster: ClusterRegistry) -> None:
    cluster.create("PriorityClass", "", {"metadata": {"name": "etl"}, "value": 700, "preemptionPolicy": "Never"})
    spec = add(cluster, priorityClassName="etl")["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (700, "Never")
    cluster.create("PriorityClass", "", {"metadata": {"name": "usual"}, "value": 5, "globalDefault": True})
    assert add(cluster, name="q")["spec"]["priorityClassName"] == "usual"
    assert add(cluster, name="r", priorityClassName="system-cluster-critical")["spec"]["priority"] == 2_000_000_000


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"serviceAccountName": "none"},
            'pods "p" is forbidden: error looking up service account plain/none: serviceaccount "none" not found',
        ),
        ({"priorityClassName": "none"}, 'pods "p" is forbidden: no PriorityClass with name none was found'),
        (
            {"priority": 7},
            'pods "p" is forbidden: the integer value of priority (7) must not be provided in pod spec; '
            "priority admission controller computed 0 from the given PriorityClass name",
        ),
    ],
)
def test_what_admission_refuses_is_403_with_kubernetes_words(cluster: ClusterRegistry, spec: Any, message: str) -> None:
    with pytest.raises(StatusError) as refused:
        add(cluster, **spec)
    assert (refused.value.code, str(refused.value)) == (403, message)


def test_a_long_pod_name_is_refused_by_the_label_that_istio_sets(cluster: ClusterRegistry) -> None:
    with pytest.raises(StatusError, match="must be no more than 63"):
        add(cluster, "meshed", name="n" * 64)
    assert add(cluster, "plain", name="n" * 64)


def test_sidecars_of_the_settings_file_are_injected(tmp_path: Path) -> None:
    file = tmp_path / "sidecars.yaml"
    file.write_text("sidecars: [{container: {name: clock, image: clock}}]")
    registry = ClusterRegistry(Store(), mutators(LocalSettings(sidecars=file)))
    registry.create("Namespace", "", {"metadata": {"name": "plain"}})
    registry.create("ServiceAccount", "plain", {"metadata": {"name": "default"}})
    assert list(token_mounts(add(registry))) == ["base", "clock"]

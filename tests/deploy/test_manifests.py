"""What holds for every object of every deployment, checked without a cluster."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest
from deployments import COMBINATIONS, NAMES, containers, deployment, of_kind, pods, values_of

from crosswind.deploy.objects import identity
from crosswind.deploy.references import references

ALL = [*NAMES, *COMBINATIONS]
VERSIONS = [f"1.{minor}" for minor in range(29, int(kubernetes_validate.latest_version().split(".")[1]) + 1)]
CUSTOM = {
    "ExternalSecret",
    "PeerAuthentication",
    "AuthorizationPolicy",
    "VirtualService",
    "ServiceEntry",
    "PrometheusRule",
}
NEWER = {"1.29": {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}}  # stable since 1.30
GIVEN = {
    "minimal": {("Secret", "airflow-database"), ("Secret", "airflow-secrets")},
    "laptop": {("Secret", "airflow-database"), ("Secret", "airflow-secrets")},
    "eks-istio": set(),
    "namespaces": {
        ("Secret", "airflow-database"),
        ("Secret", "airflow-secrets"),
        ("Secret", "airflow-tls"),
        ("Secret", "dags-git"),
    },
    "openshift": {
        ("Secret", "airflow-admin"),
        ("Secret", "airflow-database"),
        ("Secret", "airflow-secrets"),
        ("Secret", "airflow-tls"),
        ("Secret", "dags-git"),
    },
    "gke": {("Secret", "airflow-database"), ("Secret", "airflow-pgbouncer"), ("Secret", "airflow-secrets")},
    "aks": {("Secret", "airflow-database"), ("Secret", "airflow-secrets"), ("Secret", "warehouse")},
    "air-gapped": {
        ("Secret", "airflow-database"),
        ("Secret", "airflow-secrets"),
        ("Secret", "airflow-internal"),
        ("Secret", "registry-internal"),
        ("ConfigMap", "internal-ca"),
        ("PersistentVolumeClaim", "dags"),
        ("StorageClass", "nfs-internal"),
        ("Namespace", "data-platform"),
    },
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_kubernetes_schemas_accept_each_object(name: str, version: str) -> None:
    for rendered in deployment(name):
        if rendered.manifest["kind"] not in CUSTOM | NEWER.get(version, set()):
            kubernetes_validate.validate(rendered.manifest, version, strict=True)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_oldest_schema_accepts_each_combination(name: str) -> None:
    for manifest in [*of_kind(name, "Deployment", "StatefulSet", "Job"), *pods(name)]:
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_each_referred_object_comes_before_or_is_created_by_the_user(name: str) -> None:
    created: set[tuple[str, str, str]] = set()
    missing: set[tuple[str, str]] = set()
    worker = [pod for pod in pods(name) if pod["metadata"]["name"].endswith("-worker")]
    for manifest in [*(rendered.manifest for rendered in deployment(name)), *worker]:
        kind, namespace, object_name = identity(manifest)
        missing |= {(ref[0], ref[2]) for ref in references(manifest) if ref not in created and ref[0] != "Service"}
        created.add(
            ("Secret", namespace, manifest["spec"]["target"]["name"])
            if kind == "ExternalSecret"
            else identity(manifest)
        )
        assert object_name
    missing |= {(ref[0], ref[2]) for r in deployment(name) for ref in references(r.manifest) if ref not in created}
    assert missing == GIVEN[name]


@pytest.mark.parametrize("name", ALL)
def test_identities_and_paths_are_unique(name: str) -> None:
    objects = deployment(name)
    assert len({(r.manifest["apiVersion"], identity(r.manifest)) for r in objects}) == len(objects)
    assert len({r.path for r in objects}) == len(objects)


@pytest.mark.parametrize("name", ALL)
def test_names_and_label_values_fit_into_63_characters(name: str) -> None:
    for rendered in deployment(name):
        metadata = rendered.manifest["metadata"]
        assert len(metadata["name"]) <= 63
        assert all(re.fullmatch(r"([A-Za-z0-9][\w.-]{0,61})?[A-Za-z0-9]", text) for text in metadata["labels"].values())


@pytest.mark.parametrize("name", ALL)
def test_selectors_match_the_pods_and_only_them(name: str) -> None:
    all_pods = pods(name)
    for manifest in of_kind(name, "Deployment", "StatefulSet"):
        selected = _matching(all_pods, manifest["spec"]["selector"]["matchLabels"])
        assert [pod["metadata"]["name"] for pod in selected] == [manifest["metadata"]["name"]]
    for manifest in of_kind(name, "Service", "PodDisruptionBudget"):
        selector = manifest["spec"].get("selector", {})
        if not selector:
            assert manifest["metadata"]["name"].endswith("-nowhere")
            continue
        selected = _matching(all_pods, selector.get("matchLabels", selector))
        assert [pod["metadata"]["name"] for pod in selected] == [manifest["metadata"]["name"]]
        ports = {port["name"] for pod in selected for c in containers(pod) for port in c.get("ports", [])}
        assert {port["targetPort"] for port in manifest["spec"].get("ports", [])} <= ports


@pytest.mark.parametrize("name", ALL)
def test_pods_hang_together(name: str) -> None:
    for pod in pods(name):
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        used = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
        assert used == volumes
        for container in containers(pod):
            folders = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(set(folders)) == len(folders)
            ports = {port["name"] for port in container.get("ports", [])}
            probes = [container[probe] for probe in container if probe.endswith("Probe")]
            assert {probe["httpGet"]["port"] for probe in probes if "httpGet" in probe} <= ports


@pytest.mark.parametrize("name", ALL)
def test_pods_meet_restricted_pod_security(name: str) -> None:
    for pod in pods(name):
        spec, common = pod["spec"], pod["spec"]["securityContext"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert common["runAsNonRoot"] is True
        assert common["seccompProfile"]["type"] == "RuntimeDefault"
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected", "csi", "ephemeral"}
        for container in containers(pod):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert own.get("runAsUser", common.get("runAsUser")) != 0


@pytest.mark.parametrize("name", ALL)
def test_each_pod_is_under_one_network_policy_for_both_directions(name: str) -> None:
    for pod in pods(name):
        policies = [
            policy
            for policy in of_kind(name, "NetworkPolicy")
            if policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
            and _matching([pod], policy["spec"]["podSelector"]["matchLabels"])
        ]
        assert len(policies) == 1
        assert policies[0]["spec"]["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("name", ALL)
def test_containers_ask_for_resources_and_know_no_service_variables(name: str) -> None:
    for pod in pods(name):
        assert pod["spec"]["enableServiceLinks"] is False
        for container in containers(pod):
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "cpu" not in container["resources"]["limits"]
            names = [variable["name"] for variable in container.get("env", [])]
            assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ALL)
def test_only_components_that_need_a_secret_have_it(name: str) -> None:
    have: dict[str, set[str]] = {}
    for pod in pods(name):
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        secret = {
            v["name"] for c in containers(pod) for v in c.get("env", []) if "secretKeyRef" in v.get("valueFrom", {})
        }
        have[component] = {variable for variable in secret if variable.startswith("AIRFLOW__")}
    database, fernet = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CORE__FERNET_KEY"
    web, jwt = "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"
    assert (have.pop("statsd", set()), have.pop("reaper", set()), have.pop("pgbouncer", set())) == (set(),) * 3
    assert have.pop("admin-user", {database, fernet}) == {database, fernet}
    assert have.pop("triggerer", {database, fernet, web}) == {database, fernet, web}
    assert have == {
        "scheduler": {database, fernet, jwt},
        "api-server": {database, fernet, web, jwt},
        "dag-processor": {database, fernet},
        "migrations": {database, fernet},
        "worker": set(),
    }


@pytest.mark.parametrize("name", NAMES)
def test_only_components_that_call_kubernetes_have_a_token(name: str) -> None:
    holders = {
        p["metadata"]["labels"]["app.kubernetes.io/component"]: p["spec"]["automountServiceAccountToken"]
        for p in pods(name)
    }
    launch = values_of(name).workers.launch_pods
    callers = {"scheduler", "api-server"} | ({"worker", "triggerer"} if launch else set())
    callers |= {"reaper"} if values_of(name).reaper.namespaces else set()
    assert {component for component, token in holders.items() if token} == callers
    prefix = f"{values_of(name).name}-"
    subjects = [subject for binding in of_kind(name, "RoleBinding") for subject in binding["subjects"]]
    assert {subject["name"].removeprefix(prefix) for subject in subjects} == callers


@pytest.mark.parametrize("name", NAMES)
def test_no_cluster_wide_and_no_wildcard_permissions(name: str) -> None:
    assert not of_kind(name, "ClusterRole", "ClusterRoleBinding")
    for role in of_kind(name, "Role"):
        for rule in role["rules"]:
            assert "*" not in {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}


def _matching(candidates: list[dict[str, Any]], labels: dict[str, str]) -> list[dict[str, Any]]:
    return [pod for pod in candidates if labels.items() <= pod["metadata"]["labels"].items()]

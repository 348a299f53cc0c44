"""OpenShift, clouds' identities, PgBouncer, Argo CD, Flux, alerts, and the policy for pods of tasks."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from deployments import containers, of_kind, pods

from crosswind.deploy.alerts import ALERTS
from crosswind.deploy.tree import render
from crosswind.deploy.values import Values
from crosswind.engine.workload_secrets import SECRET_PREFIX
from crosswind.metrics import METRICS


def objects(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rendered.path: rendered.manifest for rendered in render(Values.model_validate({"image": "x", **values}))}


def test_on_openshift_no_pod_names_a_user_or_a_group() -> None:
    for pod in pods("openshift"):
        contexts = [pod["spec"]["securityContext"], *(container["securityContext"] for container in containers(pod))]
        assert not [context for context in contexts if {"runAsUser", "runAsGroup", "fsGroup"} & context.keys()]
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(
    ("identity", "annotation"),
    [
        ({"awsRole": "arn:aws:iam::111122223333:role/x"}, "eks.amazonaws.com/role-arn"),
        ({"gcpServiceAccount": "x@y.iam.gserviceaccount.com"}, "iam.gke.io/gcp-service-account"),
        ({"azureClient": "11111111-2222-3333-4444-555555555555"}, "azure.workload.identity/client-id"),
    ],
)
def test_an_identity_is_that_of_the_service_account_and_its_pods_reach_the_cloud(
    identity: dict[str, str], annotation: str
) -> None:
    manifests = objects({"scheduler": identity, "workers": identity})
    for account in ("scheduler", "worker"):
        annotations = manifests[f"rbac/{account}-service-account.yaml"]["metadata"]["annotations"]
        assert annotations == {annotation: next(iter(identity.values()))}
    assert "annotations" not in manifests["rbac/api-server-service-account.yaml"]
    calls = json.dumps(manifests["network/scheduler.yaml"]["spec"]["egress"])
    assert '"port": 443' in calls
    assert ("169.254.169.254/32" in calls) is ("gcpServiceAccount" in identity)
    labels = manifests["scheduler/deployment.yaml"]["spec"]["template"]["metadata"]["labels"]
    assert ("azure.workload.identity/use" in labels) is ("azureClient" in identity)


def test_two_identities_are_refused() -> None:
    both = {"awsRole": "arn:aws:iam::111122223333:role/x", "azureClient": "11111111-2222-3333-4444-555555555555"}
    with pytest.raises(ValueError, match="has awsRole and azureClient; keep one of them"):
        Values.model_validate({"image": "x", "workers": both})


def test_programs_reach_the_database_by_pgbouncer_alone() -> None:
    database = {"cidrs": ["10.0.0.1/32"], "port": 5439}
    manifests = objects({"pgbouncer": {"config": "bouncer"}, "database": database})
    assert "10.0.0.1/32" in json.dumps(manifests["network/pgbouncer.yaml"]["spec"]["egress"])
    for component in ("scheduler", "api-server", "dag-processor", "migrations"):
        calls = json.dumps(manifests[f"network/{component}.yaml"]["spec"]["egress"])
        assert '"port": 6543' in calls, component
        assert "10.0.0.1/32" not in calls, component
    volumes = manifests["pgbouncer/deployment.yaml"]["spec"]["template"]["spec"]["volumes"]
    assert volumes[0]["secret"]["secretName"] == "bouncer"


def test_the_first_user_is_made_after_the_migrations_with_a_password_from_a_secret() -> None:
    admin = {"username": "it's me", "email": "a@example.org", "password": {"name": "s", "key": "k"}}
    job = objects({"web": {"admin": admin}})["admin-user/job.yaml"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    script = container["args"][-1]
    assert script.startswith("airflow db check-migrations")
    assert "'it'\"'\"'s me'" in script
    assert container["env"][-1] == {"name": "ADMIN_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}


def test_argo_cd_applies_the_base_objects_then_migrates_then_starts_the_programs() -> None:
    waves: dict[str, int] = {}
    for path, manifest in objects({"delivery": "argocd", "pgbouncer": {"config": "c"}}).items():
        annotations = manifest["metadata"]["annotations"]
        waves[path] = int(annotations["argocd.argoproj.io/sync-wave"])
        assert ("argocd.argoproj.io/hook" in annotations) is (manifest["kind"] == "Job")
    assert waves["00-namespace-airflow.yaml"] < waves["pgbouncer/deployment.yaml"] < waves["migrations/job.yaml"]
    assert waves["configmap.yaml"] < waves["migrations/job.yaml"] < waves["scheduler/deployment.yaml"]
    assert waves["rbac/migrations-service-account.yaml"] < waves["migrations/job.yaml"]


def test_flux_keeps_jobs_that_it_would_run_again() -> None:
    job = objects({"delivery": "flux"})["migrations/job.yaml"]
    assert "ttlSecondsAfterFinished" not in job["spec"]
    assert job["metadata"]["annotations"] == {"kustomize.toolkit.fluxcd.io/force": "enabled"}
    assert "ttlSecondsAfterFinished" in objects({})["migrations/job.yaml"]["spec"]


def test_alerts_use_metrics_that_exist() -> None:
    known = {f"{prefix}_{metric.name}".replace(".", "_") for metric in METRICS for prefix in ("airflow", "PREFIX")}
    known |= {"PREFIX_scheduler_heartbeat"}  # core's
    for alert in ALERTS:
        used = set(re.findall(r"\b(?:airflow|PREFIX)_\w+", alert.expression))
        assert used, alert.name
        assert used <= known, alert.name
        assert alert.expression.count("(") == alert.expression.count(")")
        assert re.fullmatch(r"\d+m", alert.lasting)
        assert alert.severity in ("warning", "critical")


def test_alerts_follow_the_prefix_of_metrics() -> None:
    values = {"metrics": {"alerts": True}, "config": {"metrics": {"statsd_prefix": "prod"}}}
    text = json.dumps(objects(values)["monitoring/alerts.yaml"])
    assert "prod_executor_open_slots" in text
    assert "PREFIX" not in text


def test_the_policy_lets_pods_of_tasks_have_the_secrets_of_their_template_and_those_named() -> None:
    (policy,) = of_kind("aks", "ValidatingAdmissionPolicy")
    variables = {variable["name"]: variable["expression"] for variable in policy["spec"]["variables"]}
    assert variables["secrets"] == "['warehouse']"
    assert variables["accounts"] == "['airflow-worker']"
    (binding,) = of_kind("aks", "ValidatingAdmissionPolicyBinding")
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    chosen = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert chosen == [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["airflow-workers"]}]


def test_the_policy_knows_the_names_of_the_executors_own_secrets() -> None:
    (policy,) = of_kind("aks", "ValidatingAdmissionPolicy")
    (rule,) = (
        validation["expression"]
        for validation in policy["spec"]["validations"]
        if SECRET_PREFIX in validation["expression"]
    )
    pattern = re.search(r"matches\('(.*?)'\)", rule)
    assert pattern is not None
    assert re.match(pattern[1], f"{SECRET_PREFIX}0123456789abcdef")
    assert not re.match(pattern[1], "airflow-secrets")

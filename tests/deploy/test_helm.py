"""Values for the official chart: its keys, and the same deployment."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from deployments import COMBINATIONS, EXAMPLES, NAMES, values_of

from crosswind.cli import main
from crosswind.deploy.helm import helm_values, inexpressible
from crosswind.deploy.values import Values

# top-level keys of chart 1.22.0 that are used; the chart ignores others without a word
KEYS = {
    "airflowVersion",
    "allowPodLaunching",
    "apiSecretKeySecretName",
    "apiServer",
    "config",
    "createUserJob",
    "dagProcessor",
    "dags",
    "data",
    "defaultAirflowDigest",
    "defaultAirflowRepository",
    "defaultAirflowTag",
    "enableBuiltInSecretEnvVars",
    "executor",
    "fernetKeySecretName",
    "fullnameOverride",
    "imagePullSecrets",
    "images",
    "ingress",
    "jwtSecretName",
    "logs",
    "migrateDatabaseJob",
    "multiNamespaceMode",
    "postgresql",
    "rbac",
    "redis",
    "scheduler",
    "statsd",
    "triggerer",
    "workers",
}


# and below them; the chart copies keys that are not listed
PROGRAM = {
    "affinity",
    "env",
    "extraVolumeMounts",
    "extraVolumes",
    "labels",
    "nodeSelector",
    "podAnnotations",
    "podDisruptionBudget",
    "priorityClassName",
    "replicas",
    "resources",
    "securityContexts",
    "serviceAccount",
    "tolerations",
}
BELOW = {
    "apiServer": PROGRAM,
    "createUserJob": {"enabled"},
    "dagProcessor": PROGRAM,
    "dags": {"gitSync", "persistence"},
    "dags.gitSync": {
        "credentialsSecret",
        "depth",
        "enabled",
        "period",
        "ref",
        "repo",
        "sshKeySecret",
        "subPath",
    },
    "dags.persistence": {"enabled", "existingClaim"},
    "data": {"metadataSecretName"},
    "images": {"airflow", "migrationsWaitTimeout"},
    "images.airflow": {"pullPolicy"},
    "ingress": {"apiServer"},
    "ingress.apiServer": {"annotations", "enabled", "hosts", "ingressClassName", "path"},
    "logs": {"persistence"},
    "logs.persistence": {"enabled", "existingClaim"},
    "migrateDatabaseJob": {
        "annotations",
        "applyCustomEnv",
        "command",
        "extraVolumeMounts",
        "extraVolumes",
        "resources",
        "securityContexts",
        "useHelmHooks",
    },
    "rbac": {"create"},
    "scheduler": PROGRAM,
    "statsd": {"enabled", "podAnnotations"},
    "triggerer": PROGRAM | {"enabled", "persistence"},
    "workers": {"kubernetes"},
    "workers.kubernetes": PROGRAM - {"replicas", "podDisruptionBudget"},
    **{
        f"{program}.{part}": keys
        for program in ("apiServer", "dagProcessor", "scheduler", "triggerer", "workers.kubernetes")
        for part, keys in {
            "podDisruptionBudget": {"config", "enabled"},
            "securityContexts": {"container", "pod"},
            "serviceAccount": {"annotations"},
        }.items()
    },
}


@pytest.mark.parametrize("name", [*NAMES, *COMBINATIONS])
def test_only_keys_of_the_chart_are_used(name: str) -> None:
    chart_values = helm_values(values_of(name))
    assert set(chart_values) <= KEYS
    for path, keys in BELOW.items():
        part: Any = chart_values
        for key in path.split("."):
            part = part.get(key, {})
        assert set(part) <= keys, path


def test_programs_can_write_temporary_files_beside_a_read_only_root() -> None:
    chart_values = helm_values(values_of("minimal"))
    for part in (chart_values["scheduler"], chart_values["workers"]["kubernetes"], chart_values["migrateDatabaseJob"]):
        assert part["securityContexts"]["container"]["readOnlyRootFilesystem"] is True
        assert {"name": "tmp", "mountPath": "/tmp"} in part["extraVolumeMounts"]
        assert {"name": "tmp", "emptyDir": {}} in part["extraVolumes"]


def test_deployment_is_the_same() -> None:
    chart_values = helm_values(values_of("eks-istio"))
    assert chart_values["scheduler"]["replicas"] == 2
    assert chart_values["dags"]["gitSync"]["sshKeySecret"] == "airflow-git"
    assert chart_values["jwtSecretName"] == "airflow-jwt"
    assert chart_values["defaultAirflowDigest"].startswith("sha256:")
    assert chart_values["workers"]["kubernetes"]["nodeSelector"] == {"karpenter.sh/nodepool": "tasks"}
    assert chart_values["logs"]["persistence"]["existingClaim"] == "airflow-logs"


def test_features_that_the_chart_lacks_are_listed() -> None:
    assert any("digest" in line for line in inexpressible(values_of("eks-istio")))
    assert any("whole cluster" in line for line in inexpressible(values_of("namespaces")))


@pytest.mark.parametrize("name", NAMES)
def test_command_prints_a_values_file(name: str) -> None:
    output = CliRunner().invoke(main, ["render", str(EXAMPLES / f"{name}.yaml"), "--helm-values"]).stdout
    assert output.startswith("# helm install ")
    assert yaml.safe_load(output)["fullnameOverride"] == values_of(name).name


@pytest.mark.parametrize(
    ("repo", "words"),
    [
        ("git@github.com:acme/dags.git", ["gitSshKey", "knownHosts"]),
        ("https://github.com/acme/dags.git", ["GITSYNC_USERNAME and GITSYNC_PASSWORD"]),
    ],
)
def test_the_keys_that_the_chart_reads_of_the_repositorys_secret_are_named(repo: str, words: list[str]) -> None:
    dags = {"source": "git-sync", "repo": repo, "secret": "airflow-git"}
    lines = "\n".join(inexpressible(Values.model_validate({"image": "x", "dags": dags})))
    assert all(word in lines for word in words)

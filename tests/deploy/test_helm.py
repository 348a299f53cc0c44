"""Values for the official chart: its keys, and the same deployment."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, get_args

import pytest
import yaml
from click.testing import CliRunner
from deployments import COMBINATIONS, EXAMPLES, NAMES, values_of
from pydantic import BaseModel, ValidationError

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
    "apiServer": PROGRAM | {"apiServerConfig"},
    "createUserJob": {"enabled"},
    "dagProcessor": PROGRAM,
    "dags": {"gitSync", "mountPath", "persistence"},
    "dags.gitSync": {
        "credentialsSecret",
        "depth",
        "enabled",
        "period",
        "ref",
        "repo",
        "securityContexts",
        "sshKeySecret",
        "subPath",
    },
    "dags.persistence": {"enabled", "existingClaim"},
    "data": {"metadataSecretName"},
    "images": {"airflow", "gitSync", "migrationsWaitTimeout", "statsd"},
    "images.airflow": {"pullPolicy"},
    "images.gitSync": {"repository", "tag"},
    "images.statsd": {"repository", "tag"},
    "ingress": {"apiServer"},
    "ingress.apiServer": {"annotations", "enabled", "hosts", "ingressClassName", "path"},
    "logs": {"persistence"},
    "logs.persistence": {"enabled", "existingClaim"},
    "migrateDatabaseJob": {
        "affinity",
        "annotations",
        "applyCustomEnv",
        "command",
        "env",
        "extraVolumeMounts",
        "extraVolumes",
        "labels",
        "nodeSelector",
        "resources",
        "securityContexts",
        "serviceAccount",
        "tolerations",
        "useHelmHooks",
    },
    "rbac": {"create"},
    "scheduler": PROGRAM,
    "statsd": {"enabled", "podAnnotations", "securityContexts"},
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


def test_on_openshift_no_container_has_a_user_of_its_own() -> None:
    dags = {"source": "git-sync", "repo": "https://a.example.com/b.git"}
    values = Values.model_validate({"image": "x", "platform": "openshift", "dags": dags})
    assert "runAsUser" not in yaml.safe_dump(helm_values(values))
    elsewhere = Values.model_validate({"image": "x", "dags": dags})
    assert "runAsUser: 65533" in yaml.safe_dump(helm_values(elsewhere))


def test_programs_that_check_out_a_bundle_have_its_connection_and_a_folder_for_it() -> None:
    dags = {"source": "bundle", "repo": "https://a.example.com/b.git", "secret": "git"}
    chart_values = helm_values(Values.model_validate({"image": "x", "dags": dags}))
    for part in (chart_values["dagProcessor"], chart_values["triggerer"], chart_values["workers"]["kubernetes"]):
        assert "AIRFLOW_CONN_GIT_DEFAULT" in {variable["name"] for variable in part["env"]}
        assert {"name": "bundles", "mountPath": "/bundles"} in part["extraVolumeMounts"]
    assert "AIRFLOW_CONN_GIT_DEFAULT" not in str(chart_values["scheduler"])


def test_python_with_double_braces_is_no_template_of_the_chart() -> None:
    values = Values.model_validate({"image": "x", "web": {"fabConfig": "ROLES = {'a': {'b': {}}}\nNAME = '{{x}}'\n"}})
    assert "NAME = '{{ `{{` }}x}}'" in helm_values(values)["apiServer"]["apiServerConfig"]


@pytest.mark.parametrize(
    ("image", "joined"),
    [("a.example.com:5000/b:1", None), ("a/b@sha256:0", None), ("a/b:1@sha256:0", None), ("a", "a:latest")],
)
def test_the_chart_joins_an_image_to_the_same_reference(image: str, joined: str | None) -> None:
    values = Values.model_validate({"image": "x", "metrics": {"image": image}})
    assert "{repository}:{tag}".format(**helm_values(values)["images"]["statsd"]) == (joined or image)


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


POD: dict[str, Any] = {
    "env": [{"name": "A", "value": "b"}],
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "annotations": {"a.example.com/b": "c"},
    "volumes": [{"name": "a", "emptyDir": {}}],
    "volumeMounts": [{"name": "a", "mountPath": "/a"}],
    "priorityClass": "high",
}
OF_ALL_PODS: dict[str, Any] = {
    "env": [{"name": "ALL", "value": "b"}],
    "nodeSelector": {"all": "b"},
    "tolerations": [{"key": "all", "operator": "Exists"}],
    "annotations": {"all.example.com/b": "c"},
    "volumes": [{"name": "all", "emptyDir": {}}],
    "volumeMounts": [{"name": "all", "mountPath": "/all"}],
    "priorityClass": "low",
}
IDENTITIES: list[dict[str, Any]] = [
    {"awsRole": "arn:aws:iam::123456789012:role/a"},
    {"gcpServiceAccount": "a@b.iam.gserviceaccount.com"},
    {"azureClient": "01234567-89ab-cdef-0123-456789abcdef"},
]
COMPONENT = {**POD, "replicas": 3, "resources": {"requests": {"cpu": "3"}}, "affinity": {"podAffinity": {}}}
SECRET = {"name": "a", "key": "b", "remote": "c", "property": "d"}
BASE: dict[str, Any] = {
    "name": "flow",
    "namespace": "data",
    "createNamespaces": True,
    "platform": "openshift",
    "delivery": "argocd",
    "image": "a:1",
    "imagePullPolicy": "Always",
    "imagePullSecrets": ["a"],
    "airflowVersion": "3.3.1",
    "executor": "a.B",
    "config": {"core": {"parallelism": 3}},
    "database": {"host": "a.example.com", "port": 5433, "cidrs": ["10.0.0.0/8"]},
    "secrets": {
        **dict.fromkeys(("database", "fernetKey", "apiSecretKey", "jwtSecret"), SECRET),
        "store": {"name": "a", "kind": "SecretStore", "refresh": "2h"},
    },
    "web": {
        "host": "a.example.com",
        "path": "/a",
        "tlsSecret": "a",
        "ingressClass": "a",
        "annotations": {"a": "b"},
        "fromNamespace": "a",
        "admin": {
            "username": "a",
            "email": "b",
            "firstName": "c",
            "lastName": "d",
            "password": SECRET,
        },
        "fabConfig": "AUTH_TYPE = 4\n",
    },
    "mesh": {
        "kind": "istio",
        "sidecars": "ordinary",
        "workers": False,
        "cni": False,
        "revision": "a",
        "gateway": "a/b",
        "externalHosts": ["a.example.com:443"],
        "trustDomain": "a.example.com",
    },
    "metrics": {"image": "b:1", "fromNamespace": "a", "alerts": True, "alertLabels": {"a": "b"}},
    "network": {"policies": True, "kubernetesApi": ["10.0.0.1/32"], "clusterDomain": "a.example.com"},
    "pods": OF_ALL_PODS,
    "reaper": {**COMPONENT, "namespaces": ["a"], "selector": "a", "permissions": "B"},
    "pgbouncer": {**COMPONENT, "config": "a", "image": "c:1"},
}
GIT = {"repo": "https://a.example.com/b.git", "ref": "a", "subdir": "b", "secret": "c", "remote": "d"}
DAGS: list[dict[str, Any]] = [
    {"source": "image", "path": "/a"},
    {"source": "git-sync", **GIT, "period": "9s", "depth": 3, "image": "d:1"},
    {"source": "bundle", **GIT},
    {"source": "pvc", "path": "/a", "volume": {"claim": "a"}},
    {"source": "pvc", "volume": {"efs": {"fileSystem": "fs-0a", "accessPoint": "fsap-0b"}}},
    {"source": "pvc", "volume": {"efs": {"fileSystem": "fs-0a", "dynamic": True}}},
    {"source": "pvc", "volume": {"storageClass": "a", "size": "3Gi"}},
]
LOGS: list[dict[str, Any]] = [
    {"to": "none"},
    {"to": "remote", "url": "s3://a/b", "connection": "c"},
    {"to": "archive"},
    {"to": "volume", "volume": {"claim": "a"}},
    {"to": "volume", "volume": {"efs": {"fileSystem": "fs-0a", "accessPoint": "fsap-0b"}}},
    {"to": "volume", "volume": {"efs": {"fileSystem": "fs-0a", "dynamic": True}}},
    {"to": "volume", "volume": {"storageClass": "a", "size": "3Gi"}},
]
OTHERS: list[dict[str, Any]] = [
    {},
    {"mesh": {"kind": "linkerd", "sidecars": "ordinary"}, "createNamespaces": False},
    {"mesh": {"kind": "none"}, "platform": "kubernetes", "dagProcessor": {}},
    {"web": {"host": "a.example.com", "auth": "a.B"}, "metrics": {"statsd": False}, "mesh": {"kind": "none"}},
]
PROGRAMS = ("scheduler", "apiServer", "dagProcessor", "triggerer", "migrations")
BESIDE = {
    "createNamespaces": "00-namespace",
    "dags.volume.efs": "volumes/",
    "dags.volume.size": "volumes/",
    "dags.volume.storageClass": "volumes/",
    "database": "network/",
    "dags.remote": "secrets/",
    "logs.volume.efs": "volumes/",
    "logs.volume.size": "volumes/",
    "logs.volume.storageClass": "volumes/",
    "mesh.cni": "00-namespace",
    "mesh.externalHosts": "istio/",
    "mesh.trustDomain": "istio/",
    "metrics.alertLabels": "monitoring/",
    "metrics.alerts": "monitoring/",
    "metrics.fromNamespace": "network/",
    "migrations.priorityClass": "The migration Job has no priority class",
    "network.policies": "network/",
    "pgbouncer": "pgbouncer/",
    "reaper": "reaper/",
    "secrets": "secrets/",
    "web.admin": "The first user is not created",
    "web.fromNamespace": "network/",
    "workers.admissionPolicy": "not limited to Secrets",
    "workers.launchPods": "Permissions are wider",
    "workers.secrets": "not limited to Secrets",
    "workers.serviceAccounts": "not limited to Secrets",
}
"""Keys that the chart has no value for, and the line that says so."""


def documents() -> Iterator[dict[str, Any]]:
    """Yield values files that have, taken together, each key with another value than the default."""
    for number, (dags, logs) in enumerate(zip(DAGS, LOGS, strict=True)):
        identity, others = IDENTITIES[number % 3], OTHERS[number % 4]
        program = {**COMPONENT, **identity}
        content = {**BASE, "dags": dags, "logs": logs, **dict.fromkeys(PROGRAMS, program), **others}
        for key in ("reaper", "pgbouncer"):
            content[key] = {**BASE[key], **identity}
        content["workers"] = {
            **{key: value for key, value in program.items() if key != "replicas"},
            "namespaces": ["data" if number > 4 else "a"],  # the last volumes exist in one namespace only
            "launchPods": True,
            "readOnlyRoot": False,
            "admissionPolicy": True,
            "secrets": ["a"],
            "serviceAccounts": ["b"],
        }
        yield content


DOCUMENTS = [*documents()]


def keys_of(annotation: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each key of a section, or of the sections of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for field in annotation.model_fields.values():
            yield from keys_of(field.annotation, (*path, str(field.alias)))
    elif sections := [part for part in get_args(annotation) if isinstance(part, type) and issubclass(part, BaseModel)]:
        for section in sections:
            yield from keys_of(section, path)
    else:
        yield path


def changed(content: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the values with the default of a key, else with another text; None if it is not given or has no other."""
    copied = deepcopy(content)
    *sections, key = path
    parent = copied
    for section in sections:
        parent = parent.get(section, {})
    if key not in parent:
        return None
    value = parent.pop(key)
    if is_valid(copied):
        return copied
    parent[key] = f"{value}a"
    return copied if is_valid(copied) else None


def is_valid(content: dict[str, Any]) -> bool:
    try:
        return bool(Values.model_validate(content))
    except ValidationError:
        return False


def output(content: dict[str, Any]) -> tuple[Any, list[str]]:
    values = Values.model_validate(content)
    return helm_values(values), [*inexpressible(values)]


WITHOUT_MEANING = {("migrations", "replicas"), ("dags", "source"), ("logs", "to")}
"""The replicas of a Job; and the kinds of a section, of which each has keys of its own."""


@pytest.mark.parametrize("path", sorted({*keys_of(Values)} - WITHOUT_MEANING), ids=".".join)
def test_each_key_is_in_the_values_of_the_chart_or_listed_as_lacking(path: tuple[str, ...]) -> None:
    line = next((line for prefix, line in BESIDE.items() if ".".join(path).startswith(prefix)), None)
    pairs = [(content, other) for content in DOCUMENTS if (other := changed(content, path)) is not None]
    assert pairs, "no document has the key"
    listed = line is not None and any(line in "\n".join(output(content)[1]) for content, _ in pairs)
    assert listed or any(output(content) != output(other) for content, other in pairs)

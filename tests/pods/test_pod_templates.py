"""The templates under examples/, and every pod made here, against Kubernetes' own models: field by field, strictly."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from kubernetes.client import models

from crosswind.engine.worker_pod import WorkerSettings, WorkerTask, check_template, worker_pod
from crosswind.engine.workload_secrets import SecretWorkload, workload_secret
from crosswind.pods.templates import parse_template
from kubelocal.codec import decoder
from kubelocal.codec.kinds import KINDS
from kubelocal.registry.defaults import apply_defaults
from kubelocal.registry.validation import validate

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "pod_templates").glob("*.yaml"))
GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.yaml"))
TASK = WorkerTask("orders", "load", "manual__1", 1, "0f8fad5b-d9cb-469f-a165-70867728950e", executor_id="5")
SETTINGS = WorkerSettings(namespace="airflow", server_version=(1, 36), native_sidecars=True)

_PLAIN = {"str": str, "int": int, "bool": bool, "float": float, "datetime": str, "object": object}


def _faults(value: object, kind: str, path: str = "") -> list[str]:
    """Return the API server's errors about unknown fields and wrong types."""
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            return [f"{path}: no list"]
        return [fault for item in value for fault in _faults(item, inner[1], f"{path}[]")]
    if inner := re.fullmatch(r"dict\[str, (.+)\]", kind):
        if not isinstance(value, dict):
            return [f"{path}: no map"]
        return [fault for key, item in value.items() for fault in _faults(item, inner[1], f"{path}.{key}")]
    if kind in _PLAIN:
        fits = isinstance(value, _PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))
        return [] if fits else [f"{path}: {value!r} is no {kind}"]
    if not isinstance(value, dict):
        return [f"{path}: no {kind}"]
    model = getattr(models, kind)
    kinds = {name: model.openapi_types[attribute] for attribute, name in model.attribute_map.items()}
    unknown = [f"{path}.{name}: unknown" for name in value.keys() - kinds.keys()]
    return unknown + [
        fault for name in value.keys() & kinds.keys() for fault in _faults(value[name], kinds[name], f"{path}.{name}")
    ]


def _refused(pod: dict) -> list[str]:
    """Return the errors of the one-machine cluster, which validates like Kubernetes, for creating a pod."""
    named = {"metadata": {"namespace": "airflow", **pod["metadata"]}}
    decoded, warnings = decoder.decode(KINDS["Pod"], json.dumps(pod | named).encode(), strict="Strict")
    apply_defaults(KINDS["Pod"], decoded)
    return [*warnings, *(f"{cause.field}: {cause.message}" for cause in validate(KINDS["Pod"], decoded))]


def test_the_strict_check_finds_each_error() -> None:
    pod = {"spec": {"containers": [{"name": 7, "imagee": "x"}], "hostNetwork": "yes"}}
    assert sorted(_faults(pod, "V1Pod")) == [
        ".spec.containers[].imagee: unknown",
        ".spec.containers[].name: 7 is no str",
        ".spec.hostNetwork: 'yes' is no bool",
    ]


def test_there_is_a_template_for_each_way_to_bring_dags() -> None:
    assert [path.stem for path in EXAMPLES] == ["bundle", "git-sync", "image", "pvc"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_shipped_template_keeps_the_rules_and_makes_a_pod(path: Path) -> None:
    template = parse_template(path.read_text(), str(path))
    check_template(template, SETTINGS)
    assert _faults(template, "V1Pod") == []
    sidecar = {"name": "sidecar", "image": "busybox:1.37", "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    base = {"name": "base", "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    override = {"spec": {"containers": [base, sidecar], "volumes": [{"name": "shared", "emptyDir": {}}]}}
    pod = worker_pod(template, override, TASK, SETTINGS, SecretWorkload("w", "k"))
    assert _faults(pod, "V1Pod") == []
    assert _refused(pod) == []
    mounts = {mount["name"] for container in pod["spec"]["containers"] for mount in container.get("volumeMounts", [])}
    assert mounts <= {volume["name"] for volume in pod["spec"]["volumes"]}
    assert [container["name"] for container in pod["spec"]["initContainers"]][-1] == "sidecar"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_shipped_template_gives_workers_no_secret_of_airflow(path: Path) -> None:
    shown = json.dumps(parse_template(path.read_text(), str(path))).upper()
    assert not re.search(r"SQL_ALCHEMY|FERNET|JWT|SECRETKEYREF", shown)


def test_the_bundle_template_holds_a_readable_list_of_bundles() -> None:
    path = ROOT / "examples" / "pod_templates" / "bundle.yaml"
    base = parse_template(path.read_text(), str(path))["spec"]["containers"][0]
    env = {variable["name"]: variable["value"] for variable in base["env"]}
    (bundle,) = json.loads(env["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    assert bundle.keys() == {"name", "classpath", "kwargs"}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_kubernetes_accepts_a_merged_pod(path: Path) -> None:
    *_, merged = yaml.safe_load_all(path.read_text())
    assert _faults(merged, "V1Pod") == []
    assert _refused(merged) == []


def test_kubernetes_accepts_a_workload_secret() -> None:
    assert _faults(workload_secret("w", "airflow", {"k": b"{}"}), "V1Secret") == []

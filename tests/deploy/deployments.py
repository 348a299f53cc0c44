"""The deployments that the tests look at: the examples, and every combination of the large choices."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from crosswind.deploy.objects import RenderedObject
from crosswind.deploy.tree import render
from crosswind.deploy.values import Values
from crosswind.deploy.values_file import read_values

EXAMPLES = Path(__file__).parents[2] / "examples" / "deploy"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))

DAGS: dict[str, dict[str, Any]] = {
    "image": {"source": "image"},
    "pvc": {"source": "pvc", "volume": {"efs": {"fileSystem": "fs-0a", "dynamic": True}}},
    "git": {"source": "git-sync", "repo": "https://example.com/dags.git", "secret": "git"},
    "ssh": {"source": "git-sync", "repo": "git@example.com:dags.git", "secret": "git"},
    "bundle": {"source": "bundle", "repo": "https://example.com/dags.git"},
}
LOGS: dict[str, dict[str, Any]] = {
    "archive": {"to": "archive"},
    "volume": {"to": "volume", "volume": {"efs": {"fileSystem": "fs-0b"}}},
    "remote": {"to": "remote", "url": "s3://bucket/logs"},
}
MESHES: dict[str, dict[str, Any]] = {
    "no-mesh": {"kind": "none"},
    "istio": {"kind": "istio"},
    "istio-ordinary": {"kind": "istio", "sidecars": "ordinary"},
    "istio-no-workers": {"kind": "istio", "workers": False},
    "linkerd": {"kind": "linkerd"},
    "linkerd-ordinary": {"kind": "linkerd", "sidecars": "ordinary", "cni": False},
}
_CHOICES = {
    "-".join(names): {"dags": DAGS[names[0]], "logs": LOGS[names[1]], "mesh": MESHES[names[2]]}
    for names in product(DAGS, LOGS, MESHES)
}
COMBINATIONS = [*_CHOICES][::5]  # each choice meets most of the others


def values_of(name: str) -> Values:
    if name in _CHOICES:
        return Values.model_validate({"image": "example.com/airflow:1", **_CHOICES[name]})
    path = EXAMPLES / f"{name}.yaml"
    return read_values(path.read_text(), path.name)


@cache
def deployment(name: str) -> tuple[RenderedObject, ...]:
    return tuple(render(values_of(name)))


def of_kind(name: str, *kinds: str) -> list[dict[str, Any]]:
    return [rendered.manifest for rendered in deployment(name) if rendered.manifest["kind"] in kinds]


def pods(name: str) -> list[dict[str, Any]]:
    """Return each pod of the deployment, and the workers' template for each of their namespaces."""
    pods_of_programs = []
    for manifest in of_kind(name, "Deployment", "StatefulSet", "Job"):
        template = manifest["spec"]["template"]
        metadata = {**template["metadata"], "namespace": manifest["metadata"]["namespace"]}
        metadata["name"] = manifest["metadata"]["name"]
        pods_of_programs.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    worker = next(
        yaml.safe_load(config_map["data"]["pod_template.yaml"])
        for config_map in of_kind(name, "ConfigMap")
        if "pod_template.yaml" in config_map["data"]
    )
    workers = (
        {**worker, "metadata": {**worker["metadata"], "namespace": namespace}}
        for namespace in values_of(name).worker_namespaces
    )
    return [*pods_of_programs, *workers]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]

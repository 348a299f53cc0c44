"""DAG files in pods, from a ConfigMap: the nodes of a real cluster do not have this machine's folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crosswind.kube.client import Client
from crosswind.kube.resources import CONFIG_MAPS
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster

NAME = "dag-files"


async def deliver(cluster: Cluster, namespaces: Iterable[str], files: Mapping[str, str]) -> None:
    """Put the files (text by path in the DAG folder) into each namespace."""
    manifest = {"metadata": {"name": NAME}, "data": {_key(path): text for path, text in files.items()}}
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
        for namespace in namespaces:
            await client.create(CONFIG_MAPS, manifest, namespace=namespace)


def volume(name: str, paths: Iterable[str]) -> dict[str, Any]:
    """Return the volume with the files at these paths."""
    items = [{"key": _key(path), "path": path} for path in paths]
    return {"name": name, "configMap": {"name": NAME, "items": items}}


def _key(path: str) -> str:
    return path.replace("/", ".")

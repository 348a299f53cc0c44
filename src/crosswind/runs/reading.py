"""Reading the log of a task that runs, from wherever its pod is."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from crosswind.errors import Forbidden, NotFound
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.settings import KubeSettings
from crosswind.types import Manifest

__all__ = ["newest", "read_log"]


def newest(pods: Collection[Manifest], unique: str | None) -> Manifest | None:
    """Return the pod whose name ends with ``unique``, else the youngest one."""
    for pod in pods:
        if unique and str(pod["metadata"]["name"]).endswith(unique):
            return pod
    return max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), default=None)


async def read_log(
    kube: KubeSettings,
    namespaces: Collection[str | None],
    labels: Mapping[str, str],
    *,
    unique: str | None,
    lines: int | None,
    base: str = "base",
) -> tuple[list[str], str]:
    """Return messages on where the log is from, and its last lines (None: all); "" when there is none.

    ``namespaces``: where to look, None is everywhere. Raises ``CrosswindError``.
    """
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    async with await Client.connect(kube) as client:
        pods: list[Manifest] = []
        trouble: list[str] = []
        for namespace in (None,) if None in namespaces else namespaces:
            try:
                pods += (await client.list(PODS, namespace=namespace, labels=selector)).items
            except (Forbidden, NotFound) as error:
                trouble.append(f"Pods cannot be listed: {error}")
        pod = newest(pods, unique)
        if pod is None:
            where = ", ".join(str(namespace or "all namespaces") for namespace in namespaces)
            return [*trouble, f"There is no pod of this task in {where} (any more)"], ""
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        text = await client.log(name, namespace=namespace, container=base, tail_lines=lines)
        part = "" if lines is None else f", last {lines} lines"
        return [f"Container {base} of pod {namespace}/{name}{part}"], text.decode(errors="replace")

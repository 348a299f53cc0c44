"""Kinds of sidecars, and how injectors are asked for native ones. What is known of products: ``known_sidecars``.

Three kinds of containers besides the one that does the work:

- a *native* sidecar is an init container with ``restartPolicy: Always`` (KEP-753; Kubernetes 1.29). The kubelet ends it
  when the last regular container has ended, and its exit code does not count;
- an *ordinary* sidecar is one more regular container: the pod runs for as long as it does;
- an init container proper has ended before the others start.

The kind is read from the spec, never from the name: some webhooks strip ``restartPolicy`` from what others injected.
"""

from __future__ import annotations

from collections.abc import Mapping

from crosswind.pods.known_sidecars import KNOWN
from crosswind.types import Json, Manifest

__all__ = ["NATIVE_ANNOTATION", "NATIVE_SINCE", "is_native", "make_native", "native_requests", "quit_requests"]

NATIVE_SINCE = (1, 29)
"""The first Kubernetes version that runs native sidecars without being told to; nodes' kubelets need it too."""

NATIVE_ANNOTATION = "crosswind/native-sidecars"
"""On a template or override: ``"true"``, ``"false"`` or names of containers with commas between."""


def is_native(container: Mapping[str, Json]) -> bool:
    """Tell whether an init container of a spec is a native sidecar."""
    return container.get("restartPolicy") == "Always"


def native_requests(annotations: Mapping[str, str], ask: tuple[str, ...]) -> dict[str, str]:
    """Return the annotations to add so that the injectors named in ``ask`` make native sidecars.

    A product is left alone when the author already set any of its annotations, to whatever value.
    """
    wanted: dict[str, str] = {}
    for known in KNOWN:
        if known.name in ask and not any(name in annotations for name in known.native):
            wanted |= known.native
    return wanted


def quit_requests(annotations: Mapping[str, str]) -> dict[str, str]:
    """Return the annotations to add so that ordinary sidecars of these pods may be asked to end.

    The author's own choice stays. Linkerd answers only when told to since 2.16; Vault's agent since 1.10.
    """
    wanted = {"config.linkerd.io/proxy-admin-shutdown": "enabled"}
    if "vault.hashicorp.com/agent-inject" in annotations:
        wanted["vault.hashicorp.com/agent-enable-quit"] = "true"
    return {name: value for name, value in wanted.items() if name not in annotations}


def make_native(spec: Manifest, names: frozenset[str] | None, base: str) -> Manifest:
    """Return ``spec`` with regular containers turned into native sidecars.

    ``names``: which ones; None is all. ``base`` never is. They go behind the init containers, in their order: as
    before, they start when those are done.
    """
    chosen = [
        container
        for container in spec["containers"]
        if container.get("name") != base and (names is None or container.get("name") in names)
    ]
    if not chosen:
        return spec
    native = [container | {"restartPolicy": "Always"} for container in chosen]
    kept = [container for container in spec["containers"] if container not in chosen]
    return spec | {"containers": kept, "initContainers": [*(spec.get("initContainers") or ()), *native]}

"""Makes sidecars native: by annotations that their injectors read, or by moving them to the init containers.

A pod has three kinds of containers besides the one that does the work:

- A *native* sidecar is an init container with ``restartPolicy: Always`` (KEP-753, Kubernetes 1.29). The kubelet ends it
  after the last regular container, and its exit code does not count.
- An *ordinary* sidecar is one more regular container: the pod runs for as long as it does.
- An init container proper has ended before the others start.

The spec decides the kind, never the name: some webhooks strip ``restartPolicy`` from containers that others injected.
"""

from __future__ import annotations

from collections.abc import Mapping

from crosswind.sidecars.catalog import KNOWN
from crosswind.types import Manifest

__all__ = ["NATIVE_ANNOTATION", "NATIVE_SINCE", "make_native", "native_requests", "quit_requests"]

NATIVE_SINCE = (1, 29)
"""The first Kubernetes version that runs native sidecars by default; the nodes' kubelets need it too."""

NATIVE_ANNOTATION = "crosswind/native-sidecars"
"""On a template or override: ``"true"``, ``"false"`` or names of containers, separated by commas."""


def native_requests(annotations: Mapping[str, str], ask: tuple[str, ...]) -> dict[str, str]:
    """Return the annotations to add so that the injectors named in ``ask`` make native sidecars.

    A product is left alone when the author has set any of its annotations, to any value.
    """
    added: dict[str, str] = {}
    for product in KNOWN:
        if product.name in ask and not any(name in annotations for name in product.native):
            added |= product.native
    return added


def quit_requests(annotations: Mapping[str, str]) -> dict[str, str]:
    """Return the annotations to add so that ordinary sidecars of these pods accept a request to quit.

    The author's own choice stays. Linkerd since 2.16 and Vault's agent since 1.10 refuse unless they are configured so.
    """
    requests = {"config.linkerd.io/proxy-admin-shutdown": "enabled"}
    if "vault.hashicorp.com/agent-inject" in annotations:
        requests["vault.hashicorp.com/agent-enable-quit"] = "true"
    return {name: value for name, value in requests.items() if name not in annotations}


def make_native(spec: Manifest, names: frozenset[str] | None, base: str) -> Manifest:
    """Return ``spec`` with regular containers turned into native sidecars.

    ``names``: the containers to turn; None is all but ``base``, which stays in any case. They go after the init
    containers, in their order, so that they still start when those are done.
    """
    selected = [
        container
        for container in spec["containers"]
        if container.get("name") != base and (names is None or container.get("name") in names)
    ]
    if not selected:
        return spec
    native = [container | {"restartPolicy": "Always"} for container in selected]
    kept = [container for container in spec["containers"] if container not in selected]
    return spec | {"containers": kept, "initContainers": [*(spec.get("initContainers") or ()), *native]}

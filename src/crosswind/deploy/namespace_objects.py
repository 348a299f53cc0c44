"""The namespaces, with their Pod Security levels."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import RenderedObject, labels
from crosswind.deploy.values import Values

__all__ = ["BUILT_IN", "enforces_restricted", "namespaces"]

BUILT_IN = "default"
"""The namespace that every cluster has. Other pods may be in it, which Airflow's Pod Security level would refuse."""


def namespaces(values: Values) -> Iterator[RenderedObject]:
    """Yield the namespaces, the main one first, if the values do not leave them to the user."""
    for number, name in enumerate(values.namespaces if values.create_namespaces else ()):
        if name == BUILT_IN:
            continue
        metadata = {"name": name, "labels": labels(values, "namespace") | _pod_security_labels(values)}
        content = "all other objects" if number == 0 else "the workers"
        yield RenderedObject(
            f"00-namespace-{name}.yaml",
            f"Holds {content}; Kubernetes refuses pods in it that ask for more rights than they need.",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata},
        )


def enforces_restricted(values: Values, namespace: str) -> bool:
    """Return whether a namespace has our label that refuses what Pod Security's level restricted does not allow."""
    return values.create_namespaces and namespace != BUILT_IN and not _needs_privileges(values)


def _needs_privileges(values: Values) -> bool:
    """Return whether pods have the mesh's init container, which without a CNI plug-in needs rights over iptables."""
    return values.mesh.kind != "none" and not values.mesh.cni


def _pod_security_labels(values: Values) -> dict[str, str]:
    enforced = "privileged" if _needs_privileges(values) else "restricted"
    return {
        f"pod-security.kubernetes.io/{mode}": level for mode, level in (("enforce", enforced), ("warn", "restricted"))
    }

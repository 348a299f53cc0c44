"""The namespaces, with their Pod Security levels."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import RenderedObject, labels
from crosswind.deploy.values import Values

__all__ = ["namespaces"]


def namespaces(values: Values) -> Iterator[RenderedObject]:
    """Yield the namespaces, the main one first, if the values do not leave them to the user."""
    for number, name in enumerate(values.namespaces if values.create_namespaces else ()):
        metadata = {"name": name, "labels": labels(values, "namespace") | _pod_security_labels(values)}
        content = "all other objects" if number == 0 else "the workers"
        yield RenderedObject(
            f"00-namespace-{name}.yaml",
            f"Holds {content}; Kubernetes refuses pods in it that ask for more rights than they need.",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata},
        )


def _pod_security_labels(values: Values) -> dict[str, str]:
    """Return Pod Security's labels. Without a CNI plug-in, the mesh's init container needs rights over iptables."""
    enforced = "privileged" if values.mesh.kind != "none" and not values.mesh.cni else "restricted"
    return {
        f"pod-security.kubernetes.io/{mode}": level for mode, level in (("enforce", enforced), ("warn", "restricted"))
    }

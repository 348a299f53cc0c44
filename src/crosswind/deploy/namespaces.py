"""The namespaces, with the rules that hold in them."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import Rendered, labels
from crosswind.deploy.values import Values

__all__ = ["namespaces"]


def namespaces(values: Values) -> Iterator[Rendered]:
    """Yield the namespaces, the main one first; nothing if they are made by somebody else."""
    for number, name in enumerate(values.namespaces if values.create_namespaces else ()):
        metadata = {"name": name, "labels": labels(values, "namespace") | _rules(values)}
        what = "everything else" if number == 0 else "workers"
        yield Rendered(
            f"00-namespace-{name}.yaml",
            f"Holds {what}; pods that ask for more rights than they need are refused in it.",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata},
        )


def _rules(values: Values) -> dict[str, str]:
    """Return Pod Security's labels; without the mesh's CNI plug-in its init container needs rights."""
    enforced = "privileged" if values.mesh.kind != "none" and not values.mesh.cni else "restricted"
    return {
        f"pod-security.kubernetes.io/{mode}": level for mode, level in (("enforce", enforced), ("warn", "restricted"))
    }

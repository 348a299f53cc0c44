"""Kuma's sidecar injection, by the rules of its webhook (``pkg/plugins/runtime/k8s/webhooks/injector``, 2.9)."""

from __future__ import annotations

from dataclasses import dataclass

from kubelocal.injection.injector import add_proxy, annotations_of, labels_of, template
from kubelocal.types import Manifest

__all__ = ["INJECTED", "SIDECAR", "Kuma"]

INJECT = "kuma.io/sidecar-injection"
INJECTED = "kuma.io/sidecar-injected"
SIDECAR = "kuma-sidecar"


@dataclass(frozen=True)
class Kuma:
    """The injector. ``native``: native sidecars, as since 3.0."""

    native: bool = False

    def __call__(self, pod: Manifest, namespace: Manifest) -> Manifest:
        """Inject where a label of the pod, or else of its namespace, asks for it."""
        inject = labels_of(pod).get(INJECT) or labels_of(namespace).get(INJECT)
        if inject not in ("enabled", "true") or pod["spec"].get("hostNetwork") or INJECTED in annotations_of(pod):
            return pod
        made = template("kuma")(
            {"pod": pod, "restart": "Always" if self.native else None, "native": self.native or None}
        )
        return add_proxy(pod, made, native=self.native, hold=False)

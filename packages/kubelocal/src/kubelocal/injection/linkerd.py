"""Linkerd's proxy injection, by the rules of its injector (``pkg/inject``, 2.18)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kubelocal.injection.injector import add_proxy, annotations_of, template
from kubelocal.types import Manifest

__all__ = ["Linkerd", "is_wanted"]

VERSION = "edge-25.4.4"
NATIVE = tuple(f"config.{stage}linkerd.io/proxy-enable-native-sidecar" for stage in ("", "beta.", "alpha."))


@dataclass(frozen=True)
class Linkerd:
    """The injector. ``native``: native sidecars by default, as since 2.20."""

    native: bool = False

    def __call__(self, pod: Manifest, namespace: Manifest) -> Manifest:
        """Inject where it is wanted."""
        if not is_wanted(pod, namespace):
            return pod
        annotation = _said(pod, namespace)
        native = next((value == "true" for value in map(annotation, NATIVE) if value), self.native)
        hold = not native and annotation("config.linkerd.io/proxy-await") != "disabled"
        version = annotation("config.linkerd.io/proxy-version") or VERSION
        scope = {
            "pod": pod,
            "native": native or None,
            "hold": hold or None,
            "restart": "Always" if native else None,
            "version": version,
            "image": f"{annotation('config.linkerd.io/proxy-image') or 'cr.l5d.io/linkerd/proxy'}:{version}",
            "shutdown": str(annotation("config.linkerd.io/proxy-admin-shutdown") == "enabled").lower(),
            "grace": annotation("config.linkerd.io/shutdown-grace-period") or "120s",
        }
        return add_proxy(pod, template("linkerd")(scope), native=native, hold=hold)


def _said(pod: Manifest, namespace: Manifest) -> Callable[[str], str]:
    """Look an annotation up: the pod's own counts before its namespace's."""
    both = {**annotations_of(namespace), **annotations_of(pod)}
    return lambda name: both.get(name, "")


def is_wanted(pod: Manifest, namespace: Manifest) -> bool:
    """Return whether a pod gets a proxy: it or its namespace requests one, and it has none."""
    spec = pod["spec"]
    names = {container["name"] for container in (*spec["containers"], *(spec.get("initContainers") or ()))}
    requested = _said(pod, namespace)("linkerd.io/inject") in ("enabled", "ingress")
    return requested and not spec.get("hostNetwork") and "linkerd-proxy" not in names

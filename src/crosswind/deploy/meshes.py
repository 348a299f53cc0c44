"""Labels and annotations of pods for a mesh's injector."""

from __future__ import annotations

from crosswind.deploy.values import Values

__all__ = ["PROXY_USERS", "pod_annotations", "pod_labels", "unmeshed_annotations", "unmeshed_labels"]

PROXY_USERS = {"istio": 1337, "linkerd": 2102}
"""The users that the proxies run as; iptables does not redirect their traffic to the proxy."""

_LINKERD_NATIVE = (
    "config.beta.linkerd.io/proxy-enable-native-sidecar",
    "config.linkerd.io/proxy-enable-native-sidecar",
)
"""The annotation's names before and since it became stable."""


def pod_labels(values: Values) -> dict[str, str]:
    """Return the labels that request a sidecar, whatever the labels of the namespace are."""
    if values.mesh.kind != "istio":
        return {}
    labels = {"sidecar.istio.io/inject": "true"}
    return labels | ({"istio.io/rev": values.mesh.revision} if values.mesh.revision else {})


def pod_annotations(values: Values, *, calls_kubernetes: bool = False) -> dict[str, str]:
    """Return the annotations that choose the kind of sidecar."""
    native = values.mesh.sidecars == "native"
    match values.mesh.kind:
        case "linkerd":
            return _linkerd_annotations(native)
        case "istio":
            # The proxy would reset long watches of the Kubernetes API.
            bypassed = values.network.kubernetes_api if calls_kubernetes else ()
            return _istio_annotations(native, bypassed)
    return {}


def _linkerd_annotations(native: bool) -> dict[str, str]:
    if native:
        return {"linkerd.io/inject": "enabled", **dict.fromkeys(_LINKERD_NATIVE, "true")}
    return {
        "linkerd.io/inject": "enabled",
        "config.linkerd.io/proxy-await": "enabled",
        "config.linkerd.io/proxy-admin-shutdown": "enabled",  # off by default; crosswind ends the proxy by it
    }


def _istio_annotations(native: bool, bypassed: tuple[str, ...]) -> dict[str, str]:
    annotations = {"sidecar.istio.io/nativeSidecar": str(native).lower()}
    if not native:
        annotations["proxy.istio.io/config"] = '{"holdApplicationUntilProxyStarts": true}'
    if bypassed:
        annotations["traffic.sidecar.istio.io/excludeOutboundIPRanges"] = ",".join(bypassed)
    return annotations


def unmeshed_labels(values: Values) -> dict[str, str]:
    """Return the labels of a pod that gets no sidecar."""
    return {"sidecar.istio.io/inject": "false"} if values.mesh.kind == "istio" else {}


def unmeshed_annotations(values: Values) -> dict[str, str]:
    """Return the annotations of a pod that gets no sidecar."""
    return {"linkerd.io/inject": "disabled"} if values.mesh.kind == "linkerd" else {}

"""What pods say to a mesh's injector."""

from __future__ import annotations

from crosswind.deploy.values import Values

__all__ = ["PROXY_USERS", "pod_annotations", "pod_labels", "unmeshed_annotations", "unmeshed_labels"]

PROXY_USERS = {"istio": 1337, "linkerd": 2102}
"""The users that the proxies run as; their traffic is not redirected to the proxy."""

_LINKERD_NATIVE = (
    "config.beta.linkerd.io/proxy-enable-native-sidecar",
    "config.linkerd.io/proxy-enable-native-sidecar",
)


def pod_labels(values: Values) -> dict[str, str]:
    """Return the labels that ask for a sidecar, whatever the namespace says."""
    if values.mesh.kind != "istio":
        return {}
    found = {"sidecar.istio.io/inject": "true"}
    return found | ({"istio.io/rev": values.mesh.revision} if values.mesh.revision else {})


def pod_annotations(values: Values, *, calls_kubernetes: bool = False) -> dict[str, str]:
    """Return the annotations that say what kind of sidecar is wanted."""
    native = values.mesh.sidecars == "native"
    if values.mesh.kind == "linkerd":
        wanted = {"linkerd.io/inject": "enabled"}
        if native:
            # two names: before and since it became stable
            wanted |= dict.fromkeys(_LINKERD_NATIVE, "true")
        else:
            wanted["config.linkerd.io/proxy-await"] = "enabled"
            wanted["config.linkerd.io/proxy-admin-shutdown"] = "enabled"  # off by default; ends the proxy of Jobs
        return wanted
    if values.mesh.kind != "istio":
        return {}
    wanted = {"sidecar.istio.io/nativeSidecar": str(native).lower()}
    if not native:
        wanted["proxy.istio.io/config"] = '{"holdApplicationUntilProxyStarts": true}'
    if calls_kubernetes and values.network.kubernetes_api:
        # a proxy in between resets long watches
        wanted["traffic.sidecar.istio.io/excludeOutboundIPRanges"] = ",".join(values.network.kubernetes_api)
    return wanted


def unmeshed_labels(values: Values) -> dict[str, str]:
    """Return the labels of a pod that gets no sidecar."""
    return {"sidecar.istio.io/inject": "false"} if values.mesh.kind == "istio" else {}


def unmeshed_annotations(values: Values) -> dict[str, str]:
    """Return the annotations of a pod that gets no sidecar."""
    return {"linkerd.io/inject": "disabled"} if values.mesh.kind == "linkerd" else {}

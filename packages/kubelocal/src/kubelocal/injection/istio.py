"""Istio's sidecar injection, by the rules of its webhook (``pkg/kube/inject``, 1.26)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kubelocal.codec.status_errors import bad_request
from kubelocal.errors import SettingError
from kubelocal.injection.injector import add_proxy, annotations_of, compact, labels_of, template
from kubelocal.types import Manifest
from kubelocal.yaml_input import parse

__all__ = ["Istio", "canonical_name", "is_wanted", "workload_name"]

IMAGE = "docker.io/istio/proxyv2:1.26.4"
INJECT = "sidecar.istio.io/inject"
STATUS = "sidecar.istio.io/status"
REVISION = "istio.io/rev"
NAMES = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
REVISIONS = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
SYSTEM_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease", "local-path-storage")
YES = ("y", "yes", "true", "on")


@dataclass(frozen=True)
class Istio:
    """The injector. ``native``: native sidecars by default; ``cut``: long names as since 1.21."""

    native: bool = False
    cut: bool = False

    def __call__(self, pod: Manifest, namespace: Manifest) -> Manifest:
        """Inject where it is wanted. ``StatusError``: annotation ``proxy.istio.io/config`` is not a YAML mapping."""
        if not is_wanted(pod, namespace):
            return pod
        native = annotations_of(pod).get("sidecar.istio.io/nativeSidecar", str(self.native)).lower() == "true"
        config = _proxy_config(pod)
        hold = bool(config.get("holdApplicationUntilProxyStarts")) and not native
        made = template("istio")(_scope(pod, config) | _ways(native, hold) | {"canonical": self._canonical(pod)})
        made["annotations"][STATUS] = _status(made, native)
        return add_proxy(pod, made, native=native, hold=hold)

    def _canonical(self, pod: Manifest) -> str:
        name = canonical_name(pod)
        return name[:63].rstrip("-") if self.cut else name


def _ways(native: bool, hold: bool) -> Manifest:
    some = native or hold or None
    return {"native": native or None, "hold": hold or None, "lifecycle": some, "restart": "Always" if native else None}


def _scope(pod: Manifest, config: Manifest) -> Manifest:
    labels, annotations = labels_of(pod), annotations_of(pod)
    port = annotations.get("status.sidecar.istio.io/port") or str(config.get("statusPort", 15020))
    return {
        "pod": pod,
        "image": annotations.get("sidecar.istio.io/proxyImage", IMAGE),
        "revision": next((labels[key] for key in REVISIONS if labels.get(key)), "latest"),
        "workload": workload_name(pod),
        "appContainers": ",".join(container["name"] for container in pod["spec"]["containers"]),
        "statusPort": port,
        "config": compact({**config, "statusPort": int(port)} if port != "15020" else config),
    }


def _status(made: Manifest, native: bool) -> str:
    names = ["istio-init", "istio-proxy"]
    inits, containers = (names, None) if native else (names[:1], names[1:])
    volumes = [volume["name"] for volume in made["volumes"]]
    status = {"initContainers": inits, "containers": containers, "volumes": volumes}
    return compact({**status, "imagePullSecrets": None, "revision": "default"})


def is_wanted(pod: Manifest, namespace: Manifest) -> bool:
    """Return whether the webhook is called for a pod and injects a sidecar."""
    labels, of_namespace, annotations = labels_of(pod), labels_of(namespace), annotations_of(pod)
    if pod["spec"].get("hostNetwork") or STATUS in annotations or namespace["metadata"]["name"] in SYSTEM_NAMESPACES:
        return False
    if not _is_called(labels.get(INJECT), labels.get(REVISION), of_namespace):
        return False
    inject = labels.get(INJECT, annotations.get(INJECT, "")).lower()
    return not inject or inject in YES


def _is_called(inject: str | None, revision: str | None, of_namespace: Mapping[str, str]) -> bool:
    """Match the selectors of the four webhooks of revision ``default``."""
    if inject == "false":
        return False
    if "istio-injection" in of_namespace:
        return bool(of_namespace["istio-injection"] == "enabled")
    if REVISION in of_namespace:
        return bool(of_namespace[REVISION] == "default")
    return revision == "default" if revision else inject == "true"


def _proxy_config(pod: Manifest) -> Manifest:
    text = annotations_of(pod).get("proxy.istio.io/config", "")
    try:
        config = parse(text, "proxy.istio.io/config") or {}
    except SettingError as error:
        config = str(error)
    if not isinstance(config, dict):
        webhook = 'admission webhook "namespace.sidecar-injector.istio.io" denied the request'
        raise bad_request(f"{webhook}: annotation proxy.istio.io/config is not a YAML mapping: {text!r}")
    return config


def workload_name(pod: Manifest) -> str:
    """Return the name of what made the pod: its controller (a CronJob for its Jobs) if it has one, else its own."""
    metadata = pod["metadata"]
    owner = next(
        (
            owner_reference
            for owner_reference in metadata.get("ownerReferences") or ()
            if owner_reference.get("controller")
        ),
        None,
    )
    if not metadata.get("generateName") or not owner:
        return str(metadata.get("name", ""))
    made_by_cron_job = re.fullmatch(r"(.+)-\d{8,11}", owner["name"]) if owner["kind"] == "Job" else None
    return str(made_by_cron_job[1] if made_by_cron_job else owner["name"])


def canonical_name(pod: Manifest) -> str:
    """Return the service that the pod counts for; it may be too long for a label, and the pod is then refused."""
    labels = labels_of(pod)
    return next((labels[key] for key in NAMES if labels.get(key)), "") or workload_name(pod)

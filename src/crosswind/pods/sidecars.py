"""Sidecars: which kinds there are, which products are known, and how their injectors are asked for native ones.

Three kinds of containers besides the one that does the work:

- a *native* sidecar is an init container with ``restartPolicy: Always`` (KEP-753; Kubernetes 1.29). The kubelet ends it
  when the last regular container has ended, and its exit code does not count;
- an *ordinary* sidecar is one more regular container: the pod runs for as long as it does;
- an init container proper has ended before the others start.

The kind is read from the spec, never from the name: some webhooks strip ``restartPolicy`` from what others injected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from crosswind.types import Json, Manifest

__all__ = [
    "KNOWN",
    "NATIVE_ANNOTATION",
    "NATIVE_SINCE",
    "KnownSidecar",
    "is_native",
    "known_sidecar",
    "make_native",
    "native_requests",
]

NATIVE_SINCE = (1, 29)
"""The first Kubernetes version that runs native sidecars without being told to; nodes' kubelets need it too."""

NATIVE_ANNOTATION = "crosswind/native-sidecars"
"""On a template or override: ``"true"``, ``"false"`` or names of containers with commas between."""


@dataclass(frozen=True, slots=True)
class KnownSidecar:
    """A product whose sidecar is met in Airflow's pods. Patterns are shell-style (``*``)."""

    name: str
    """Short name, as in settings."""
    containers: tuple[str, ...]
    """Patterns of the container's name; ``*`` alone when users choose it."""
    images: tuple[str, ...]
    """Patterns of the image, registry included."""
    marks: tuple[str, ...] = ()
    """Annotations that the injector leaves on a pod that it changed."""
    native: Mapping[str, str] = field(default_factory=dict)
    """Annotations that ask the injector for a native sidecar; several where their names changed between versions."""

    def matches(self, container: Mapping[str, Json]) -> bool:
        """Tell whether a container, from a spec or a status, is this product's: by its name and its image."""
        name, image = str(container.get("name", "")), str(container.get("image", ""))
        return _any(name, self.containers) and _any(image, self.images)


# Sources: istio/api annotation/annotations.yaml; linkerd2 pkg/k8s/labels.go (names of 2.15, 2.19, 2.20);
# vault-k8s agent-inject/agent/annotations.go; cloud-sql-proxy README.
KNOWN: tuple[KnownSidecar, ...] = (
    KnownSidecar(
        "istio",
        ("istio-proxy",),
        ("*/proxyv2:*", "*/proxyv2@*", "*/proxyv2"),
        ("sidecar.istio.io/status",),
        {"sidecar.istio.io/nativeSidecar": "true"},
    ),
    KnownSidecar(
        "linkerd",
        ("linkerd-proxy",),
        ("*/linkerd/proxy:*", "*/linkerd/proxy@*", "*/linkerd/proxy"),
        ("linkerd.io/proxy-version",),
        {
            "config.linkerd.io/proxy-enable-native-sidecar": "true",
            "config.beta.linkerd.io/proxy-enable-native-sidecar": "true",
            "config.alpha.linkerd.io/proxy-enable-native-sidecar": "true",
        },
    ),
    KnownSidecar("vault", ("vault-agent",), ("*vault*",), ("vault.hashicorp.com/agent-inject-status",)),
    KnownSidecar("cloud-sql", ("*",), ("*/cloud-sql-connectors/cloud-sql-proxy*",)),
)


def is_native(container: Mapping[str, Json]) -> bool:
    """Tell whether an init container of a spec is a native sidecar."""
    return container.get("restartPolicy") == "Always"


def known_sidecar(container: Mapping[str, Json]) -> KnownSidecar | None:
    """Return the product that a container belongs to, None for an unknown one."""
    return next((known for known in KNOWN if known.matches(container)), None)


def native_requests(annotations: Mapping[str, str], ask: tuple[str, ...]) -> dict[str, str]:
    """Return the annotations to add so that the injectors named in ``ask`` make native sidecars.

    A product is left alone when the author already set any of its annotations, to whatever value.
    """
    wanted: dict[str, str] = {}
    for known in KNOWN:
        if known.name in ask and not any(name in annotations for name in known.native):
            wanted |= known.native
    return wanted


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


def _any(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)

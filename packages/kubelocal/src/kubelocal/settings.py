"""Settings of the one-machine cluster as data: frozen, read once by the command line or built by a caller.

Each field's docstring gives its unit, its default and why that default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["LocalImage", "LocalSettings"]


@dataclass(frozen=True, slots=True)
class LocalImage:
    """The meaning of an image's name on this machine, whose files containers see."""

    path: tuple[str, ...] = ()
    """Folders that come first in PATH."""

    machine: bool = True
    """Whether the machine's own commands are found as well (/usr/local/bin, /usr/bin, ...)."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that the image sets."""

    entrypoint: tuple[str, ...] = ()
    """The image's ENTRYPOINT: used when a container has no ``command``."""

    command: tuple[str, ...] = ()
    """The image's CMD: used when a container has neither ``command`` nor ``args``."""

    folder: str = "/"
    """The image's WORKDIR; created if missing."""

    user: int = 0
    """The image's USER, by number: what a container with ``runAsNonRoot`` runs as. Without that setting and without
    ``runAsUser`` it runs as root all the same, because the files that it sees are those of this machine."""

    visible: tuple[str, ...] = ()
    """Folders that stay visible although they lie under one that each container has for itself, such as /tmp."""

    mounts: Mapping[str, str] = field(default_factory=dict)
    """Files and folders of this machine that are mounted read-only, by their path in the image."""

    like: str = ""
    """Name of an image whose values apply where this one has none; "" for none."""

    missing: bool = False
    """Such an image cannot be pulled."""


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """The one-machine cluster: addresses, files and nodes."""

    name: str | None = None
    """Name of the cluster, ``local`` by default; in kubeconfigs cluster, user and context are called
    ``crosswind-NAME``."""

    host: str = "127.0.0.1"
    """Address that the API is served on; loopback, because the token is the only guard."""

    port: int = 0
    """TCP port of the API; 0 lets the system choose a free one."""

    kubeconfig: Path | None = None
    """File for the kubeconfig (mode 0600); None is a temporary one that ends with the cluster."""

    state_file: Path | None = None
    """Keep the objects in this file across runs; None keeps them in memory, for tests and demos."""

    history_length: int = 20_000
    """Changes kept for watches that resume: minutes of a busy cluster; older versions get 410 Expired."""

    simulate: int = 0
    """Number of simulated nodes, whose pods have no processes; 0 runs pods as processes on one node. With ``nodes``
    there are both kinds; simulated nodes then have the label ``simulate.crosswind/node: "true"``."""

    node_name: str = "crosswind-local"
    """Name of the first node that runs pods; simulated ones add ``-0``, ``-1`` and so on."""

    node_cpu: str | None = None
    """Allocatable CPU of each node, a quantity such as ``8``; None is what this machine has, 32 for simulated nodes."""

    node_memory: str | None = None
    """Allocatable memory of each node, such as ``16Gi``; None is what this machine has, 256Gi for simulated nodes."""

    node_pods: int = 110
    """Pods that one node may run; the kubelet's own default."""

    simulated_start: float = 0.2
    """Seconds from a simulated pod's binding until it runs: a start on a warm node. Jitter: as much again."""

    simulated_run: float | None = 1.0
    """Seconds that a simulated pod's base container runs, unless its annotation says otherwise; None: for ever."""

    nodes: int | None = None
    """Number of nodes that run pods as processes; None is one, or none with simulated nodes. All are this machine, but
    can fail one by one. ``node_name`` is the name of the first one, ``NODE_NAME-worker2`` that of the second."""

    node_loss_time_scale: float = 1.0
    """Multiplies the seconds until a node that no longer reports turns Unknown (50, and up to 5 more), and the
    ``tolerationSeconds`` of pods on nodes with NoExecute taints. 1 is Kubernetes' pace; 0.02 turns 85 s into 1.7."""

    stages: Path | None = None
    """YAML file with the stages of simulated pods and nodes, in place of those that come with the package."""

    inject: tuple[Literal["istio", "linkerd"], ...] = ()
    """Meshes whose sidecar is injected into pods of namespace ``default``; other namespaces use label or annotation."""

    sidecars: Path | None = None
    """YAML file with further containers to inject, and when."""

    sidecar_ready_after: float = 0.5
    """Seconds until an injected sidecar is ready, about those of a proxy with a near control plane."""

    start_delay: float = 0.0
    """Seconds by which the container of an injected sidecar begins later than the containers before it, as when its
    image is pulled first. Annotation ``start-delay.local.crosswind/CONTAINER`` sets it for one container of a pod."""

    ready_delay: float | None = None
    """Seconds from an injected sidecar's start until it is ready; None is ``sidecar_ready_after``. Annotation
    ``ready-delay.local.crosswind/CONTAINER`` sets it for one container of a pod."""

    native_sidecars: bool = False
    """Inject proxies as native sidecars unless a pod opts out; off, because ordinary sidecars are the hard case."""

    istio_long_names: Literal["refused", "cut"] = "refused"
    """Label ``service.istio.io/canonical-name`` of long workload names: as before Istio 1.21, or cut at 63 as since."""

    job_backoff: float = 10.0
    """Seconds before a Job's first retry, doubled with each failure up to 600; 10 is Kubernetes' default."""

    images: Mapping[str, LocalImage] = field(default_factory=dict)
    """Further images by shell-style pattern of their names; the longest matching pattern wins."""

    sandbox: Literal["auto", "user", "none"] = "auto"
    """Give containers mount and pid namespaces where Linux allows it. user: by a user namespace even as root, less
    close to Kubernetes; none: never, as on other systems."""

    network: Literal["shared", "isolated"] = "isolated"
    """isolated: each pod has a network namespace with its own localhost and ports; pods reach each other and this
    machine, nothing beyond. Needs root, else it is shared, and the log says so. shared: the machine's network, with a
    loopback address for each pod; for pods that need services on this machine's localhost or the internet."""

    crash_backoff: float = 10.0
    """Seconds before a container's second restart or image pull, doubled each time up to 300; 10 is the kubelet's."""

    sync_frequency: float = 60.0
    """Seconds after which the kubelet looks at a pod again where nothing calls it, up to half as much later; a changed
    Secret or ConfigMap reaches its volumes then, or at once when the pod itself is changed. 60 is the kubelet's own."""

    pods_folder: Path | None = None
    """Folder of volumes, logs and claims of pods; None is a temporary one that ends with the cluster."""

"""Settings as data: frozen, read once at the door (a command line, a file, Airflow's configuration), passed down.

Each field's docstring gives its unit, its default and why that default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["ArchiveSettings", "EngineSettings", "KubeSettings", "LocalImage", "LocalSettings", "ReapSettings"]


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """How logs of pods are kept in the metadata database."""

    folder: str = ""
    """Where workers write their logs, ``[logging] base_log_folder``."""

    spare: bool = True
    """Leave out pods in which a volume that lasts is mounted there."""

    limit: int = 10 * 1024 * 1024
    """Bytes of a pod's log that are kept, as printed: what a kubelet keeps of it unless told otherwise."""

    days: float = 30.0
    """How long; 0 is for ever."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How an engine launches, follows and ends pods. Times in seconds."""

    executor_id: str
    """Label ``airflow-worker`` of its pods: the scheduler's job id, as stock has it."""

    team: str = ""
    """Tells apart the executors of one scheduler, which have its id in common."""

    namespaces: tuple[str | None, ...] = ("default",)
    """Watched from the start, others when the first pod goes there; None is the whole cluster."""

    workload_delivery: Literal["secret", "args"] = "secret"
    """How the workload, with its token, reaches the worker: as a file from a Secret, or in the pod's arguments."""

    secret_batch: int = 64
    """Pods that share one Secret at most: about 150 kB of the 1 MiB that a Secret holds."""

    max_requests: int = 64
    """Creations under way at once, and as many deletions: where a small API server's latency begins to rise."""

    launch_timeout: float = 300.0
    """How long a launch is tried against a server that does not answer or pushes back: half of Airflow's
    ``task_queued_timeout``, so that the task fails with the reason and not with a timeout."""

    token_lifetime: float = 600.0
    """Validity of a workload's token (Airflow's ``task_queued_timeout``); renewed at half time while the pod waits."""

    delete_pods: bool = True
    """Delete pods that are over."""

    delete_failed_pods: bool = False
    """Delete also those whose worker failed."""

    fatal_reasons: frozenset[str] = frozenset()
    """Reasons of a waiting container that fail the task at once."""

    launch_retries: int = 1
    """New pods for a task whose pod ended before the task began; -1 is without end."""

    launch_retry_excluded: frozenset[str] = frozenset({"Error"})
    """Reasons of the base container's end that get no new pod."""

    grace_period: int | None = None
    """Passed on with deletions; None leaves it to the pod."""

    propagation: str | None = None
    """Passed on with deletions."""

    relist_interval: float = 600.0
    """How often the whole list is compared with what is known, beside the watch: a missed event costs at most this."""

    settle_interval: float = 15.0
    """How long the scheduler may take to write an outcome to the database before it is told again."""

    compare_interval: float = 10.0
    """How often pods that have not started are compared with the database: a Pending pod never notices by itself that
    its task was cleared, marked or deleted."""

    tell_after: float = 20.0
    """How long a pod may wait until the task's event log says what for: most have begun by then."""

    housekeeping_interval: float = 30.0
    """How often pods, Secrets and tokens are looked after."""

    log_tasks: bool = False
    """Name the task, not only the pod, in the lines of the log."""

    archive: ArchiveSettings | None = None
    """How logs of pods are kept when they go; None lets them go too."""


@dataclass(frozen=True, slots=True)
class KubeSettings:
    """How to reach a cluster and how patient to be with it."""

    in_cluster: bool = False
    """Use the pod's service account; else a kubeconfig."""

    kubeconfig: str | None = None
    """Path of a kubeconfig; None reads KUBECONFIG, then ~/.kube/config, as kubectl does."""

    kubeconfig_text: str | None = field(default=None, repr=False)
    """A kubeconfig itself, in YAML or JSON, as Airflow's connections may hold it; counts before ``kubeconfig``."""

    context: str | None = None
    """Name of a context; None is the kubeconfig's current one."""

    request_timeout: float = 30.0
    """Seconds for one whole request, watches and followed logs excepted; the API server gives up after 60."""

    connect_timeout: float = 10.0
    """Seconds to get a connection."""

    verify_ssl: bool = True
    """Check the server's certificate."""

    ssl_ca_cert: str | None = None
    """Path of a CA bundle that replaces the one of the kubeconfig."""


@dataclass(frozen=True, slots=True)
class LocalImage:
    """What the name of an image stands for on this machine, where containers see the machine's own files."""

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
    """The image's WORKDIR; made if it is not there."""

    user: int = 0
    """The image's USER, by number: what a container with ``runAsNonRoot`` runs as. Without that setting and without
    ``runAsUser`` it runs as root all the same, because the files that it sees are those of this machine."""

    visible: tuple[str, ...] = ()
    """Folders that must be seen inside although they lie under one that a container has of its own, such as /tmp."""

    mounts: Mapping[str, str] = field(default_factory=dict)
    """Files and folders of this machine that the image has, read-only, by their path in it."""

    like: str = ""
    """Name of an image whose parts this one has wherever it says nothing itself; "" is none."""

    missing: bool = False
    """Such an image cannot be pulled."""


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """The one-machine cluster: where it serves, what it remembers, what its nodes have."""

    name: str | None = None
    """Name of the cluster, ``local`` by default; in kubeconfigs cluster, user and context are called
    ``crosswind-NAME``."""

    host: str = "127.0.0.1"
    """Address that the API is served on; loopback, because the token is the only guard."""

    port: int = 0
    """TCP port of the API; 0 lets the system choose a free one."""

    kubeconfig: Path | None = None
    """Where to write the kubeconfig (mode 0600); None writes it to a folder that goes with the cluster."""

    state_file: Path | None = None
    """Keep the objects in this file across runs; None keeps them in memory, as tests and demos want."""

    history_length: int = 20_000
    """Changes kept for watches that resume, minutes of a busy cluster; older versions are answered 410 Expired."""

    simulate: int = 0
    """Number of nodes that only play the lives of their pods; 0 runs pods as processes on this machine's node."""

    node_name: str = "crosswind-local"
    """Name of the node that runs pods; simulated ones add ``-0``, ``-1`` and so on."""

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

    stages: Path | None = None
    """YAML file with the stages of simulated pods and nodes, in place of those that come with the package."""

    inject: tuple[Literal["istio", "linkerd"], ...] = ()
    """Meshes whose sidecar the pods of namespace ``default`` get; other namespaces ask by label or annotation."""

    sidecars: Path | None = None
    """YAML file with further containers to inject, and when."""

    sidecar_ready_after: float = 0.5
    """Seconds until an injected sidecar is ready; a proxy with a near control plane takes about that."""

    start_delay: float = 0.0
    """Seconds by which the container of an injected sidecar begins later than the containers before it, as when its
    image is pulled first. Annotation ``start-delay.local.crosswind/CONTAINER`` sets it for one container of a pod."""

    ready_delay: float | None = None
    """Seconds from an injected sidecar's start until it is ready; None is ``sidecar_ready_after``. Annotation
    ``ready-delay.local.crosswind/CONTAINER`` sets it for one container of a pod."""

    native_sidecars: bool = False
    """Inject proxies as native sidecars unless a pod says otherwise; off, because ordinary ones are the hard case."""

    istio_long_names: Literal["refused", "cut"] = "refused"
    """Label ``service.istio.io/canonical-name`` of long workload names: as before Istio 1.21, or cut at 63 as since."""

    job_backoff: float = 10.0
    """Seconds before a Job's first new try, doubled with each failure up to 600; 10 is what Kubernetes waits."""

    images: Mapping[str, LocalImage] = field(default_factory=dict)
    """What image names stand for, by shell-style pattern, beside those of the package; the longest pattern wins."""

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
    """Where volumes, logs and claims of pods are kept; None is a temporary folder that goes with the cluster."""


@dataclass(frozen=True, slots=True)
class ReapSettings:
    """Whose pods a reaper touches, and how far it goes."""

    namespaces: tuple[str, ...]
    """Nowhere else is anything touched."""

    selector: str
    """Label selector as kubectl has it; never empty, so that somebody has thought about it."""

    main: str = ""
    """The container that does the work, for pods whose annotation names none; "": the only one that is no sidecar."""

    sidecars: frozenset[str] = frozenset()
    """Names of containers that are sidecars although no injector is known for them."""

    airflow: bool = False
    """Also pods that carry the labels of Airflow's executor or pod operator, where stock ones are in use."""

    may_fail: bool = False
    """Also steps after which a pod counts as failed although its main container succeeded; off, for a Job would then
    run its work again."""

    delete: bool = False
    """Delete a pod when nothing else ends its sidecars."""

    swap_image: str = ""
    """An image that ends with 0 at once, to be swapped in for a sidecar that nothing else ends; "": none."""

    rate: float = 5.0
    """Pods per second whose ending may begin: about six requests each, so that the API server hardly notices."""

    retry: float = 600.0
    """Seconds until a pod whose sidecars stayed is tried again; what was done already is not done twice."""

    dry_run: bool = False
    """Say what would be done, and do nothing."""

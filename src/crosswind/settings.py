"""Settings as data: frozen, read once from a command line, a file or Airflow's configuration, then passed down.

Each field's docstring gives its unit and the reason for its default.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

__all__ = [
    "ARCHIVE_MODES",
    "WORKLOAD_DELIVERIES",
    "ArchiveSettings",
    "EngineSettings",
    "KubeSettings",
    "ReapSettings",
    "WarmOptions",
    "WarmSettings",
    "WorkloadDelivery",
]

ARCHIVE_MODES = ("auto", "always", "never")
"""The values of ``[crosswind] archive_logs``, the default first."""

WorkloadDelivery = Literal["secret", "args"]

WORKLOAD_DELIVERIES: tuple[WorkloadDelivery, ...] = ("secret", "args")
"""The values of ``[crosswind] workload_delivery``, the default first."""


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """How to store the logs of pods in the metadata database."""

    folder: str = ""
    """Folder of the workers' logs, ``[logging] base_log_folder``."""

    spare: bool = True
    """Skip pods that mount a persistent volume at that folder: their logs outlive the pod."""

    limit: int = 10 * 1024 * 1024
    """Maximum bytes that are stored of a pod's log: what a kubelet keeps of it by default (containerLogMaxSize)."""

    days: float = 30.0
    """Days until a log is deleted; 0: never."""


@dataclass(frozen=True, slots=True)
class WarmOptions:
    """How many pods wait for the tasks of a queue. Numbers are those of one scheduler."""

    min: int = 0
    """Pods that always wait for tasks without an ``executor_config``. 0: the first task of a quiet time starts cold."""

    max: int = 10
    """The most pods that wait; 0: none. Each takes the pod's requests, and about 125 MiB of memory."""

    idle_seconds: float = 300.0
    """Seconds after which a pod above ``min`` is deleted that no burst has needed: DAGs come in bursts of minutes."""

    max_age: float = 600.0
    """Seconds after which a waiting pod is replaced: rotated Secrets in its environment are seen by then."""

    preload: tuple[str, ...] = ()
    """Modules to import ahead, beside Airflow's."""


@dataclass(frozen=True, slots=True)
class WarmSettings:
    """Pods that wait for tasks."""

    everywhere: WarmOptions
    """For queues without options of their own."""

    secret: bytes = field(repr=False)
    """Known to all schedulers and to no worker; the keys of waiting pods are derived from it."""

    queues: Mapping[str, WarmOptions] = field(default_factory=dict)
    """Options by the queue's name."""

    default_queue: str = "default"
    """The queue of tasks that name none, ``[operators] default_queue``."""

    def options(self, queue: str) -> WarmOptions:
        """Return the options of a queue."""
        return self.queues.get(queue, self.everywhere)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How an engine launches, follows and deletes pods. Times in seconds."""

    executor_id: str
    """Value of the label ``airflow-worker`` of its pods: the scheduler's job id, as in stock."""

    team: str = ""
    """Distinguishes the executors of one scheduler, which share its id; "" without teams."""

    namespaces: tuple[str | None, ...] = ("default",)
    """Namespaces to watch from the start; others are watched from their first pod on. None: the whole cluster."""

    workload_delivery: WorkloadDelivery = "secret"
    """How the workload, with its token, reaches the worker: as a file from a Secret, or in the pod's arguments."""

    secret_batch: int = 64
    """Maximum number of pods that share one Secret: they use about 150 kB of the 1 MiB that a Secret holds."""

    max_requests: int = 64
    """Maximum concurrent creations, and concurrent deletions: more raise the latency of a small API server."""

    launch_timeout: float = 300.0
    """How long to retry a launch while the API server does not answer or pushes back. Half of Airflow's
    ``task_queued_timeout``, so that the task fails with the reason and not with that timeout."""

    token_lifetime: float = 600.0
    """Validity of a workload's token, Airflow's ``task_queued_timeout``; renewed at half of it while the pod waits."""

    delete_pods: bool = True
    """Delete pods whose task has ended."""

    delete_failed_pods: bool = False
    """Delete pods whose worker failed, too."""

    fatal_reasons: frozenset[str] = frozenset()
    """Reasons for which a container waits that fail the task at once."""

    launch_retries: int = 1
    """How many new pods a task gets whose pod ended before the task started; -1: without limit."""

    launch_retry_excluded: frozenset[str] = frozenset({"Error"})
    """Reasons of the base container's termination for which the task gets no new pod."""

    deleted_is_loss: bool = False
    """A pod that a user deletes while its task runs costs no retry. Off: the user may mean the task."""

    grace_period: int | None = None
    """``gracePeriodSeconds`` of deletions; None: the pod's own."""

    propagation: str | None = None
    """``propagationPolicy`` of deletions; None: the server's default."""

    relist_interval: float = 600.0
    """How often all pods are listed and compared with the watch's state; a missed event goes unnoticed no longer."""

    settle_interval: float = 15.0
    """How long the scheduler may take to write an outcome to the database before it is reported again."""

    compare_interval: float = 10.0
    """How often pods that have not started are compared with the database. A pending pod has no worker yet, which would
    notice that its task was cleared, marked or deleted."""

    wait_report_delay: float = 20.0
    """How long a pod waits before the task's event log names the reason: most pods have started by then."""

    housekeeping_interval: float = 30.0
    """How often the engine checks pods, Secrets and tokens."""

    log_tasks: bool = False
    """Name the task, and not only the pod, in log lines."""

    history_days: float | None = 30.0
    """Days for which a row stays of what each pod went through; 0 for ever, None keeps none."""

    archive: ArchiveSettings | None = None
    """How to store the logs of pods that are deleted; None: they are lost."""

    warm: WarmSettings | None = None
    """How many pods wait for tasks; None: each pod is created for its task."""

    warm_secret: bytes = field(default=b"", repr=False)
    """The secret of ``WarmSettings``, also when no pod waits any longer: then those of former schedulers are deleted;
    b"" when there is none."""


@dataclass(frozen=True, slots=True)
class KubeSettings:
    """How to reach a cluster, and how long to wait for its answers."""

    in_cluster: bool = False
    """Use the service account of the pod that this process runs in; otherwise a kubeconfig."""

    kubeconfig: str | None = None
    """Path of a kubeconfig; None: KUBECONFIG, then ~/.kube/config, as in kubectl."""

    kubeconfig_text: str | None = field(default=None, repr=False)
    """The content of a kubeconfig, YAML or JSON, as Airflow's connections may hold it; overrides ``kubeconfig``."""

    context: str | None = None
    """Name of a context; None: the kubeconfig's current context."""

    request_timeout: float = 30.0
    """Seconds for a whole request, except watches and followed logs. The API server's own limit is 60."""

    connect_timeout: float = 10.0
    """Seconds to establish a connection."""

    verify_ssl: bool = True
    """Verify the server's certificate."""

    ssl_ca_cert: str | None = None
    """Path of a CA bundle that replaces that of the kubeconfig."""


@dataclass(frozen=True, slots=True)
class ReapSettings:
    """Which pods a reaper changes, and by which steps."""

    namespaces: tuple[str, ...]
    """The reaper changes nothing in other namespaces."""

    selector: str
    """Label selector in kubectl's syntax; must not be empty, so that nobody selects all pods by omission."""

    main: str = ""
    """Main container of pods whose annotation names none; "": the only container that is not a sidecar."""

    sidecars: frozenset[str] = frozenset()
    """Names of further sidecar containers, of no known injector."""

    airflow: bool = False
    """Include pods with the labels of Airflow's executor or pod operator, for deployments with the stock ones."""

    may_fail: bool = False
    """Allow steps after which a pod counts as failed although its main container succeeded. Off, because a Job then
    runs its work again."""

    delete: bool = False
    """Delete a pod when no other step stops its sidecars."""

    swap_image: str = ""
    """Image that exits with 0 at once, to replace that of a sidecar that no other step stops; "": none."""

    rate: float = 5.0
    """Pods to start with per second. Each needs about six requests, a small load for an API server."""

    retry: float = 600.0
    """Seconds until the next attempt on a pod whose sidecars still run; steps that are done are not repeated."""

    dry_run: bool = False
    """Report the steps without doing them."""


if not TYPE_CHECKING:  # hidden from type checkers, for which every name would exist

    def __getattr__(name: str) -> Any:
        """Return a class that has moved to kubelocal, for one release."""
        if name not in {"LocalImage", "LocalSettings"}:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        message = f"crosswind.settings.{name} is now kubelocal.settings.{name}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        from kubelocal import settings

        return getattr(settings, name)

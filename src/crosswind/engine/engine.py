"""The engine: runs workloads in pods, on an event loop in a thread of its own.

The public methods of ``Engine`` are called in the scheduler's thread and only append to an inbox. The engine's thread
owns all tasks: the reconcilers, the metrics report and the current ``ClusterSession``. A failure inside is logged, and
what failed is started again; the runs stay in the registry meanwhile, and those that cannot be launched fail with a
message. ``stop`` cancels all tasks and ends the thread; pods whose tasks run stay, for the next scheduler to adopt.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence

from crosswind.engine.cluster_session import ClusterSession, SessionContext
from crosswind.engine.database import MetadataDatabase
from crosswind.engine.fleet_snapshot import SnapshotReporter, SnapshotStore
from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.log_archiver import LogStore
from crosswind.engine.metrics_reporter import MetricsSink, RunMetrics, report_metrics
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.pod_history import PodHistory
from crosswind.engine.pod_inspection import PodViews
from crosswind.engine.reconciler import OutcomeReconciler
from crosswind.engine.state import AdoptionRequest, Outcome, RunRegistry, RunStage, Workload
from crosswind.engine.unstarted_pods import UnstartedPodReconciler
from crosswind.errors import ConfigError, CrosswindError
from crosswind.event_loop import LoopThread, call_blocking
from crosswind.kube.client import Client, Observe
from crosswind.settings import EngineSettings, KubeSettings
from crosswind.sidecars.shutdown import ShutdownSettings

__all__ = ["Engine"]

log = logging.getLogger(__name__)

_RESTART_PAUSE_S = 1.0
_MAX_RECONNECT_PAUSE_S = 15.0
_STABLE_SESSION_S = 60.0
"""A session that lasted longer resets the pause before the next one."""
_UNUSABLE_KUBECONFIG_S = 1.5
"""Seconds for which a kubeconfig must be unusable before tasks fail because of it: two attempts to connect."""


class Engine:
    """Runs workloads in pods.

    Public methods are for the caller's thread: ``stop`` waits, the others return at once. Arguments: the settings, how
    to reach the API server, what composes pods, the metadata database, how sidecars are shut down, where logs and
    metrics go (None for nowhere), and what opens a client.
    """

    def __init__(
        self,
        settings: EngineSettings,
        kube: KubeSettings,
        composer: PodComposer,
        database: MetadataDatabase,
        shutdown: ShutdownSettings | None = None,
        log_store: LogStore | None = None,
        metrics_sink: MetricsSink | None = None,
        pod_history: PodHistory | None = None,
        snapshot: SnapshotStore | None = None,
        pod_views: PodViews | None = None,
        connect: Callable[[KubeSettings, Observe | None], Awaitable[Client]] = Client.connect,
    ) -> None:
        self.settings = settings
        self.held_back = 0
        """Tasks that the caller holds back, for the metric of that name; set by the caller."""
        self._kube = kube
        self._connect_client = connect
        self._database = database
        self._metrics_sink = metrics_sink
        self._metrics = RunMetrics()
        self._registry = RunRegistry()
        runs = self._registry.runs.values
        self._snapshot = None if snapshot is None else SnapshotReporter(runs, snapshot, self._gauges)
        """Outlives restarts of the loop, because it holds the stored state."""
        self._lifecycle = RunLifecycle(self._registry, self._metrics, pod_history)
        self._context = SessionContext(
            settings, composer, self._lifecycle, database, shutdown or ShutdownSettings(), log_store, pod_views
        )
        self._session: ClusterSession | None = None
        self._unusable_since = math.inf
        self._inbox: deque[Callable[[], None]] = deque()
        self._thread = LoopThread(f"crosswind-{settings.executor_id}", self._main)
        self._background_calls: set[asyncio.Future[None]] = set()
        """asyncio itself holds only weak references to tasks."""

    # --- in the caller's thread ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, or start it again if it has died."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs, in this process."""
        return self._thread.alive

    def stop(self, timeout: float = 15.0) -> None:
        """Wait for deletions that are under way, then end the thread. Pods whose tasks run stay, for adoption."""
        try:
            self._thread.call(self._drain(timeout / 2), timeout / 2 + 1)
        except TimeoutError as error:
            log.info("Crosswind's engine stops without waiting: %s", error)
        self._thread.stop(timeout / 2)

    def launch(self, workloads: Sequence[Workload]) -> None:
        """Run workloads, highest priority first."""
        self._post(lambda: self._lifecycle.accept(workloads))

    def adopt(self, requests: Sequence[AdoptionRequest]) -> None:
        """Adopt the pods of dead executors, or reschedule the tasks that have none.

        The outcomes of these workloads arrive like those of launched ones.
        """
        self._post(lambda: self._lifecycle.request_adoption(requests))

    def revoke(self, key: Hashable) -> None:
        """End the newest run of a key without an outcome, and delete its pod."""
        self._post(lambda: self._lifecycle.revoke(key))

    def call_in_background(self, work: Callable[[], None]) -> None:
        """Call ``work``, which may block, in a thread of its own; its errors are logged."""
        self._post(lambda: self._start_background_call(work))

    def waits_for(self, key: Hashable) -> str:
        """Return, as a sentence, what the newest pod of a key waits for; "" if it does not wait, or not known why."""
        run = self._registry.newest.get(key)
        wait = run.wait if run is not None and run.stage in (RunStage.WAITING, RunStage.CREATED) else None
        return wait.describe() if wait is not None else ""

    def outcomes(self, limit: int | None = None) -> list[Outcome]:
        """Remove the oldest outcomes, at most ``limit``, and return them."""
        outbox = self._registry.outbox
        count = len(outbox)
        return [outbox.popleft() for _ in range(count if limit is None else min(count, limit))]

    def figures(self) -> dict[str, object]:
        """Return figures for a debug dump. They are read without a lock, so they may not match each other."""
        registry, session = self._registry, self._session
        figures: dict[str, object] = {stage.name.lower(): len(registry.at(stage)) for stage in RunStage}
        figures |= {
            "unlabelled": sum(run.adoption is not None for run in list(registry.runs.values())),
            "secrets": len(registry.secrets),
            "outcomes": len(registry.outbox),
            "refusal": registry.refusal,
        }
        if session is not None:
            figures |= {"creation limit": session.creation_limit, "cleaning up": session.cleaning_up}
        return figures

    def _post(self, call: Callable[[], None]) -> None:
        # A deque's append and popleft are atomic. Without a running thread the call waits for the next one.
        self._inbox.append(call)
        self._thread.post(self._read_inbox)

    # --- in the engine's thread ---------------------------------------------------------------------------------------

    def _read_inbox(self) -> None:
        while self._inbox:
            call = self._inbox.popleft()
            try:
                call()
            except Exception:  # one bad workload must not keep the calls after it from being handled
                log.exception("A call to crosswind's engine failed")

    def _start_background_call(self, work: Callable[[], None]) -> None:
        async def call() -> None:
            try:
                await call_blocking(work)
            except Exception:
                log.exception("A background call of crosswind's engine failed")

        task = asyncio.ensure_future(call())
        self._background_calls.add(task)
        task.add_done_callback(self._background_calls.discard)

    async def _main(self) -> None:
        while True:
            outcomes = OutcomeReconciler(self._database, self._lifecycle, self.settings)
            unstarted = UnstartedPodReconciler(self._database, self._lifecycle, self.settings.compare_interval)
            self._lifecycle.outcomes = outcomes
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(outcomes.run())
                    group.create_task(unstarted.run())
                    group.create_task(self._keep_connected())
                    if self._metrics_sink is not None:
                        group.create_task(self._report_metrics(self._metrics_sink))
                    if self._snapshot is not None:
                        group.create_task(self._snapshot.run())
                    for run in self._registry.at(RunStage.ENDED):
                        if not run.settled:
                            outcomes.put(run)
                    self._read_inbox()  # calls may have arrived before the thread ran
            except* Exception:  # the registry survives, so that no task is lost
                log.exception("Crosswind's engine failed and is restarting")
                await asyncio.sleep(_RESTART_PAUSE_S)

    async def _report_metrics(self, sink: MetricsSink) -> None:
        await report_metrics(sink, self._metrics, self._registry.runs.values, self._gauges)

    def _gauges(self) -> dict[str, float]:
        session = self._session
        if session is None:
            return {}
        return {**session.gauges(), "crosswind.tasks_held_back": float(self.held_back)}

    async def _keep_connected(self) -> None:
        """Run one session after the other, with a pause that doubles while sessions fail soon."""
        loop = asyncio.get_running_loop()
        pause = _RESTART_PAUSE_S
        while True:
            began = loop.time()
            try:
                async with await self._connect() as client:
                    self._session = ClusterSession(client, self._context)
                    await self._session.run()
            except Exception as error:
                self._handle_failure(error)
            finally:
                self._session = None
            lasted = loop.time() - began
            pause = _RESTART_PAUSE_S if lasted > _STABLE_SESSION_S else min(_MAX_RECONNECT_PAUSE_S, pause * 2)
            await asyncio.sleep(pause)

    async def _connect(self) -> Client:
        """Read the credentials and open a client.

        Tasks fail because of an unusable kubeconfig only if it stays so for a while: a file that is being written, too,
        is unusable for a moment.
        """
        loop = asyncio.get_running_loop()
        observe = self._metrics.observe_request if self._metrics_sink is not None else None
        try:
            client = await self._connect_client(self._kube, observe)
        except ConfigError as error:
            self._unusable_since = min(self._unusable_since, loop.time())
            if loop.time() - self._unusable_since >= _UNUSABLE_KUBECONFIG_S:
                self._registry.refusal = str(error)
            raise
        self._unusable_since, self._registry.refusal = math.inf, ""
        return client

    def _handle_failure(self, error: Exception) -> None:
        """Log why there is no session, and fail the runs that have waited too long for one."""
        cause = _first_cause(error)
        if not isinstance(cause, CrosswindError):
            log.error("Crosswind's engine failed and is restarting", exc_info=error)
        else:
            log.error("Crosswind's engine cannot connect to the cluster: %s", cause)
        self._lifecycle.fail_waiting(cause, 0.0 if self._registry.refusal else self.settings.launch_timeout)

    async def _drain(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                if self._session is not None:
                    await self._session.drain()
        except TimeoutError:
            log.info("Some pods are still being deleted; the next scheduler cleans up what remains of them")


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

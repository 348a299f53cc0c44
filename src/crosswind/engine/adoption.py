"""Adopts the pods of dead executors: relabels them as ours, and reschedules tasks that have no pod.

Each run to adopt stays at ADOPTING in the registry until ``PodAdopter`` knows what became of its pod. The scheduler's
thread waits for none of it. ``PodAdopter.run`` owns one task per dead executor, which owns the watches of that
executor's pods, and the request queue that relabels. All end when it is cancelled; the runs keep their adoption
request, and the next session continues.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

from crosswind.engine.database import DatabaseState, MetadataDatabase
from crosswind.engine.housekeeping import Housekeeper
from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.orphan_watch import OrphanWatch
from crosswind.engine.request_queue import AimdLimit, RequestQueue
from crosswind.engine.sealed_workload import deployment_label
from crosswind.engine.state import (
    WORKER_LABEL,
    AdoptionRequest,
    PodClaim,
    RunResult,
    RunStage,
    WorkerRun,
    attempt_unique_id,
)
from crosswind.engine.warm_claim_patch import CLAIM_LABEL
from crosswind.engine.watcher import WorkerWatcher
from crosswind.engine.worker_namespaces import WorkerNamespaces
from crosswind.engine.worker_pod import unique_id_of, worker_name
from crosswind.engine.workload_secrets import mounted_workload
from crosswind.errors import Conflict, CrosswindError, NotFound
from crosswind.event_loop import call_blocking
from crosswind.kube.client import Client
from crosswind.kube.informer import InformerEvent
from crosswind.kube.packed_json import PackedObjects
from crosswind.kube.resources import PODS
from crosswind.kube.retry import is_transient, pause_after
from crosswind.pods.fields import annotations_of, as_pod
from crosswind.pods.naming import label_value
from crosswind.settings import EngineSettings
from crosswind.types import Pod

__all__ = ["PodAdopter", "match_pods", "may_have_pod"]

log = logging.getLogger(__name__)

_MAX_ATTEMPTS = 16
"""Attempts of one workload whose unique ids and pod names are compared."""
_PODS_PER_TURN = 100
"""Pods that are adopted before other tasks get the event loop: some milliseconds."""
_POLL_S = 0.2
_FIRST_LABEL_RETRY_S, _MAX_LABEL_RETRY_S = 2.0, 60.0
"""Seconds until a label that could not be set is retried. The pod is watched in any case."""
_RETRY_S = 5.0
_UNLISTED_S = 60.0
"""Seconds without a list of pods until the database is asked which tasks have ended meanwhile."""
_FIRST_SEARCH_RETRY_S, _MAX_SEARCH_RETRY_S = 2.0, 60.0
"""Seconds until all pods are searched again: one search lists the pods of whole namespaces."""
_ALIVE_EVERY_S = 10.0
"""Seconds between two questions whether an executor is alive after all."""
_OUTDATED_HEARTBEAT_S = 40.0
"""Seconds after which a scheduler that was killed no longer counts as alive: Airflow's default threshold is 30."""
_WATCH_AHEAD_S = 900.0
"""Seconds for which the pods of an executor are watched though no adoption is requested: Airflow looks for orphaned
tasks every 300 seconds by default."""
_LOST_MESSAGE = (
    "The scheduler that queued the task ended, and no pod of the task exists: scheduled again, without using up a retry"
)


def match_pods(pods: Iterable[Pod], requests: Iterable[AdoptionRequest]) -> list[tuple[AdoptionRequest, str, int]]:
    """Return the requests that have a pod, each with the uid of the pod launched last and the number of that attempt.

    The task instance's id and the unique id that the pod carries decide; the pod's name ends with it, unless a
    ``pod_mutation_hook`` has changed the name. A deferral changes the unique id, so that the pod before it does not
    match. A clear while the task runs changes the task instance's id alone. The stock executor's pods carry the parts
    of the key alone.
    """
    by_id = {request.ti_id: request for request in requests}
    by_key = {request.key: request for request in by_id.values()}
    best: dict[str, tuple[tuple[bool, int, str], AdoptionRequest, str, int]] = {}
    for pod in pods:
        request = _request_of(pod, by_id, by_key)
        attempt = _attempt_of(request, pod) if request is not None else None
        if request is None or attempt is None:
            continue
        metadata = pod["metadata"]
        rank = "deletionTimestamp" not in metadata, attempt, metadata.get("creationTimestamp") or ""
        if request.ti_id not in best or rank > best[request.ti_id][0]:
            best[request.ti_id] = rank, request, metadata["uid"], attempt
    return [(request, uid, attempt) for _, request, uid, attempt in best.values()]


def may_have_pod(
    own: Set[str] | None,
    searched: Set[str | None],
    refused: Set[str | None],
    configured: Set[str | None],
    former: Set[str | None],
) -> bool:
    """Return whether a task of which no pod was found may have one nevertheless. None is the whole cluster.

    ``own``: where its pod belongs, None if that is not known. ``searched``, ``refused``: the namespaces that were
    listed, and those that may not be. ``configured``: those of this executor. ``former``: those that the dead one
    watched. If the configuration no longer names one of them, it has changed, and the pod may be there.
    """
    if None in searched:
        return False
    return own is None or not own <= searched or bool((former & refused) - configured)


def _request_of(
    pod: Pod,
    by_id: Mapping[str, AdoptionRequest],
    by_key: Mapping[tuple[str, str, str, int, int], AdoptionRequest],
) -> AdoptionRequest | None:
    """Return the request that a pod may belong to, by the annotations alone."""
    annotations = annotations_of(pod)
    ti_id = annotations.get("task_instance_id", "")
    request = by_id.get(ti_id) or by_key.get(_task_key(annotations))
    if request is not None and ti_id and ti_id != request.ti_id and not request.unique_id:
        return None  # without a unique id, the pod's name cannot show that it is the same task before a clear
    return request


def _attempt_of(request: AdoptionRequest, pod: Pod) -> int | None:
    """Return which attempt of the request's workload a pod is, None if it is none of them."""
    metadata = pod["metadata"]
    labels = metadata.get("labels") or {}
    if not request.unique_id:
        # Several pods may have the same key, such as those before and after a deferral: the mark shows which is over.
        return None if labels.get("airflow_executor_done") == "True" else 0
    # The mark does not matter here: the id proves that the pod is of this very try, whose end is not recorded.
    task, own = request.workload.task, unique_id_of(pod)
    for attempt in range(_MAX_ATTEMPTS):
        unique_id = attempt_unique_id(request.unique_id, attempt)
        if own == unique_id or worker_name(replace(task, unique_id=unique_id)) == metadata["name"]:
            return attempt
    return None


def _task_key(annotations: Mapping[str, str]) -> tuple[str, str, str, int, int]:
    def number(name: str, default: int) -> int:
        text = annotations.get(name, "")
        return int(text) if text.lstrip("-").isdigit() else default

    dag_id, task_id, run_id = (annotations.get(name, "") for name in ("dag_id", "task_id", "run_id"))
    return dag_id, task_id, run_id, number("try_number", 0), number("map_index", -1)


@dataclass(slots=True)
class _Adoption:
    """How far the adoption of one executor's pods has come. Times in monotonic seconds."""

    watch: OrphanWatch
    configured: Set[str | None]
    """The namespaces of this executor's configuration; None: the whole cluster."""
    former: Set[str | None]
    """Those that the dead executor has watched, as far as it could save them."""
    began: float
    adopted: bool = False
    """Whether there were runs to adopt."""
    matched: tuple[frozenset[str | None], frozenset[str]] | None = None
    """The listed namespaces and the unique ids of the runs, at the last comparison."""
    released_at: float = 0.0
    """When the database was last asked which of the tasks have ended."""
    alive_asked_at: float = -math.inf
    search_at: float = -math.inf
    """No search among all pods before."""
    failed_searches: int = 0
    """In a row."""
    own: dict[WorkerRun, Set[str] | None] = field(default_factory=dict)
    """The namespaces where the pod of a run belongs; None: they could not be determined."""

    def is_new(self, listed: frozenset[str | None], runs: Iterable[str]) -> bool:
        """Return whether runs and listed namespaces must be compared.

        A run may wait for one namespace while another one is listed. To compare all pods at each poll would cost the
        event loop more than everything else.
        """
        before, self.matched = self.matched, (listed, frozenset(runs))
        return bool(listed) and self.matched != before

    def postpone_search(self, error: Exception | None, now: float) -> int:
        """Count a failed search, and set the time of the next one. Return the log level: a warning per outage."""
        self.failed_searches += 1
        self.own = {run: own for run, own in self.own.items() if own is not None}  # a template may be there next time
        self.search_at = now + pause_after(
            self.failed_searches, error, first=_FIRST_SEARCH_RETRY_S, ceiling=_MAX_SEARCH_RETRY_S
        )
        return logging.WARNING if self.failed_searches == 1 else logging.DEBUG


class PodAdopter:
    """Finds out what became of the runs at ADOPTING.

    ``housekeeper`` sweeps after each dead executor whose runs are all adopted.
    """

    def __init__(
        self,
        client: Client,
        lifecycle: RunLifecycle,
        settings: EngineSettings,
        database: MetadataDatabase,
        watcher: WorkerWatcher,
        housekeeper: Housekeeper,
        namespaces: WorkerNamespaces,
    ) -> None:
        self._client = client
        self._lifecycle = lifecycle
        self._registry = lifecycle.registry
        self._settings = settings
        self._database = database
        self._watcher = watcher
        self._housekeeper = housekeeper
        self._namespaces = namespaces
        own = {"airflow-worker": label_value(settings.executor_id), **deployment_label(settings.warm_secret)}
        self._own_labels = own
        self._requested = asyncio.Event()
        self._watches: dict[str, OrphanWatch] = {}
        self._failing: set[str] = set()
        """Executors whose last attempt failed."""
        self._relabelling = RequestQueue[WorkerRun](
            self._relabel, self._relabel_failed, AimdLimit(ceiling=settings.max_requests)
        )

    def wake(self) -> None:
        """Look for the pods of new runs at ADOPTING."""
        self._requested.set()

    async def run(self) -> None:
        """Adopt until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._relabelling.run())
            # A session that failed may have adopted pods without relabelling them.
            for run in self._registry.at(RunStage.CREATED, RunStage.RUNNING):
                if run.adoption is not None:
                    self._relabelling.put(run)
            # Watch before Airflow requests an adoption: etcd's compaction, by default every five minutes, makes a
            # resourceVersion too old to watch from, and the last state of pods that were deleted meanwhile is lost.
            for owner in await self._recent_owners():
                self._adopt_from(owner, group)
            self.wake()
            while True:
                await self._requested.wait()
                self._requested.clear()
                for owner in {run.adoption.owner for run in self._registry.at(RunStage.ADOPTING) if run.adoption}:
                    self._adopt_from(owner, group)

    async def _recent_owners(self) -> set[str]:
        """Return the executors other than this one that have watched in the last minutes."""
        try:
            positions = await self._namespaces.saved(_WATCH_AHEAD_S)
        except Exception as error:  # the watch begins with Airflow's request then
            log.warning("The watch positions of former schedulers could not be read: %s", error)
            return set()
        return {position.executor for position in positions} - {label_value(self._settings.executor_id)}

    def _adopt_from(self, owner: str, group: asyncio.TaskGroup) -> None:
        if owner not in self._watches:
            self._watches[owner] = watch = OrphanWatch(self._client, self._registry, self._watcher, owner)
            group.create_task(self._attempt(watch))

    async def _attempt(self, watch: OrphanWatch) -> None:
        try:
            await self._adopt_all(watch)
            self._failing.discard(watch.owner)
        except Exception:  # must not end the session: pods of other executors are adopted in the same task group
            level = logging.DEBUG if watch.owner in self._failing else logging.ERROR  # a traceback per outage
            message = "The pods of the former scheduler %s could not be adopted, retrying"
            log.log(level, message, watch.owner, exc_info=True)
            self._failing.add(watch.owner)
            await asyncio.sleep(_RETRY_S)
        # Not before the pause: without its entry, the next request would start a second watch.
        del self._watches[watch.owner]
        self.wake()  # for runs that are still at ADOPTING, or that were requested in this moment

    async def _adopt_all(self, watch: OrphanWatch) -> None:
        """Watch an executor's pods until all its runs are adopted, or until it turns out to be alive."""
        # An error is raised: without the positions, the namespaces of its pods may be unknown.
        saved = {
            position.namespace: position.version
            for position in await self._namespaces.saved()
            if position.executor == watch.owner
        }
        configured = await self._namespaces.configured()
        adoption = _Adoption(watch, configured, saved.keys(), began=_now(), released_at=_now())
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch.run(_starts(configured, saved)))
            while not await self._is_done(adoption):
                await self._adopt_known(adoption)
                await asyncio.sleep(_POLL_S)
            watching.cancel()
        if adoption.adopted:
            self._housekeeper.sweep_soon()

    async def _is_done(self, adoption: _Adoption) -> bool:
        """Return whether the executor needs no watch any more: after adoption, or when it is alive after all.

        Until Airflow requests the adoption, its pods are watched, so that the last state of none is missed.
        """
        owner, runs = adoption.watch.owner, self._registry.runs.values()
        if any(run.adoption is not None and run.adoption.owner == owner for run in runs):
            return False
        age = _now() - adoption.began
        if adoption.adopted or age > _WATCH_AHEAD_S:
            return True
        if age < _OUTDATED_HEARTBEAT_S or _now() - adoption.alive_asked_at < _ALIVE_EVERY_S:
            return False
        adoption.alive_asked_at = _now()
        return owner in map(label_value, await call_blocking(self._database.live_executors))

    def _adopting(self, owner: str) -> dict[str, WorkerRun]:
        """Return the runs at ADOPTING of a dead executor, by the task instance's id."""
        runs = self._registry.at(RunStage.ADOPTING)
        return {run.adoption.ti_id: run for run in runs if run.adoption is not None and run.adoption.owner == owner}

    async def _adopt_known(self, adoption: _Adoption) -> None:
        """Adopt the runs whose pod is known by now, and end those that have none in any namespace."""
        watch = adoption.watch
        runs, listed = self._adopting(watch.owner), watch.listed
        adoption.adopted = adoption.adopted or bool(runs and listed)
        if adoption.is_new(listed, (run.unique_id for run in runs.values())):
            await self._adopt_matching(runs, watch.pods(), watch.pod, watch)
        remaining = _still_adopting(runs)
        if remaining and watch.settled and _now() >= adoption.search_at:
            await self._follow_own_namespaces(remaining, adoption)
            if watch.settled and _now() >= adoption.search_at:
                await self._search_all_pods(remaining, adoption)
                remaining = _still_adopting(remaining)
        if remaining and _now() - adoption.released_at > _UNLISTED_S:
            adoption.released_at = _now()
            await self._release_settled(remaining, adoption)

    async def _adopt_matching(
        self,
        runs: Mapping[str, WorkerRun],
        pods: Iterable[Pod],
        pod: Callable[[str], Pod],
        watch: OrphanWatch,
    ) -> None:
        """Adopt those of ``pods`` that belong to ``runs``; ``pod`` returns a pod's newest state by its uid."""
        matches = match_pods(pods, [run.adoption for run in runs.values() if run.adoption is not None])
        for number, (request, uid, attempt) in enumerate(matches):
            self._adopt(runs[request.ti_id], pod(uid), attempt, gone=watch.last_state(uid) is not None)
            if number % _PODS_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _follow_own_namespaces(self, runs: Mapping[str, WorkerRun], adoption: _Adoption) -> None:
        """Watch the namespaces where the pods of these runs belong: the configuration does not name those of all tasks.

        Asked for runs without a pod alone: to compose the pods of thousands of tasks takes seconds.
        """
        unknown = [run for run in runs.values() if run not in adoption.own]
        if not unknown or None in adoption.watch.listed:
            return
        known_namespaces = {
            run: run.adoption.namespace for run in unknown if run.adoption is not None and run.adoption.namespace
        }
        try:
            computed = await self._namespaces.of_workloads(
                [run.workload for run in unknown if run not in known_namespaces]
            )
        except Exception as error:
            level = adoption.postpone_search(error, _now())
            log.log(level, "The namespaces of adopted tasks could not be read, retrying: %s", error)
            return
        for run in unknown:
            adoption.own[run] = own = {known_namespaces[run]} if run in known_namespaces else computed.get(run.workload)
            for namespace in own or ():
                adoption.watch.follow(namespace)

    async def _search_all_pods(self, runs: Mapping[str, WorkerRun], adoption: _Adoption) -> None:
        """Search among all worker pods: a pod may carry the label of an executor that died while it adopted.

        Ends the runs that have no pod, unless it may be where this executor may not look.
        """
        pods, searched, refused = PackedObjects(), set[str | None](), dict[str | None, CrosswindError]()
        labels = ",".join(f"{key}={value}" for key, value in WORKER_LABEL.items())
        for namespace in sorted(adoption.watch.namespaces, key=lambda name: name or ""):
            try:
                await self._client.list_mapped(PODS, pods.add, namespace=namespace, labels=labels)
            except CrosswindError as error:
                if is_transient(error):
                    level = adoption.postpone_search(error, _now())
                    log.log(level, "The pods of adopted tasks could not be listed, retrying: %s", error)
                    return
                refused[namespace] = error
            else:
                searched.add(namespace)
                if namespace is None:
                    break
        await self._adopt_matching(runs, map(as_pod, pods.values()), lambda uid: as_pod(pods[uid]), adoption.watch)
        kept = 0
        for run in _still_adopting(runs).values():
            if may_have_pod(adoption.own.get(run), searched, refused.keys(), adoption.configured, adoption.former):
                kept += 1
            else:
                self._lose(run)
        self._report_kept(kept, adoption, refused)

    def _report_kept(self, kept: int, adoption: _Adoption, refused: Mapping[str | None, CrosswindError]) -> None:
        """Report runs whose pods may be where this executor may not look: a second pod would run the task twice.

        Airflow ends a task without a worker by itself, by its heartbeat or ``task_queued_timeout``.
        """
        if not kept:
            adoption.failed_searches = 0
            return
        level = adoption.postpone_search(None, _now())
        places = [f"{namespace or 'all namespaces'}: {error}" for namespace, error in refused.items()]
        log.log(
            level,
            "No pods of %d tasks of the former scheduler %s were found. They are not scheduled again, because their "
            "pods may be in namespaces that could not be searched: %s",
            kept,
            adoption.watch.owner,
            "; ".join(places) or "those of their executor_config, which cannot be determined",
        )

    def _adopt(self, run: WorkerRun, pod: Pod, attempt: int, *, gone: bool) -> None:
        if run.stage is not RunStage.ADOPTING:
            return
        metadata, mounted = pod["metadata"], mounted_workload(pod)
        claim = (metadata.get("labels") or {}).get(CLAIM_LABEL)
        unique_id = unique_id_of(pod) or attempt_unique_id(run.unique_id, attempt)
        self._registry.replace_task(run, replace(run.task, unique_id=unique_id, executor_id=self._settings.executor_id))
        run.mark_created(_now())
        run.uid, run.attempt = metadata["uid"], attempt
        if claim is not None:
            run.claim = PodClaim("", "", _now())  # the row says whether its task has begun
        self._registry.set_pod(run, metadata["namespace"], metadata["name"])
        if mounted:
            self._lifecycle.use_secret(run, mounted.secret)
        self._lifecycle.pod_created(run)
        # A pod that left the old executor's selector was deleted if it has a deletionTimestamp. Otherwise a user has
        # relabelled it, and the request that sets our label finds out.
        if not gone:
            self._watcher.on_event(InformerEvent("ADDED", dict(pod), "list"))
        elif "deletionTimestamp" in metadata:
            run.adoption = None
            self._watcher.pod_gone(run, pod)
        if run.adoption is not None:
            self._relabelling.put(run)

    def _lose(self, run: WorkerRun) -> None:
        """End a run without a trace of a pod."""
        self._end(run, RunResult(failed=True, reason="PodLost", message=_LOST_MESSAGE, lost=True))

    def _end(self, run: WorkerRun, result: RunResult) -> None:
        """End a run for which no pod is looked for any longer."""
        if run.stage is not RunStage.ADOPTING:
            return
        run.adoption = None
        run.mark_pod_gone()
        if run.revoked:
            self._lifecycle.forget_if_done(run)
        else:
            self._lifecycle.end(run, result)

    async def _release_settled(self, runs: Mapping[str, WorkerRun], adoption: _Adoption) -> None:
        """Free the slots of tasks that have ended while their pods could not be looked for."""
        owner = adoption.watch.owner
        if not adoption.watch.settled:
            log.warning("The pods of the former scheduler %s cannot be listed; its tasks are kept", owner)
        try:
            states = await call_blocking(self._database.workload_states, [run.workload for run in runs.values()])
        except Exception as error:
            log.warning("The metadata database could not be asked about adopted tasks: %s", error)
            return
        ended = {DatabaseState.SETTLED, DatabaseState.DELETED}
        if adoption.watch.settled:  # its namespace refuses: there is no log to wait for, and the watch would not end
            ended.add(DatabaseState.SETTLED_AFTER_START)
        for run in runs.values():
            if states.get(run.workload, DatabaseState.SETTLED) in ended:
                self._end(run, RunResult(failed=False, message="ended while pods could not be listed"))

    async def _relabel(self, run: WorkerRun) -> None:
        """Set our labels. The patch names the uid, so that it never labels a new pod of the same name."""
        if run.pod_gone:
            run.adoption = None
            return
        metadata = {"uid": run.uid, "labels": self._own_labels}
        try:
            await self._client.patch(PODS, run.name, {"metadata": metadata}, namespace=run.namespace)
        except (NotFound, Conflict):  # it is gone; on a conflict another pod has its name
            await self._watcher.check_pod(run, self._last_known_state(run))
        # From now on the watcher reports the pod: it carries our label.
        run.adoption = None

    def _last_known_state(self, run: WorkerRun) -> Pod:
        states = (watch.last_state(run.uid) for watch in self._watches.values())
        unknown: Pod = {"metadata": {"name": run.name, "namespace": run.namespace}}
        return next(filter(None, states), unknown)

    def _relabel_failed(self, run: WorkerRun, error: Exception) -> float:
        log.warning("Pod %s is adopted but could not be relabelled yet: %s", run.pod_path, error)
        if not is_transient(error):  # the permission to patch pods may be granted later
            return _MAX_LABEL_RETRY_S
        failures = self._relabelling.failures(run)
        return pause_after(failures, error, first=_FIRST_LABEL_RETRY_S, ceiling=_MAX_LABEL_RETRY_S)


def _starts(configured: Collection[str | None], saved: Mapping[str | None, str]) -> dict[str | None, str]:
    """Return the namespaces to watch (None: all), each with the version to continue from, "" to list first.

    A former executor may have watched the whole cluster, which this one may not: the namespaces of the configuration
    are watched in any case.
    """
    if None in configured:
        return {None: saved.get(None, "")}
    return dict.fromkeys(configured, "") | dict(saved)


def _still_adopting(runs: Mapping[str, WorkerRun]) -> dict[str, WorkerRun]:
    return {ti_id: run for ti_id, run in runs.items() if run.stage is RunStage.ADOPTING}


def _now() -> float:
    return asyncio.get_running_loop().time()

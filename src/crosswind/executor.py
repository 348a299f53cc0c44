"""The executor that Airflow loads: ``[core] executor = crosswind.executor.KubernetesExecutor``.

Its methods run in the scheduler's thread and only move items between queues. Everything that waits for the network or
the database runs in the engine's threads, or in the threads of the event log.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID, uuid4

from airflow.configuration import conf
from airflow.executors.base_executor import BaseExecutor
from airflow.executors.workloads import ExecuteCallback, ExecuteTask, TestConnection
from airflow.executors.workloads.types import state_class_for_key
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState
from airflow.version import version as airflow_version

from crosswind.engine.column_text import storable
from crosswind.engine.engine import Engine
from crosswind.engine.priority_queue import PriorityQueue
from crosswind.engine.queue_limits import QueueLimits
from crosswind.engine.sealed_workload import owner_labels
from crosswind.engine.state import (
    LOCAL_EXECUTOR_PREFIX,
    WORKER_LABEL,
    AdoptionRequest,
    Outcome,
    SlotReleased,
    TaskEvent,
    Workload,
    WorkloadEnded,
)
from crosswind.engine.worker_pod import WorkerTask
from crosswind.errors import ConfigError
from crosswind.kube.credentials import import_credentials
from crosswind.pods.naming import is_unique_id, label_value
from crosswind.provider import config
from crosswind.provider.event_log import EventLog
from crosswind.provider.fleet_rows import DatabaseSnapshot, executor_key
from crosswind.provider.garbage_collection import tune_garbage_collector
from crosswind.provider.live_log import read_task_log
from crosswind.provider.log_store import DatabaseLogStore
from crosswind.provider.metadata_db import (
    CALLBACK_TASK,
    CONNECTION_TEST_DAG,
    AirflowMetadataDatabase,
    CallbackRef,
    TaskInstanceRef,
)
from crosswind.provider.pod_rows import DatabasePodHistory
from crosswind.provider.pod_views import DatabasePodViews
from crosswind.provider.stats import airflow_meter
from crosswind.provider.worker_payload import WorkerPayload, renew_token

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecutorWorkload
    from airflow.executors.workloads.types import WorkloadKey, WorkloadState
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy.orm import Session

__all__ = ["KubernetesExecutor"]

_MAX_PER_HEARTBEAT = 500
"""Workloads that one heartbeat hands to the engine at most."""
_TIME_BUDGET_S = 0.003
"""Seconds of a heartbeat for handing over workloads, and the same for taking outcomes; the rest waits for the next one.

The engine's thread competes for the interpreter lock meanwhile, so the heartbeat may take longer by the clock.
"""
_ITEMS_PER_CLOCK_CHECK = 50
_INFO_BYTES = 32_768
"""Of an event's text: core stores it, with a sentence of its own, in columns that take 65,535 bytes on MySQL."""


class KubernetesExecutor(BaseExecutor):
    """Runs each task instance in a pod of its own; the pod has ended when its base container has.

    Reads ``[kubernetes_executor]``, as the stock executor does, and ``[crosswind]``. ``parallelism``: number of slots;
    the default is ``[core] parallelism``, of the team if there is one.
    """

    supports_ad_hoc_ti_run = True
    supports_callbacks = True
    supports_connection_test = True
    supports_multi_team = True
    pre_assigns_external_executor_id: ClassVar[bool] = True

    def __init__(self, parallelism: int | None = None, team_name: str | None = None) -> None:
        super().__init__(team_name=team_name)
        self._event_log = EventLog()
        self._pod_history: DatabasePodHistory | None = None
        configured: int = self.conf.getint("core", "parallelism")  # type: ignore[no-untyped-call]
        self.parallelism = configured if parallelism is None else parallelism
        if self.parallelism <= 0:
            raise ValueError(f"parallelism must be greater than 0, not {self.parallelism}")
        self._engine: Engine | None = None
        self._database = AirflowMetadataDatabase(None)
        self._refusal = ""
        self._executor_id = ""
        self._pod_labels: Mapping[str, str] = WORKER_LABEL
        """Of all its pods; one mapping for all tasks."""
        self._token_lifetime = 0.0
        self._current: dict[WorkloadKey, Workload] = {}
        """The workloads that the engine has, by key."""
        self._queue_limits: QueueLimits[TaskInstanceKey, ExecuteTask] = QueueLimits({})
        self._priorities = PriorityQueue[TaskInstanceKey]()

    # --- life cycle ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the engine. Never raises: an error is logged, and each task fails with it."""
        if self._engine is not None:
            self._engine.start()
            return
        self._executor_id = f"{LOCAL_EXECUTOR_PREFIX}{uuid4().hex[:8]}" if self.job_id is None else str(self.job_id)
        self._emit_first_metrics()
        # Imports of this size would hold up the first heartbeats.
        import_credentials()
        try:
            settings = self._settings(self._executor_id)
            self._engine = self._make_engine(settings)
            self._engine.start()
            if settings.tune_garbage_collector:
                tune_garbage_collector()
        except ConfigError as error:
            self._refusal = f"Crosswind's configuration cannot be used:\n{error}"
            self.log.error("%s", self._refusal)
        except Exception as error:
            self._refusal = f"Crosswind's engine did not start: {type(error).__name__}: {error}"
            self.log.exception("Crosswind's engine did not start")

    def _emit_first_metrics(self) -> None:
        """Set up core's metrics client while there is only one thread; two threads would each connect a client."""
        self._emit_metrics(self.parallelism, 0, 0)  # type: ignore[no-untyped-call]

    def _settings(self, executor_id: str) -> config.ExecutorSettings:
        return config.read_executor_settings(self.conf, executor_id)

    def _make_engine(self, settings: config.ExecutorSettings) -> Engine:
        self.jwt_generator  # noqa: B018 - a cached property: created now, and not in the first heartbeat
        for sentence in config.options_without_effect(self.conf):
            self.log.info("%s", sentence)
        for problem in settings.warm_problems:
            self.log.error("All tasks start cold: %s", problem)
        self._pod_labels = {**WORKER_LABEL, **owner_labels(settings.engine.warm_secret, self.team_name or "")}
        self._token_lifetime = settings.engine.token_lifetime
        renew = functools.partial(renew_token, self.jwt_generator, self._token_lifetime)
        composer = settings.composer(config.pod_mutation())
        self._database = AirflowMetadataDatabase(
            self.job_id if isinstance(self.job_id, int) else None,
            renew,
            lambda task_config, queue: composer.loss_policy(task_config, queue).retries,
        )
        limits = {name: queue.max_pods for name, queue in settings.queues.items() if queue.max_pods}
        self._queue_limits = QueueLimits(limits, refresh_every=self._token_lifetime / 4)
        days = settings.engine.history_days
        self._pod_history = None if days is None else DatabasePodHistory(days)
        shows_pods = days is not None and self.job_id is not None
        # ``dag.test`` ends too soon for a pod that waits.
        warm = None if self.job_id is None else settings.engine.warm
        team = self.team_name or ""
        row_key = executor_key(self._executor_id, team)
        return Engine(
            replace(settings.engine, team=team, warm=warm),
            settings.kube,
            composer,
            self._database,
            settings.ending,
            DatabaseLogStore(),
            airflow_meter(conf, team),
            self._pod_history,
            DatabaseSnapshot(row_key) if shows_pods else None,
            DatabasePodViews(row_key) if shows_pods else None,
        )

    def end(self) -> None:
        """End the engine. Pods whose task runs go on; the next scheduler adopts them."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.stop()
            for outcome in engine.outcomes():
                self._handle(outcome)
        self._event_log.close()
        if self._pod_history is not None:
            self._pod_history.close()

    def terminate(self) -> None:
        """End the engine, as ``end`` does."""
        self.end()

    # --- workloads ----------------------------------------------------------------------------------------------------

    def queue_workload(self, workload: ExecutorWorkload, session: Session) -> None:
        """Queue a workload; a task gets its place in the order of priorities."""
        if isinstance(workload, ExecuteTask):
            key = workload.ti.key
            self.queued_tasks[key] = workload
            self._priorities.put(key, workload.ti.priority_weight)
        else:
            super().queue_workload(workload, session)

    def trigger_tasks(self, open_slots: int) -> None:
        """Hand queued tasks to the engine, highest priority first; the rest of a long queue waits for the next call."""
        super().trigger_tasks(min(open_slots, _MAX_PER_HEARTBEAT))
        if not self.queued_tasks:
            # Launched keys are removed when ``first`` passes over them, and there will be no call of it.
            self._priorities = PriorityQueue()

    def order_queued_tasks_by_priority(self) -> list[tuple[TaskInstanceKey, ExecuteTask]]:
        """Return the queued tasks that may be launched, highest priority first, without those beyond a queue's limit.

        Without limits, only as many as one heartbeat hands over.
        """
        queued = len(self.queued_tasks)
        count = queued if self._queue_limits.limits else min(_MAX_PER_HEARTBEAT, queued)
        keys = self._priorities.first(count, self.queued_tasks)
        if len(keys) == count:
            ordered = [(key, self.queued_tasks[key]) for key in keys]
        else:  # a task was put into queued_tasks without queue_workload
            ordered = super().order_queued_tasks_by_priority()
        if not self._queue_limits.limits:
            return ordered
        busy = (workload.task.queue for workload in self._current.values())
        return self._queue_limits.admit(ordered, lambda item: item.ti.queue, busy, time.monotonic())

    @property
    def slots_available(self) -> int:
        """Free slots; tasks that wait for their queue's limit occupy none."""
        return int(super().slots_available) + len(self._queue_limits)

    @property
    def slots_occupied(self) -> int:
        """Occupied slots, without tasks that wait for their queue's limit."""
        return int(super().slots_occupied) - len(self._queue_limits)

    def _process_workloads(self, workload_items: Sequence[ExecutorWorkload]) -> None:
        accepted: list[Workload] = []
        end = time.monotonic() + _TIME_BUDGET_S
        for item in workload_items:
            if len(accepted) % _ITEMS_PER_CLOCK_CHECK == _ITEMS_PER_CLOCK_CHECK - 1 and time.monotonic() > end:
                break  # it stays queued
            key = item.key
            self.queued_tasks.pop(key, None)  # type: ignore[arg-type]
            self.queued_callbacks.pop(key, None)  # type: ignore[arg-type]
            self.queued_connection_tests.pop(key, None)  # type: ignore[arg-type]
            self.running.add(key)
            try:
                workload = self._workload(key, item)
            except Exception as error:
                self.log.exception("The workload %s cannot be run", key)
                self._fail(key, f"The workload cannot be run: {type(error).__name__}: {error}")
                continue
            self._current[key] = workload
            accepted.append(workload)
        self._launch(accepted)

    def _launch(self, workloads: list[Workload]) -> None:
        if self._engine is None:
            for workload in workloads:
                self._fail(workload.key, self._refusal or "The executor was not started")  # type: ignore[arg-type]
        elif workloads:
            self._engine.launch(workloads)

    def _workload(self, key: WorkloadKey, item: ExecutorWorkload) -> Workload:
        if isinstance(item, ExecuteTask):
            ti = item.ti
            ti_id = str(ti.id)
            task = self._task(
                ti.dag_id,
                ti.task_id,
                ti.run_id,
                ti.try_number,
                ti.map_index,
                ti.external_executor_id,
                ti_id,
                ti.queue,
            )
            payload = self._payload(item, ti_id)
            return Workload(
                key,
                task,
                ti.priority_weight,
                payload,
                prepare=payload.serialize,
                config=ti.executor_config,
                log_path=item.log_path,
                ref=TaskInstanceRef(ti.id, ti.external_executor_id),
            )
        if isinstance(item, ExecuteCallback):
            callback = item.callback
            task = self._task(str(callback.data.get("dag_id") or "callback"), CALLBACK_TASK, str(callback.id))
            ref = CallbackRef(UUID(str(callback.id)))
            payload = self._payload(item, str(callback.id))
            return Workload(
                key,
                task,
                float("inf"),
                payload,
                prepare=payload.serialize,
                runs_task=False,
                exit_decides=True,
                log_path=item.log_path,
                ref=ref,
            )
        assert isinstance(item, TestConnection)
        test_id = str(item.connection_test_id)
        task = self._task(CONNECTION_TEST_DAG, item.connection_id, test_id, queue=item.queue or "default")
        payload = self._payload(item, test_id)
        return Workload(key, task, float("inf"), payload, prepare=payload.serialize, runs_task=False)

    def _task(
        self,
        dag_id: str,
        task_id: str,
        run_id: str,
        try_number: int = 1,
        map_index: int | None = -1,
        external_id: str | None = None,
        ti_id: str = "",
        queue: str = "default",
    ) -> WorkerTask:
        return WorkerTask(
            dag_id=dag_id,
            task_id=task_id,
            run_id=run_id,
            try_number=try_number,
            map_index=-1 if map_index is None else map_index,
            unique_id=external_id if external_id and is_unique_id(external_id) else str(uuid4()),
            executor_id=self._executor_id,
            queue=queue,
            ti_id=ti_id,
            airflow_version=airflow_version,
            labels=self._pod_labels,
        )

    def _payload(self, item: ExecutorWorkload, subject: str) -> WorkerPayload:
        return WorkerPayload(self.jwt_generator, self._token_lifetime, item, subject)

    def sync(self) -> None:
        """Handle the engine's outcomes without waiting; the rest of very many waits for the next heartbeat."""
        if self._engine is None:
            return
        end = time.monotonic() + _TIME_BUDGET_S
        while outcomes := self._engine.outcomes(_ITEMS_PER_CLOCK_CHECK):
            for outcome in outcomes:
                self._handle(outcome)
            if time.monotonic() > end:
                break
        self._refresh_held_tasks(self._engine)
        if not self._engine.alive and self._current:
            self.log.error("Crosswind's engine thread has died; restarting it")
            self._engine.start()

    def _refresh_held_tasks(self, engine: Engine) -> None:
        """Report why tasks are held back, and keep Airflow from failing them as stuck in queued."""
        now = time.monotonic()
        engine.held_back = len(self._queue_limits)
        for key, reason in self._queue_limits.events(now):
            self.log_task_event(event="pod waits", extra=reason, ti_key=key)
        if held := self._queue_limits.to_refresh(now):
            ids = [item.ti.id for item in held]
            engine.call_in_background(lambda: self._database.keep_queued(ids))

    def _handle(self, outcome: Outcome) -> None:
        key: WorkloadKey = outcome.workload.key  # type: ignore[assignment]
        if self._current.get(key, outcome.workload) is not outcome.workload:
            return  # of an earlier pod: the key runs again by now
        if isinstance(outcome, TaskEvent):
            self.log_task_event(event=outcome.event, extra=outcome.message, ti_key=key)
            return
        self._current.pop(key, None)
        if isinstance(outcome, SlotReleased):
            self.running.discard(key)
        elif isinstance(outcome, WorkloadEnded):
            self._end(key, state_class_for_key(key)(outcome.state.value), outcome.message)

    def _fail(self, key: WorkloadKey, message: str) -> None:
        self._current.pop(key, None)
        self.log_task_event(event="pod failed", extra=message, ti_key=key)
        self._end(key, state_class_for_key(key).FAILED, message)

    def _end(self, key: WorkloadKey, state: WorkloadState, info: Any = None, remove_running: bool = True) -> None:
        """Put a final state into core's buffer. Core stores ``info`` unchecked: a refused text ends the scheduler."""
        text = storable(info, most_bytes=_INFO_BYTES) if info is not None else None
        super().change_state(key, state, text, remove_running)

    def log_task_event(self, *, event: str, extra: str, ti_key: WorkloadKey) -> None:
        """Write an event into the task's event log, past core's own queue: ``event_log`` says why."""
        if not isinstance(ti_key, TaskInstanceKey):
            self.log.debug("Skipping log_task_event for callback key %s (event=%s)", ti_key, event)
            return
        self._event_log.put(event, extra, ti_key)

    # --- called by core -----------------------------------------------------------------------------------------------

    def change_state(
        self, key: WorkloadKey, state: WorkloadState, info: Any = None, remove_running: bool = True
    ) -> None:
        """End a task as core decided (lost heartbeats, stuck in queued), and delete its pod."""
        self._end(key, state, info, remove_running)
        if remove_running:
            self._forget(key)

    def revoke_task(self, *, ti: TaskInstance) -> None:
        """End a task that is stuck in queued, without an outcome; an event says what it waited for."""
        reason = self._queue_limits.why(ti.key) or (self._engine.waits_for(ti.key) if self._engine is not None else "")
        if reason:
            self.log_task_event(event="pod waits", extra=f"Until it was given up: {reason}", ti_key=ti.key)
        self.queued_tasks.pop(ti.key, None)
        self._priorities.discard(ti.key)
        self.running.discard(ti.key)
        self._forget(ti.key)

    def fail_connection_test(self, key: Any) -> None:
        """Drop a connection test that took too long."""
        super().fail_connection_test(key)
        self._forget(key)

    def _forget(self, key: WorkloadKey) -> None:
        self._current.pop(key, None)
        self._queue_limits.discard(key)  # type: ignore[arg-type]
        if self._engine is not None:
            self._engine.revoke(key)

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Adopt the tasks of dead schedulers; waits for no pod.

        All of them count as adopted. The engine then finds out which have a pod, and reschedules the others, as core
        does with the task instances that this method returns. Without an engine, running tasks are not returned: their
        workers report to Airflow by themselves, and a second pod would run the task twice.
        """
        if self._engine is None:
            return [ti for ti in tis if ti.state == TaskInstanceState.QUEUED]
        requests = self._adoption_requests(tis)
        new = [request for request in requests if not self._is_adopting(request)]
        for request in new:
            key: TaskInstanceKey = request.workload.key  # type: ignore[assignment]
            self.running.add(key)
            self._current[key] = request.workload
        if new:
            self._engine.adopt(new)
        adopted = {request.ti_id for request in requests}
        return [ti for ti in tis if str(ti.id) not in adopted]

    def _is_adopting(self, request: AdoptionRequest) -> bool:
        """Return whether this very run is adopted already: core calls again after a database error."""
        known = self._current.get(request.workload.key)  # type: ignore[call-overload]
        return known is not None and known.ref == request.workload.ref

    def _adoption_requests(self, tis: Sequence[TaskInstance]) -> list[AdoptionRequest]:
        """Return a request for each task instance that a job has queued."""
        owners = self._database.owners(ti.id for ti in tis)
        rows = ((ti, *owners.get(ti.id, (None, 0, ""))) for ti in tis)
        return [
            self._adoption_request(ti, owner, try_number, queue)
            for ti, owner, try_number, queue in rows
            if owner is not None
        ]

    def _adoption_request(self, ti: TaskInstance, owner: int, try_number: int, queue: str | None) -> AdoptionRequest:
        external_id = ti.external_executor_id
        task = self._task(
            ti.dag_id, ti.task_id, ti.run_id, try_number, ti.map_index, external_id, str(ti.id), queue or "default"
        )
        key = TaskInstanceKey(ti.dag_id, ti.task_id, ti.run_id, try_number, ti.map_index)
        renew = functools.partial(renew_token, self.jwt_generator, self._token_lifetime, str(ti.id))
        ref = TaskInstanceRef(ti.id, external_id, former_job=owner)
        return AdoptionRequest(
            str(ti.id),
            (ti.dag_id, ti.task_id, ti.run_id, try_number, ti.map_index),
            Workload(key, task, 0.0, None, ref=ref, renew=renew),
            owner=label_value(str(owner)),
            unique_id=external_id if external_id and task.unique_id == external_id else "",
        )

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[str]]:
        """Return the origin of a running task's log, and its last lines. Works without ``start``."""
        return self.read_pod_log(ti, try_number, whole=False)

    def read_pod_log(
        self, ti: Any, try_number: int, *, whole: bool = True, stored: Collection[str] = ()
    ) -> tuple[list[str], list[str]]:
        """Return the same of a task in any state, as long as its pod exists; the last lines or the ``whole`` log.

        ``stored``: uids of pods whose log is in the archive.
        """
        return read_task_log(self.conf, self.team_name, self._executor_id, ti, try_number, whole=whole, stored=stored)

    def debug_dump(self) -> None:
        """Log the queued and running workloads, and the engine's figures."""
        super().debug_dump()  # type: ignore[no-untyped-call]
        figures: Mapping[str, object] = self._engine.figures() if self._engine is not None else {}
        self.log.info("crosswind engine: %s", figures or self._refusal or "not started")
        if self._queue_limits.limits:
            self.log.info("crosswind tasks held back by their queue's limit: %s", self._queue_limits.held_by_queue())

"""Airflow's face of the engine: ``[core] executor = crosswind.executor.KubernetesExecutor``.

The scheduler's thread only swaps queues here; whatever waits on network or database lives in the engine's threads.
"""

from __future__ import annotations

import functools
import gc
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID, uuid4

from airflow.configuration import conf
from airflow.executors.base_executor import BaseExecutor, ExecutorConf
from airflow.executors.workloads import ExecuteCallback, ExecuteTask, TestConnection
from airflow.executors.workloads.types import state_class_for_key
from airflow.models.dag import DagModel
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState
from airflow.version import version as airflow_version

from crosswind import config
from crosswind.archive import DatabaseArchive
from crosswind.errors import ConfigError, CrosswindError
from crosswind.event_log import EventLog
from crosswind.kube.connecting import import_credentials
from crosswind.ledger import CALLBACK_TASK, CONNECTION_TEST_DAG, CallbackClaim, DatabaseLedger, TaskClaim
from crosswind.meters import airflow_meter
from crosswind.pods.naming import is_unique_id, label_value, task_labels, team_label
from crosswind.pods.workers import WorkerTask, worker_namespace
from crosswind.runs.engine import Engine
from crosswind.runs.priorities import Priorities
from crosswind.runs.reading import read_log
from crosswind.runs.texts import storable
from crosswind.runs.threads import run_apart
from crosswind.runs.turns import Turns
from crosswind.runs.workloads import LOCAL, WORKER_LABEL, Claim, Ended, Notice, Outcome, Released, Workload

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.tokens import JWTGenerator
    from airflow.executors.workloads import ExecutorWorkload
    from airflow.executors.workloads.types import WorkloadKey, WorkloadState
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy.orm import Session

__all__ = ["KubernetesExecutor"]

_LOG_TIMEOUT = 20.0
_PER_HEARTBEAT = 500
"""Workloads that one heartbeat hands over at most."""
_BUDGET = 0.003
"""Seconds of a heartbeat for handing over, and as many for taking outcomes: what is left has its turn in the next.

The engine's thread wants the interpreter meanwhile, so the clock may show more.
"""
_INFO_BYTES = 32_768
"""Of an event's text: core puts it, with a sentence of its own, into columns that take 65,535 bytes on MySQL."""
_SLICE = 50
"""Workloads, or outcomes, between two looks at the clock."""


class KubernetesExecutor(BaseExecutor):
    """Runs each task instance in a pod of its own, judged by its base container alone.

    Reads ``[kubernetes_executor]``, as stock does, and ``[crosswind]``. ``parallelism``: slots; default ``[core]
    parallelism``, of the team if there is one.
    """

    supports_ad_hoc_ti_run = True
    supports_callbacks = True
    supports_connection_test = True
    supports_multi_team = True
    pre_assigns_external_executor_id: ClassVar[bool] = True

    def __init__(self, parallelism: int | None = None, team_name: str | None = None) -> None:
        super().__init__(team_name=team_name)
        self._event_log = EventLog()
        configured: int = self.conf.getint("core", "parallelism")  # type: ignore[no-untyped-call]
        self.parallelism = configured if parallelism is None else parallelism
        if self.parallelism <= 0:
            raise ValueError(f"parallelism must be greater than 0, is {self.parallelism}")
        self._engine: Engine | None = None
        self._ledger = DatabaseLedger(None)
        self._refusal = ""
        self._executor_id = ""
        self._token_lifetime = 0.0
        self._current: dict[WorkloadKey, Workload] = {}
        self._turns: Turns[TaskInstanceKey, ExecuteTask] = Turns({})
        self._priorities = Priorities[TaskInstanceKey]()

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the engine. Never raises: what is wrong is logged, and each task fails with it."""
        if self._engine is not None:
            self._engine.start()
            return
        self._executor_id = f"{LOCAL}{uuid4().hex[:8]}" if self.job_id is None else str(self.job_id)
        self._tell_first()
        try:
            self._engine = self._make_engine()
            self._engine.start()
        except ConfigError as error:
            self._refusal = f"Crosswind's configuration cannot be used:\n{error}"
            self.log.error("%s", self._refusal)
        except Exception as error:
            self._refusal = f"Crosswind's engine did not start: {type(error).__name__}: {error}"
            self.log.exception("Crosswind's engine did not start")
        self._warm_up()

    def _tell_first(self) -> None:
        """Have core read its table of metrics, and connect, while there is one thread: two would connect twice."""
        self._emit_metrics(self.parallelism, 0, 0)  # type: ignore[no-untyped-call]

    def _warm_up(self) -> None:
        """Do now what would hold up heartbeats."""
        import_credentials()
        _freeze()

    def _make_engine(self) -> Engine:
        settings = self._settings(self._executor_id)
        self.jwt_generator  # noqa: B018 - made now, not in the first heartbeat
        for sentence in config.without_effect(self.conf):
            self.log.info("%s", sentence)
        engine = replace(settings.engine, team=self.team_name or "")
        renew = functools.partial(_renew, self.jwt_generator, settings.engine.token_lifetime)
        self._ledger = DatabaseLedger(self.job_id if isinstance(self.job_id, int) else None, renew)
        self._token_lifetime = settings.engine.token_lifetime
        limits = {name: queue.max_pods for name, queue in settings.queues.items() if queue.max_pods}
        self._turns = Turns(limits, keep_every=self._token_lifetime / 4)
        composer = settings.composer(config.pod_mutation())
        archive, meter = DatabaseArchive(), airflow_meter(conf)
        return Engine(engine, settings.kube, composer, self._ledger, settings.ending, archive, meter)

    def _settings(self, executor_id: str) -> config.ExecutorSettings:
        return _read_settings(self.conf, executor_id)

    def end(self) -> None:
        """End the engine. Pods whose task runs go on; the next scheduler adopts them."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.stop()
            for outcome in engine.outcomes():
                self._take(outcome)
        self._event_log.close()

    def terminate(self) -> None:
        """Do what ``end`` does."""
        self.end()

    # --- work ---------------------------------------------------------------------------------------------------------

    def queue_workload(self, workload: ExecutorWorkload, session: Session) -> None:
        """Take a workload from core; a task gets its place in the order of priorities."""
        if isinstance(workload, ExecuteTask):
            key = workload.ti.key
            self.queued_tasks[key] = workload
            self._priorities.put(key, workload.ti.priority_weight)
        else:
            super().queue_workload(workload, session)

    def trigger_tasks(self, open_slots: int) -> None:
        """Hand over what is queued, highest priority first; of a long queue the rest with the next heartbeats."""
        super().trigger_tasks(min(open_slots, _PER_HEARTBEAT))
        if not self.queued_tasks:
            self._priorities = Priorities()  # what was launched is forgotten at the next look, and there is none

    def order_queued_tasks_by_priority(self) -> list[tuple[TaskInstanceKey, ExecuteTask]]:
        """Return the queued tasks that may be launched, highest priority first: not those beyond a queue's limit.

        Where no queue has a limit, so many as one heartbeat hands over.
        """
        most = len(self.queued_tasks) if self._turns.limits else min(_PER_HEARTBEAT, len(self.queued_tasks))
        keys = self._priorities.first(most, self.queued_tasks)
        if len(keys) == most:
            ordered = [(key, self.queued_tasks[key]) for key in keys]
        else:  # something came past queue_workload
            ordered = super().order_queued_tasks_by_priority()
        if not self._turns.limits:
            return ordered
        busy = (workload.task.queue for workload in self._current.values())
        return self._turns.choose(ordered, lambda item: item.ti.queue, busy, time.monotonic())

    @property
    def slots_available(self) -> int:
        """How many more workloads it takes; tasks that wait for their queue's limit take no slot."""
        return int(super().slots_available) + len(self._turns)

    @property
    def slots_occupied(self) -> int:
        """How many workloads it has, but for tasks that wait for their queue's limit."""
        return int(super().slots_occupied) - len(self._turns)

    def _process_workloads(self, workload_items: Sequence[ExecutorWorkload]) -> None:
        accepted: list[Workload] = []
        end = time.monotonic() + _BUDGET
        for item in workload_items:
            if len(accepted) % _SLICE == _SLICE - 1 and time.monotonic() > end:
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
            self._engine.soon(lambda: _write(workloads))
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
            return Workload(
                key,
                task,
                ti.priority_weight,
                self._payload(item, ti_id),
                config=ti.executor_config,
                log_path=item.log_path,
                claim=TaskClaim(ti.id, ti.external_executor_id),
            )
        if isinstance(item, ExecuteCallback):
            callback = item.callback
            task = self._task(str(callback.data.get("dag_id") or "callback"), CALLBACK_TASK, str(callback.id))
            claim = CallbackClaim(UUID(str(callback.id)))
            payload = self._payload(item, str(callback.id))
            return Workload(key, task, float("inf"), payload, exit_decides=True, log_path=item.log_path, claim=claim)
        assert isinstance(item, TestConnection)
        test_id = str(item.connection_test_id)
        task = self._task(CONNECTION_TEST_DAG, item.connection_id, test_id, queue=item.queue or "default")
        return Workload(key, task, float("inf"), self._payload(item, test_id))

    def _task(
        self,
        dag_id: str,
        task_id: str,
        run_id: str,
        try_number: int = 1,
        map_index: int | None = -1,
        unique: str | None = None,
        ti_id: str = "",
        queue: str = "default",
    ) -> WorkerTask:
        return WorkerTask(
            dag_id=dag_id,
            task_id=task_id,
            run_id=run_id,
            try_number=try_number,
            map_index=-1 if map_index is None else map_index,
            unique_id=unique if unique and is_unique_id(unique) else str(uuid4()),
            executor_id=self._executor_id,
            queue=queue,
            ti_id=ti_id,
            airflow_version=airflow_version,
            labels={**WORKER_LABEL, **team_label(self.team_name or "")},
        )

    def _payload(self, item: ExecutorWorkload, subject: str) -> Callable[[], bytes]:
        """Return what mints the worker's JSON: each call gives a token that is valid from now on."""
        return _Payload(self.jwt_generator, self._token_lifetime, item, subject)

    def sync(self) -> None:
        """Take the engine's outcomes, of very many the rest with the next heartbeats. Waits for nothing."""
        if self._engine is None:
            return
        end = time.monotonic() + _BUDGET
        while outcomes := self._engine.outcomes(_SLICE):
            for outcome in outcomes:
                self._take(outcome)
            if time.monotonic() > end:
                break
        self._look_after_held(self._engine)
        if not self._engine.alive and self._current:
            self.log.error("Crosswind's engine thread is gone; it is started again")
            self._engine.start()

    def _look_after_held(self, engine: Engine) -> None:
        """Tell why tasks are held back, and keep Airflow from failing them as stuck: it is we who hold them."""
        now = time.monotonic()
        engine.held_back = len(self._turns)
        for key, reason in self._turns.notices(now):
            self.log_task_event(event="pod waits", extra=reason, ti_key=key)
        if kept := self._turns.to_keep(now):
            ids = [item.ti.id for item in kept]
            engine.aside(lambda: self._ledger.keep_queued(ids))

    def _take(self, outcome: Outcome) -> None:
        key: WorkloadKey = outcome.workload.key  # type: ignore[assignment]
        if self._current.get(key, outcome.workload) is not outcome.workload:
            return  # of a pod before: the key runs again by now
        if isinstance(outcome, Notice):
            self.log_task_event(event=outcome.event, extra=outcome.message, ti_key=key)
            return
        self._current.pop(key, None)
        if isinstance(outcome, Released):
            self.running.discard(key)
        elif isinstance(outcome, Ended):
            self._end(key, state_class_for_key(key)(outcome.state.value), outcome.message)

    def _fail(self, key: WorkloadKey, message: str) -> None:
        self._current.pop(key, None)
        self.log_task_event(event="pod failed", extra=message, ti_key=key)
        self._end(key, state_class_for_key(key).FAILED, message)

    def _end(self, key: WorkloadKey, state: WorkloadState, info: Any = None, remove_running: bool = True) -> None:
        """Put an end into core's buffer. Core stores ``info``, and has no guard: a text that is refused ends it."""
        text = storable(info, most_bytes=_INFO_BYTES) if info is not None else None
        super().change_state(key, state, text, remove_running)

    def log_task_event(self, *, event: str, extra: str, ti_key: WorkloadKey) -> None:
        """Have an event written into the task's event log. Never by core's own queue: see ``event_log``."""
        if not isinstance(ti_key, TaskInstanceKey):
            self.log.debug("Skipping log_task_event for callback key %s (event=%s)", ti_key, event)
            return
        self._event_log.put(event, extra, ti_key)

    # --- what core asks for -------------------------------------------------------------------------------------------

    def change_state(
        self, key: WorkloadKey, state: WorkloadState, info: Any = None, remove_running: bool = True
    ) -> None:
        """Take core's word that a task is over (lost heartbeat, stuck in queued), and delete its pod."""
        self._end(key, state, info, remove_running)
        if remove_running:
            self._forget(key)

    def revoke_task(self, *, ti: TaskInstance) -> None:
        """End a task that is stuck in queued, without an event for core; the author is told what it waited for."""
        waited = self._turns.why(ti.key) or (self._engine.waits_for(ti.key) if self._engine is not None else "")
        if waited:
            self.log_task_event(event="pod waits", extra=f"Until it was given up: {waited}", ti_key=ti.key)
        self.queued_tasks.pop(ti.key, None)
        self._priorities.drop(ti.key)
        self.running.discard(ti.key)
        self._forget(ti.key)

    def fail_connection_test(self, key: Any) -> None:
        """Drop a connection test that took too long."""
        super().fail_connection_test(key)
        self._forget(key)

    def _forget(self, key: WorkloadKey) -> None:
        self._current.pop(key, None)
        self._turns.drop(key)  # type: ignore[arg-type]
        if self._engine is not None:
            self._engine.revoke(key)

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Take over what schedulers that are no more have left; waits for no pod.

        Claimed is all of it. The engine finds out afterwards what has a pod, and has those that have none scheduled
        once more, as core does with what is returned here. Without an engine, tasks that run are left alone: they
        report to Airflow themselves, and another one beside them would be a second run.
        """
        if self._engine is None:
            return [ti for ti in tis if ti.state == TaskInstanceState.QUEUED]
        claims = self._claims(tis)
        new = [claim for claim in claims if not self._has(claim)]
        for claim in new:
            key: TaskInstanceKey = claim.workload.key  # type: ignore[assignment]
            self.running.add(key)
            self._current[key] = claim.workload
        if new:
            self._engine.adopt(new)
        claimed = {claim.ti_id for claim in claims}
        return [ti for ti in tis if str(ti.id) not in claimed]

    def _has(self, claim: Claim) -> bool:
        """Whether this very run is claimed already, as when core tries once more after a trouble with the database."""
        known = self._current.get(claim.workload.key)  # type: ignore[call-overload]
        return known is not None and known.claim == claim.workload.claim

    def _claims(self, tis: Sequence[TaskInstance]) -> list[Claim]:
        owners = self._ledger.owners(ti.id for ti in tis)
        found = ((ti, *owners.get(ti.id, (None, 0, ""))) for ti in tis)
        return [self._claim(ti, owner, number, queue) for ti, owner, number, queue in found if owner is not None]

    def _claim(self, ti: TaskInstance, owner: int, try_number: int, queue: str | None) -> Claim:
        unique = ti.external_executor_id
        task = self._task(
            ti.dag_id, ti.task_id, ti.run_id, try_number, ti.map_index, unique, str(ti.id), queue or "default"
        )
        key = TaskInstanceKey(ti.dag_id, ti.task_id, ti.run_id, try_number, ti.map_index)
        renew = functools.partial(_renew, self.jwt_generator, self._token_lifetime, str(ti.id))
        workload = Workload(key, task, 0.0, None, claim=TaskClaim(ti.id, unique, former=owner), renew=renew)
        return Claim(
            str(ti.id),
            (ti.dag_id, ti.task_id, ti.run_id, try_number, ti.map_index),
            workload,
            owner=label_value(str(owner)),
            unique=unique if unique and task.unique_id == unique else "",
        )

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[str]]:
        """Return where the log of a running task is from, and its last lines. Also where ``start`` was never called."""
        return self.read_pod_log(ti, try_number, whole=False)

    def read_pod_log(self, ti: Any, try_number: int, *, whole: bool = True) -> tuple[list[str], list[str]]:
        """Return the same of a task in any state, as long as its pod is there; the last lines or the ``whole`` log."""
        try:
            settings = _read_settings(self._conf_of(ti), self._executor_id)
            labels = task_labels(
                dag_id=ti.dag_id,
                task_id=ti.task_id,
                run_id=ti.run_id,
                try_number=try_number,
                map_index=-1 if ti.map_index is None else ti.map_index,
            )
            namespaces = self._namespaces(settings, ti)
            unique, lines = ti.external_executor_id, None if whole else settings.log_lines
            messages, text = run_apart(
                lambda: read_log(settings.kube, namespaces, labels, unique=unique, lines=lines), _LOG_TIMEOUT
            )
        except (CrosswindError, TimeoutError) as error:
            return [f"The pod's log cannot be read: {error or 'no answer in time'}"], [""]
        return messages, [text]

    def _conf_of(self, ti: Any) -> ExecutorConf:
        """Return the configuration of a task's team: Airflow asks the global executor for the logs of all teams."""
        if self.team_name is not None or not conf.getboolean("core", "multi_team", fallback=False):
            return self.conf
        team = DagModel.get_team_name(ti.dag_id)
        return ExecutorConf(team) if team else self.conf

    def _namespaces(self, settings: config.ExecutorSettings, ti: TaskInstance) -> set[str | None]:
        """Return the namespaces where a task's pod may be."""
        composer = settings.composer()
        namespaces = set(settings.engine.namespaces)
        try:
            template, override = composer.choose(ti.executor_config, ti.queue or "")
            namespaces.add(worker_namespace(template, override, settings.worker))
        except ConfigError as error:
            self.log.debug("The namespace of %s is guessed: %s", ti, error)
        return namespaces

    def debug_dump(self) -> None:
        """Write what is queued and running into the log."""
        super().debug_dump()  # type: ignore[no-untyped-call]
        figures: Mapping[str, object] = self._engine.figures() if self._engine is not None else {}
        self.log.info("crosswind engine: %s", figures or self._refusal or "not started")
        if self._turns.limits:
            self.log.info("crosswind tasks held back by their queue's limit: %s", self._turns.figures())


def _read_settings(chosen: ExecutorConf, executor_id: str) -> config.ExecutorSettings:
    environment = dict(config.worker_environment(chosen, conf))
    return config.read_settings(chosen, executor_id, environment=environment, shared=conf)


class _Payload:
    """The worker's JSON, with a token that is minted by the call. Of the workload it keeps the text alone."""

    __slots__ = ("_generator", "_item", "_lifetime", "_parts", "_subject")

    def __init__(self, generator: JWTGenerator, lifetime: float, item: ExecutorWorkload, subject: str) -> None:
        self._generator, self._lifetime, self._subject = generator, lifetime, subject
        self._item: ExecutorWorkload | None = item
        self._parts = b"", b""

    def write(self) -> None:
        """Turn the workload into text."""
        if self._item is not None:
            text = self._item.model_copy(update={"token": _TOKEN}).model_dump_json().encode()
            before, _, after = text.partition(_TOKEN.encode())
            self._parts, self._item = (before, after), None

    def __call__(self) -> bytes:
        self.write()
        extras = {"sub": self._subject, "scope": "workload"}
        token = self._generator.generate(extras=extras, valid_for=self._lifetime)
        return token.encode().join(self._parts)


def _write(workloads: Iterable[Workload]) -> None:
    """Turn workloads into text while they wait: the garbage collector, which stops all threads, has less to walk then.

    Not in the scheduler's thread, which made them.
    """
    for workload in workloads:
        if isinstance(workload.payload, _Payload):
            workload.payload.write()


_TOKEN = uuid4().hex
"""Stands for the token in the text; nothing else in it can be this."""


def _renew(generator: JWTGenerator, lifetime: float, subject: str, payload: bytes) -> bytes:
    token = generator.generate(extras={"sub": subject, "scope": "workload"}, valid_for=lifetime)
    return json.dumps(json.loads(payload) | {"token": token}).encode()


_USUAL_FULL, _RARE_FULL = 10, 50
"""Collections of the middle generation, of some 7,000 new objects each, until there may be a full one."""


@functools.cache
def _freeze() -> None:
    """Keep the garbage collector, once per process, from walking all of Airflow again and again (150 ms, all threads).

    What is loaded by now stays loaded anyway. Python walks through all objects once a quarter of them is new; what is
    frozen does not count for it, and thousands of tasks that wait would be walked every few seconds. Full walks are
    made as rare as they would be with all that Airflow has loaded, unless the deployment has a threshold of its own.
    """
    gc.collect()
    gc.freeze()
    young, middle, full = gc.get_threshold()
    if full == _USUAL_FULL:
        gc.set_threshold(young, middle, _RARE_FULL)

"""The contract of an executor in Airflow 3.3, without a cluster."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from airflow.executors import base_executor, workloads
from airflow.executors.workloads.callback import CallbackDTO, CallbackFetchMethod
from airflow.models.callback import CallbackKey
from airflow.models.connection_test import ConnectionTestKey
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.team import Team
from airflow.providers_manager import ProvidersManager
from airflow.utils.session import create_session
from airflow.utils.state import CallbackState, TaskInstanceState

from crosswind.engine.queue_limits import QueueLimits
from crosswind.engine.state import FinalState, SlotReleased, TaskEvent, WorkloadEnded
from crosswind.executor import KubernetesExecutor
from crosswind.provider import cli_commands, get_provider_info
from deadlines import untraced


def callback() -> workloads.ExecuteCallback:
    return workloads.ExecuteCallback(
        callback=CallbackDTO(
            id=str(uuid.uuid4()), fetch_method=CallbackFetchMethod.IMPORT_PATH, data={"path": "a.b", "dag_run_id": 1}
        ),
        dag_rel_path=Path("dag.py"),
        bundle_info=workloads.BundleInfo(name="dags-folder"),
        log_path="callback.log",
        token="",
    )


def connection_test(queue: str | None = None) -> workloads.TestConnection:
    test_id = uuid.uuid4()
    return workloads.TestConnection(connection_test_id=test_id, connection_id="db", timeout=60, queue=queue, token="")


class Engine:
    """Records workloads, and returns the outcomes that a test puts in."""

    alive = True

    def __init__(self) -> None:
        self.launched: list[Any] = []
        self.revoked: list[Any] = []
        self.box: list[Any] = []

    def launch(self, items: list[Any]) -> None:
        self.launched += items
        for item in items:
            item.prepare()

    def revoke(self, key: Any) -> None:
        self.revoked.append(key)

    def outcomes(self, most: int | None = None) -> list[Any]:
        box, self.box = self.box[:most], self.box[len(self.box[:most]) :]
        return box

    def waits_for(self, key: Any) -> str:
        return ""

    def call_in_background(self, work: Any) -> None:
        work()

    def stop(self) -> None:
        pass


@pytest.fixture
def executor() -> Iterator[KubernetesExecutor]:
    """An executor with an engine that does nothing by itself."""
    executor = KubernetesExecutor(parallelism=4)
    executor._engine = Engine()  # type: ignore[assignment]
    executor._token_lifetime = 60.0
    yield executor
    executor._event_log.close()  # or its thread writes rows into the database of the tests that follow


def queue(executor: KubernetesExecutor, workload: Any) -> Any:
    executor.queue_workload(workload, session=None)  # type: ignore[arg-type]
    executor.heartbeat()
    return workload.key


def launched(executor: KubernetesExecutor) -> Any:
    return executor._engine.launched[-1]  # type: ignore[union-attr]


def finish(executor: KubernetesExecutor, *outcomes: Any) -> None:
    executor._engine.box += outcomes  # type: ignore[union-attr]
    executor.sync()


def test_nothing_is_launched_from_inside_the_critical_section(executor: KubernetesExecutor, make_workload: Any) -> None:
    executor.queue_workload(make_workload("task"), session=None)  # type: ignore[arg-type]
    assert executor._engine.launched == []  # type: ignore[union-attr]
    executor.heartbeat()
    assert executor.queued_tasks == {}
    assert len(executor.running) == 1


def test_the_workers_json_has_a_token_of_its_own_for_each_call(
    executor: KubernetesExecutor, make_workload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(executor, make_workload("task"))
    first, second = (json.loads(launched(executor).payload()) for _ in range(2))
    assert first["ti"]["task_id"] == "task"
    assert first["token"]
    assert first["token"] != second["token"]


def test_the_pods_unique_id_is_the_external_executor_id(executor: KubernetesExecutor, make_workload: Any) -> None:
    workload = make_workload("task")
    queue(executor, workload)
    assert launched(executor).task.unique_id == workload.ti.external_executor_id


@pytest.mark.parametrize("given", [None, "12", "not a uuid"])
def test_without_a_usable_id_the_pod_gets_one(executor: KubernetesExecutor, make_workload: Any, given: Any) -> None:
    workload = make_workload("task")
    workload.ti.external_executor_id = given
    queue(executor, workload)
    assert uuid.UUID(launched(executor).task.unique_id)


def test_callbacks_run_and_their_exit_code_decides(executor: KubernetesExecutor) -> None:
    key = queue(executor, callback())
    assert isinstance(key, CallbackKey)
    assert launched(executor).exit_decides
    finish(executor, WorkloadEnded(launched(executor), FinalState.FAILED, "why"))
    assert executor.get_event_buffer() == {key: (CallbackState.FAILED, "why")}
    assert executor.running == set()


def test_connection_tests_run_and_can_be_dropped(executor: KubernetesExecutor) -> None:
    key = queue(executor, connection_test("gpu"))
    assert isinstance(key, ConnectionTestKey)
    assert launched(executor).task.queue == "gpu"
    assert json.loads(launched(executor).payload())["type"] == "TestConnection"
    executor.fail_connection_test(key)
    assert executor.running == set()
    assert executor._engine.revoked == [key]  # type: ignore[union-attr]


def test_a_released_slot_is_free_without_an_event(executor: KubernetesExecutor, make_workload: Any) -> None:
    queue(executor, make_workload("task"))
    finish(executor, SlotReleased(launched(executor)))
    assert executor.running == set()
    assert executor.get_event_buffer() == {}


def test_the_end_of_an_earlier_pod_does_not_affect_a_task_that_runs_again(
    executor: KubernetesExecutor, make_workload: Any
) -> None:
    workload = make_workload("task")
    key = queue(executor, workload)
    before = launched(executor)
    queue(executor, workload)  # resumed after a deferral, before its first pod was over
    finish(executor, SlotReleased(before), WorkloadEnded(before, FinalState.FAILED, "late"))
    assert executor.running == {key}
    assert executor.get_event_buffer() == {}


def test_the_reason_of_a_failure_is_in_the_executor_event_and_in_the_event_log(
    executor: KubernetesExecutor, make_workload: Any, bench: Any
) -> None:
    key = queue(executor, make_workload("task"))
    workload = launched(executor)
    finish(executor, TaskEvent(workload, "pod failed", "why"), WorkloadEnded(workload, FinalState.FAILED, "why"))
    assert executor.get_event_buffer() == {key: (TaskInstanceState.FAILED, "why")}
    rows = [row for row in bench.event_log(executor) if row[2] == "task"]  # other tests leave rows of their tasks
    assert rows == [("pod failed", "why", "task")]
    assert not executor._task_event_logs  # core's own way of writing them loses them


def test_texts_are_cleaned_before_they_reach_the_database(
    executor: KubernetesExecutor, make_workload: Any, bench: Any
) -> None:
    key = queue(executor, make_workload("task"))
    workload, text = launched(executor), "core dumped \0 at \udcff" + "x" * 100_000
    finish(executor, TaskEvent(workload, "pod failed", text), WorkloadEnded(workload, FinalState.FAILED, text))
    ((_, info),) = executor.get_event_buffer().values()
    ((_, extra, _),) = [row for row in bench.event_log(executor) if row[2] == "task"]
    for stored, most in ((info, 32_768), (extra, 65_535)):
        assert stored.startswith("core dumped \ufffd at \ufffdxxx")
        assert len(stored.encode()) <= most
    executor.fail(key, "lost \0")
    assert executor.get_event_buffer() == {key: (TaskInstanceState.FAILED, "lost \ufffd")}


def test_events_of_callbacks_are_not_logged_as_in_core(executor: KubernetesExecutor, bench: Any) -> None:
    executor.log_task_event(event="pod failed", extra="why", ti_key=CallbackKey("0"))
    assert bench.event_log(executor) == []


def test_the_external_executor_id_is_never_overwritten(executor: KubernetesExecutor, make_workload: Any) -> None:
    queue(executor, make_workload("task"))
    assert executor.event_buffer == {}  # QUEUED and RUNNING events would set it


@pytest.mark.parametrize("how", ["fail", "change_state", "revoke_task"])
def test_a_task_that_core_ends_loses_its_pod(executor: KubernetesExecutor, make_workload: Any, how: str) -> None:
    key = queue(executor, make_workload("task"))
    if how == "revoke_task":
        executor.revoke_task(ti=SimpleNamespace(key=key))  # type: ignore[arg-type]
        assert executor.get_event_buffer() == {}
    else:
        arguments = (TaskInstanceState.FAILED,) if how == "change_state" else ()
        getattr(executor, how)(key, *arguments)
        assert executor.get_event_buffer() == {key: (TaskInstanceState.FAILED, None)}
    assert executor._engine.revoked == [key]  # type: ignore[union-attr]
    assert executor.running == set()


def test_tasks_fill_the_slots_in_order_of_priority(executor: KubernetesExecutor, make_workload: Any) -> None:
    for priority in range(10):
        executor.queue_workload(make_workload(f"task{priority}", priority=priority), session=None)  # type: ignore[arg-type]
    executor.heartbeat()
    assert len(executor.running) == 4
    assert sorted(workload.priority for workload in executor._engine.launched) == [6, 7, 8, 9]  # type: ignore[union-attr]


def test_a_heartbeat_with_many_queued_tasks_is_short(executor: KubernetesExecutor, make_workload: Any) -> None:
    workload = make_workload("task")
    for number in range(5000):
        copy = workload.model_copy(update={"ti": workload.ti.model_copy(update={"task_id": f"task{number}"})})
        executor.queue_workload(copy, session=None)  # type: ignore[arg-type]
    executor.heartbeat()
    with untraced():
        began = time.process_time()
        for _ in range(100):
            executor.heartbeat()
        assert (time.process_time() - began) / 100 < 0.01


def test_a_long_queue_is_handed_over_in_parts_in_order_of_priority(
    executor: KubernetesExecutor, make_workload: Any
) -> None:
    executor.parallelism = 2000
    for number in range(1200):
        executor.queue_workload(make_workload(f"task{number}", priority=number), session=None)  # type: ignore[arg-type]
    handed = []
    while executor.queued_tasks:
        executor.heartbeat()
        handed.append(len(executor.running))
    assert handed[-1] == 1200
    assert handed[0] < 1000
    launched = executor._engine.launched  # type: ignore[union-attr]
    assert [workload.priority for workload in launched] == sorted(range(1200), reverse=True)


@pytest.mark.parametrize("limits", [{}, {"gpu": 2}])
def test_launched_tasks_leave_the_priority_queue(
    executor: KubernetesExecutor, make_workload: Any, limits: dict[str, int]
) -> None:
    executor.parallelism, executor._queue_limits = 10_000, QueueLimits(limits)
    for number in range(1000):
        executor.queue_workload(make_workload(f"task{number}", priority=number % 3), session=None)  # type: ignore[arg-type]
        if number % 100 == 99:
            executor.heartbeat()
    while executor.queued_tasks:
        executor.heartbeat()
    assert len(executor._engine.launched) == 1000  # type: ignore[union-attr]
    assert len(executor._priorities) == 0


@pytest.mark.parametrize("limits", [{}, {"gpu": 2}])
def test_a_task_that_is_queued_again_with_another_weight_is_launched_once(
    executor: KubernetesExecutor, make_workload: Any, limits: dict[str, int]
) -> None:
    executor.parallelism, executor._queue_limits = 10_000, QueueLimits(limits)
    stuck = make_workload("stuck")
    executor.queue_workload(stuck, session=None)  # type: ignore[arg-type]
    executor.revoke_task(ti=SimpleNamespace(key=stuck.key))  # type: ignore[arg-type]
    for weight in (7, 3):
        again = stuck.model_copy(update={"ti": stuck.ti.model_copy(update={"priority_weight": weight})})
        executor.queue_workload(again, session=None)  # type: ignore[arg-type]
    for number in range(600):  # more than one heartbeat launches
        executor.queue_workload(make_workload(f"task{number}", priority=number % 9), session=None)  # type: ignore[arg-type]
    while executor.queued_tasks:
        executor.heartbeat()
    launched_keys = [one.key for one in executor._engine.launched]  # type: ignore[union-attr]
    assert launched_keys.count(stuck.key) == 1
    assert len(launched_keys) == 601


@pytest.fixture
def limited(executor: KubernetesExecutor) -> KubernetesExecutor:
    """The executor with a limit of one pod for queue gpu."""
    executor._queue_limits = QueueLimits({"gpu": 1}, refresh_every=60.0)
    return executor


def test_a_queue_at_its_limit_occupies_no_further_slots(limited: KubernetesExecutor, make_workload: Any) -> None:
    for number in range(6):
        limited.queue_workload(make_workload(f"gpu{number}", priority=9, queue="gpu"), session=None)  # type: ignore[arg-type]
    for number in range(2):
        limited.queue_workload(make_workload(f"task{number}"), session=None)  # type: ignore[arg-type]
    limited.heartbeat()
    assert sorted(key.task_id for key in limited.running)[1:] == ["task0", "task1"]  # type: ignore[union-attr]
    assert (limited.slots_available, limited.slots_occupied) == (1, 3)
    finish(limited, SlotReleased(limited._engine.launched[0]))  # type: ignore[union-attr]
    limited.heartbeat()
    assert len(limited.running) == 3
    assert limited._queue_limits.held_by_queue() == {"gpu": 4}
    assert limited._engine.held_back == 4  # type: ignore[union-attr]


def test_a_task_that_waits_for_its_queue_gets_an_event_and_never_counts_as_stuck(
    limited: KubernetesExecutor, make_workload: Any, bench: Any
) -> None:
    keys = [bench.queue(f"gpu{number}", queue="gpu", executor=limited) for number in range(2)]
    bench.database("update task_instance set queued_dttm = '2020-01-01 00:00:00'")
    limited._queue_limits.admit(limited.queued_tasks.items(), lambda item: item.ti.queue, ["gpu"], -100.0)
    limited.heartbeat()
    ((event, extra, task_id),) = bench.event_log(limited)
    assert (task_id, event) == ("gpu1", "pod waits")
    assert "queue gpu has 1 pod in flight" in extra
    rows = bench.rows("select task_id, queued_dttm > '2020-01-02' from task_instance order by task_id")
    assert rows == [("gpu0", 0), ("gpu1", 1)]
    limited.revoke_task(ti=SimpleNamespace(key=keys[1]))  # type: ignore[arg-type]
    assert (limited.slots_available, limited.slots_occupied) == (3, 1)


def test_a_team_has_its_own_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__BLUE___KUBERNETES_EXECUTOR__NAMESPACE", "blue-workers")
    monkeypatch.setenv("AIRFLOW__BLUE___CORE__PARALLELISM", "3")
    team = KubernetesExecutor(team_name="blue")
    assert team.parallelism == 3
    assert team._settings("7").worker.namespace == "blue-workers"
    assert KubernetesExecutor()._settings("7").worker.namespace == "default"


def test_the_log_of_a_teams_task_is_read_with_the_teams_configuration(bench: Any) -> None:
    with create_session() as session:
        bundle = DagBundleModel(name="blue")
        bundle.teams = [Team(name="blue")]
        session.add(bundle)
        session.flush()
        session.add(DagModel(dag_id="teams_dag", bundle_name="blue"))
    bench.set("core", multi_team="True")
    bench.set("blue___kubernetes_executor", in_cluster="False", config_file="/blue/kubeconfig")
    ti = SimpleNamespace(dag_id="teams_dag", task_id="t", run_id="r", map_index=-1, external_executor_id=None)
    ti.executor_config, ti.queue = None, "default"
    ((message,), _) = KubernetesExecutor().get_task_log(ti, 1)  # type: ignore[arg-type]
    assert "/blue/kubeconfig" in message


def test_creating_an_executor_starts_nothing(executor: KubernetesExecutor) -> None:
    import threading

    before = set(threading.enumerate())  # a thread of another test may end meanwhile
    KubernetesExecutor()
    assert set(threading.enumerate()) <= before


def test_a_debug_dump_never_fails(executor: KubernetesExecutor) -> None:
    KubernetesExecutor().debug_dump()


def test_the_provider_info_is_valid_and_its_executor_is_found_without_a_warning() -> None:
    info = get_provider_info()
    folder = Path(base_executor.__file__).parents[1]
    jsonschema.validate(info, json.loads((folder / "provider_info.schema.json").read_text()))
    manager = ProvidersManager()
    assert ("crosswind.executor.KubernetesExecutor", "crosswind") in manager.executor_without_check
    assert "crosswind" in manager.cli_command_providers
    assert cli_commands() == []

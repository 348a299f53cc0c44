"""The rows of pods on real databases."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.models.base import Base
from airflow.utils.db import import_all_models
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session
from tests.databases import DATABASES_AND_MARIADB, read_only, use_as_airflows

from crosswind.engine.last_pod_state import LastPodState
from crosswind.engine.pod_history import EndedPod
from crosswind.engine.state import RunResult, RunStage, RunTimes, WorkerRun, Workload
from crosswind.engine.worker_pod import WorkerTask
from crosswind.provider import pod_rows
from crosswind.provider.pod_rows import DatabasePodHistory, read_pods
from crosswind.provider.tables import make_tables
from deadlines import scaled

TI_ID = "0192f5c0-0000-7000-8000-000000000001"


@pytest.fixture(scope="module", params=DATABASES_AND_MARIADB)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    import_all_models()
    with request.param(tmp_path_factory.mktemp("database")) as engine:
        Base.metadata.create_all(engine)
        yield engine
        engine.dispose()


@pytest.fixture
def session(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    maker = use_as_airflows(engine, monkeypatch)
    make_tables()
    with maker() as session:
        yield session
        session.rollback()
        session.execute(pod_rows.PODS.delete())
        session.commit()


def ended(uid: str, over_at: float = 0.0, **fields: Any) -> EndedPod:
    task = WorkerTask("dag", "task", "run", 1, uid, ti_id=TI_ID)
    workload = Workload("key", task, 1.0, lambda: b"{}")
    end = RunResult(failed=True, reason="OOMKilled", message="more memory than its limit")
    times = RunTimes(time.monotonic(), ended=over_at)
    run = WorkerRun(workload, task, times, stage=RunStage.ENDED, result=end, **fields)
    now = time.time()
    return EndedPod(
        run, LastPodState(uid, times={"created": 1_799_999_880.0}), "https://api", now, now - time.monotonic()
    )


def test_rows_are_read_back_as_they_were_written_the_oldest_first(session: Session) -> None:
    history, now = DatabasePodHistory(30), time.monotonic()
    history.put(ended("second", now))
    history.put(ended("first", now - 60))
    history.close(60)
    first, second = read_pods([TI_ID])
    assert (first.pod, second.pod) == ("first", "second")
    assert (first.outcome, first.reason, first.cluster) == ("failed", "OOMKilled", "https://api")
    assert first.detail["message"] == "more memory than its limit"
    assert abs((second.ended_at - datetime.datetime.now(datetime.UTC)).total_seconds()) < 600


def test_a_pod_that_is_recorded_twice_has_the_later_row(session: Session) -> None:
    for attempt in (0, 1):
        history = DatabasePodHistory(30)
        pod = ended("uid", time.monotonic())
        pod.run.attempt = attempt
        history.put(pod)
        history.close(60)
    (record,) = read_pods([TI_ID])
    assert record.launch == 1


def test_texts_and_numbers_are_read_back_unchanged(session: Session) -> None:
    awkward = "\"'`\\u0041 \\n %s %(rows)s :rows {} <ü–漢>\t\n"
    history, pod = DatabasePodHistory(30), ended("uid", time.monotonic())
    pod.run.result = RunResult(failed=True, reason="r", message=awkward)
    history.put(replace(pod, last_state=LastPodState("uid", node=awkward, exit_code=-(2**31))))
    history.put(replace(ended("other", time.monotonic()), last_state=None))
    history.close(60)
    record, other = sorted(read_pods([TI_ID]), key=lambda one: one.pod == "other")
    assert (record.node, record.detail["message"], record.exit_code) == (awkward, awkward, -(2**31))
    assert other.exit_code is None


def test_one_row_that_is_refused_holds_up_no_other(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    history, now = DatabasePodHistory(30), time.monotonic()
    for name in ("a", "b", "c"):
        pod = ended(name, now)
        history.put(replace(pod, last_state=LastPodState(declared={"image": object()})) if name == "b" else pod)
    history.close(60)
    assert {record.pod for record in read_pods([TI_ID])} == {"a", "c"}
    assert "is not stored, because the metadata database refuses it" in caplog.text


def test_rows_older_than_the_days_are_removed_and_zero_keeps_them(session: Session) -> None:
    old = time.monotonic() - 3 * 86_400
    for days, kept in ((0.0, {"old", "new"}), (2.0, {"newer"})):
        history = DatabasePodHistory(days)
        history.put(ended("old", old))
        history.put(ended("new" if days == 0 else "newer", time.monotonic()))
        history.close(60)
        assert kept <= {record.pod for record in read_pods([TI_ID])}
    assert "old" not in {record.pod for record in read_pods([TI_ID])}


def test_a_row_has_the_times_at_which_airflow_queued_and_started_the_task(session: Session) -> None:
    columns = {
        "id": pod_rows.UUID(TI_ID).hex if session.get_bind().dialect.name != "postgresql" else TI_ID,
        "queued": datetime.datetime(2027, 1, 15, 7, 57, tzinfo=datetime.UTC),
        "started": datetime.datetime(2027, 1, 15, 7, 59, tzinfo=datetime.UTC),
    }
    statement = (
        "insert into task_instance_history (task_instance_id, task_id, dag_id, run_id, map_index, try_number, pool,"
        " pool_slots, span_status, queued_dttm, start_date, max_tries)"
        " values (:id, 'task', 'dag', 'run', -1, 1, 'p', 1, 'x', :queued, :started, 0)"
    )
    _without_foreign_keys(session)
    session.execute(text(statement), columns)
    session.commit()
    try:
        history = DatabasePodHistory(0)
        history.put(ended("uid", time.monotonic()))
        history.close(60)
        (record,) = read_pods([TI_ID])
        times = record.detail["times"]
        assert (times["created"] - times["queued"], times["running"] - times["created"]) == (60, 60)
    finally:
        session.execute(text("delete from task_instance_history"))
        session.commit()


def _without_foreign_keys(session: Session) -> None:
    switch = {"postgresql": "set session_replication_role = replica", "mysql": "set foreign_key_checks = 0"}
    if statement := switch.get(session.get_bind().dialect.name):
        session.execute(text(statement))


def test_a_user_who_may_not_make_the_table_is_told_once_and_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "airflow.db").touch()
    read_only = create_engine(f"sqlite:///file:{tmp_path}/airflow.db?mode=ro&uri=true")
    use_as_airflows(read_only, monkeypatch)
    history = DatabasePodHistory(30)
    for name in ("a", "b"):
        history.put(ended(name, time.monotonic()))
    history.close(60)
    assert caplog.text.count("the table crosswind_pod cannot be created: attempt to write a readonly database") == 1
    history.put(ended("c", time.monotonic()))
    assert len(history._writer) == 0
    read_only.dispose()


def test_a_user_who_may_not_write_the_table_is_told_once_and_rows_are_kept_again_later(
    session: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    history = DatabasePodHistory(30)
    with read_only(engine) as may_read:
        use_as_airflows(may_read, monkeypatch)
        for name in ("a", "b", "c"):
            history.put(ended(name, time.monotonic()))
        history.close(60)
    assert caplog.text.count("No rows of pods are stored; retrying in 10 minutes") == 1
    assert "left out" not in caplog.text
    use_as_airflows(engine, monkeypatch)
    history._writer._forbidden_until = 0.0  # ten minutes later
    history.put(ended("d", time.monotonic()))
    history.close(60)
    assert [record.pod for record in read_pods([TI_ID])] == ["d"]


def test_pods_of_a_scheduler_that_starts_without_its_database_are_kept(
    session: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = create_engine("sqlite:////nowhere/at/all.db")
    use_as_airflows(away, monkeypatch)
    history = DatabasePodHistory(30)
    history.put(ended("uid", time.monotonic()))
    deadline = time.monotonic() + scaled(20)
    while "wait for the metadata database" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    use_as_airflows(engine, monkeypatch)
    history.close(60)
    assert [record.pod for record in read_pods([TI_ID])] == ["uid"]
    assert "cannot be created" not in caplog.text
    away.dispose()

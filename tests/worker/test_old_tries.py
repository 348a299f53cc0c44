"""What the worker of a try that was replaced can still do: nothing that counts, and not for long."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
import uuid
from typing import Any

import psutil
import pytest
from rig import Rig, Run, until
from sqlalchemy import create_engine
from tests.databases import use_as_airflows

from crosswind.engine.state import Workload
from crosswind.engine.worker_pod import WorkerTask
from crosswind.provider.lost_tries import LostTries
from crosswind.provider.task_rows import TaskInstanceRef
from deadlines import scaled

pytestmark = pytest.mark.timeout(300)

UNTIL_HEARTBEAT_S = 15.0
"""On this busy machine too: ``scaled`` is 4 by default."""


def processes(run: Run) -> list[psutil.Process]:
    leader = psutil.Process(run.process.pid)
    return [leader, *leader.children(recursive=True)]


def freeze(run: Run, number: signal.Signals) -> None:
    """Stop or continue a worker, as the loss of its network and the end of it do."""
    for process in processes(run):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def rows(rig: Rig, query: str, run_id: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(rig.folder / "home/airflow.db", timeout=30)) as connection:
        return connection.execute(query, (run_id,)).fetchall()


def replace_try(rig: Rig, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ((ti_id, task_id, dag_id),) = rows(
        rig, "select id, task_id, dag_id from task_instance where run_id = ?", run.run_id
    )
    engine = create_engine(f"sqlite:///{rig.folder}/home/airflow.db", connect_args={"timeout": 30})
    use_as_airflows(engine, monkeypatch)
    task = WorkerTask(dag_id, task_id, run.run_id, 1, "u")
    lost = Workload("key", task, 1.0, None, ref=TaskInstanceRef(uuid.UUID(ti_id), None))
    assert LostTries(None, lambda config, queue: 3).replace({lost: "its node went away"})[lost].refusal == ""
    engine.dispose()


def pushed(rig: Rig, run: Run) -> float:
    """Return when the newest XCom was accepted, in seconds since 1970."""
    found = rows(rig, "select value from xcom where run_id = ? and key = 'now'", run.run_id)
    return float(found[0][0].strip('"')) if found else 0.0


def test_an_old_worker_writes_no_xcom_later_than_15_seconds_after_it_is_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = rig.start("pushes_0")
    until(lambda: pushed(rig, run), "the first XCom")
    freeze(run, signal.SIGSTOP)
    replace_try(rig, run, monkeypatch)
    back = time.time()
    freeze(run, signal.SIGCONT)
    run.ended()
    late = pushed(rig, run) - back
    assert late < scaled(UNTIL_HEARTBEAT_S / 4), f"{late:.1f} s"
    assert rows(rig, "select state, try_number, max_tries from task_instance where run_id = ?", run.run_id) == [
        (None, 1, 1)
    ]


@pytest.mark.parametrize("dag", ["succeeds_0", "fails_late_0"])
def test_the_state_that_an_old_worker_reports_is_refused(rig: Rig, dag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = rig.start(dag)
    run.reached("began")
    freeze(run, signal.SIGSTOP)
    replace_try(rig, run, monkeypatch)
    (run.folder / "go").touch()
    freeze(run, signal.SIGCONT)
    run.ended()
    assert rows(rig, "select state from task_instance where run_id = ?", run.run_id) == [(None,)]

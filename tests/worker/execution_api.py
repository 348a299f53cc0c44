"""A program: Airflow's real Execution API on a database of its own, which makes runs of DAGs and their workloads.

    python execution_api.py FOLDER PORT

It reads a DAG's id from each line of standard input, makes a run of it whose one task instance is queued, and prints
the task instance's workload as one line of JSON. After ``replace RUN_ID`` it gives the run's task instance its next
try, as the executor does after a loss, and prints ``replaced``.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

_START_TIMEOUT_S = 30.0 * float(os.environ.get("TEST_TIME_SCALE") or 4)
"""Scaled like every deadline of the tests; ``deadlines`` cannot be imported, as this is a program of its own."""


def workload(session: Any, dag_id: str, generator: Any) -> str:
    """Make a run and return the workload of its task instance."""
    from airflow._shared.timezones.timezone import utcnow
    from airflow.executors.workloads import ExecuteTask
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.state import DagRunState, TaskInstanceState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    model = SerializedDagModel.get(dag_id, session=session)
    assert model is not None, f"there is no DAG {dag_id}"
    run = model.dag.create_dagrun(
        run_id=f"manual__{uuid.uuid4().hex}",
        logical_date=None,
        run_after=utcnow(),
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state=DagRunState.RUNNING,
        start_date=utcnow(),
        session=session,
    )
    session.flush()
    (ti,) = run.get_task_instances(session=session)
    ti.state = TaskInstanceState.QUEUED
    ti.try_number = 1
    ti.queued_dttm = utcnow()
    session.flush()
    return ExecuteTask.make(ti, generator=generator).model_dump_json()


def replace(session: Any, run_id: str) -> str:
    """Replace the try of a run's only task instance."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    from crosswind.provider.task_rows import start_next_tries

    start_next_tries(session.scalars(select(TaskInstance).where(TaskInstance.run_id == run_id)).all(), session)
    return "replaced"


def serve(port: int) -> None:
    """Serve the Execution API from a thread; return when it answers."""
    import uvicorn
    from airflow.api_fastapi.app import create_app

    server = uvicorn.Server(
        uvicorn.Config(create_app(apps="execution"), host="127.0.0.1", port=port, log_level="warning")
    )
    threading.Thread(target=server.run, daemon=True).start()
    end = time.monotonic() + _START_TIMEOUT_S
    while not server.started:
        if time.monotonic() > end:
            raise SystemExit("the Execution API did not start")
        time.sleep(0.05)


def main(folder: Path, port: int) -> None:
    """Serve until standard input ends."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.executors.local_executor import LocalExecutor
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session

    initdb()
    bag = DagBag(folder, bundle_path=folder, bundle_name="tests")
    assert not bag.import_errors, bag.import_errors
    with create_session() as session:
        session.add(DagBundleModel(name="tests"))
    with create_session() as session:
        sync_bag_to_db(bag, "tests", None, session=session)
    generator = LocalExecutor(parallelism=1).jwt_generator
    serve(port)
    print("ready", flush=True)
    for line in sys.stdin:
        command, _, run_id = line.strip().partition(" ")
        with create_session() as session:
            answer = replace(session, run_id) if run_id else workload(session, command, generator)
        print(answer, flush=True)


if __name__ == "__main__":
    logging.disable(logging.INFO)
    main(Path(sys.argv[1]), int(sys.argv[2]))

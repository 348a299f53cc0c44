"""A program: Airflow's real API server with one task that has failed once and waits for its second try.

    python core_api.py FOLDER PORT

It prints ``ready`` when it answers, and ends with its standard input.
"""

from __future__ import annotations

import datetime
import sys
import threading
import time
from pathlib import Path
from typing import Any

DAG = """
from airflow.sdk import DAG, task

with DAG("billing"):

    @task(retries=2)
    def month_end(): ...

    month_end()
"""
RUN = "manual__1"
LOG = '{"timestamp": "2026-11-29T11:40:01Z", "level": "info", "event": "a line that Airflow keeps"}\n'


def fill(folder: Path, session: Any) -> None:
    from airflow._shared.timezones.timezone import utcnow
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.state import DagRunState, TaskInstanceState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    model = SerializedDagModel.get("billing", session=session)
    assert model is not None
    run = model.dag.create_dagrun(
        run_id=RUN,
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
    ti.state, ti.try_number, ti.hostname = TaskInstanceState.FAILED, 1, "billing-month-end-1"
    ti.start_date = utcnow() - datetime.timedelta(seconds=61)
    ti.set_duration()
    session.flush()
    ti.prepare_db_for_next_try(session)
    ti.state, ti.try_number, ti.hostname = TaskInstanceState.RUNNING, 2, "billing-month-end-2"
    path = folder / "logs" / "dag_id=billing" / f"run_id={RUN}" / "task_id=month_end" / "attempt=1.log"
    path.parent.mkdir(parents=True)
    path.write_text(LOG)


def main(folder: Path, port: int) -> None:
    import uvicorn
    from airflow.api_fastapi.app import create_app
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session

    initdb()
    (folder / "dags").mkdir()
    (folder / "dags" / "billing.py").write_text(DAG)
    bag = DagBag(folder / "dags", bundle_path=folder / "dags", bundle_name="tests")
    assert not bag.import_errors, bag.import_errors
    with create_session() as session:
        session.add(DagBundleModel(name="tests"))
    with create_session() as session:
        sync_bag_to_db(bag, "tests", None, session=session)
    with create_session() as session:
        fill(folder, session)
    server = uvicorn.Server(uvicorn.Config(create_app(apps="core"), host="127.0.0.1", port=port, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

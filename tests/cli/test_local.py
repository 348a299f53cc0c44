"""``crosswind local``: kubelocal's commands under another name; ``packages/kubelocal/tests/cli`` tests them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from crosswind.cli import main
from deadlines import scaled


def test_the_commands_of_kubelocal_and_airflow_are_listed() -> None:
    shown = CliRunner().invoke(main, ["local", "--help"]).output
    assert all(f"  {name} " in shown for name in ("airflow", "kubeconfig", "list", "stop", "up"))


def test_a_cluster_is_served_until_it_is_interrupted(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "crosswind", "local", "up", "--output", "json", "--simulate", "1"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        assert Path(facts["token_file"]).read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(scaled(20)) == 0
    assert not Path(facts["token_file"]).exists()


def test_errors_of_kubelocal_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("prot: 1\n")
    for command in (["local", "up"], ["local", "airflow", str(tmp_path)], ["demo"]):
        ran = CliRunner().invoke(main, [*command, "--settings", str(file)])
        assert (ran.exit_code, ran.output) == (2, f"crosswind: {file}: unknown setting 'prot'; did you mean port?\n")


@pytest.mark.parametrize("arguments", [["nosuch"], ["local", "up", "--port", "99999"], ["local", "nosuch"]])
def test_wrong_use_exits_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_help_lists_the_families_and_exit_codes() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    assert "local" in shown
    assert "exit codes" in shown.lower()


def test_the_command_starts_without_heavy_modules() -> None:
    heavy = {"airflow", "uvicorn", "aiohttp", "kubernetes", "kubelocal"}
    code = f"import sys, crosswind.cli.local; print({heavy!r} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert ran.stdout == "set()\n"


def test_names_of_clusters_are_completed(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "crosswind", "local", "up", "--output", "json", "--simulate", "1", "--name", "one"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        words = {"_CROSSWIND_COMPLETE": "bash_complete", "COMP_WORDS": "crosswind local stop o", "COMP_CWORD": "3"}
        script = [Path(sys.executable).with_name("crosswind")]
        ran = subprocess.run(script, capture_output=True, text=True, env={**os.environ, **words}, check=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(scaled(20)) == 0
    assert ran.stdout.split() == ["plain,one"]


@pytest.mark.parametrize(
    ("shell", "begin"), [("bash", "_crosswind_completion()"), ("zsh", "#compdef"), ("fish", "func")]
)
def test_completion_scripts_name_the_command(shell: str, begin: str) -> None:
    shown = CliRunner().invoke(main, ["completion", shell]).output
    assert shown.lstrip().startswith(begin)
    assert f"_CROSSWIND_COMPLETE={shell}_complete" in shown

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from deadlines import scaled
from kubelocal.cli import main
from kubelocal.cli.settings_file import read_settings
from kubelocal.errors import SettingError


def kubelocal(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kubelocal", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_up_serves_until_told_to_end(end: signal.Signals) -> None:
    with kubelocal("up", "--output", "json", "--simulate", "1") as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        context = ssl.create_default_context(cafile=Path(facts["kubeconfig"]).with_name("ca.crt"))
        with urllib.request.urlopen(f"{facts['url']}/readyz", context=context, timeout=scaled(10)) as answer:
            assert answer.read() == b"ok"
        token = Path(facts["token_file"])
        assert token.read_text()
        process.send_signal(end)
        assert (process.wait(scaled(20)), process.stderr.read() if process.stderr else "") == (0, "")
    assert not token.exists()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
def test_up_ends_also_where_a_script_has_started_it_in_the_background(tmp_path: Path, end: signal.Signals) -> None:
    """A shell without job control starts it with Ctrl-C ignored."""
    file = tmp_path / "kubeconfig"
    script = '"$@" & echo $!; wait $!; echo "ended $?"'
    command = [sys.executable, "-m", "kubelocal", "up", "--simulate", "1", "--kubeconfig", str(file)]
    with subprocess.Popen(["sh", "-c", script, "sh", *command], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        assert any("export KUBECONFIG" in line for line in shell.stdout)
        os.kill(pid, end)
        assert shell.stdout.read().splitlines()[-1] == "ended 0"
    assert not file.exists()


def test_up_tells_people_how_to_use_it(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    with kubelocal("up", "--kubeconfig", str(file), "--simulate", "1") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(scaled(20)) == 0
    assert lines[2] == f"  export KUBECONFIG={file}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["up", "--port", "99999"],
        ["up", "--settings", "/nosuch/file"],
        ["up", "--inject", "nosuch"],
    ],
)
def test_wrong_use_exits_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_wrong_settings_are_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("prot: 1\n")
    arguments = ["up", "--settings", str(file)]
    ran = CliRunner().invoke(main, arguments)
    assert (ran.exit_code, len(ran.output.splitlines())) == (2, 1)
    assert ran.output == f"kubelocal: {file}: unknown setting 'prot'; did you mean port?\n"
    file.write_text("qqqqqq: 1\n")
    assert "unknown setting 'qqqqqq'; there are: name, host, port, " in CliRunner().invoke(main, arguments).output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images: {mine: {pth: [/opt]}}", "unknown setting 'pth' of image mine; did you mean path?"),
        ("1: 2", "unknown setting 1; there are: "),
        ("start-delay: 1", "unknown setting 'start-delay'; did you mean start_delay?"),
    ],
)
def test_unknown_settings_suggest_the_nearest(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(SettingError, match=re.escape(message)):
        read_settings(file, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [("port: eighty", "port: .* not 'eighty'"), ("- 1", "settings are a mapping"), ("a: [", "not readable as YAML")],
)
def test_settings_that_cannot_be_read_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(SettingError, match=message):
        read_settings(file, {})


def test_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("port: 1\nnode_pods: 7\nstate_file: /tmp/state\nimages: {mine: {missing: true}}\n")
    settings = read_settings(file, {"port": 2})
    assert (settings.port, settings.node_pods, settings.state_file) == (2, 7, Path("/tmp/state"))
    assert settings.images["mine"].missing


def test_help_lists_the_commands_and_exit_codes() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    assert all(f"  {name} " in shown for name in ("up", "list", "stop", "kubeconfig", "completion"))
    assert "exit codes" in shown.lower()


def test_command_starts_without_heavy_modules() -> None:
    code = "import sys, kubelocal.cli; print({'pydantic', 'uvicorn', 'aiohttp', 'kubernetes'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert ran.stdout == "set()\n"

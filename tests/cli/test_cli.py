"""What all commands share."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from crosswind.cli import main
from deadlines import scaled


def test_the_help_lists_the_commands_and_each_has_help_of_its_own() -> None:
    listing = CliRunner().invoke(main, ["--help"], catch_exceptions=False)
    assert listing.exit_code == 0
    assert isinstance(main, click.Group)
    for name in main.list_commands(click.Context(main)):
        assert f"\n  {name} " in listing.output
        assert CliRunner().invoke(main, [name, "--help"], catch_exceptions=False).exit_code == 0


@pytest.mark.parametrize("package", ["kubelocal", "jsonpatch"])
@pytest.mark.parametrize("command", ["['demo']", "['local', 'up']"])
def test_a_missing_package_is_reported_in_one_line_with_the_fix(command: str, package: str) -> None:
    without = f"import sys; sys.modules['{package}'] = None; from crosswind.cli import main; main({command})"
    run = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, timeout=scaled(25))
    message = (
        f"crosswind: this command needs Crosswind's extra local ({package} is not installed):"
        " pip install packages/kubelocal '.[local]' in a checkout, or both wheels:"
        " kubelocal-VERSION-py3-none-any.whl 'crosswind-VERSION-py3-none-any.whl[local]'\n"
    )
    assert (run.returncode, run.stdout, run.stderr) == (2, "", message)


@pytest.mark.parametrize(
    "arguments",
    [
        ["wrap", "--wait-timeout", "nan", "--", "true"],
        ["wrap", "--look", "inf", "--", "true"],
        ["reap", "--retry", "nan"],
        ["demo", "--time-limit", "nan"],
    ],
    ids=" ".join,
)
def test_a_number_without_end_is_refused(arguments: list[str]) -> None:
    run = CliRunner().invoke(main, arguments)
    assert run.exit_code == 2
    assert "is no number that can be reached" in run.output


@pytest.mark.parametrize(
    "arguments", [["render", __file__, "-o", ""], ["init", "-o", ""], ["tasks", "check", ""]], ids=" ".join
)
def test_an_empty_path_is_refused(arguments: list[str]) -> None:
    run = CliRunner().invoke(main, arguments)
    assert run.exit_code == 2
    assert "The path is empty" in run.output


@pytest.mark.parametrize(
    ("arguments", "redirection", "code", "message"),
    [
        (
            "render -",
            "<&-",
            2,
            "values file - cannot be read: standard input is closed; correct the path, or mount the",
        ),
        ("render VALUES", ">/dev/full", 1, "the output cannot be written: No space left on device; redirect it"),
        ("render VALUES --explain", ">/dev/full", 1, "the output cannot be written: No space left on device; redirect"),
        ("completion bash", ">/dev/full", 1, "the output cannot be written: No space left on device; redirect it"),
        ("render VALUES", ">&-", 1, "standard output is closed"),
        ("init --image a:1 -o NEW", "<&-", 0, ""),
        ("wrap --mesh none -- true", "<&- >&-", 0, ""),
    ],
)
def test_a_stream_that_is_closed_or_full_is_one_line(
    tmp_path: Path, arguments: str, redirection: str, code: int, message: str
) -> None:
    values, new = tmp_path / "values.yaml", tmp_path / "new.yaml"
    values.write_text("image: example.com/airflow:1\n")
    arguments = arguments.replace("VALUES", str(values)).replace("NEW", str(new))
    command = f"exec '{sys.executable}' -m crosswind {arguments} {redirection}"
    run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=scaled(25), check=False)
    lines = [f"crosswind: {message}"] if message else []
    assert (run.returncode, len(run.stderr.splitlines())) == (code, len(lines))
    assert all(map(str.startswith, run.stderr.splitlines(), lines))


@pytest.mark.parametrize("family", ["doctor", "init", "pods", "reap", "render", "sidecars", "tasks", "wrap"])
def test_commands_that_need_no_cluster_of_this_machine_work_without_the_extra_local(family: str) -> None:
    without = (
        f"import sys; sys.modules['kubelocal'] = None; from crosswind.cli import main; main(['{family}', '--help'])"
    )
    run = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, timeout=scaled(25))
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("Usage: ")

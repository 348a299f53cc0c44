"""What all commands share."""

import subprocess
import sys

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


@pytest.mark.parametrize("family", ["doctor", "init", "pods", "reap", "render", "sidecars", "tasks", "wrap"])
def test_commands_that_need_no_cluster_of_this_machine_work_without_the_extra_local(family: str) -> None:
    without = (
        f"import sys; sys.modules['kubelocal'] = None; from crosswind.cli import main; main(['{family}', '--help'])"
    )
    run = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, timeout=scaled(25))
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("Usage: ")

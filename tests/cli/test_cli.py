"""What all commands share."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("command", ["['demo']", "['local', 'up']"])
def test_a_missing_package_is_told_in_one_line_with_the_mend(command: str) -> None:
    without = f"import sys; sys.modules['jsonpatch'] = None; from crosswind.cli import main; main({command})"
    run = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, timeout=25)
    said = (
        "crosswind: this command needs Crosswind's extra local (jsonpatch is not installed):"
        " pip install '.[local]' in a checkout, or 'crosswind-VERSION-py3-none-any.whl[local]'\n"
    )
    assert (run.returncode, run.stdout, run.stderr) == (2, "", said)

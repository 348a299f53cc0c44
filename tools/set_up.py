"""Make a virtual environment for ``make`` and report progress: ``python set_up.py FOLDER PACKAGE...``.

Each PACKAGE is a path with extras, installed in editable form; one run of pip installs all, for they need each other.

Standard library alone: it runs before anything is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

OLDEST = (3, 11)
SHOWN = re.compile(r"\s*(Collecting|Downloading|Building wheel for|Installing collected) ?(.*)")
LAST_LINES = 30
"""Lines of pip's own words that a failure shows."""


def steps(lines: Iterable[str]) -> Iterator[str]:
    """Yield a short line for each package that pip resolves, downloads or builds, from its output."""
    packages = 0
    for line in lines:
        if not (match := SHOWN.match(line)):
            continue
        verb, rest = match.groups()
        if verb == "Collecting":
            packages += 1
            yield f"package {packages}: {re.split(r'[<>=!~;[ (]', rest, maxsplit=1)[0]}"
        elif verb == "Installing collected":
            yield f"unpacking {len(rest.split(','))} packages"
        else:
            yield f"{verb.lower()} {rest.split('/')[-1].split(' (pyproject')[0]}"


def show(lines: Iterable[str]) -> None:
    """Print the steps: on a terminal in one line that changes, else each in a line of its own."""
    terminal = sys.stdout.isatty()
    for step in lines:
        if terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{'      ' + step:<{width}.{width}}", end="", flush=True)
        else:
            print(f"      {step}", flush=True)
    if terminal:
        print("\r\033[K", end="", flush=True)


def run_pip(python: Path, arguments: list[str]) -> int:
    """Run pip and show its steps; its own last words when it fails."""
    last: deque[str] = deque(maxlen=LAST_LINES)

    def seen() -> Iterator[str]:
        assert pip.stdout is not None
        for line in pip.stdout:
            last.append(line)
            yield line

    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-color", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as pip:
        show(steps(seen()))
    if pip.returncode:
        print("".join(last), end="", file=sys.stderr)
        print(f"pip failed with code {pip.returncode}; its last words are above", file=sys.stderr)
    return pip.returncode


def main(folder: Path, packages: list[str]) -> int:
    """Make the environment if it is missing, and install the packages with all that they need."""
    version = sys.version.split()[0]
    if sys.version_info < OLDEST:
        print(f"Python 3.11 or newer is needed, this is {version}; say make PYTHON=/path/to/python3", file=sys.stderr)
        return 1
    python, begun = folder / "bin" / "python", time.monotonic()
    if not os.access(python, os.X_OK):
        print(f"[1/2] making {folder} with Python {version}", flush=True)
        if code := subprocess.run([sys.executable, "-m", "venv", str(folder)], check=False).returncode:
            return code
    print(f"[2/2] installing {' '.join(packages)} into {folder}; the first time takes a few minutes", flush=True)
    editable = [word for package in packages for word in ("--editable", package)]
    arguments = ["install", "--progress-bar", "off", "--constraint", "constraints.txt", *editable]
    code = run_pip(python, arguments)
    if not code:
        print(f"      done in {time.monotonic() - begun:.0f} s", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))

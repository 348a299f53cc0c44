"""Terminals: commands run for real, and their output as SVG by rich."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

__all__ = ["draw"]

COLUMNS = 100
_FONT_FACES = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""rich names fonts on another host; every viewer has a monospaced one."""


class Recording(NamedTuple):
    """A command, as the picture shows it and as it runs, and which lines of its output the picture shows."""

    name: str
    shown: str
    command: list[str]
    lines: slice


_CROSSWIND = [sys.executable, "-m", "crosswind"]
RECORDINGS = (
    Recording("demo", "make demo", [*_CROSSWIND, "demo"], slice(-26, -3)),
    Recording(
        "demo-stock",
        'make demo ARGS="--executor stock"',
        [*_CROSSWIND, "demo", "--executor", "stock"],
        slice(-22, -3),
    ),
    Recording(
        "explain",
        "crosswind sidecars explain -f pod.yaml",
        [*_CROSSWIND, "sidecars", "explain", "-f", "pod.yaml"],
        slice(None),
    ),
    Recording(
        "graph",
        "crosswind tasks graph examples/tasks/task_files --draw",
        [*_CROSSWIND, "tasks", "graph", "examples/tasks/task_files", "--draw"],
        slice(30),
    ),
)
_POD = """
apiVersion: v1
kind: Pod
metadata: {name: report, namespace: airflow-workers}
spec:
  restartPolicy: Never
  containers:
    - {name: base, image: "apache/airflow:3.3.2"}
    - {name: istio-proxy, image: "istio/proxyv2:1.26.4"}
    - {name: cloud-sql-proxy, image: "gcr.io/cloud-sql-connectors/cloud-sql-proxy:2.18.0", args: ["--quitquitquit"]}
"""


def draw(folder: Path, work: Path) -> list[Path]:
    """Run each command in the repository and write its picture."""
    root = folder.parents[1]
    (work / "pod.yaml").write_text(_POD)
    written = []
    for recording in RECORDINGS:
        command = [str(work / "pod.yaml") if word == "pod.yaml" else word for word in recording.command]
        output = _run(command, root)
        target = folder / f"{recording.name}.svg"
        target.write_text(_svg(recording, output))
        written.append(target)
    return written


def _run(command: list[str], root: Path) -> str:
    environment = os.environ | {"COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    done = subprocess.run(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    # The stock executor's demo fails on purpose; an empty output would be a broken command.
    if not done.stdout.strip():
        raise SystemExit(f"{' '.join(command)} printed nothing (exit code {done.returncode})")
    return done.stdout


def _svg(recording: Recording, output: str) -> str:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(f"$ [bold]{recording.shown}[/bold]", highlight=False)
    lines = output.rstrip().splitlines()
    console.print(Text.from_ansi("\n".join(lines[recording.lines])))
    return _FONT_FACES.sub("", console.export_svg(title="", unique_id=recording.name))

"""What a command that has ended should not have left."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

__all__ = ["left_behind"]


def left_behind(folder: Path) -> list[str]:
    """Return the processes that know a folder, by command line or environment, as command lines."""
    found = []
    for process in psutil.process_iter():
        try:
            known = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(folder) in text for text in known):
            found.append(" ".join(process.cmdline()))
    return found

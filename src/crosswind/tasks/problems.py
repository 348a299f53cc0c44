"""What is wrong with a task file, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Problem", "by_file"]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong in one file; ``fatal`` problems keep the file's task from running."""

    file: str
    """Path below the folder of task files, with slashes."""
    line: int
    """Counted from 1; 0 is the file as a whole."""
    message: str
    """What is wrong, and how to mend it."""
    fatal: bool = True

    def told(self, prefix: str = "") -> str:
        """Return it as compilers do: ``file:line: message``; ``prefix`` goes before the file's path."""
        place = f"{prefix}{self.file}:{self.line}" if self.line else f"{prefix}{self.file}"
        return f"{place}: {'' if self.fatal else 'warning: '}{self.message}"


def by_file(problems: Iterable[Problem], prefix: str = "") -> dict[str, str]:
    """Return the fatal problems as one text for each file."""
    texts: dict[str, list[str]] = {}
    for problem in sorted(problems):
        if problem.fatal:
            texts.setdefault(problem.file, []).append(problem.told(prefix))
    return {file: "\n".join(lines) for file, lines in texts.items()}

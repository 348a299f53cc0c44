"""Problems of task files, with file and line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["TaskFileProblem", "by_file"]


@dataclass(frozen=True, slots=True, order=True)
class TaskFileProblem:
    """A problem in one file; a ``fatal`` one keeps the file's task from running."""

    file: str
    """Path below the folder of task files, with slashes."""
    line: int
    """Counted from 1; 0 is the file as a whole."""
    message: str
    """The problem and its fix."""
    fatal: bool = True

    def describe(self, prefix: str = "") -> str:
        """Return it as a compiler prints it: ``file:line: message``; ``prefix`` precedes the file's path."""
        place = f"{prefix}{self.file}:{self.line}" if self.line else f"{prefix}{self.file}"
        return f"{place}: {'' if self.fatal else 'warning: '}{self.message}"


def by_file(problems: Iterable[TaskFileProblem], prefix: str = "") -> dict[str, str]:
    """Return the fatal problems of each file as one text."""
    texts: dict[str, list[str]] = {}
    for problem in sorted(problems):
        if problem.fatal:
            texts.setdefault(problem.file, []).append(problem.describe(prefix))
    return {file: "\n".join(lines) for file, lines in texts.items()}

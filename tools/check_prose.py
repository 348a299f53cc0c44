"""Hold prose to plain technical English: the words that it avoids, and what to write instead.

In documentation every occurrence is an error. Source code has old ones: their number may only shrink, and BUDGET holds
it. Text in backticks and fenced blocks is exempt in documentation.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*.md", "packages/*/*.md", "packages/*/docs/**/*.md")
SOURCES = ("src/**/*.py", "packages/*/src/**/*.py", "tools/*.py")
BUDGET = 2
"""Occurrences in source code. Lower it when the check prints a smaller number; never raise it."""

AVOIDED = {
    r"told|tells?|telling": "log, report, emit, name, print",
    r"mend(?:s|ed|ing)?": "fix, correct",
    r"no more(?! than\b)": "gone, deleted, ended; not … any more",
    r"is nothing|are nothing": "does not exist, is empty",
    r"dealt with": "handled",
    r"whoever": "a person who, everybody who",
    r"now and then": "regularly, every N seconds",
    r"what is": "name the thing",
}
_AVOIDED = re.compile(rf"(?i)\b({'|'.join(AVOIDED)})\b")
_BLOCK = re.compile(r"(?s:^( *)```.*?^\1```$|<!--.*?-->)|`[^`]*`", re.MULTILINE)


class AvoidedWord(NamedTuple):
    """A word to avoid, where it is, and what to write instead."""

    path: Path
    line: int
    word: str

    def __str__(self) -> str:
        instead = next(advice for words, advice in AVOIDED.items() if re.fullmatch(words, self.word, re.IGNORECASE))
        return f"{self.path}:{self.line}: {self.word!r}; write {instead}"


def prose(text: str) -> str:
    """Return a page without its code; every line stays where it is."""
    return _BLOCK.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def findings(path: Path, text: str) -> Iterator[AvoidedWord]:
    """Yield each word to avoid."""
    for match in _AVOIDED.finditer(text):
        yield AvoidedWord(path, text.count("\n", 0, match.start()) + 1, match[1])


def in_pages(root: Path) -> list[AvoidedWord]:
    """Return what the documentation has."""
    paths = sorted({path for pattern in PAGES for path in root.glob(pattern)})
    return [word for path in paths for word in findings(path.relative_to(root), prose(path.read_text()))]


def in_sources(root: Path) -> list[AvoidedWord]:
    """Return what source code has, this list of words excepted."""
    paths = sorted({path for pattern in SOURCES for path in root.glob(pattern)} - {Path(__file__)})
    return [word for path in paths for word in findings(path.relative_to(root), path.read_text())]


def main() -> int:
    """Report; 1 when the documentation has such a word, or source code more than its budget."""
    pages, sources = in_pages(ROOT), in_sources(ROOT)
    for word in pages:
        print(f"prose: {word}", file=sys.stderr)
    if len(sources) > BUDGET:
        for word in sources[:: max(1, len(sources) // 20)]:
            print(f"prose: {word}", file=sys.stderr)
        print(f"prose: {len(sources)} words to avoid in source code, at most {BUDGET} are allowed", file=sys.stderr)
    elif len(sources) < BUDGET:
        print(f"prose: {len(sources)} words to avoid in source code; lower BUDGET in {Path(__file__).name} to that")
    return 1 if pages or len(sources) > BUDGET else 0


if __name__ == "__main__":
    sys.exit(main())

"""The pages of the documentation and the blocks of code in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "packages").glob("*/*.md"),
        *(ROOT / "packages").glob("*/docs/**/*.md"),
    ]
)
if find_spec("kubelocal") is None:
    PAGES = [page for page in PAGES if "packages" not in page.parts]

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_INLINE = re.compile(r"(?<!`)`((?:crosswind|kubelocal) [^`]+)`(?!`)")


class Block(NamedTuple):
    """A block of code; ``name`` is the page and the line, for messages."""

    name: str
    language: str
    text: str


def blocks(*languages: str) -> list[Block]:
    """Return the fenced blocks of all pages, those of ``languages`` if any are given."""
    return [block for page in PAGES for block in _blocks(page) if not languages or block.language in languages]


def inline_commands() -> list[Block]:
    """Return the commands of ours that the prose names."""
    commands: list[Block] = []
    for page in PAGES:
        text = page.read_text()
        commands += [
            Block(_name(page, text, match.start()), "bash", " ".join(match[1].split()))
            for match in _INLINE.finditer(FENCE.sub(_blank, text))
        ]
    return commands


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in FENCE.finditer(text):
        indent = len(match["indent"])
        lines = [line[indent:] if line[:indent].isspace() else line for line in match["text"].splitlines()]
        yield Block(_name(page, text, match.start()), match["language"], "\n".join(lines) + "\n")


def _name(page: Path, text: str, position: int) -> str:
    return f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, position) + 1}"


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])

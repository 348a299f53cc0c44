"""``make pictures``: render all pictures, or those of the named kinds."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from pictures import dashboard, diagrams, terminal, ui

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "pictures"
KINDS: dict[str, Callable[[Path, Path], list[Path]]] = {
    "diagrams": diagrams.draw,
    "terminal": terminal.draw,
    "ui": ui.draw,
    "dashboard": dashboard.draw,
}


def main(kinds: list[str]) -> int:
    """Render the kinds, all without an argument; print each file."""
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        print(f"no such kind: {', '.join(unknown)}; there are {', '.join(KINDS)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as work:
        for kind in kinds or KINDS:
            for path in KINDS[kind](FOLDER, Path(work)):
                print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Hold the names of classes and files to one meaning each, over both packages.

A public class has a name of its own, so that a search for it finds one thing. A file's name stands in one folder,
except for those that every package has, and the commands, whose files are called as users call them.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("src/crosswind", "packages/kubelocal/src/kubelocal")
EVERYWHERE = frozenset({"__init__", "__main__", "errors", "settings", "testing", "types"})
"""Files of the same name in both packages, each with the same meaning in its own."""
COMMANDS = "cli"
"""The folder whose files are named for the commands."""


def public_classes(tree: ast.Module) -> Iterator[str]:
    """Yield the public classes at the top of a module."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def repeated(root: Path) -> list[str]:
    """Return one line for each name that stands in several places."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        where = str(path.relative_to(root))
        if path.stem not in EVERYWHERE and path.parent.name != COMMANDS:
            places[f"the file {path.name}"].append(where)
        for name in public_classes(ast.parse(path.read_text())):
            places[f"the class {name}"].append(where)
    return [f"{name}: {', '.join(there)}" for name, there in places.items() if len(there) > 1]


def main() -> int:
    """List the repeated names; return 1 if there is one."""
    lines = repeated(ROOT)
    for line in lines:
        print(f"style: a name of its own for {line}", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())

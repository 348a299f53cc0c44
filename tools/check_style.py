"""Compare the figures of each package by tools/style_figures.py with their limits, and prose with its words to avoid.

Prints the figures, then one line per broken limit with its worst offenders; exits 1 if there is one. The words are
those of tools/check_prose.py, the limit of mocks in tests is that of tools/check_mocks.py, and no name stands twice
(tools/check_names.py).
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import check_mocks
import check_names
import check_prose
import style_figures as figures

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES = (200, 500, 700)
FUNCTION_LINES = (8, 40, 80)
COMPLEX_SHARE = 0.03
COMPLEXITY = 20
DOCUMENTED = 0.80


def spread(values: list[int]) -> tuple[int, int, int]:
    """Return median, 95th percentile and maximum."""
    ordered = sorted(values)
    return ordered[math.ceil(0.5 * len(ordered)) - 1], ordered[math.ceil(0.95 * len(ordered)) - 1], ordered[-1]


def broken_limits(modules: list[figures.Module]) -> list[str]:
    """Return the broken limits."""
    functions = [function for module in modules for function in module.functions]
    public = [function for function in functions if function.public]
    tangled = [function for function in functions if function.complexity > figures.COMPLEX]
    files, lengths = spread([m.lines for m in modules]), spread([f.lines for f in functions])
    share = len(tangled) / len(functions)
    documented = sum(function.documented for function in public) / len(public)
    checks = {
        f"files: {files} lines, limits {FILE_LINES} (median, 95 %, longest)": over(files, FILE_LINES),
        f"functions: {lengths} lines, limits {FUNCTION_LINES} (median, 95 %, longest)": over(lengths, FUNCTION_LINES),
        f"{share:.1%} of functions over complexity {figures.COMPLEX}, limit {COMPLEX_SHARE:.0%}": share > COMPLEX_SHARE,
        f"a function over complexity {COMPLEXITY}": any(f.complexity > COMPLEXITY for f in functions),
        f"{documented:.0%} of the public functions have a docstring, {DOCUMENTED:.0%} required": documented
        < DOCUMENTED,
        "a parameter or return without annotation": any(f.annotated < f.slots for f in functions),
        "an import cycle": figures.largest_cycle({m.name: m.imports for m in modules}) > 0,
    }
    return [text for text, broken in checks.items() if broken]


def over(values: tuple[int, int, int], limits: tuple[int, int, int]) -> bool:
    """Return whether any value is above its limit."""
    return any(value > limit for value, limit in zip(values, limits, strict=True))


def main() -> int:
    """Measure and judge both packages, their tests and the prose."""
    crosswind = judge(ROOT, ROOT / "src" / "crosswind")
    kubelocal = judge(ROOT / "packages" / "kubelocal", ROOT / "packages" / "kubelocal" / "src" / "kubelocal")
    mocks, names = check_mocks.main() == 0, check_names.main() == 0
    prose = check_prose.main() == 0
    return 0 if crosswind and kubelocal and mocks and names and prose else 1


def judge(checkout: Path, package: Path) -> bool:
    """Print a package's figures and its broken limits; return whether there is none."""
    modules = figures.read_package(package, checkout)
    print(figures.figures(package, modules, figures.count_test_code(checkout)))
    broken = broken_limits(modules)
    for text in broken:
        print(f"style: {package.name}: {text}", file=sys.stderr)
    if broken:
        print(*figures.outliers(modules, 8), sep="\n", file=sys.stderr)
    return not broken


if __name__ == "__main__":
    sys.exit(main())

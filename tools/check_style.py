"""Hold the package to its size ceilings: what tools/style_figures.py measures, against limits.

Prints the figures, then one line per broken limit with its worst offenders; exits 1 if there is one.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import style_figures as figures

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES = (200, 500, 700)
FUNCTION_LINES = (8, 40, 80)
COMPLEX_SHARE = 0.03
COMPLEXITY = 20
DOCUMENTED = 0.80


def spread(values: list[int]) -> tuple[int, int, int]:
    """Median, 95th percentile and longest."""
    ordered = sorted(values)
    return ordered[math.ceil(0.5 * len(ordered)) - 1], ordered[math.ceil(0.95 * len(ordered)) - 1], ordered[-1]


def broken_limits(modules: list[figures.Module]) -> list[str]:
    """Say which ceilings are broken."""
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
        f"{documented:.0%} of the public functions have a docstring, {DOCUMENTED:.0%} wanted": documented < DOCUMENTED,
        "a parameter or return without annotation": any(f.annotated < f.slots for f in functions),
        "an import cycle": figures.largest_cycle({m.name: m.imports for m in modules}) > 0,
    }
    return [text for text, broken in checks.items() if broken]


def over(values: tuple[int, int, int], limits: tuple[int, int, int]) -> bool:
    """Whether any value is above its limit."""
    return any(value > limit for value, limit in zip(values, limits, strict=True))


def main() -> int:
    """Measure and judge."""
    package = ROOT / "src" / "crosswind"
    modules = figures.read_package(package, ROOT)
    print(figures.figures(package, modules, figures.count_test_code(ROOT)))
    broken = broken_limits(modules)
    for text in broken:
        print(f"style: {text}", file=sys.stderr)
    if broken:
        print(*figures.outliers(modules, 8), sep="\n", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

"""Run the tests that failed in the last ``make test`` once more, one after the other: ``python test_again.py``.

For ``.ci/run`` on two busy cores. A test that fails again fails the run. One that passes now needs more time or order
than it should; its failure stays in the output above, and it is a fault to fix. Where tests of more than ``MOST`` files
failed, or a suite did not run to its end, nothing runs again and the exit code is 1.

Standard library alone, like all that ``make`` runs by the system's Python.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MOST = 5
"""Files with failures that may be the machine's; more have a cause in common. Files, because one server that does not
start fails all tests of its file."""

ROOT = Path(__file__).resolve().parent.parent
SUITES = {ROOT / "packages" / "kubelocal": ROOT / ".venv-kubelocal", ROOT: ROOT / ".venv"}
"""The folder of each test suite with its environment, in the order in which they run."""


def failed_tests(folder: Path) -> list[str] | None:
    """Return the ids of the tests that failed in the last run of pytest in ``folder``; None if no run has ended."""
    cache = folder / ".pytest_cache" / "v" / "cache"
    if not (cache / "nodeids").exists():  # pytest writes it at the end of each run
        return None
    failed = cache / "lastfailed"
    return sorted(json.loads(failed.read_text())) if failed.exists() else []


def run_again(suites: dict[Path, Path]) -> int:
    """Run each suite's failed tests and return an exit code. ``suites``: their folders with their environments."""
    recorded = {folder: failed_tests(folder) for folder in suites}
    if unended := [str(folder) for folder, tests in recorded.items() if tests is None]:
        print(f"the tests did not run to their end in {', '.join(unended)}", file=sys.stderr)
        return 1
    failed = {folder: tests for folder, tests in recorded.items() if tests}
    names = [name for tests in failed.values() for name in tests]
    files = {(folder, name.partition("::")[0]) for folder, tests in failed.items() for name in tests}
    if not 0 < len(files) <= MOST:
        message = (
            f"{len(names)} tests of {len(files)} files are recorded as failed: those of 1 to {MOST} files run again"
        )
        print(message, file=sys.stderr)
        return 1
    print(f"These failed, and run once more, one after the other: {', '.join(names)}", flush=True)
    codes = [
        subprocess.run([suites[folder] / "bin" / "python", "-m", "pytest", *tests], cwd=folder, check=False).returncode
        for folder, tests in failed.items()
    ]
    return int(any(codes))


if __name__ == "__main__":
    raise SystemExit(run_again(SUITES))

"""``make bench``: every benchmark, one table each.

python -m benchmarks [executors|deferred|local-api|task-files …] [--tasks N] [--database postgresql|sqlite]
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from benchmarks import executors


def main() -> int:
    """Run what was asked for; 1 if a goal was missed, 2 for wrong use."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure ours against stock, on this machine.")
    parser.add_argument(
        "what", nargs="*", default=["local-api", "executors", "deferred", "task-files"], help="any of these"
    )
    parser.add_argument("--tasks", type=int, default=1000, help="task instances for each executor")
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--default-limit", type=float, default=60, help="seconds for stock with its defaults")
    options = parser.parse_args()
    missed = False
    for what in options.what:
        if what == "executors":
            asyncio.run(executors.run(options.tasks, options.database, options.default_limit))
        elif what == "local-api":
            from benchmarks import local_api

            local_api.main([])
        elif what == "deferred":
            from benchmarks import deferred

            deferred.compare()
        elif what == "task-files":
            from benchmarks import task_files

            missed |= bool(task_files.main([]))
        else:
            parser.error(f"there is no benchmark {what!r}; there are executors, deferred, local-api and task-files")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

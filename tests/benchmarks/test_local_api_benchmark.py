from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from deadlines import scaled

ROOT = Path(__file__).parents[2]


def test_every_pod_of_the_benchmark_is_created_runs_and_is_deleted() -> None:
    command = [sys.executable, "-m", "benchmarks.local_api", "--pods", "30", "--nodes", "2", "--at-once", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scaled(25))
    assert done.returncode == 0, done.stderr
    assert re.search(r"pods \(at once\)\s*│\s*30 \(10\)", done.stdout)
    assert re.search(r"watch events per pod\s*│\s*5\.0", done.stdout)

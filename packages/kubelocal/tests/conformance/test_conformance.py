"""The facts of ``api_conformance.py``, one test each, against a local cluster or that of --cluster-context.

The script runs once, with the checks that were selected; each test then tells what became of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deadlines import scaled
from kubelocal.testing import Cluster

SCRIPT = Path(__file__).with_name("api_conformance.py")
RUN_S = 900

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(RUN_S)]


def facts() -> dict[str, str]:
    output = subprocess.run(
        [sys.executable, SCRIPT, "--list"], capture_output=True, text=True, timeout=scaled(30), check=True
    )
    return dict(line.split(": ", 1) for line in output.stdout.splitlines() if ": " in line)


FACTS = facts()


@pytest.fixture(scope="module")
def outcomes(cluster: Cluster, request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    selected = [item.callspec.params["check"] for item in request.session.items if item.path == request.path]  # type: ignore[attr-defined]
    only = [] if len(selected) == len(FACTS) else ["--only", f"^({'|'.join(map(re.escape, selected))})$"]
    images = ["--image", cluster.image, "--pull-policy", "Never" if cluster.local else cluster.pull_policy]
    command = [sys.executable, SCRIPT, "--kubeconfig", cluster.kubeconfig, "--json", *images, *only]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=scaled(RUN_S - 10), check=False)
    assert ran.returncode in (0, 1), ran.stderr
    return {check["name"]: check for check in json.loads(ran.stdout)["checks"]}


@pytest.mark.parametrize("check", FACTS)
def test_fact_of_kubernetes_holds(check: str, outcomes: dict[str, dict[str, Any]]) -> None:
    outcome = outcomes[check]
    assert outcome["result"] == "ok", f"{FACTS[check]} SAW {outcome['seen']}"

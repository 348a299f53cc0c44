"""The table of ``make sidecars`` in short form: task state, pod and XCom are right beside every kind of sidecar."""

from __future__ import annotations

import pytest
from benchmarks.operator_cells import SWAP, Cell, pairs, run

from crosswind.operators import KubernetesPodOperator
from crosswind.testing import Cluster
from deadlines import scaled

INJECTED = ("istio", "istio-native", "linkerd", "vault")

CELLS = [
    *pairs((*INJECTED, "unknown"), ("success", "failure")),
    Cell("deaf", "success", False, "delete_pod", True),
    Cell("deaf", "failure", True, "delete_succeeded_pod", False),
    Cell("istio", "oom", True, "keep_pod", True),
    Cell("none", "oom", False, "delete_pod", False),
    Cell("cloud-sql", "success", False, "keep_pod", True),
]
ROWS = [
    # the image decides whether this sidecar has a shell, and only the local cluster plays it
    pytest.param(cell, marks=[] if cell.sidecar == "cloud-sql" else [pytest.mark.cluster])
    for cell in CELLS
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("cell", ROWS, ids=lambda cell: str(cell).replace(" ", "-"))
def test_a_task_ends_as_its_base_container_did_and_its_pod_is_finished_or_gone(
    cell: Cell, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CROSSWIND__SIDECAR_SWAP_IMAGE", SWAP)
    outcome = run(KubernetesPodOperator, cell, str(cluster.kubeconfig), namespace)
    assert not outcome.wrong(cell), outcome
    assert outcome.seconds < scaled(20)
    assert not outcome.unexplained(cell), outcome

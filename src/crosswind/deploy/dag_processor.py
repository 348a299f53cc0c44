"""The DAG processors: the only long-running program that executes DAG files."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import Rendered
from crosswind.deploy.pods import Program
from crosswind.deploy.values import Values
from crosswind.deploy.workloads import deployment, disruption_budget, exec_probe

__all__ = ["PROGRAM", "dag_processor"]

PROGRAM = Program(
    component="dag-processor",
    command=("airflow", "dag-processor"),
    probes={"livenessProbe": exec_probe("DagProcessorJob")},
    reads_dags=True,
)


def dag_processor(values: Values) -> Iterator[Rendered]:
    """Yield the DAG processors."""
    reason = "Reads the DAG files and writes what is in them to the database; without it no DAG appears."
    yield deployment(values, PROGRAM, values.dag_processor, reason)
    yield from disruption_budget(values, PROGRAM.component, values.dag_processor)

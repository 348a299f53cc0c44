"""The DAG processors, which parse DAG files and write the DAGs to the database."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import RenderedObject
from crosswind.deploy.pod_specs import AirflowProgram
from crosswind.deploy.values import Values
from crosswind.deploy.workload_objects import deployment, disruption_budget, exec_probe

__all__ = ["PROGRAM", "dag_processor"]

PROGRAM = AirflowProgram(
    component="dag-processor",
    command=("airflow", "dag-processor"),
    probes={"livenessProbe": exec_probe("DagProcessorJob")},
    reads_dags=True,
)


def dag_processor(values: Values) -> Iterator[RenderedObject]:
    """Yield the DAG processors."""
    reason = "Parses the DAG files and writes the DAGs to the database; without it no DAG appears."
    yield deployment(values, PROGRAM, values.dag_processor, reason)
    yield from disruption_budget(values, PROGRAM.component, values.dag_processor)

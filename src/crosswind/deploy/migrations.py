"""The Job that brings the database's tables to Airflow's version."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import Rendered, digest, named, new
from crosswind.deploy.pods import Program, pod_template
from crosswind.deploy.values import Values

__all__ = ["migrations"]

_COMMAND = ("airflow", "db", "migrate")


def migrations(values: Values) -> Iterator[Rendered]:
    """Yield the Job. Its name changes with what it runs, because a Job cannot be changed."""
    wrapped = ("python", "-m", "crosswind", "wrap", "--mesh", values.mesh.kind, "--")
    command = (*wrapped, *_COMMAND) if values.in_main_wait else _COMMAND
    program = Program(component="migrations", command=command, waits=False)
    template = pod_template(values, program, values.migrations)
    template["spec"]["restartPolicy"] = "OnFailure"
    spec = {"backoffLimit": 6, "ttlSecondsAfterFinished": 86400, "template": template}
    name = f"{named(values, 'migrations')}-{digest(spec, 10)}"
    yield Rendered(
        "migrations/job.yaml",
        "Makes the database's tables those of this version; everything else waits for it.",
        new(values, "batch/v1/Job", name, "migrations", spec=spec),
    )

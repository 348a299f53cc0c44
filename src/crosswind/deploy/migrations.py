"""The Job that migrates the database's tables to Airflow's version."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import RenderedObject, digest, named, new
from crosswind.deploy.pod_specs import AirflowProgram, pod_template
from crosswind.deploy.values import Values

__all__ = ["migrations"]

_COMMAND = ("airflow", "db", "migrate")


def migrations(values: Values) -> Iterator[RenderedObject]:
    """Yield the Job. Its name contains a digest of its spec, because the spec of a Job is immutable."""
    wrapped = ("python", "-m", "crosswind", "wrap", "--mesh", values.mesh.kind, "--")
    command = (*wrapped, *_COMMAND) if values.in_main_wait else _COMMAND
    program = AirflowProgram(component="migrations", command=command, waits=False)
    template = pod_template(values, program, values.migrations)
    template["spec"]["restartPolicy"] = "OnFailure"
    spec = {"backoffLimit": 6, "ttlSecondsAfterFinished": 86400, "template": template}
    name = f"{named(values, 'migrations')}-{digest(spec, 10)}"
    yield RenderedObject(
        "migrations/job.yaml",
        "Migrates the database's tables to this version of Airflow; all other programs wait for it.",
        new(values, "batch/v1/Job", name, "migrations", spec=spec),
    )

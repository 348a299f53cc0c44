"""The Job that creates the first user of the UI."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from crosswind.deploy.objects import RenderedObject, digest, named, new, secret_env
from crosswind.deploy.pod_specs import AirflowProgram, pod_template
from crosswind.deploy.value_sections import AdminValues, ComponentValues, resources
from crosswind.deploy.values import Values

__all__ = ["admin_user"]

_PASSWORD = "ADMIN_PASSWORD"  # noqa: S105 - a variable's name


def admin_user(values: Values) -> Iterator[RenderedObject]:
    """Yield the Job, if the values name a user. ``airflow users create`` leaves an existing user unchanged."""
    if values.web.admin is None:
        return
    command: tuple[str, ...] = ("bash", "-c", _script(values.web.admin))
    if values.in_main_wait:
        command = ("python", "-m", "crosswind", "wrap", "--mesh", values.mesh.kind, "--", *command)
    program = AirflowProgram(component="admin-user", command=command, waits=not values.in_main_wait)
    template = pod_template(values, program, ComponentValues(resources=resources("250m", "1Gi")))
    template["spec"]["containers"][0]["env"].append(secret_env(_PASSWORD, values.web.admin.password))
    template["spec"]["restartPolicy"] = "OnFailure"
    spec = {"backoffLimit": 6, "template": template}
    name = f"{named(values, 'admin-user')}-{digest(spec, 10)}"
    yield RenderedObject(
        "admin-user/job.yaml",
        "Creates the first user with a password from a Secret; an existing user stays unchanged.",
        new(values, "batch/v1/Job", name, "admin-user", spec=spec),
    )


def _script(admin: AdminValues) -> str:
    words = ["airflow", "users", "create", "--role", "Admin"]
    words += ["--username", admin.username, "--email", admin.email]
    words += ["--firstname", admin.first_name, "--lastname", admin.last_name]
    wait = "airflow db check-migrations --migration-wait-timeout=600"
    return f'{wait} && {shlex.join(words)} --password "${_PASSWORD}"'

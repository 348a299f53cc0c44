"""The Job that makes the first user of the UI."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from crosswind.deploy.objects import Rendered, digest, named, new, secret_env
from crosswind.deploy.pods import Program, pod_template
from crosswind.deploy.values import Admin, Component, Values, resources

__all__ = ["admin_user"]

_PASSWORD = "ADMIN_PASSWORD"  # noqa: S105 - a variable's name


def admin_user(values: Values) -> Iterator[Rendered]:
    """Yield the Job; nothing where no user is wanted. A user who is there already is left as he is."""
    if values.web.admin is None:
        return
    command: tuple[str, ...] = ("bash", "-c", _script(values.web.admin))
    if values.in_main_wait:
        command = ("python", "-m", "crosswind", "wrap", "--mesh", values.mesh.kind, "--", *command)
    program = Program(component="admin-user", command=command, waits=not values.in_main_wait)
    template = pod_template(values, program, Component(resources=resources("250m", "1Gi")))
    template["spec"]["containers"][0]["env"].append(secret_env(_PASSWORD, values.web.admin.password))
    template["spec"]["restartPolicy"] = "OnFailure"
    spec = {"backoffLimit": 6, "template": template}
    name = f"{named(values, 'admin-user')}-{digest(spec, 10)}"
    yield Rendered(
        "admin-user/job.yaml",
        "Makes the first user, with a password from a Secret; one who is there already stays as he is.",
        new(values, "batch/v1/Job", name, "admin-user", spec=spec),
    )


def _script(admin: Admin) -> str:
    words = ["airflow", "users", "create", "--role", "Admin"]
    words += ["--username", admin.username, "--email", admin.email]
    words += ["--firstname", admin.first_name, "--lastname", admin.last_name]
    wait = "airflow db check-migrations --migration-wait-timeout=600"
    return f'{wait} && {shlex.join(words)} --password "${_PASSWORD}"'

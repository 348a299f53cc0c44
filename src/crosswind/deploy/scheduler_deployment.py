"""The schedulers, in which the executor runs."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.airflow_config import TEMPLATE_FOLDER, has_health_check, health_port
from crosswind.deploy.objects import RenderedObject
from crosswind.deploy.pod_specs import AirflowProgram
from crosswind.deploy.values import Values
from crosswind.deploy.workload_objects import deployment, disruption_budget, exec_probe, http_probe

__all__ = ["scheduler"]


def _program(values: Values) -> AirflowProgram:
    probes = {
        "startupProbe": http_probe("/health", "http-health", period=10, failures=90),
        "livenessProbe": http_probe("/health", "http-health", period=30, failures=5),
    }
    serves_health = has_health_check(values)
    return AirflowProgram(
        component="scheduler",
        command=("airflow", "scheduler"),
        secrets=("database", "fernet_key", "jwt_secret"),
        ports={"http-health": health_port(values)} if serves_health else {},
        probes=probes if serves_health else {"livenessProbe": exec_probe("SchedulerJob")},
        calls_kubernetes=True,
        grace_s=120,
        mounts={"pod-template": TEMPLATE_FOLDER},
    )


def scheduler(values: Values) -> Iterator[RenderedObject]:
    """Yield the schedulers."""
    reason = "Decides which tasks run; the executor in it creates, watches and deletes their pods."
    program = _program(values)
    yield deployment(values, program, values.scheduler, reason)
    yield from disruption_budget(values, program.component, values.scheduler)

"""The schedulers: they decide what runs, and the executor in them makes the pods."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.configuration import TEMPLATE_FOLDER, has_health_check, health_port
from crosswind.deploy.objects import Rendered
from crosswind.deploy.pods import Program
from crosswind.deploy.values import Values
from crosswind.deploy.workloads import deployment, disruption_budget, exec_probe, http_probe

__all__ = ["scheduler"]


def _program(values: Values) -> Program:
    probes = {
        "startupProbe": http_probe("/health", "http-health", period=10, failures=90),
        "livenessProbe": http_probe("/health", "http-health", period=30, failures=5),
    }
    answers = has_health_check(values)
    return Program(
        component="scheduler",
        command=("airflow", "scheduler"),
        secrets=("database", "fernet_key", "jwt_secret"),
        ports={"http-health": health_port(values)} if answers else {},
        probes=probes if answers else {"livenessProbe": exec_probe("SchedulerJob")},
        calls_kubernetes=True,
        grace_s=120,
        mounts={"pod-template": TEMPLATE_FOLDER},
    )


def scheduler(values: Values) -> Iterator[Rendered]:
    """Yield the schedulers."""
    reason = "Decides which tasks run; the executor in it makes, watches and deletes their pods."
    program = _program(values)
    yield deployment(values, program, values.scheduler, reason)
    yield from disruption_budget(values, program.component, values.scheduler)

"""The triggerers, which wait for deferred tasks."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.configuration import trigger_log_port
from crosswind.deploy.objects import Rendered
from crosswind.deploy.pods import Program
from crosswind.deploy.values import Values
from crosswind.deploy.workloads import disruption_budget, exec_probe, service, stateful_set

__all__ = ["triggerer"]


def _program(values: Values) -> Program:
    return Program(
        component="triggerer",
        command=("airflow", "triggerer"),
        secrets=("database", "fernet_key", "api_secret_key"),
        ports={"http-logs": trigger_log_port(values)},
        probes={"livenessProbe": exec_probe("TriggererJob")},
        calls_kubernetes=values.workers.launch_pods,
        reads_dags=True,
    )


def triggerer(values: Values) -> Iterator[Rendered]:
    """Yield the triggerers and their headless Service; nothing with no replicas."""
    if not values.triggerer.replicas:
        return
    program = _program(values)
    reason = "Waits for what deferred tasks wait for. A StatefulSet, for API servers fetch its logs by its pods' names."
    yield stateful_set(values, program, values.triggerer, reason)
    port = {"name": "http-logs", "port": trigger_log_port(values), "targetPort": "http-logs", "appProtocol": "http"}
    told = "Gives each triggerer a name in DNS, by which API servers fetch its logs."
    yield service(values, program.component, told, [port], headless=True)
    yield from disruption_budget(values, program.component, values.triggerer)

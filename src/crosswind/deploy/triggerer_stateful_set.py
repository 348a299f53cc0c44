"""The triggerers, which run the triggers of deferred tasks."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.airflow_config import trigger_log_port
from crosswind.deploy.objects import RenderedObject
from crosswind.deploy.pod_specs import AirflowProgram
from crosswind.deploy.values import Values
from crosswind.deploy.workload_objects import disruption_budget, exec_probe, service, stateful_set

__all__ = ["triggerer"]


def _program(values: Values) -> AirflowProgram:
    return AirflowProgram(
        component="triggerer",
        command=("airflow", "triggerer"),
        secrets=("database", "fernet_key", "api_secret_key"),
        ports={"http-logs": trigger_log_port(values)},
        probes={"livenessProbe": exec_probe("TriggererJob")},
        calls_kubernetes=values.workers.launch_pods,
        reads_dags=True,
    )


def triggerer(values: Values) -> Iterator[RenderedObject]:
    """Yield the triggerers and their headless Service if there are replicas."""
    if not values.triggerer.replicas:
        return
    program = _program(values)
    reason = "Runs the triggers of deferred tasks. A StatefulSet: API servers fetch the logs by the pods' names."
    yield stateful_set(values, program, values.triggerer, reason)
    port = {"name": "http-logs", "port": trigger_log_port(values), "targetPort": "http-logs", "appProtocol": "http"}
    service_reason = "Gives each triggerer a name in DNS, by which API servers fetch its logs."
    yield service(values, program.component, service_reason, [port], headless=True)
    yield from disruption_budget(values, program.component, values.triggerer)

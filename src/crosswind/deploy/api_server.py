"""The API servers: the UI and REST API for people, the execution API for workers."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.configuration import TEMPLATE_FOLDER, api_port
from crosswind.deploy.objects import Rendered
from crosswind.deploy.pods import Program
from crosswind.deploy.values import Values
from crosswind.deploy.workloads import deployment, disruption_budget, http_probe, service

__all__ = ["api_server"]


def _program(values: Values) -> Program:
    version = f"{values.web.path}/api/v2/version"  # asks no database: a slow one must not end the server
    # the first call of the execution API has Airflow build all its versions, which takes seconds in which nothing else
    # is answered: not while a task waits
    execution = f"{values.web.path}/execution/health"
    proxied = values.web.host is not None
    return Program(
        component="api-server",
        command=("airflow", "api-server", "--proxy-headers") if proxied else ("airflow", "api-server"),
        secrets=("database", "fernet_key", "api_secret_key", "jwt_secret"),
        ports={"http": api_port(values)},
        # uvicorn believes forwarded headers from localhost alone unless told; network policies keep strangers away
        env={"FORWARDED_ALLOW_IPS": "*"} if proxied else {},
        probes={
            "startupProbe": http_probe(execution, "http", period=10, failures=90),
            "livenessProbe": http_probe(version, "http", period=30, failures=5),
            "readinessProbe": http_probe(version, "http", period=10, failures=3),
        },
        calls_kubernetes=True,
        mounts={"pod-template": TEMPLATE_FOLDER},  # shows the pods of tasks
    )


def api_server(values: Values) -> Iterator[Rendered]:
    """Yield the API servers and their Service."""
    program = _program(values)
    reason = "Serves the UI, the REST API, and the execution API without which no task runs."
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    yield deployment(values, program, values.api_server, reason, rolling)
    port = {"name": "http", "port": 8080, "targetPort": "http", "appProtocol": "http"}
    yield service(values, program.component, "The address that workers and the ingress call.", [port])
    yield from disruption_budget(values, program.component, values.api_server)

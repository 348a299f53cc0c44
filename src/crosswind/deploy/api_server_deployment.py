"""The API servers: the UI and REST API for people, and the execution API for workers."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.airflow_config import TEMPLATE_FOLDER, api_port
from crosswind.deploy.objects import RenderedObject
from crosswind.deploy.pod_specs import AirflowProgram
from crosswind.deploy.values import Values
from crosswind.deploy.workload_objects import deployment, disruption_budget, http_probe, service

__all__ = ["api_server"]


def _program(values: Values) -> AirflowProgram:
    # /version does not query the database: a slow database must not make the kubelet restart the server.
    version = f"{values.web.path}/api/v2/version"
    # On the first call of the execution API, Airflow builds all its versions, which blocks the server for seconds.
    # The startup probe makes that call, so that no task waits for it.
    execution = f"{values.web.path}/execution/health"
    proxied = values.web.host is not None
    return AirflowProgram(
        component="api-server",
        command=("airflow", "api-server", "--proxy-headers") if proxied else ("airflow", "api-server"),
        secrets=("database", "fernet_key", "api_secret_key", "jwt_secret"),
        ports={"http": api_port(values)},
        # By default uvicorn trusts forwarded headers from localhost only. The network policies restrict the callers.
        env={"FORWARDED_ALLOW_IPS": "*"} if proxied else {},
        probes={
            "startupProbe": http_probe(execution, "http", period=10, failures=90),
            "livenessProbe": http_probe(version, "http", period=30, failures=5),
            "readinessProbe": http_probe(version, "http", period=10, failures=3),
        },
        calls_kubernetes=True,
        mounts={"pod-template": TEMPLATE_FOLDER},  # the UI's tab Pod renders the pods of tasks
    )


def api_server(values: Values) -> Iterator[RenderedObject]:
    """Yield the API servers and their Service."""
    program = _program(values)
    reason = "Serves the UI, the REST API, and the execution API, which every task needs."
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    yield deployment(values, program, values.api_server, reason, rolling)
    port = {"name": "http", "port": 8080, "targetPort": "http", "appProtocol": "http"}
    yield service(values, program.component, "The address that workers and the ingress call.", [port])
    yield from disruption_budget(values, program.component, values.api_server)

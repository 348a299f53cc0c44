"""The Deployment, StatefulSet, Service, disruption budget and probes of a long-running program."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import RenderedObject, named, new, selector
from crosswind.deploy.pod_specs import AirflowProgram, pod_template
from crosswind.deploy.value_sections import ComponentValues
from crosswind.deploy.values import Values
from crosswind.types import Json, Manifest

__all__ = ["deployment", "disruption_budget", "exec_probe", "http_probe", "service", "stateful_set"]


def http_probe(path: str, port: str, *, period: int, failures: int) -> Manifest:
    """Return a probe by an HTTP request; ``period`` in seconds."""
    get = {"path": path, "port": port}
    return {"httpGet": get, "periodSeconds": period, "timeoutSeconds": 10, "failureThreshold": failures}


def exec_probe(job_type: str) -> Manifest:
    """Return a probe of a program's heartbeat in the database, for programs that serve no HTTP.

    It starts a Python process, which takes seconds of CPU time; therefore the period and the timeout are long.
    """
    check = f"exec /entrypoint airflow jobs check --job-type {job_type} --local"
    command = ["sh", "-c", f"CONNECTION_CHECK_MAX_COUNT=0 AIRFLOW__LOGGING__LOGGING_LEVEL=ERROR {check}"]
    return {
        "exec": {"command": command},
        "initialDelaySeconds": 60,
        "periodSeconds": 120,
        "timeoutSeconds": 60,
        "failureThreshold": 5,
    }


def deployment(
    values: Values, program: AirflowProgram, own: ComponentValues, reason: str, strategy: Manifest | None = None
) -> RenderedObject:
    """Return a program's Deployment."""
    spec = _replicated(values, program, own)
    if strategy:
        spec["strategy"] = strategy
    component = program.component
    manifest = new(values, "apps/v1/Deployment", named(values, component), component, spec=spec)
    return RenderedObject(f"{component}/deployment.yaml", reason, manifest)


def stateful_set(values: Values, program: AirflowProgram, own: ComponentValues, reason: str) -> RenderedObject:
    """Return a program's StatefulSet, whose pods have stable names in DNS."""
    component = program.component
    spec = {"serviceName": named(values, component), "podManagementPolicy": "Parallel"}
    spec |= _replicated(values, program, own)
    manifest = new(values, "apps/v1/StatefulSet", named(values, component), component, spec=spec)
    return RenderedObject(f"{component}/stateful-set.yaml", reason, manifest)


def _replicated(values: Values, program: AirflowProgram, own: ComponentValues) -> dict[str, Json]:
    template = pod_template(values, program, own)
    match = {"matchLabels": selector(values, program.component)}
    if own.replicas > 1:
        spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        template["spec"]["topologySpreadConstraints"] = [{**spread, "labelSelector": match}]
    return {"replicas": own.replicas, "selector": match, "template": template}


def disruption_budget(values: Values, component: str, own: ComponentValues) -> Iterator[RenderedObject]:
    """Yield a budget if there are several replicas; with a single one it would block the draining of its node."""
    if own.replicas < 2:
        return
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": selector(values, component)}}
    yield RenderedObject(
        f"{component}/disruption-budget.yaml",
        "Allows the eviction of one of these pods at a time while nodes are drained.",
        new(values, "policy/v1/PodDisruptionBudget", named(values, component), component, spec=spec),
    )


def service(
    values: Values, component: str, reason: str, ports: list[Manifest], *, headless: bool = False
) -> RenderedObject:
    """Return the Service of a program. Port names begin with the protocol, because meshes read it from there."""
    spec: Manifest = {"clusterIP": "None"} if headless else {"type": "ClusterIP"}
    spec |= {"selector": selector(values, component), "ports": ports}
    manifest = new(values, "v1/Service", named(values, component), component, spec=spec)
    return RenderedObject(f"{component}/service.yaml", reason, manifest)

"""Deployments, StatefulSets, Services and what else a long-running program has, the same way for each."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import Rendered, named, new, selector
from crosswind.deploy.pods import Program, pod_template
from crosswind.deploy.values import Component, Values
from crosswind.types import Json, Manifest

__all__ = ["deployment", "disruption_budget", "exec_probe", "http_probe", "service", "stateful_set"]


def http_probe(path: str, port: str, *, period: int, failures: int) -> Manifest:
    """Return a probe by a request; ``period`` in seconds."""
    get = {"path": path, "port": port}
    return {"httpGet": get, "periodSeconds": period, "timeoutSeconds": 10, "failureThreshold": failures}


def exec_probe(job_type: str) -> Manifest:
    """Return a probe of a program's heartbeat, for programs that answer no requests.

    It starts a Python, which takes seconds of CPU: so it is asked seldom, and may take long.
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
    values: Values, program: Program, own: Component, reason: str, strategy: Manifest | None = None
) -> Rendered:
    """Return a program's Deployment."""
    spec = _replicated(values, program, own)
    if strategy:
        spec["strategy"] = strategy
    component = program.component
    manifest = new(values, "apps/v1/Deployment", named(values, component), component, spec=spec)
    return Rendered(f"{component}/deployment.yaml", reason, manifest)


def stateful_set(values: Values, program: Program, own: Component, reason: str) -> Rendered:
    """Return a program's StatefulSet, whose pods have names that others can look up."""
    component = program.component
    spec = {"serviceName": named(values, component), "podManagementPolicy": "Parallel"}
    spec |= _replicated(values, program, own)
    manifest = new(values, "apps/v1/StatefulSet", named(values, component), component, spec=spec)
    return Rendered(f"{component}/stateful-set.yaml", reason, manifest)


def _replicated(values: Values, program: Program, own: Component) -> dict[str, Json]:
    template = pod_template(values, program, own)
    match = {"matchLabels": selector(values, program.component)}
    if own.replicas > 1:
        spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        template["spec"]["topologySpreadConstraints"] = [{**spread, "labelSelector": match}]
    return {"replicas": own.replicas, "selector": match, "template": template}


def disruption_budget(values: Values, component: str, own: Component) -> Iterator[Rendered]:
    """Yield a budget where there are several; for a single one it would block the draining of its node."""
    if own.replicas < 2:
        return
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": selector(values, component)}}
    yield Rendered(
        f"{component}/disruption-budget.yaml",
        "Lets at most one of these pods go when nodes are drained.",
        new(values, "policy/v1/PodDisruptionBudget", named(values, component), component, spec=spec),
    )


def service(values: Values, component: str, reason: str, ports: list[Manifest], *, headless: bool = False) -> Rendered:
    """Return the Service of a program; port names begin with the protocol, which meshes read."""
    spec: Manifest = {"clusterIP": "None"} if headless else {"type": "ClusterIP"}
    spec |= {"selector": selector(values, component), "ports": ports}
    manifest = new(values, "v1/Service", named(values, component), component, spec=spec)
    return Rendered(f"{component}/service.yaml", reason, manifest)

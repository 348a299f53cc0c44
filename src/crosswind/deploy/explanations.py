"""A walk through the objects, in the order in which they depend on each other, for people who see them first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crosswind.deploy.objects import Rendered, identity
from crosswind.deploy.references import Reference, references, secret_keys
from crosswind.deploy.values import Values
from crosswind.deploy.workers import worker_pod
from crosswind.types import Manifest

__all__ = ["explain", "wanted_keys", "yours"]

_PARTS = {
    "": "First the ground: the namespaces, and the configuration that all components share.",
    "secrets": "Secrets are fetched into the cluster from where you keep them; the manifests know their names only.",
    "volumes": "Volumes outlive pods: what is written to them is still there when a pod is gone.",
    "rbac": "Each program has an identity (ServiceAccount). A Role lists permissions, a RoleBinding gives them to an "
    "identity. Who calls Kubernetes has exactly the permissions for its calls, the others have none.",
    "network": "A NetworkPolicy names the calls that a pod may take and make; all others are refused. Your cluster's "
    "network plug-in must enforce them.",
    "istio": "What Istio's proxies are told: they encrypt calls between pods, and know who is calling.",
    "statsd": "Metrics: all pods send them to one exporter, which Prometheus asks.",
    "monitoring": "What Prometheus watches for, if its operator is there.",
    "pgbouncer": "One process keeps the connections to the database, and lends them to all others.",
    "admin-user": "Another Job: the first user, whose password comes from a Secret.",
    "migrations": "A Job runs once, to its end. This one makes the tables; the others wait until it has.",
    "workers": "Workers have no Deployment: the executor makes one pod for each task, from a template.",
    "scheduler": "A Deployment keeps a number of equal pods running and replaces them one after the other.",
    "api-server": "A Service gives several pods one address. A disruption budget keeps enough of them when nodes are "
    "drained.",
    "dag-processor": "DAG files are programs; only here, in workers and triggerers are they run.",
    "triggerer": "A StatefulSet is a Deployment whose pods keep their names.",
    "reaper": "Jobs of others do not end while a sidecar runs in their pods. The reaper ends these; a Lease says "
    "which of its pods works.",
    "ingress": "At last the way in, for people outside the cluster.",
}


def explain(values: Values, objects: Sequence[Rendered]) -> Iterator[str]:
    """Yield the lines of the walk."""
    made = {identity(rendered.manifest): number for number, rendered in enumerate(objects, 1)}
    part = None
    for number, rendered in enumerate(objects, 1):
        folder = rendered.path.partition("/")[0] if "/" in rendered.path else ""
        if folder != part:
            part = folder
            yield from ("", f"== {folder or 'ground'}: {_PARTS[folder]}")
        kind, namespace, name = identity(rendered.manifest)
        yield from ("", f"{number:3}. {kind} {name}" + (f" in {namespace}" if namespace else ""))
        yield f"     {rendered.reason}"
        yield f"     {rendered.path}"
        if needs := [
            f"{one[0]} {one[2]} ({made[one]})"
            for one in references(rendered.manifest)
            if one in made and one[0] != "Namespace"
        ]:
            yield f"     needs {', '.join(needs)}"
    if missing := yours(values, objects):
        yield from ("", "== yours: what the objects refer to and is not among them. Make it before you apply.", "")
        yield from (
            f"     {kind} {name}" + (f" in {namespace}" if namespace else "") for kind, namespace, name in missing
        )


def yours(values: Values, objects: Sequence[Rendered]) -> list[Reference]:
    """Return what is referred to and not made by these objects, sorted."""
    made = {identity(rendered.manifest) for rendered in objects}
    made |= {
        ("Secret", identity(one.manifest)[1], one.manifest["spec"]["target"]["name"])
        for one in objects
        if one.manifest["kind"] == "ExternalSecret"
    }
    wanted = {one for manifest in _with_workers(values, objects) for one in references(manifest)}
    return sorted(wanted - made)


def wanted_keys(values: Values, objects: Sequence[Rendered]) -> dict[Reference, frozenset[str]]:
    """Return the keys that each Secret must have, from all that refers to it."""
    found: dict[Reference, frozenset[str]] = {}
    for manifest in _with_workers(values, objects):
        for reference, key in secret_keys(manifest):
            found[reference] = found.get(reference, frozenset()) | {key}
    return found


def _with_workers(values: Values, objects: Sequence[Rendered]) -> Iterator[Manifest]:
    """Yield all manifests, and the pods that the executor makes of the template."""
    yield from (rendered.manifest for rendered in objects)
    for namespace in values.worker_namespaces:
        yield {**worker_pod(values), "metadata": {"namespace": namespace}}

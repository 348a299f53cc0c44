"""Explains the objects in the order of their dependencies, for people who see the manifests for the first time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from crosswind.deploy.namespace_objects import BUILT_IN
from crosswind.deploy.objects import RenderedObject, identity
from crosswind.deploy.references import Reference, references, secret_keys
from crosswind.deploy.values import Values
from crosswind.deploy.worker_template import worker_pod
from crosswind.types import Manifest

__all__ = ["explain", "missing_objects", "required_keys"]

_FOLDERS = {
    "": "The namespaces, and the configuration that all components share.",
    "secrets": "The External Secrets operator copies Secrets from your secret store; the manifests hold names only.",
    "volumes": "Volumes outlive pods: data that a pod has written is still there after the pod is deleted.",
    "rbac": "Each program has an identity (ServiceAccount). A Role lists permissions, a RoleBinding grants them to an "
    "identity. A program that calls Kubernetes has exactly the permissions for its calls; the others have none.",
    "network": "A NetworkPolicy lists the connections that a pod may accept and open; all others are refused. Your "
    "cluster's network plug-in must enforce them.",
    "istio": "Rules for Istio's proxies, which encrypt the calls between pods and identify the callers.",
    "statsd": "All pods send their metrics to one exporter, which Prometheus scrapes.",
    "monitoring": "Alert rules, for clusters that run the Prometheus operator.",
    "pgbouncer": "One process keeps a pool of connections to the database, which all other programs share.",
    "admin-user": "Another Job: it creates the first user, whose password comes from a Secret.",
    "migrations": "A Job runs once, to its end. This one creates the tables; the other programs wait for it.",
    "workers": "Workers have no Deployment: the executor creates one pod for each task, from a template.",
    "scheduler": "A Deployment keeps a number of equal pods running and replaces them one after the other.",
    "api-server": "A Service gives several pods one address. A disruption budget keeps enough of them running while "
    "nodes are drained.",
    "dag-processor": "DAG files are programs; they run only here, in workers and in triggerers.",
    "triggerer": "A StatefulSet is like a Deployment whose pods keep their names.",
    "reaper": "A Job does not end while a sidecar runs in its pod. The reaper ends the sidecars of Jobs that are not "
    "Airflow's; a Lease elects the one of its pods that is active.",
    "ingress": "The entry point for users outside the cluster.",
}
"""What a reader should know about the objects of each folder."""


def explain(values: Values, objects: Sequence[RenderedObject]) -> Iterator[str]:
    """Yield the lines of the explanation, then the objects that the user has to create."""
    numbers = {identity(rendered.manifest): number for number, rendered in enumerate(objects, 1)}
    previous_folder = None
    for rendered in objects:
        folder = rendered.path.partition("/")[0] if "/" in rendered.path else ""
        if folder != previous_folder:
            yield from ("", f"== {folder or 'base'}: {_FOLDERS[folder]}")
        previous_folder = folder
        yield from _explain_object(rendered, numbers)
    if missing := missing_objects(values, objects):
        yield from (
            "",
            "== yours: objects that the manifests refer to but do not create. Create them first.",
            "",
        )
        yield from (f"     {_title(reference)}" for reference in missing)


def _explain_object(rendered: RenderedObject, numbers: Mapping[Reference, int]) -> Iterator[str]:
    reference = identity(rendered.manifest)
    yield from ("", f"{numbers[reference]:3}. {_title(reference)}")
    yield f"     {rendered.reason}"
    yield f"     {rendered.path}"
    needs = [
        f"{kind} {name} ({numbers[kind, namespace, name]})"
        for kind, namespace, name in references(rendered.manifest)
        if (kind, namespace, name) in numbers and kind != "Namespace"
    ]
    if needs:
        yield f"     needs {', '.join(needs)}"


def _title(reference: Reference) -> str:
    kind, namespace, name = reference
    return f"{kind} {name}" + (f" in {namespace}" if namespace else "")


def missing_objects(values: Values, objects: Sequence[RenderedObject]) -> list[Reference]:
    """Return the objects that these need and do not create, sorted, without those that are optional."""
    manifests = [rendered.manifest for rendered in objects]
    created = {("Namespace", "", BUILT_IN), *(identity(manifest) for manifest in manifests)}
    created |= {
        ("Secret", identity(manifest)[1], manifest["spec"]["target"]["name"])
        for manifest in manifests
        if manifest["kind"] == "ExternalSecret"
    }
    referring = _with_workers(values, objects)
    return sorted({reference for manifest in referring for reference in references(manifest, required=True)} - created)


def required_keys(values: Values, objects: Sequence[RenderedObject]) -> dict[Reference, frozenset[str]]:
    """Return the keys that each Secret must have, from all objects that refer to it."""
    keys: dict[Reference, frozenset[str]] = {}
    for manifest in _with_workers(values, objects):
        for reference, key in secret_keys(manifest):
            keys[reference] = keys.get(reference, frozenset()) | {key}
    return keys


def _with_workers(values: Values, objects: Sequence[RenderedObject]) -> Iterator[Manifest]:
    """Yield all manifests, and the worker pods that the executor creates from the template."""
    yield from (rendered.manifest for rendered in objects)
    for namespace in values.worker_namespaces:
        yield {**worker_pod(values), "metadata": {"namespace": namespace}}

"""``crosswind doctor``: does a cluster have what a deployment needs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from crosswind.errors import ApiError, CrosswindError, Forbidden, NotFound, Unreachable

if TYPE_CHECKING:
    from crosswind.deploy.findings import Finding
    from crosswind.deploy.references import Reference
    from crosswind.deploy.values import Values
    from crosswind.kube.client import Client
    from crosswind.types import Manifest

__all__ = ["doctor"]

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}
_TIMEOUT_S = 10.0
_CONTROL = {"istio": ("istio-system", "app=istiod"), "linkerd": ("linkerd", "linkerd.io/control-plane-component")}
_API = {
    "Secret": "v1",
    "ConfigMap": "v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "PersistentVolumeClaim": "v1",
    "StorageClass": "storage.k8s.io/v1",
}


@click.command()
@click.option("--values", "file", type=click.Path(exists=True, dir_okay=False), help="Values file of the deployment.")
@click.option("-n", "--namespace", default="airflow", show_default=True, help="Namespace to look at without values.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--kubeconfig", help="Path of the kubeconfig.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def doctor(file: str | None, namespace: str, context: str | None, kubeconfig: str | None, output: str) -> None:
    """Look at a cluster, before or after the manifests are applied, and say what to change.

    Each check is ok, warn or fail; a fail makes the exit code 1. Nothing is changed in the cluster.
    """
    from crosswind.cli.render import read
    from crosswind.deploy.values import Values

    values = read(file) if file else Values.model_validate({"image": "unknown", "namespace": namespace})
    found = asyncio.run(_examine(values, context, kubeconfig, known=file is not None))
    if output == "json":
        click.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
    else:
        for one in found:
            click.echo(f"{click.style(one.level.ljust(4), fg=_STYLES[one.level])}  {one.check}: {one.what}")
            if one.mend:
                click.echo(f"      {one.mend}")
    click.get_current_context().exit(1 if any(one.level == "fail" for one in found) else 0)


async def _examine(values: Values, context: str | None, kubeconfig: str | None, *, known: bool) -> list[Finding]:
    from crosswind.deploy.findings import Facts, findings
    from crosswind.kube.client import Client
    from crosswind.runs.checking import server_version
    from crosswind.settings import KubeSettings

    async with await Client.connect(KubeSettings(kubeconfig=kubeconfig, context=context)) as client:
        version = await server_version(client)
        if known and await _shared_before(client, values):
            values = values.with_workers_apart(False)
        look = _Look(client, values)
        seen = await look.all(known=known)
        return findings(values, Facts(version=version, unseen=look.unseen, **seen), known=known)


async def _shared_before(client: Client, values: Values) -> bool:
    """Return whether what is deployed has its workers in the namespace of everything else."""
    from crosswind.kube.resources import Resource

    try:
        deployed = await client.get(
            Resource("", "v1", "configmaps", "ConfigMap"), f"{values.name}-config", namespace=values.namespace
        )
    except (ApiError, Unreachable):
        return False  # nothing is deployed, or nobody may look: the values alone say
    lines = str((deployed.get("data") or {}).get("airflow.cfg", "")).splitlines()
    return f"namespace = {values.namespace}" in lines


class _Look:
    """Gathers facts; what may not be seen is noted and does not keep the rest from being seen."""

    def __init__(self, client: Client, values: Values) -> None:
        self._client = client
        self._values = values
        self.unseen: dict[str, str] = {}

    async def all(self, *, known: bool) -> dict[str, Any]:
        """Return the facts by name."""
        seen = {
            "kubelets": await self._try("nodes", self._kubelets, {}),
            "namespaces": await self._try("namespaces", self._namespaces, {}),
            "pods": await self._try("pods", self._pods, []),
            "quotas": await self._try("quota", self._quotas, []),
        }
        if not known:
            return seen
        denied, asked = await self._try("permissions", self._permissions, ([], 0))
        return seen | {
            "denied": denied,
            "asked": asked,
            "referred": await self._try("references", self._referred, {}),
            "keys": self._keys(),
            "unserved": await self._try("kinds", self._unserved, {}),
            "refusals": await self._try("workers", self._refusals, {}),
            "control_planes": await self._try("mesh", self._control_planes, []),
            "execution": await self._try("execution API", self._execution, None),
        }

    async def _try(self, check: str, look: Callable[[], Awaitable[Any]], otherwise: Any) -> Any:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await look()
        except TimeoutError:
            self.unseen[check] = f"no answer within {_TIMEOUT_S:g} s"
        except CrosswindError as error:
            self.unseen[check] = str(error)
        return otherwise

    async def _kubelets(self) -> dict[str, str]:
        from crosswind.kube.resources import NODES

        nodes = (await self._client.list(NODES)).items
        return {one["metadata"]["name"]: one["status"]["nodeInfo"]["kubeletVersion"] for one in nodes}

    async def _namespaces(self) -> dict[str, Manifest | None]:
        from crosswind.kube.resources import NAMESPACES

        found: dict[str, Manifest | None] = {}
        for name in self._values.namespaces:
            try:
                found[name] = await self._client.get(NAMESPACES, name)
            except NotFound:
                found[name] = None
        return found

    async def _pods(self) -> list[Manifest]:
        from crosswind.kube.resources import PODS

        labels = f"app.kubernetes.io/instance={self._values.name}"
        lists = [await self._client.list(PODS, namespace=one, labels=labels) for one in self._values.namespaces]
        return [pod for listing in lists for pod in listing.items]

    async def _quotas(self) -> list[tuple[str, str, float]]:
        from crosswind.kube.resources import RESOURCE_QUOTAS

        found: list[tuple[str, str, float]] = []
        for namespace in self._values.namespaces:
            for quota in (await self._client.list(RESOURCE_QUOTAS, namespace=namespace)).items:
                found += ((namespace, *part) for part in _used(quota.get("status", {})))
        return found

    async def _permissions(self) -> tuple[list[str], int]:
        """Ask for those who run: what the roles are to give them. Before they are applied there is nothing to ask."""
        from crosswind.kube.resources import Resource

        resource = Resource(
            "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
        )
        questions = [*_questions(self._values)] if await self._applied() else []
        denied = []
        for who, attributes in questions:
            spec = {"user": f"system:serviceaccount:{who}", "resourceAttributes": attributes}
            body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {}, "spec": spec}
            if not (await self._client.create(resource, body))["status"].get("allowed"):
                what = "/".join(filter(None, (attributes["resource"], attributes.get("subresource", ""))))
                denied.append(f"{who} may not {attributes['verb']} {what} in {attributes['namespace']}")
        return denied, len(questions)

    async def _applied(self) -> bool:
        from crosswind.kube.resources import SERVICE_ACCOUNTS

        try:
            name = f"{self._values.name}-scheduler"
            return bool(await self._client.get(SERVICE_ACCOUNTS, name, namespace=self._values.namespace))
        except NotFound:
            return False

    async def _referred(self) -> dict[Reference, Manifest | None]:
        from crosswind.cli.render import look
        from crosswind.deploy.explanations import yours
        from crosswind.deploy.tree import render

        found: dict[Reference, Manifest | None] = {}
        for kind, namespace, name in yours(self._values, render(self._values)):
            if kind == "Namespace":
                continue
            metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
            wanted = {"apiVersion": _API[kind], "kind": kind, "metadata": metadata}
            try:
                found[kind, namespace, name] = await look(self._client, wanted)
            except Forbidden as error:
                self.unseen[f"{kind} {name}"] = str(error)
        return found

    def _keys(self) -> dict[Reference, frozenset[str]]:
        from crosswind.deploy.explanations import wanted_keys
        from crosswind.deploy.tree import render

        return wanted_keys(self._values, render(self._values))

    async def _unserved(self) -> dict[str, list[str]]:
        """Return the kinds of the manifests that the cluster does not serve, with the files that have them."""
        from crosswind.deploy.tree import render

        paths: dict[tuple[str, str], list[str]] = {}
        for rendered in render(self._values):
            paths.setdefault((rendered.manifest["apiVersion"], rendered.manifest["kind"]), []).append(rendered.path)
        served: dict[str, set[str]] = {}
        for version in sorted({version for version, _ in paths}):
            served[version] = await self._served(version)
        return {f"{kind} ({version})": files for (version, kind), files in paths.items() if kind not in served[version]}

    async def _served(self, version: str) -> set[str]:
        try:
            text = await self._client.text(f"/apis/{version}" if "/" in version else f"/api/{version}")
        except NotFound:
            return set()
        return {str(resource["kind"]) for resource in json.loads(text)["resources"]}

    async def _refusals(self) -> dict[str, str]:
        """Ask the server, without making anything, whether it takes a worker's pod: rules, quotas, webhooks."""
        from crosswind.deploy.workers import worker_pod
        from crosswind.kube.resources import PODS

        found: dict[str, str] = {}
        for namespace in self._values.worker_namespaces:
            pod = worker_pod(self._values)
            try:
                await self._client.create(PODS, pod, namespace=namespace, dry_run=True, field_validation="Strict")
                found[namespace] = ""
            except NotFound:
                continue  # there is no such namespace yet, which is told elsewhere
            except ApiError as error:
                if "cannot create resource" in error.message:
                    self.unseen[f"workers in {namespace}"] = error.message
                elif "service account" not in error.message and "serviceaccount" not in error.message:
                    found[namespace] = error.message
        return found

    async def _control_planes(self) -> list[Manifest]:
        from crosswind.kube.resources import Resource

        if self._values.mesh.kind == "none":
            return []
        namespace, labels = _CONTROL[self._values.mesh.kind]
        deployments = Resource("apps", "v1", "deployments", "Deployment")
        return (await self._client.list(deployments, namespace=namespace, labels=labels)).items

    async def _execution(self) -> tuple[int, str] | None:
        """Ask an API server through the Kubernetes API."""
        from crosswind.kube.resources import PODS

        labels = f"app.kubernetes.io/instance={self._values.name},app.kubernetes.io/component=api-server"
        pods = (await self._client.list(PODS, namespace=self._values.namespace, labels=labels)).items
        running = [pod["metadata"]["name"] for pod in pods if pod.get("status", {}).get("phase") == "Running"]
        if not running:
            return None
        try:
            return await self._ask(running[0], f"{self._values.web.path}/execution/health")
        except Forbidden:
            raise
        except CrosswindError as error:
            return 0, str(error)

    async def _ask(self, pod: str, path: str) -> tuple[int, str]:
        from crosswind.deploy.configuration import api_port

        reply = b""
        async with self._client.port_forward(pod, api_port(self._values), namespace=self._values.namespace) as stream:
            await stream.send(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            while len(reply) < 65536 and (part := await stream.receive()):
                reply += part
        head, _, body = reply.decode(errors="replace").partition("\r\n\r\n")
        words = head.split()
        return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), body


def _used(status: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the used part of each resource of a quota."""
    from crosswind.local.quantities import amount

    hard, used = status.get("hard", {}), status.get("used", {})
    sums = [(name, amount(hard[name]), amount(used.get(name, "0"))) for name in sorted(hard)]
    return [(name, float(spent / limit) if limit else 1.0) for name, limit, spent in sums]


def _questions(values: Values) -> Sequence[tuple[str, dict[str, str]]]:
    """Return who (namespace:account) is to be allowed what, from the roles that are rendered."""
    from crosswind.deploy.rbac import rbac

    objects = [one.manifest for one in rbac(values)]
    roles = {(r["metadata"]["namespace"], r["metadata"]["name"]): r["rules"] for r in objects if r["kind"] == "Role"}
    return [
        (
            f"{subject['namespace']}:{subject['name']}",
            _attributes(rule, verb, resource, binding["metadata"]["namespace"]),
        )
        for binding in objects
        if binding["kind"] == "RoleBinding"
        for subject in binding["subjects"]
        for rule in roles[binding["metadata"]["namespace"], binding["roleRef"]["name"]]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def _attributes(rule: Manifest, verb: str, resource: str, namespace: str) -> dict[str, str]:
    plural, _, part = resource.partition("/")
    found = {"verb": verb, "group": rule["apiGroups"][0], "resource": plural, "subresource": part}
    return {**found, "namespace": namespace, "name": (rule.get("resourceNames") or [""])[0]}

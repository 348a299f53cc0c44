"""Reads the facts of a cluster that ``deploy.findings`` judges, for ``crosswind doctor``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from crosswind.deploy.airflow_config import api_port
from crosswind.deploy.explanations import missing_objects, required_keys
from crosswind.deploy.rbac_objects import rbac
from crosswind.deploy.tree import render
from crosswind.deploy.worker_template import worker_pod
from crosswind.errors import ApiError, CrosswindError, Forbidden, NotFound
from crosswind.kube.resources import NAMESPACES, NODES, PODS, RESOURCE_QUOTAS, SERVICE_ACCOUNTS, Resource
from crosswind.types import Manifest

if TYPE_CHECKING:
    from crosswind.deploy.references import Reference
    from crosswind.deploy.values import Values
    from crosswind.kube.client import Client

__all__ = ["ClusterInspection"]

_CHECK_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 65536
_CONTROL_PLANES = {
    "istio": ("istio-system", "app=istiod"),
    "linkerd": ("linkerd", "linkerd.io/control-plane-component"),
}
_API_VERSIONS = {
    "Secret": "v1",
    "ConfigMap": "v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "PersistentVolumeClaim": "v1",
    "StorageClass": "storage.k8s.io/v1",
}
_COUNT_BYTECODE = """
import os
from importlib.util import cache_from_source, find_spec
spec, compiled, modules = find_spec("airflow"), 0, 0
for root in (spec and spec.submodule_search_locations) or ():
    for folder, _, names in os.walk(root):
        for name in names:
            if name.endswith(".py"):
                modules += 1
                compiled += os.path.exists(cache_from_source(os.path.join(folder, name)))
print(compiled, modules)
"""
_SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
_DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")


class ClusterInspection:
    """Reads facts one after the other. A fact that cannot be read is recorded in ``unseen`` and stops no other."""

    def __init__(self, client: Client, values: Values) -> None:
        self._client = client
        self._values = values
        self.unseen: dict[str, str] = {}

    async def facts(self, *, has_values: bool) -> dict[str, Any]:
        """Return the fields of ``ClusterFacts``; without a values file only those of the cluster itself."""
        facts = {
            "kubelets": await self._try("nodes", self._kubelets, {}),
            "namespaces": await self._try("namespaces", self._namespaces, {}),
            "pods": await self._try("pods", self._pods, []),
            "quotas": await self._try("quota", self._quotas, []),
        }
        if not has_values:
            return facts
        denied, checked = await self._try("permissions", self._permissions, ([], 0))
        return facts | {
            "denied": denied,
            "checked": checked,
            "referred": await self._try("references", self._referred, {}),
            "keys": self._keys(),
            "unserved": await self._try("kinds", self._unserved, {}),
            "refusals": await self._try("workers", self._refusals, {}),
            "control_planes": await self._try("mesh", self._control_planes, []),
            "execution": await self._try("execution API", self._execution, None),
            "bytecode": await self._try("bytecode", self._bytecode, None),
        }

    async def _try(self, check: str, read: Callable[[], Awaitable[Any]], default: Any) -> Any:
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                return await read()
        except TimeoutError:
            self.unseen[check] = f"no answer within {_CHECK_TIMEOUT_S:g} s"
        except CrosswindError as error:
            self.unseen[check] = str(error)
        return default

    async def _kubelets(self) -> dict[str, str]:
        nodes = (await self._client.list(NODES)).items
        return {node["metadata"]["name"]: node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes}

    async def _namespaces(self) -> dict[str, Manifest | None]:
        namespaces: dict[str, Manifest | None] = {}
        for name in self._values.namespaces:
            try:
                namespaces[name] = await self._client.get(NAMESPACES, name)
            except NotFound:
                namespaces[name] = None
        return namespaces

    async def _pods(self) -> list[Manifest]:
        labels = f"app.kubernetes.io/instance={self._values.name}"
        lists = [await self._client.list(PODS, namespace=name, labels=labels) for name in self._values.namespaces]
        return [pod for listing in lists for pod in listing.items]

    async def _quotas(self) -> list[tuple[str, str, float]]:
        quotas: list[tuple[str, str, float]] = []
        for namespace in self._values.namespaces:
            for quota in (await self._client.list(RESOURCE_QUOTAS, namespace=namespace)).items:
                quotas += ((namespace, *usage) for usage in _usage(quota.get("status", {})))
        return quotas

    async def _permissions(self) -> tuple[list[str], int]:
        """Return the granted permissions that service accounts lack all the same, and how many were checked.

        Checks none before the roles are applied.
        """
        grants = [*_grants(self._values)] if await self._roles_are_applied() else []
        reviews = _SUBJECT_ACCESS_REVIEWS
        denied = []
        for account, attributes in grants:
            spec = {"user": f"system:serviceaccount:{account}", "resourceAttributes": attributes}
            body = {"apiVersion": reviews.api_version, "kind": reviews.kind, "metadata": {}, "spec": spec}
            if not (await self._client.create(reviews, body))["status"].get("allowed"):
                resource = "/".join(filter(None, (attributes["resource"], attributes.get("subresource", ""))))
                denied.append(f"{account} may not {attributes['verb']} {resource} in {attributes['namespace']}")
        return denied, len(grants)

    async def _roles_are_applied(self) -> bool:
        try:
            name = f"{self._values.name}-scheduler"
            return bool(await self._client.get(SERVICE_ACCOUNTS, name, namespace=self._values.namespace))
        except NotFound:
            return False

    async def _referred(self) -> dict[Reference, Manifest | None]:
        from crosswind.cli.render import live_object
        from crosswind.deploy.tree import render

        objects: dict[Reference, Manifest | None] = {}
        for kind, namespace, name in missing_objects(self._values, render(self._values)):
            if kind == "Namespace":
                continue
            metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
            manifest = {"apiVersion": _API_VERSIONS[kind], "kind": kind, "metadata": metadata}
            try:
                objects[kind, namespace, name] = await live_object(self._client, manifest)
            except Forbidden as error:
                self.unseen[f"{kind} {name}"] = str(error)
        return objects

    def _keys(self) -> dict[Reference, frozenset[str]]:
        from crosswind.deploy.tree import render

        return required_keys(self._values, render(self._values))

    async def _unserved(self) -> dict[str, list[str]]:
        """Return the kinds of the manifests that the cluster does not serve, each with its files."""
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
        """Return by namespace why the server refuses a worker's pod, "" if it accepts it: a dry run, with webhooks."""
        from crosswind.kube.resources import PODS

        refusals: dict[str, str] = {}
        for namespace in self._values.worker_namespaces:
            pod = worker_pod(self._values)
            try:
                await self._client.create(PODS, pod, namespace=namespace, dry_run=True, field_validation="Strict")
                refusals[namespace] = ""
            except NotFound:
                continue  # the namespace does not exist yet, which another finding reports
            except ApiError as error:
                if "cannot create resource" in error.message:
                    self.unseen[f"workers in {namespace}"] = error.message
                elif "service account" not in error.message and "serviceaccount" not in error.message:
                    refusals[namespace] = error.message
        return refusals

    async def _control_planes(self) -> list[Manifest]:
        if self._values.mesh.kind == "none":
            return []
        namespace, labels = _CONTROL_PLANES[self._values.mesh.kind]
        return (await self._client.list(_DEPLOYMENTS, namespace=namespace, labels=labels)).items

    async def _execution(self) -> tuple[int, str] | None:
        """Return status and body of the execution API's health page, by port forward; None without a running pod."""
        labels = f"app.kubernetes.io/instance={self._values.name},app.kubernetes.io/component=api-server"
        pods = (await self._client.list(PODS, namespace=self._values.namespace, labels=labels)).items
        running = [pod["metadata"]["name"] for pod in pods if pod.get("status", {}).get("phase") == "Running"]
        if not running:
            return None
        try:
            return await self._http_get(running[0], f"{self._values.web.path}/execution/health")
        except Forbidden:
            raise
        except CrosswindError as error:
            return 0, str(error)

    async def _bytecode(self) -> tuple[int, int] | None:
        """Count Airflow's modules that have bytecode, and all, in a running container with the workers' image."""
        for pod in await self._pods():
            running = pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
            names = [spec["name"] for spec in pod["spec"]["containers"] if spec.get("image") == self._values.image]
            if not running or not names:
                continue
            metadata, command = pod["metadata"], ["python", "-c", _COUNT_BYTECODE]
            result = await self._client.exec(
                metadata["name"], command, namespace=metadata["namespace"], container=names[0], timeout=_CHECK_TIMEOUT_S
            )
            numbers = result.stdout.split()
            if result.exit_code == 0 and len(numbers) == 2:
                return int(numbers[0]), int(numbers[1])
        return None

    async def _http_get(self, pod: str, path: str) -> tuple[int, str]:
        reply = b""
        async with self._client.port_forward(pod, api_port(self._values), namespace=self._values.namespace) as stream:
            await stream.send(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            while len(reply) < _MAX_ANSWER_BYTES and (part := await stream.receive()):
                reply += part
        head, _, body = reply.decode(errors="replace").partition("\r\n\r\n")
        words = head.split()
        return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), body


def _usage(status: Manifest) -> list[tuple[str, float]]:
    """Return the used share of each resource of a quota."""
    from kubernetes.utils.quantity import parse_quantity  # the whole client is slow to import

    hard, used = status.get("hard", {}), status.get("used", {})
    amounts = [(name, parse_quantity(hard[name]), parse_quantity(used.get(name, "0"))) for name in sorted(hard)]
    return [(name, float(used_amount / limit) if limit else 1.0) for name, limit, used_amount in amounts]


def _grants(values: Values) -> Sequence[tuple[str, dict[str, str]]]:
    """Return what the rendered roles grant: service account (NAMESPACE:NAME) and attributes of a resource."""
    objects = [rendered.manifest for rendered in rbac(values)]
    roles = {
        (role["metadata"]["namespace"], role["metadata"]["name"]): role["rules"]
        for role in objects
        if role["kind"] == "Role"
    }
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
    plural, _, subresource = resource.partition("/")
    return {
        "verb": verb,
        "group": rule["apiGroups"][0],
        "resource": plural,
        "subresource": subresource,
        "namespace": namespace,
        "name": (rule.get("resourceNames") or [""])[0],
    }

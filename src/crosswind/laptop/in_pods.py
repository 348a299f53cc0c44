"""Airflow's programs in pods, from the manifests that ``crosswind render`` makes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from cryptography.fernet import Fernet

from crosswind.demo.reasons import pod_trouble
from crosswind.deploy.tree import render
from crosswind.deploy.values import Values
from crosswind.errors import CrosswindError
from crosswind.kube.client import Client
from crosswind.kube.resources import EVENTS, PODS, SECRETS, SERVICES, resource_of
from crosswind.laptop.database import Database
from crosswind.laptop.manifests import NAMESPACE, for_this_machine, secret
from crosswind.types import Manifest

__all__ = ["AirflowInPods", "airflow_in_pods"]

PATIENCE_S = 300.0
"""Given up when no pod changes for so long: the longest step is a migration, or the first import of Airflow."""
SETTLED_S = 5.0


class AirflowInPods:
    """The programs that were started: nobody but Kubernetes looks after them."""

    def __init__(self, url: str) -> None:
        self.url = url

    def check(self) -> None:
        """Kubernetes restarts what ends."""


async def airflow_in_pods(
    client: Client, values: Values, database: Database, say: Callable[[str], None]
) -> AirflowInPods:
    """Create the deployment and wait until every pod of it is ready; what holds it up is said."""
    keys = {name: secrets.token_urlsafe(64) for name in ("api-secret-key", "jwt-secret")}
    keys["fernet-key"] = Fernet.generate_key().decode()
    await client.create(SECRETS, secret("airflow-database", {"connection": database.url}), namespace=NAMESPACE)
    await client.create(SECRETS, secret("airflow-secrets", keys), namespace=NAMESPACE)
    for rendered in render(values):
        manifest = for_this_machine(rendered.manifest)
        await client.create(resource_of(manifest), manifest, namespace=manifest["metadata"].get("namespace"))
    await _until_ready(client, say)
    service = await client.get(SERVICES, f"{values.name}-api-server", namespace=NAMESPACE)
    return AirflowInPods(f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}")


async def _until_ready(client: Client, say: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    changed, before, said = loop.time(), "", set[str]()
    while True:
        pods = (await client.list(PODS, namespace=NAMESPACE)).items
        if pods and all(map(_ready, pods)):
            return
        state = repr([(pod["metadata"]["name"], pod.get("status")) for pod in pods])
        if state != before:
            changed, before = loop.time(), state
        silent = loop.time() - changed
        troubles = await _troubles(client, pods) if silent > SETTLED_S else []
        for trouble in troubles:
            if trouble not in said:
                said.add(trouble)
                say(trouble)
        if silent > PATIENCE_S:
            waiting = ", ".join(pod["metadata"]["name"] for pod in pods if not _ready(pod))
            reasons = "; ".join(troubles) or f"kubectl -n {NAMESPACE} describe pods says more"
            raise CrosswindError(f"nothing has changed for {silent:.0f} s; not ready: {waiting}. {reasons}")
        await asyncio.sleep(0.5)


def _ready(pod: Manifest) -> bool:
    status = pod.get("status") or {}
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or ()}
    return status.get("phase") == "Succeeded" or conditions.get("Ready") == "True"


async def _troubles(client: Client, pods: list[Manifest]) -> list[str]:
    events = (await client.list(EVENTS, namespace=NAMESPACE)).items
    found = []
    for pod in pods:
        name = pod["metadata"]["name"]
        about = [one for one in events if one["involvedObject"].get("name") == name and one.get("type") == "Warning"]
        if not _ready(pod) and (trouble := pod_trouble(pod, about, pod["spec"]["containers"][0]["name"])):
            found.append(f"{name}: {trouble}")
    return found

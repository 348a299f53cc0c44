"""Runs Airflow's components in pods, from the manifests of ``crosswind render``."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable

from cryptography.fernet import Fernet

from crosswind.demo.local_airflow.deployment import NAMESPACE, for_this_machine, secret
from crosswind.demo.local_airflow.postgresql import LocalDatabase
from crosswind.demo.reasons import pod_trouble
from crosswind.deploy.objects import RenderedObject
from crosswind.deploy.tree import render
from crosswind.deploy.values import Values
from crosswind.errors import CrosswindError
from crosswind.kube.client import Client
from crosswind.kube.resources import EVENTS, PODS, SECRETS, SERVICES, resource_of
from crosswind.pods.fields import as_events, as_pod, conditions_of, status_of
from crosswind.types import Pod

__all__ = ["AirflowInPods", "airflow_in_pods"]

NO_CHANGE_LIMIT_S = 300.0
"""Give up when no pod changes for this time: the longest step is a migration, or the first import of Airflow."""
TROUBLE_DELAY_S = 5.0
"""Seconds without a change after which problems are reported: some are transient."""
POLL_S = 0.5


class AirflowInPods:
    """An Airflow in pods. Kubernetes restarts its components."""

    def __init__(self, url: str) -> None:
        self.url = url

    def check(self) -> None:
        """Do nothing: unlike a process, a pod that fails is restarted."""


async def airflow_in_pods(
    client: Client, values: Values, database: LocalDatabase, report: Callable[[str], None]
) -> AirflowInPods:
    """Create the deployment and wait until all its pods are ready. ``report`` gets the troubles of pods."""
    keys = {name: secrets.token_urlsafe(64) for name in ("api-secret-key", "jwt-secret")}
    keys["fernet-key"] = Fernet.generate_key().decode()
    await client.create(SECRETS, secret("airflow-database", {"connection": database.url}), namespace=NAMESPACE)
    await client.create(SECRETS, secret("airflow-secrets", keys), namespace=NAMESPACE)
    objects = render(values)
    await _create(client, [rendered for rendered in objects if not _belongs_to_scheduler(rendered)])
    await _until_ready(client, report)
    # Last: a worker gives the API server about eight seconds to answer, and Airflow's import may take longer than that.
    await _create(client, [rendered for rendered in objects if _belongs_to_scheduler(rendered)])
    await _until_ready(client, report)
    service = await client.get(SERVICES, f"{values.name}-api-server", namespace=NAMESPACE)
    return AirflowInPods(f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}")


def _belongs_to_scheduler(rendered: RenderedObject) -> bool:
    return rendered.path.startswith("scheduler/")


async def _create(client: Client, objects: Iterable[RenderedObject]) -> None:
    for rendered in objects:
        manifest = for_this_machine(rendered.manifest)
        await client.create(resource_of(manifest), manifest, namespace=manifest["metadata"].get("namespace"))


async def _until_ready(client: Client, report: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    last_change, last_state, reported = loop.time(), "", set[str]()
    while True:
        pods = [as_pod(pod) for pod in (await client.list(PODS, namespace=NAMESPACE)).items]
        if pods and all(map(_is_ready, pods)):
            return
        state = repr([(pod["metadata"]["name"], pod.get("status")) for pod in pods])
        if state != last_state:
            last_change, last_state = loop.time(), state
        unchanged_for = loop.time() - last_change
        troubles = await _troubles(client, pods) if unchanged_for > TROUBLE_DELAY_S else []
        for trouble in troubles:
            if trouble not in reported:
                reported.add(trouble)
                report(trouble)
        if unchanged_for > NO_CHANGE_LIMIT_S:
            waiting = ", ".join(pod["metadata"]["name"] for pod in pods if not _is_ready(pod))
            reasons = "; ".join(troubles) or f"kubectl -n {NAMESPACE} describe pods shows more"
            raise CrosswindError(f"nothing has changed for {unchanged_for:.0f} s; not ready: {waiting}. {reasons}")
        await asyncio.sleep(POLL_S)


def _is_ready(pod: Pod) -> bool:
    conditions = {condition["type"]: condition["status"] for condition in conditions_of(pod)}
    return status_of(pod).get("phase") == "Succeeded" or conditions.get("Ready") == "True"


async def _troubles(client: Client, pods: list[Pod]) -> list[str]:
    events = as_events((await client.list(EVENTS, namespace=NAMESPACE)).items)
    warnings = [event for event in events if event.get("type") == "Warning"]
    troubles = []
    for pod in pods:
        name = pod["metadata"]["name"]
        pod_warnings = [event for event in warnings if event["involvedObject"].get("name") == name]
        main_container = pod["spec"]["containers"][0]["name"]
        if not _is_ready(pod) and (trouble := pod_trouble(pod, pod_warnings, main_container)):
            troubles.append(f"{name}: {trouble}")
    return troubles

"""The reaper's manifests, applied: it runs in a pod, with its own service account and no other rights."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from crosswind.errors import Forbidden
from crosswind.kube.client import Client
from crosswind.kube.resources import (
    EVENTS,
    JOBS,
    LEASES,
    NAMESPACES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    Resource,
)
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster
from crosswind.types import Manifest
from deadlines import scaled

CRON_JOBS = Resource("batch", "v1", "cronjobs", "CronJob")

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "reaper"
RESOURCES = {resource.kind: resource for resource in (SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS)}


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
        yield client


@pytest.fixture
async def home(client: Client, namespace: str) -> AsyncIterator[str]:
    """The reaper's own namespace, with its rights; the pods are in ``namespace``."""
    name = f"{namespace}-reaper"
    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for document in documents("rbac", name, namespace):
        await client.create(RESOURCES[document["kind"]], document)
    yield name
    await client.delete(NAMESPACES, name)


def documents(file: str, home: str, jobs: str, image: str = "") -> list[Manifest]:
    """Read a manifest, with the namespaces and the image of the test in place of its own."""
    text = (EXAMPLES / f"{file}.yaml").read_text()
    for name in ("namespace: ", "--namespace="):
        text = text.replace(f"{name}crosswind\n", f"{name}{home}\n").replace(f"{name}jobs", f"{name}{jobs}")
    text = text.replace("registry.example.com/airflow-with-crosswind:2026.01", image)
    return list(yaml.safe_load_all(text))


async def as_reaper(cluster: Cluster, client: Client, home: str) -> Client:
    """Connect with a token of the reaper's service account."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    accounts = Resource("", "v1", "serviceaccounts/crosswind-reaper/token", "TokenRequest")
    token_request = await client.create(accounts, request, namespace=home)
    config["users"][0]["user"] = {"token": token_request["status"]["token"]}
    return await Client.connect(KubeSettings(kubeconfig_text=json.dumps(config)))


@pytest.mark.parametrize("bound", [(), ("exec",), ("exec", "change")])
async def test_each_set_gives_its_rights_and_none_more(
    cluster: Cluster, client: Client, namespace: str, home: str, bound: tuple[str, ...]
) -> None:
    for name in bound:
        role = f"crosswind-reaper-{name}"
        await client.create(ROLE_BINDINGS, binding(role, home), namespace=namespace)
    rights = {
        *((verb, PODS, "") for verb in ("get", "list", "watch")),
        *((verb, PODS, "portforward") for verb in ("get", "create")),
        *((verb, EVENTS, "") for verb in ("create", "list")),
        *((verb, PODS, "exec") for verb in ("get", "create") if "exec" in bound),
        *((verb, PODS, "") for verb in ("patch", "delete") if "change" in bound),
    }
    async with await as_reaper(cluster, client, home) as theirs:
        for resource, part in ((PODS, ""), (PODS, "portforward"), (PODS, "exec"), (EVENTS, ""), (SECRETS, "")):
            for verb in ("get", "list", "watch", "create", "patch", "delete"):
                is_allowed = await theirs.allowed(verb, resource, namespace=namespace, subresource=part)
                assert is_allowed is ((verb, resource, part) in rights), (verb, resource.plural, part)
        with pytest.raises(Forbidden):
            await theirs.list(PODS, namespace=home)
        with pytest.raises(Forbidden):
            await theirs.get(LEASES, "another", namespace=home)


def binding(role: str, home: str) -> Manifest:
    return {
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "crosswind-reaper", "namespace": home}],
    }


def job(name: str) -> Manifest:
    main = {"name": "work", "image": "busybox", "command": ["true"]}
    template = {"metadata": {"labels": {"sidecar.istio.io/inject": "true"}}}
    spec = {"containers": [main], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {**template, "spec": spec}},
    }


async def until(client: Client, resource: Resource, namespace: str, holds: Callable[[Manifest], Any]) -> None:
    """Wait until ``holds`` is true of an object."""
    listing = await client.list(resource, namespace=namespace)
    if any(map(holds, listing.items)):
        return
    watch = client.watch(resource, namespace=namespace, version=listing.version, timeout=scaled(45))
    async with contextlib.aclosing(watch):
        async for event in watch:
            if event["type"] != "BOOKMARK" and holds(event["object"]):
                return
    raise AssertionError("it did not come so")


def is_ready(reaper: Manifest) -> bool:
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in reaper["status"].get("conditions", ())
    )


def has_ended_container(pod: Manifest) -> bool:
    return any("terminated" in status["state"] for status in pod["status"].get("containerStatuses", ()))


def is_complete(job: Manifest) -> bool:
    return bool(job["status"].get("succeeded"))


async def test_the_deployments_pod_gets_ready_and_completes_a_meshed_job(
    cluster: Cluster, client: Client, namespace: str, home: str
) -> None:
    (deployment,) = documents("deployment", home, namespace, cluster.airflow_image)
    template = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    pod = {"metadata": {"name": "reaper", **template["metadata"]}, "spec": template["spec"]}
    await client.create(PODS, pod, namespace=home, field_validation="Strict")
    await client.create(JOBS, job("etl"), namespace=namespace)
    await until(client, PODS, home, is_ready)
    await until(client, JOBS, namespace, is_complete)
    lease = await client.get(LEASES, "crosswind-reaper", namespace=home)
    assert lease["spec"]["holderIdentity"].startswith("reaper_")
    await client.delete(PODS, "reaper", namespace=home)
    await until(client, LEASES, home, lambda lease: lease["spec"]["holderIdentity"] == "")


async def test_the_cron_jobs_pass_completes_a_meshed_job_and_itself(
    cluster: Cluster, client: Client, namespace: str, home: str
) -> None:
    (cron,) = documents("cronjob", home, namespace, cluster.airflow_image)
    await client.create(CRON_JOBS, cron, namespace=home, field_validation="Strict")
    await client.create(JOBS, job("etl"), namespace=namespace)
    await until(client, PODS, namespace, has_ended_container)
    pass_job = {"metadata": {"name": "pass"}, "spec": cron["spec"]["jobTemplate"]["spec"]}
    await client.create(JOBS, pass_job, namespace=home, field_validation="Strict")
    await until(client, JOBS, home, is_complete)
    await until(client, JOBS, namespace, is_complete)

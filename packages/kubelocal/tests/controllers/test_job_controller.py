"""Which Jobs the controller manages."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from deadlines import scaled
from kubelocal.admission import resource_quota
from kubelocal.controllers.job_controller import JobController
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.store import Store

OWN = "kubernetes.io/job-controller"


def job(name: str, **spec: Any) -> dict[str, Any]:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "base", "image": "a"}]}}
    return {"metadata": {"name": name}, "spec": {"template": template, **spec}}


@pytest.mark.parametrize(("managed_by", "owners"), [("example.com/other", ["last"]), (OWN, ["first", "last"])])
async def test_a_job_of_another_controller_is_left_alone(managed_by: str, owners: list[str]) -> None:
    registry = ClusterRegistry(Store())
    registry.create("Namespace", "", {"metadata": {"name": "ns"}})
    registry.create("Job", "ns", job("first", managedBy=managed_by))
    registry.create("Job", "ns", job("last"))
    controller = asyncio.create_task(JobController(registry).run())
    try:
        async with asyncio.timeout(scaled(5)):
            with contextlib.closing(registry.watch("Job", "ns")) as changes:
                async for change in changes:
                    if change.object["metadata"]["name"] == "last" and change.object.get("status", {}).get("active"):
                        break
    finally:
        controller.cancel()
        await asyncio.wait({controller})
    pods = registry.list("Pod", "ns")
    assert sorted(pod["metadata"]["ownerReferences"][0]["name"] for pod in pods) == owners
    status = registry.get("Job", "ns", "first").get("status", {})
    assert bool(status) is ("first" in owners)


async def test_a_job_whose_pods_a_quota_refuses_ends_at_its_deadline() -> None:
    registry = ClusterRegistry(Store(), admitters=[resource_quota.admit])
    registry.create("Namespace", "", {"metadata": {"name": "ns"}})
    registry.create("ResourceQuota", "ns", {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    registry.create("Job", "ns", job("late", activeDeadlineSeconds=1))
    controller = asyncio.create_task(JobController(registry, backoff=600).run())
    try:
        async with asyncio.timeout(scaled(5)):
            with contextlib.closing(registry.watch("Job", "ns")) as changes:
                async for change in changes:
                    conditions = change.object.get("status", {}).get("conditions", ())
                    if any(condition["type"] == "Failed" for condition in conditions):
                        break
    finally:
        controller.cancel()
        await asyncio.wait({controller})
    assert {condition["reason"] for condition in conditions} == {"DeadlineExceeded"}

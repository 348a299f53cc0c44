"""Pods that the cluster refuses, for some time or permanently: quotas and admission webhooks."""

from __future__ import annotations

import itertools

from benchmarks.chaos.api import every
from benchmarks.chaos.driving import ChaosDrive, drive
from benchmarks.chaos.proxying import Fault, ProxyRefusal
from benchmarks.chaos.scenario import Row, Scenario, ScenarioSize, exactly

__all__ = ["SCENARIOS"]

_FAMILY = "admission"
_DENIED = ProxyRefusal(
    403, 'admission webhook "images.policy.example.com" denied the request: images must come from registry.example.com'
)
_FAILED = ProxyRefusal(
    500,
    'Internal error occurred: failed calling webhook "images.policy.example.com": failed to call webhook: '
    'Post "https://policy.example.com:443/validate": dial tcp 10.0.0.1:443: connect: connection refused',
)
_QUOTA = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight"}, "spec": {"hard": {"pods": "10"}}}


def _quota(size: ScenarioSize) -> list[Row]:
    with drive(size.of(100, 20), seconds=(0.1, 0.3)) as tasks:
        tasks.cluster.do(lambda registry: registry.create("ResourceQuota", "default", _QUOTA))
        tasks.disturb = every(size.of(20.0, 1.0), lambda: _lift(tasks), 1)
        tasks.live()
        tasks.faults = tasks.proxy.answered[403]
        return tasks.rows(faults=10)


def _lift(tasks: ChaosDrive) -> None:
    tasks.cluster.do(lambda registry: registry.delete("ResourceQuota", "default", "tight"))


def _creations(refusal: ProxyRefusal, times: int) -> Fault:
    """Return a fault that refuses the first creations of pods, those of each task for some seconds at most."""
    left = itertools.count(times, -1)
    return lambda method, path: refusal if method == "POST" and path.endswith("/pods") and next(left) > 0 else None


def _denied(size: ScenarioSize) -> list[Row]:
    with drive(size.of(200, 20)) as tasks:
        tasks.proxy.fault = _creations(_DENIED, size.of(400, 40))
        tasks.live()
        return tasks.rows(faults=size.of(400, 40))


def _failing(size: ScenarioSize) -> list[Row]:
    with drive(size.of(200, 20)) as tasks:
        tasks.proxy.fault = _creations(_FAILED, size.of(800, 40))
        tasks.live()
        return tasks.rows(faults=size.of(800, 40))


def _for_good(size: ScenarioSize) -> list[Row]:
    with drive(size.of(200, 20), starts=False) as tasks:
        tasks.proxy.fault = lambda method, path: _DENIED if method == "POST" and path.endswith("/pods") else None
        tasks.live()
        messages = [text for texts in tasks.mismatches().values() for text in texts]
        named = sum("images must come from registry.example.com" in text for text in messages)
        return [*tasks.rows(faults=len(tasks.tasks)), exactly("failures that name the policy", named, len(tasks.tasks))]


SCENARIOS = (
    Scenario("quota-used-up", _FAMILY, "A quota lets ten pods in, until the quota is raised.", _quota),
    Scenario("webhook-denies", _FAMILY, "An admission webhook denies pods for a while.", _denied),
    Scenario("webhook-fails", _FAMILY, "An admission webhook does not answer for a while.", _failing),
    Scenario("webhook-denies-for-good", _FAMILY, "An admission webhook denies every pod: the tasks fail.", _for_good),
)

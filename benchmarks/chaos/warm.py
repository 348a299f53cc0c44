"""Faults of pods that wait for tasks: between claim and start, while they wait, while their pool changes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeAlias

from benchmarks.chaos.api import every
from benchmarks.chaos.driving import ChaosDrive, drive
from benchmarks.chaos.scenario import Row, Scenario, ScenarioSize, at_least, exactly
from benchmarks.contestant import workloads

from crosswind.engine.warm_claim_patch import CLAIM_LABEL, POOL_LABEL
from crosswind.executor import KubernetesExecutor
from crosswind.types import Manifest
from kubelocal.codec.status_errors import StatusError
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.store import Event

__all__ = ["SCENARIOS", "ready"]

_FAMILY = "warm"
_PATIENCE_S = 3.0
"""Seconds for which the next task waits for a pod that it can claim. Then it starts cold, which is right as well."""
_EMPTY_S = 30.0
_PAUSE_S = 0.1
_FIRST = 8
"""Pods that wait before the first task is queued."""
_HOLD = "chaos.crosswind/dead-node"


_Act: TypeAlias = Callable[[ClusterRegistry, Manifest], object]


class _Claims:
    """Sees each claim, and does ``act`` to the claimed pod. Of every ``nth`` pod that is a fault."""

    def __init__(self, tasks: ChaosDrive, nth: int = 1, act: _Act | None = None) -> None:
        self._tasks, self._nth, self._act = tasks, nth, act
        self.seen: set[str] = set()

    def __enter__(self) -> Self:
        self._deaf = self._tasks.cluster.do(lambda registry: registry.store.listen("Pod", self._saw))
        return self

    def __exit__(self, *_: object) -> None:
        self._tasks.cluster.do(lambda registry: self._deaf())

    def _saw(self, event: Event) -> None:
        pod = event.entry.object
        if event.type == "DELETED" or CLAIM_LABEL not in pod["metadata"]["labels"]:
            return
        if pod["metadata"]["uid"] not in self.seen:
            self.seen.add(pod["metadata"]["uid"])
            if self._act is not None and len(self.seen) % self._nth == 0:
                self._tasks.faults += 1
                act, claimed = self._act, pod
                self._tasks.cluster.post(lambda registry: act(registry, claimed))


@contextlib.contextmanager
def _pool(tasks: int, waiting: int) -> Iterator[ChaosDrive]:
    warm = {"CROSSWIND__WARM": json.dumps({"min": waiting, "max": 2 * waiting})}
    with drive(tasks, dies=lambda index: False, options=warm) as driven:
        driven.schedules = True
        yield driven


def ready(executor: KubernetesExecutor) -> float:
    """Return the number of pods that the executor can claim."""
    engine = executor._engine
    gauges = engine._gauges() if engine is not None else {}
    return sum(value for name, value in gauges.items() if name.startswith("crosswind.warm_pods:"))


def _trickle(tasks: ChaosDrive, executors: list[KubernetesExecutor] | None = None) -> None:
    """Queue each task when a pod waits for it, in turns with several executors, and run until all have ended."""
    turns = executors or [tasks.executor]
    tasks.until(lambda: ready(turns[0]) >= _FIRST, _EMPTY_S)
    for number, row in enumerate(tasks.tasks):
        executor = turns[number % len(turns)]
        tasks.until(lambda executor=executor: ready(executor), _PATIENCE_S)
        if executor is not tasks.executor:
            tasks.assign(row, int(executor.job_id or 0))
        (workload,) = workloads([row])
        executor.queue_workload(workload, session=None)  # type: ignore[arg-type]
        tasks.until(lambda: False, _PAUSE_S)  # until the engine, in its thread, has taken a pod for it
    tasks.settle()


def _rows(tasks: ChaosDrive, claims: _Claims, *, faults: int, hits: int) -> list[Row]:
    """Return the figures. The pods that still wait for tasks are deleted before, as they are not those of any task."""
    tasks.executor.end()
    end = time.monotonic() + _EMPTY_S
    while tasks.cluster.do(_delete_waiting) and time.monotonic() < end:
        time.sleep(0.05)
    return [
        *tasks.rows(faults=faults),
        exactly("retries used", tasks.retries_used()),
        at_least("tasks that claimed a waiting pod", len(claims.seen), hits),
    ]


def _delete_waiting(registry: ClusterRegistry) -> int:
    """Delete the pods that wait; return how many are left, and Secrets with them."""
    for pod in _waiting(registry):
        _delete(registry, pod)
    return len(_waiting(registry)) + len(registry.list("Secret"))


def _waiting(registry: ClusterRegistry) -> list[Manifest]:
    return [pod for pod in registry.list("Pod") if POOL_LABEL in pod["metadata"]["labels"]]


def _delete(registry: ClusterRegistry, pod: Manifest) -> None:
    with contextlib.suppress(StatusError):  # it was deleted meanwhile
        registry.delete("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"], grace_period=0)


def _killed(size: ScenarioSize) -> list[Row]:
    with _pool(size.of(200, 20), 10) as tasks, _Claims(tasks, 3, _delete) as claims:
        tasks.workers.delay = lambda: 0.3
        _trickle(tasks)
        return _rows(tasks, claims, faults=size.of(50, 5), hits=size.of(150, 15))


def _killed_while_refilling(size: ScenarioSize) -> list[Row]:
    """Every third pod is killed when it is created for the pool, and the engine ends several times meanwhile."""
    seen: set[str] = set()

    def kill(tasks: ChaosDrive, event: Event) -> None:
        pod = event.entry.object
        if event.type == "DELETED" or POOL_LABEL not in pod["metadata"]["labels"] or pod["metadata"]["uid"] in seen:
            return
        seen.add(pod["metadata"]["uid"])
        if len(seen) > _FIRST and len(seen) % 3 == 0:
            tasks.faults += 1
            tasks.cluster.post(lambda registry: _delete(registry, pod))

    def stop(tasks: ChaosDrive) -> None:
        if (engine := tasks.executor._engine) is not None:
            engine._thread.stop(5)  # the next heartbeat starts it again
            tasks.faults += 1

    with _pool(size.of(200, 20), 10) as tasks, _Claims(tasks) as claims:
        deaf = tasks.cluster.do(lambda registry: registry.store.listen("Pod", lambda event: kill(tasks, event)))
        tasks.disturb = every(3.0, lambda: stop(tasks), size.of(5, 1))
        _trickle(tasks)
        tasks.cluster.do(lambda registry: deaf())
        return _rows(tasks, claims, faults=size.of(40, 4), hits=size.of(100, 10))


def _evicted(size: ScenarioSize) -> list[Row]:
    def evict(tasks: ChaosDrive) -> None:
        tasks.faults += tasks.cluster.do(_evict_one)

    with _pool(size.of(200, 20), 10) as tasks, _Claims(tasks) as claims:
        tasks.disturb = every(0.4, lambda: evict(tasks), size.of(70, 3))  # a pool whose pods fail pauses for seconds
        _trickle(tasks)
        return _rows(tasks, claims, faults=size.of(20, 1), hits=size.of(150, 15))


def _evict_one(registry: ClusterRegistry) -> int:
    def fail(pod: Manifest) -> None:
        pod["status"] |= {"phase": "Failed", "reason": "Evicted", "message": "The node had no memory left"}

    for pod in [pod for pod in _waiting(registry) if (pod.get("status") or {}).get("phase") != "Failed"][:1]:
        with contextlib.suppress(StatusError):
            registry.update("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"], fail, subresource="status")
            return 1
    return 0


def _dead_node(size: ScenarioSize) -> list[Row]:
    """Of some claimed pods nothing is heard, and their deletion ends late, as on a node that is gone."""
    dead: list[Manifest] = []

    def lose(registry: ClusterRegistry, pod: Manifest) -> None:
        dead.append(pod)
        _change(registry, pod, lambda metadata: metadata.update(finalizers=[_HOLD]))

    delays = iter(range(10**9))
    with _pool(size.of(100, 12), 10) as tasks, _Claims(tasks, 4, lose) as claims:
        tasks.workers.delay = lambda: 3600.0 if next(delays) % 4 == 3 else 0.1
        tasks.disturb = every(8.0, lambda: tasks.cluster.do(lambda registry: _collect(registry, dead)), 10**6)
        _trickle(tasks)
        return _rows(tasks, claims, faults=size.of(15, 2), hits=size.of(70, 8))


def _change(registry: ClusterRegistry, pod: Manifest, change: Callable[[Manifest], object]) -> None:
    with contextlib.suppress(StatusError):
        registry.update(
            "Pod", pod["metadata"]["namespace"], pod["metadata"]["name"], lambda new: change(new["metadata"]) and None
        )


def _collect(registry: ClusterRegistry, dead: list[Manifest]) -> None:
    """Let the deletions of pods on dead nodes end, as the garbage collector of pods does."""
    for pod in dead:
        _change(registry, pod, lambda metadata: metadata.pop("finalizers", None))


def _template(size: ScenarioSize) -> list[Row]:
    with _pool(size.of(300, 30), 10) as tasks, _Claims(tasks) as claims:
        file = Path(os.environ["AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE"])
        text = file.read_text()

        def change() -> None:
            tasks.faults += 1
            file.write_text(text.replace("name: base,", f"name: base, workingDir: /tmp/{tasks.faults},"))

        tasks.disturb = every(1.0, change, size.of(3, 1))
        _trickle(tasks)
        return _rows(tasks, claims, faults=size.of(3, 1), hits=size.of(100, 5))


def _late(size: ScenarioSize, shortest_s: float = 2.5, longest_s: float = 3.5, *, outlive: bool = False) -> list[Row]:
    """Have workers ask for their task late. ``outlive``: Airflow carries that out also when the pod is gone."""
    chance = random.Random(0)

    def late(tasks: ChaosDrive) -> float:
        tasks.faults += 1
        return chance.uniform(shortest_s, longest_s)

    with _pool(size.of(200, 12), 20) as tasks, _Claims(tasks) as claims:
        tasks.workers.delay, tasks.workers.outlive = lambda: late(tasks), outlive
        _trickle(tasks)
        # A task whose claim was in vain gets a pod of its own for its next try, so that each task is late once.
        return _rows(tasks, claims, faults=size.of(150, 8), hits=size.of(150, 8))


def _carried_out_late(size: ScenarioSize) -> list[Row]:
    """Airflow carries some requests to start a task out when the executor has deleted the pod and read the row."""
    return _late(size, 2.9, 3.4, outlive=True)


def _two(size: ScenarioSize) -> list[Row]:
    with _pool(size.of(200, 20), 10) as tasks, _Claims(tasks) as claims, _second() as second:
        tasks.disturb = second.heartbeat
        _trickle(tasks, [tasks.executor, second])
        tasks.until(lambda: not (second.running or second.queued_tasks), _EMPTY_S)
        second.end()
        return [
            *_rows(tasks, claims, faults=0, hits=size.of(150, 15)),
            exactly("running at the end, in the second scheduler", len(second.running)),
        ]


@contextlib.contextmanager
def _second() -> Iterator[KubernetesExecutor]:
    executor = KubernetesExecutor(parallelism=1000)
    executor.job_id = 2
    executor.start()
    try:
        yield executor
    finally:
        executor.end()


def _quota(size: ScenarioSize) -> list[Row]:
    waiting, allowed = 10, 14

    def limit(registry: ClusterRegistry) -> None:
        quota = {"metadata": {"name": "chaos"}, "spec": {"hard": {"pods": str(allowed)}}}
        registry.create("ResourceQuota", "default", quota)

    with _pool(size.of(60, 25), waiting) as tasks, _Claims(tasks) as claims:
        tasks.until(lambda: ready(tasks.executor) >= waiting, _EMPTY_S)
        tasks.cluster.do(limit)
        tasks.faults += 1
        tasks.live()  # all at once: more than the quota allows beside the pods that wait
        return _rows(tasks, claims, faults=1, hits=waiting // 2)


SCENARIOS = (
    Scenario("killed-between-claim-and-start", _FAMILY, "every third claimed pod is killed early", _killed),
    Scenario(
        "killed-while-refilling", _FAMILY, "pods and engine are killed while the pool refills", _killed_while_refilling
    ),
    Scenario("evicted-while-waiting", _FAMILY, "pods that wait are evicted", _evicted),
    Scenario("claimed-on-a-dead-node", _FAMILY, "every fourth claimed pod is on a node that is gone", _dead_node),
    Scenario("template-changed", _FAMILY, "the pod template changes while tasks arrive", _template),
    Scenario("start-reported-late", _FAMILY, "workers ask for their task 2.5 to 3.5 s after the claim", _late),
    Scenario("start-carried-out-late", _FAMILY, "Airflow starts tasks for pods that are gone", _carried_out_late),
    Scenario("two-schedulers", _FAMILY, "two schedulers share a pool", _two),
    Scenario("quota-full", _FAMILY, "a quota is full of waiting pods", _quota),
)

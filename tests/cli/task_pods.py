"""Pods of tasks in every state, as an API server returns them, for the tests of commands that show pods."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from crosswind.pods.naming import task_annotations, task_labels
from crosswind.types import Manifest

NOW = datetime.datetime(2026, 11, 29, 12, 0, 0, tzinfo=datetime.UTC).timestamp()
RUN = "manual__2026-11-29T11:00:00+00:00"
REPORT = '{"crosswind": 1, "peak": 1073741824, "imports": 1.2, "bundle": 0.1, "parse": 0.4, "run": 31.5}\n'


def stamp(seconds_ago: float) -> str:
    moment = datetime.datetime.fromtimestamp(NOW - seconds_ago, datetime.UTC)
    return moment.isoformat().replace("+00:00", "Z")


def task_pod(
    number: int,
    dag_id: str = "sales",
    task_id: str = "load",
    *,
    run_id: str = RUN,
    queue: str = "default",
    try_number: int = 1,
    map_index: int = -1,
    seconds_old: float = 300,
    **status: Any,
) -> Manifest:
    """Return a worker pod; its name ends with the number."""
    ids: dict[str, Any] = {"dag_id": dag_id, "task_id": task_id, "run_id": run_id, "map_index": map_index}
    ids |= {"try_number": try_number, "queue": queue}
    sidecar = {"name": "istio-proxy", "image": "istio/proxyv2:1.26.4", "args": ["proxy", "sidecar"]}
    base: Manifest = {"name": "base", "image": "apache/airflow:3.3.2"}
    base["resources"] = {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"sales-load-0193a0d2-7c11-7d3e-8a55-{number:012x}",
            "namespace": "airflow",
            "uid": f"00000000-0000-0000-0000-{number:012x}",
            "resourceVersion": str(number),
            "creationTimestamp": stamp(seconds_old),
            "labels": task_labels(**ids, executor_id="5") | {"crosswind/worker": "true"},
            "annotations": task_annotations(**ids),
        },
        "spec": {"containers": [base, sidecar], "restartPolicy": "Never", "nodeName": status.pop("node", "node-1")},
        "status": status,
    }


def container(name: str, restarts: int = 0, **state: Any) -> Manifest:
    return {"name": name, "image": name, "imageID": name, "ready": False, "restartCount": restarts, "state": state}


def running(seconds_ago: float = 200) -> Manifest:
    return {"startedAt": stamp(seconds_ago)}


def terminated(code: int, reason: str = "Error", **more: Any) -> Manifest:
    return {"exitCode": code, "reason": reason, "startedAt": stamp(200), "finishedAt": stamp(60), **more}


def condition(kind: str, status: str = "True", **more: Any) -> Manifest:
    return {"type": kind, "status": status, "lastTransitionTime": stamp(298), **more}


def pods() -> list[Manifest]:
    """Return a pod in each state."""
    return list(_pods())


def _pods() -> Iterator[Manifest]:
    proxy = container("istio-proxy", running=running())
    no_node = "0/3 nodes are available: 3 Insufficient cpu."
    waits = condition("PodScheduled", "False", reason="Unschedulable", message=no_node)
    yield task_pod(0xA1, task_id="extract", seconds_old=5000, phase="Pending", conditions=[waits], node=None)
    image = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "my/etl:7"'}
    yield task_pod(0xA2, seconds_old=700, phase="Pending", containerStatuses=[container("base", waiting=image)])
    scheduled = [condition("PodScheduled"), condition("Initialized")]
    on = [container("base", running=running()), proxy]
    yield task_pod(0xA3, map_index=12, queue="big", phase="Running", conditions=scheduled, containerStatuses=on)
    done = [container("base", terminated=terminated(0, "Completed")), proxy]
    yield task_pod(0xA4, task_id="done", phase="Running", conditions=scheduled, containerStatuses=done)
    killed = terminated(137, "OOMKilled", message=REPORT)
    statuses = [container("base", terminated=killed), proxy]
    yield task_pod(0xA5, "billing", "month_end", try_number=2, phase="Failed", containerStatuses=statuses)
    failed = [container("base", terminated=terminated(1)), container("istio-proxy", terminated=terminated(0))]
    yield task_pod(0xA6, "billing", "checks.totals", phase="Failed", containerStatuses=failed)
    evicted = {"reason": "Evicted", "message": "The node was low on resource: memory."}
    yield task_pod(0xA7, "billing", "export", seconds_old=90000, phase="Failed", **evicted)
    leaving = task_pod(0xA8, task_id="leave", phase="Running", containerStatuses=on)
    leaving["metadata"] |= {"deletionTimestamp": stamp(-20), "deletionGracePeriodSeconds": 30}
    yield leaving
    long = "a_dag_with_a_name_that_is_so_long_that_no_label_can_hold_all_of_it_日本語"
    yield task_pod(0xA9, long, "tâche", queue="files à lire", phase="Running", containerStatuses=on)
    yield operator_pod()
    yield warm_pod()


def operator_pod() -> Manifest:
    pod = task_pod(0xB1, task_id="spark", phase="Running")
    labels = {key: value for key, value in pod["metadata"]["labels"].items() if not key.startswith("crosswind/")}
    del labels["kubernetes_executor"]
    pod["metadata"] |= {"name": "spark-x1y2z3", "labels": labels | {"kubernetes_pod_operator": "True"}}
    pod["metadata"]["annotations"] = {}
    pod["spec"]["containers"] = [{"name": "driver", "image": "spark:4"}]
    pod["status"]["containerStatuses"] = [container("driver", running=running())]
    return pod


def warm_pod() -> Manifest:
    pod = task_pod(0xC1, phase="Running", containerStatuses=[container("base", running=running())])
    pod["metadata"] |= {"name": "warm-default-c1", "annotations": {}}
    pod["metadata"]["labels"] = {"crosswind/pool": "default", "crosswind/worker": "true"}
    return pod

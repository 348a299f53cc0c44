"""Fills a metadata database with what the pages show: a program that runs in the environment of a real Airflow.

python example_rows.py DAGS_IN_FLIGHT PODS_IN_FLIGHT PODS_OF_THE_PAST
"""

from __future__ import annotations

import datetime
import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.models.dag import DagModel
from airflow.models.log import Log
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from crosswind.engine.fleet_snapshot import PodInFlight, SnapshotChanges
from crosswind.provider import fleet_rows
from crosswind.provider.fleet_rows import DatabaseSnapshot
from crosswind.provider.pod_rows import PODS
from crosswind.provider.tables import make_tables

NOW = time.time()
MIB = 1024**2
ISTIO = [
    {"name": "istio-init", "kind": "init", "state": "terminated", "exit_code": 0, "injected": True},
    {"name": "istio-proxy", "kind": "native", "state": "terminated", "exit_code": 0, "injected": True},
]
ADDED = ["labels/istio.io/rev", "annotations/sidecar.istio.io/status", "volumes/kube-api-access-7xk2p"]
ADDED += ["volumeMounts/base//var/run/secrets/kubernetes.io/serviceaccount"]
OUT_OF_MEMORY = (
    "base was killed because it used more memory than its limit of 512Mi (OOMKilled); raise"
    " pod_override.spec.containers[base].resources.limits.memory"
)
UNSCHEDULABLE = (
    "0/12 nodes are available: 12 Insufficient memory; lower the request of 64Gi, or add a node that has as much"
)

Moments = Mapping[str, float]


def moments(began: float, *, pull: float = 0.4, run: float = 41.0, gone: float = 1.3) -> dict[str, float]:
    """Return the times of a pod, as the kubelet and the executor report them."""
    created, scheduled = began + 0.2, float(int(began + 1))
    started = scheduled + 2 + int(pull)
    ended = started + 4 + run
    return {
        "queued": began,
        "created": created,
        "scheduled": scheduled,
        "sandbox": scheduled + 1,
        "initialized": scheduled + 2,
        "pulled": scheduled + 2 + pull,
        "started": started,
        "running": started + 2.1,
        "ended": ended,
        "gone": ended + gone,
    }


def seconds(run: float = 41.0) -> dict[str, float]:
    return {"imports": 2.1, "bundle": 0.1, "parse": 0.6, "run": run}


def record(ti: TaskInstance, began: float, outcome: str = "success", **fields: Any) -> dict[str, Any]:
    """Return a row of ``crosswind_pod``."""
    times = fields.pop("times", None) or moments(began)
    detail = {
        "times": times,
        "image": "registry.example/airflow:3.3.2",
        "requests": {"cpu": "500m", "memory": "512Mi"},
        "limits": {"memory": "1Gi"},
        "peak_memory": 381 * MIB,
        "cpu": 12.4,
        "seconds": seconds(),
        "containers": ISTIO,
        "added": ADDED,
        **fields.pop("detail", {}),
    }
    unique = str(uuid4())
    return {
        "pod": unique,
        "ti_id": str(ti.id),
        **{name: getattr(ti, name) for name in ("dag_id", "task_id", "run_id", "map_index", "try_number")},
        "launch": 0,
        "cluster": "https://10.0.0.1",
        "namespace": "airflow",
        "name": f"{ti.dag_id}-{ti.task_id}-{unique}".replace("_", "-"),
        "node": "worker-3",
        "queue": ti.queue,
        "outcome": outcome,
        "reason": "",
        "exit_code": 0 if outcome == "success" else 1,
        "ended_at": datetime.datetime.fromtimestamp(times["ended"], datetime.UTC),
        **fields,
        "detail": json.dumps(detail),
    }


def set_times(ti: TaskInstance, state: str | None, times: Moments, number: int = 1) -> None:
    def at(name: str) -> datetime.datetime | None:
        return datetime.datetime.fromtimestamp(times[name], datetime.UTC) if name in times else None

    ti.state, ti.try_number = state, number  # type: ignore[assignment]
    ti.queued_dttm, ti.start_date, ti.end_date = at("queued"), at("running"), at("ended")


def event(ti: TaskInstance, name: str, extra: str, at: float) -> Log:
    row = Log(event=name, task_instance=ti.key, extra=extra)
    row.dttm = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return row


def read_dags() -> None:
    """Store the DAGs of the folder, as the DAG processor does."""
    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    for bundle in manager.get_all_dag_bundles():
        bundle.initialize()
        bag = BundleDagBag(bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
        if bag.import_errors:
            raise SystemExit(bag.import_errors)
        with create_session() as session:
            sync_bag_to_db(bag, bundle.name, bundle_version=None, session=session)


def start_run(session: Session, dag_id: str) -> dict[tuple[str, int], TaskInstance]:
    """Create a run of a DAG; return its task instances by task and map index."""
    dag = SerializedDagModel.get_dag(dag_id, session=session)
    assert dag is not None
    at = datetime.datetime.fromtimestamp(NOW - 900, datetime.UTC)
    dag.create_dagrun(
        run_id="manual__2026-11-29",
        logical_date=at,
        data_interval=(at, at),
        run_after=at,
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state=DagRunState.RUNNING,
        start_date=at,
        session=session,
    )
    session.flush()
    tis = session.scalars(select(TaskInstance).where(TaskInstance.dag_id == dag_id))
    return {(ti.task_id, ti.map_index): ti for ti in tis}


def write_task_rows(session: Session) -> list[PodInFlight]:
    """Write the rows of the DAG ``orders``; return its pods in flight."""
    start_run(session, "secret_plans")
    tis = start_run(session, "orders")
    rows = [*_ended(session, tis), *_three_tries(session, tis["report", -1])]
    session.execute(insert(PODS), rows)
    return _living(session, tis)


def _ended(session: Session, tis: Mapping[tuple[str, int], TaskInstance]) -> Iterator[dict[str, Any]]:
    began = NOW - 800
    for index, state in ((0, "success"), (1, "success"), (2, "failed")):
        set_times(tis["partition", index], state, moments(began))
        outcome = {"outcome": "failed", "reason": "Error"} if state == "failed" else {}
        yield record(tis["partition", index], began, **outcome)
    set_times(tis["extract", -1], "success", moments(began))
    yield record(tis["extract", -1], began)
    set_times(tis["clean", -1], "failed", moments(began))
    message = "base ended with exit code 1; the task's log says more"
    yield record(tis["clean", -1], began, "failed", reason="Error", detail={"message": message})
    set_times(tis["join_all", -1], "failed", moments(began))
    session.add(event(tis["join_all", -1], "pod failed", OUT_OF_MEMORY, NOW - 750))
    out_of_memory = {
        "message": OUT_OF_MEMORY,
        "limits": {"memory": "512Mi"},
        "peak_memory": 511 * MIB,
        "seconds": {},
        "events": [
            {"reason": "Pulled", "message": "Container image already present on machine", "at": began + 4},
            {"reason": "OOMKilling", "message": "Memory cgroup out of memory: Killed process 71", "at": NOW - 751},
        ],
    }
    yield record(tis["join_all", -1], began, "failed", reason="OOMKilled", exit_code=137, detail=out_of_memory)


def _three_tries(session: Session, ti: TaskInstance) -> Iterator[dict[str, Any]]:
    """Yield the pods of a task that was evicted, failed, was launched twice, and succeeded."""
    evicted = "The cluster took the pod while the task ran: the node worker-3 was low on memory"
    set_times(ti, "up_for_retry", moments(NOW - 700))
    yield record(ti, NOW - 700, "lost", reason="Evicted", exit_code=137, detail={"message": evicted})
    session.add(event(ti, "pod lost", evicted, NOW - 655))
    ti.prepare_db_for_next_try(session=session)
    set_times(ti, "up_for_retry", moments(NOW - 600), 2)
    yield record(ti, NOW - 600, "failed", reason="Error", detail={"message": "base ended with exit code 1"})
    ti.prepare_db_for_next_try(session=session)
    set_times(ti, "success", moments(NOW - 500), 3)
    measured = ("seconds", "containers", "peak_memory", "cpu")
    refused = {"message": "The node refused the pod: OutOfcpu", **dict.fromkeys(measured)}
    short = {name: at for name, at in moments(NOW - 500).items() if name in ("queued", "created", "scheduled", "ended")}
    times = {**short, "ended": short["scheduled"] + 1}
    yield record(ti, NOW - 500, "failed", reason="OutOfcpu", exit_code=None, times=times, detail=refused)
    session.add(event(ti, "pod relaunched", "The node worker-3 refused the pod: OutOfcpu", NOW - 497))
    yield record(ti, NOW - 490, launch=1, node="worker-7", times=moments(NOW - 490, pull=9.2))


def _living(session: Session, tis: Mapping[tuple[str, int], TaskInstance]) -> list[PodInFlight]:
    load, publish, last = tis["load", -1], tis["publish", -1], tis["partition", 3]
    set_times(load, "queued", {"queued": NOW - 190})
    session.add(event(load, "pod waits", UNSCHEDULABLE, NOW - 160))
    for ti in (publish, last):
        set_times(ti, "running", {"queued": NOW - 60, "running": NOW - 51})
    session.flush()
    return [
        in_flight(load, "pending", NOW - 189, "Unschedulable"),
        in_flight(publish, "running", NOW - 54, node="worker-3"),
        in_flight(last, "running", NOW - 54, node="worker-4"),
    ]


def in_flight(ti: Any, phase: str, since: float, reason: str = "", node: str = "", **more: Any) -> PodInFlight:
    names = ("dag_id", "task_id", "run_id", "map_index", "try_number")
    unique = str(uuid4())
    return PodInFlight(
        unique_id=unique,
        ti_id=str(ti.id),
        **{name: getattr(ti, name) for name in names},
        queue=ti.queue,
        namespace=more.get("namespace", "airflow"),
        name=f"{ti.dag_id}-{ti.task_id}-{unique}".replace("_", "-"),
        phase=phase,
        reason=reason,
        since=since,
        node=node,
        created=0.0 if phase == "waiting" else since - (5 if phase == "running" else 0),
        started=since if phase == "running" else 0.0,
    )


class OtherTask:
    """A task instance of the fleet that has no row in Airflow's tables: the page of the fleet needs none."""

    def __init__(self, number: int, dags: int) -> None:
        self.id = uuid4()
        self.dag_id = f"etl_{number % dags:02d}"
        self.task_id, self.run_id = f"load_{number // dags}", "scheduled__2026-11-29T00:00:00+00:00"
        self.map_index, self.try_number = -1, 1
        self.queue = ("etl", "etl", "reports", "gpu")[number % 4]


def write_fleet(session: Session, dags: int, pods: int, past: int, known: list[PodInFlight]) -> None:
    """Write pods in flight of many DAGs, and rows of pods of the last day."""
    bundle = session.scalars(select(DagModel.bundle_name)).first()
    session.add_all([DagModel(dag_id=f"etl_{number:02d}", bundle_name=bundle) for number in range(dags)])
    phases = (
        *((("running", ""),) * 14),
        *(("pending", reason) for reason in ("Unschedulable", "Unschedulable", "ImagePullBackOff", "")),
        ("waiting", "QuotaExceeded"),
        ("ending", ""),
    )
    others = []
    for number in range(pods - len(known)):
        phase, reason = phases[number % len(phases)]
        node = f"worker-{number % 60}" if phase in ("running", "ending") else ""
        since = NOW - (number * 7919 % 3000) - 1
        space = "reports" if number % 4 == 2 else "airflow"
        others.append(in_flight(OtherTask(number, dags), phase, since, reason, node, namespace=space))
    gauges = {"watch_silence": 3.2, "creation_pace": 64.0, "tasks_held_back": 12.0}
    gauges |= {"warm_pods:default": 8.0, "warm_pods:gpu": 2.0, "warm_pods_starting": 1.0}
    gauges = {f"crosswind.{name}": number for name, number in gauges.items()}
    DatabaseSnapshot("1").apply(SnapshotChanges([*known, *others], []), gauges)
    # Nothing keeps the snapshot up to date here: it shall not become stale.
    fresh = datetime.datetime.fromtimestamp(NOW + 86_400, datetime.UTC)
    session.execute(update(fleet_rows.EXECUTORS).values(seen_at=fresh))
    rows = [_past(number, dags) for number in range(past)]
    if rows:
        session.execute(insert(PODS), rows)


def _past(number: int, dags: int) -> dict[str, Any]:
    failures = ("OOMKilled", "Error", "Evicted", "Error", "ImagePullBackOff")
    failed = number % 40 == 0
    peak = (300 + number % dags * 40) * MIB
    memory = {"requests": {"memory": "2Gi"}, "limits": {"memory": "2Gi"}, "peak_memory": peak, "containers": []}
    row = record(OtherTask(number, dags), NOW - 60 - number * 7 % 80_000, detail=memory)  # type: ignore[arg-type]
    if failed:
        row |= {"outcome": "failed", "reason": failures[number // 40 % len(failures)], "exit_code": 1}
    return row


def main(dags: int, pods: int, past: int) -> None:
    read_dags()
    make_tables()
    with create_session() as session:
        known = write_task_rows(session)
    with create_session() as session:
        write_fleet(session, dags, pods, past, known)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

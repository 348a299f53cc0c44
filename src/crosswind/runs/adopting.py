"""Taking over the pods of an executor that is no more: one list per namespace, then a label on each pod."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import replace

from crosswind.errors import CrosswindError
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.pods.naming import label_value
from crosswind.runs.board import Board
from crosswind.runs.workloads import Claim, Run, Stage
from crosswind.settings import EngineSettings
from crosswind.types import Manifest

__all__ = ["adopt", "match"]

log = logging.getLogger(__name__)

_AT_ONCE = 16


def match(pods: Collection[Manifest], claims: Sequence[Claim]) -> list[tuple[Claim, Manifest]]:
    """Return the claims that have a pod. The task instance's id decides; stock's pods have only the key's parts."""
    by_id = {claim.ti_id: claim for claim in claims}
    by_key = {claim.key: claim for claim in claims}
    found = []
    for pod in pods:
        annotations = pod["metadata"].get("annotations") or {}
        ti_id = annotations.get("task_instance_id")
        claim = by_id.get(ti_id) if ti_id else by_key.get(_key(annotations))
        if claim is not None and "deletionTimestamp" not in pod["metadata"]:
            found.append((claim, pod))
    return found


def _key(annotations: dict[str, str]) -> tuple[str, str, str, int, int]:
    def number(name: str, default: int) -> int:
        text = annotations.get(name, "")
        return int(text) if text.lstrip("-").isdigit() else default

    dag, task, run = (annotations.get(name, "") for name in ("dag_id", "task_id", "run_id"))
    return dag, task, run, number("try_number", 0), number("map_index", -1)


async def adopt(
    client: Client, board: Board, settings: EngineSettings, claims: Sequence[Claim], executors: Collection[str]
) -> list[tuple[Run, Manifest]]:
    """Adopt the pods of these claims that carry the label of one of these executors; return the runs and their pods.

    The runs are on the board when the label is set, so that the watch finds them.
    """
    labels = f"kubernetes_executor=True,airflow-worker in ({','.join(sorted(map(label_value, executors)))})"
    pods: list[Manifest] = []
    for namespace in settings.namespaces:
        pods += (await client.list(PODS, namespace=namespace, labels=labels)).items
    limit = asyncio.Semaphore(_AT_ONCE)

    async def take(claim: Claim, pod: Manifest) -> tuple[Run, Manifest] | None:
        async with limit:
            return await _take(client, board, settings, claim, pod)

    taken = await asyncio.gather(*(take(claim, pod) for claim, pod in match(pods, claims)))
    return [adopted for adopted in taken if adopted is not None]


async def _take(
    client: Client, board: Board, settings: EngineSettings, claim: Claim, pod: Manifest
) -> tuple[Run, Manifest] | None:
    metadata = pod["metadata"]
    now = asyncio.get_running_loop().time()
    task = replace(claim.workload.task, executor_id=settings.executor_id)
    run = Run(claim.workload, task, now, stage=Stage.CREATED, created_at=now)
    run.uid = metadata["uid"]
    board.add(run)
    board.placed(run, metadata["namespace"], metadata["name"])
    label = {"metadata": {"uid": run.uid, "labels": {"airflow-worker": label_value(settings.executor_id)}}}
    try:
        patched = await client.patch(PODS, run.name, label, namespace=run.namespace)
    except CrosswindError as error:
        log.warning("Pod %s could not be adopted: %s", run.where, error)
        run.gone = run.settled = True
        board.drop_if_over(run)
        return None
    return run, patched

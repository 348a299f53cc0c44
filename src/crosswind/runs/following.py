"""From changes of pods to what they mean for their runs: begun, over, lost, stuck for good."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from crosswind.errors import CrosswindError, NotFound
from crosswind.kube.client import Client
from crosswind.kube.informing import Informer, InformerEvent
from crosswind.kube.resources import PODS
from crosswind.pods import verdicts
from crosswind.pods.causes import why
from crosswind.pods.essentials import essentials
from crosswind.pods.log_volumes import keeps_its_log
from crosswind.pods.naming import label_value
from crosswind.pods.verdicts import Verdict, judge
from crosswind.runs.board import Board
from crosswind.runs.workloads import End, Run, Stage
from crosswind.settings import EngineSettings
from crosswind.types import Manifest

__all__ = ["Follower"]

log = logging.getLogger(__name__)

_ORDINARY = ("", "ContainerCreating", "PodInitializing")
"""Reasons of a pod on its way."""


class Follower:
    """Watches the executor's pods, one watch per namespace.

    ``over`` hears of each run whose base container is over, ``leaving`` of each whose pod somebody deletes meanwhile.
    """

    def __init__(
        self,
        client: Client,
        board: Board,
        settings: EngineSettings,
        over: Callable[[Run], None],
        leaving: Callable[[Run], None] = lambda run: None,
    ) -> None:
        self._client = client
        self._board = board
        self._settings = settings
        self._over = over
        self._leaving = leaving
        self._group: asyncio.TaskGroup | None = None
        self._informers: dict[str | None, Informer] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for namespace in self._settings.namespaces:
                self.follow(namespace)
            await asyncio.Event().wait()

    @property
    def silence(self) -> float:
        """Seconds since the watch that has heard nothing for longest heard something."""
        return max((one.lag for one in self._informers.values() if one.listed.is_set()), default=0.0)

    def follow(self, namespace: str | None) -> None:
        """Watch a namespace (None: all) unless it is watched."""
        if self._group is None or not self._informers.keys().isdisjoint((None, namespace)):
            return
        informer = self._informers[namespace] = Informer(
            self._client,
            PODS,
            namespace=namespace,
            labels=f"kubernetes_executor=True,airflow-worker={label_value(self._settings.executor_id)}",
            relist_every=self._settings.relist_interval,
            trim=essentials,
        )
        self._group.create_task(informer.run(self.on_change))

    def versions(self) -> dict[str | None, str]:
        """Return how far each namespace (None: all) is followed: everything up to there was dealt with."""
        return {namespace: informer.version for namespace, informer in self._informers.items() if informer.version}

    def on_change(self, event: InformerEvent) -> None:
        """Take one change; a pod that is not ours is nothing."""
        metadata = event.object["metadata"]
        run = self._board.pods.get((metadata["namespace"], metadata["name"]))
        if run is None or (run.uid and run.uid != metadata["uid"]):
            return
        if not run.seen and self._settings.archive is not None:
            run.keeps_log = keeps_its_log(event.object, self._settings.archive.folder)
        run.uid, run.seen = metadata["uid"], True
        try:
            if event.type != "DELETED":
                self.changed(run, event.object)
            elif run.stage is Stage.ENDED or run.revoked or self._group is None:
                self.gone(run, event.object)
            else:
                self._group.create_task(self.look(run, event.object))
        except Exception:
            log.exception("A change of pod %s could not be handled", run.where)

    def changed(self, run: Run, pod: Manifest) -> None:
        """Judge a pod that is there."""
        if run.stage is Stage.ENDED or run.revoked:
            return
        if run.stage is Stage.WAITING:
            run.has_pod(asyncio.get_running_loop().time())
        verdict = judge(pod, fatal=self._settings.fatal_reasons)
        if verdict.over:
            self._ended(run, pod, verdict)
        elif verdict.stage is verdicts.Stage.RUNNING:
            self._begun(run)
            if verdict.deleting:
                self._leaving(run)
        else:
            run.held_up = "" if verdict.reason in _ORDINARY else verdict.reason
            run.waits_for = None if verdict.reason in _ORDINARY else partial(self._why, essentials(pod))

    def gone(self, run: Run, pod: Manifest) -> None:
        """Take leave of a pod."""
        run.pod_is_gone()
        if run.revoked:
            self._board.release_batch(run)
        elif run.stage is not Stage.ENDED:
            self._ended(run, pod, judge(pod, fatal=self._settings.fatal_reasons, deleted=True), deleted=True)
        self._board.drop_if_over(run)

    async def look(self, run: Run, last: Manifest) -> None:
        """Look for a pod of which nothing is told any more: deleted at once, or adopted by another executor."""
        run.seen, run.created_at = False, asyncio.get_running_loop().time()
        try:
            pod = await self._client.get(PODS, run.name, namespace=run.namespace)
        except NotFound:
            self.gone(run, last)
            return
        except CrosswindError as error:
            log.warning("Pod %s cannot be looked for, trying again later: %s", run.where, error)
            return
        if pod["metadata"]["uid"] != run.uid:
            self.gone(run, last)
        elif (pod["metadata"].get("labels") or {}).get("airflow-worker") not in self._owners(run):
            self._adopted(run)
        else:
            self.changed(run, pod)

    def _owners(self, run: Run) -> set[str]:
        """Return the executors whose label says that a run is ours."""
        return {label_value(self._settings.executor_id)} | ({run.claim.owner} if run.claim is not None else set())

    def _adopted(self, run: Run) -> None:
        """Let a pod go that is another executor's by now."""
        log.info("Pod %s was adopted by another executor", run.where)
        run.pod_is_gone()
        run.settle()
        if run.stage is not Stage.ENDED:  # meanwhile
            self._board.end(run, End(failed=False, message="adopted"))
        self._board.drop_if_over(run)

    def _begun(self, run: Run) -> None:
        if run.stage is not Stage.BEGUN:
            run.begins(asyncio.get_running_loop().time())
            self._board.batches.begun(run.namespace, run.batch, run.unique)

    def _ended(self, run: Run, pod: Manifest, verdict: Verdict, *, deleted: bool = False) -> None:
        if verdict.succeeded:
            self._board.end(run, End(failed=False, message=f"Pod {run.where}: the worker ended with exit code 0"))
            self._over(run)
            return
        phase = (pod.get("status") or {}).get("phase")
        if not deleted and not verdict.started and phase not in ("Failed", "Succeeded"):
            run.pod_is_unwanted()
        self._fail(run, verdict.reason, self._whose(verdict) + self._why(pod, deleted=deleted))

    def _fail(self, run: Run, reason: str, message: str) -> None:
        log.warning("Pod %s failed: %s", run.where, message)
        if self._settings.log_tasks:
            log.warning("Pod %s was for %s", run.where, run.task)
        self._board.end(run, End(failed=True, reason=reason, message=message, may_relaunch=True))
        self._over(run)

    def _whose(self, verdict: Verdict) -> str:
        """Begin the message of a pod that the cluster took: the task itself did not fail."""
        if not verdict.infrastructure:
            return ""
        return f"The cluster took the pod {'while the task ran' if verdict.started else 'before the task began'}: "

    def _why(self, pod: Manifest, *, deleted: bool = False) -> str:
        return why(pod, fatal=self._settings.fatal_reasons, deleted=deleted)

"""Watches the executor's pods and reports what happens to them: started, ended, deleted, stuck.

``WorkerWatcher.run`` owns one informer per namespace and one short task per pod that disappeared, all in one task
group. They end when it is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Collection
from dataclasses import replace
from functools import partial

from crosswind.engine.claim_outcome import unstarted_result
from crosswind.engine.last_pod_state import last_pod_state
from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.state import PodDisposition, RunResult, RunStage, WaitReason, WorkerRun
from crosswind.errors import CrosswindError, NotFound
from crosswind.kube.client import Client
from crosswind.kube.informer import Informer, InformerEvent
from crosswind.kube.resources import PODS
from crosswind.podrun.follow import events_of
from crosswind.pods.causes import why
from crosswind.pods.essentials import essentials
from crosswind.pods.fields import as_pod, spec_of, text
from crosswind.pods.kept_logs import log_outlives_pod
from crosswind.pods.loss_evidence import loss_of
from crosswind.pods.naming import TEAM_LABEL, label_value, team_label
from crosswind.pods.verdict import BaseState, Verdict, judge
from crosswind.settings import EngineSettings
from crosswind.types import AnyPod, ObjectMeta, Pod

__all__ = ["WorkerWatcher"]

log = logging.getLogger(__name__)

_MAX_EVENT_READS = 4
"""Requests for the events of failed pods at a time; creations and deletions go first."""

_HELD_POD_S = 5.0
"""Seconds for which a pod may stay after its container, when the task waits for the pod's end."""

_ORDINARY_REASONS = ("", "ContainerCreating", "PodInitializing")
"""Wait reasons of a pod that starts as it should."""


class WorkerWatcher:
    """Watches the executor's pods, one watch per namespace, and reports to ``lifecycle``.

    ``started`` is set as soon as ``watch_namespace`` and ``on_event`` may be called.
    """

    def __init__(self, client: Client, lifecycle: RunLifecycle, settings: EngineSettings) -> None:
        self._client = client
        self._lifecycle = lifecycle
        self._registry = lifecycle.registry
        self._settings = settings
        self._event_reads = asyncio.Semaphore(_MAX_EVENT_READS)
        self._group: asyncio.TaskGroup | None = None
        self._informers: dict[str | None, Informer] = {}
        self._strays: set[str] = set()
        """Uids of pods with our label that no run is for. The sweep decides what to do with them."""
        self.started = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for namespace in self._settings.namespaces:
                self.watch_namespace(namespace)
            self.started.set()
            await asyncio.Event().wait()  # informers of further namespaces join the group until run is cancelled

    @property
    def silence(self) -> float:
        """Seconds since the last event of the watch that has been silent for longest."""
        listed = (informer for informer in self._informers.values() if informer.listed.is_set())
        return max((informer.lag for informer in listed), default=0.0)

    def watch_namespace(self, namespace: str | None) -> None:
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
        self._group.create_task(informer.run(self.on_event))

    @property
    def namespaces(self) -> Collection[str | None]:
        """The namespaces that are watched; None: all of them."""
        return self._informers.keys()

    def positions(self) -> dict[str | None, str]:
        """Return the resourceVersion up to which each namespace (None: all) is handled."""
        return {namespace: informer.version for namespace, informer in self._informers.items() if informer.version}

    def on_event(self, event: InformerEvent) -> None:
        """Handle one event; a pod that no run is for is noted for the sweep.

        An error is logged and not raised: it would end the watch of all other pods of the namespace.
        """
        pod = as_pod(event.object)
        metadata = pod["metadata"]
        run = self._registry.pods.get((metadata["namespace"], metadata["name"]))
        if run is None or (run.uid and run.uid != metadata["uid"]):
            self._note_stray(event.type, metadata)
            return
        if run.unseen_since is not None and self._settings.archive is not None:
            run.log_on_volume = log_outlives_pod(pod, self._settings.archive.folder)
        run.uid, run.unseen_since = metadata["uid"], None
        run.node = run.node or sys.intern(text(spec_of(pod).get("nodeName")))  # thousands of pods, tens of nodes
        try:
            if event.type != "DELETED":
                self.pod_changed(run, pod)
            elif run.stage is RunStage.ENDED or run.revoked or self._group is None:
                self.pod_gone(run, pod)
            else:
                # The pod left the watch: it was deleted, or another executor has replaced our label. Only a request
                # shows which.
                self._group.create_task(self.check_pod(run, pod))
        except Exception:
            log.exception("A change of pod %s could not be handled", run.pod_path)

    def _note_stray(self, change: str, metadata: ObjectMeta) -> None:
        # Of a creation that got no answer, a slow server may carry out two: the second when the first pod has ended and
        # is forgotten.
        labels = metadata.get("labels") or {}
        if labels.get(TEAM_LABEL) != team_label(self._settings.team).get(TEAM_LABEL):
            return  # another team's executor in this scheduler, which has the same label, has the run
        done = labels.get("airflow_executor_done") == "True"
        if change == "DELETED" or done or "deletionTimestamp" in metadata:
            self._strays.discard(metadata["uid"])
        else:
            self._strays.add(metadata["uid"])

    def take_strays(self) -> bool:
        """Return whether pods without a run were seen since the last call."""
        had_strays, self._strays = bool(self._strays), set()
        return had_strays

    def pod_changed(self, run: WorkerRun, pod: Pod) -> None:
        """Judge a pod that exists."""
        if run.stage is RunStage.ENDED or run.revoked:
            return
        if run.stage is RunStage.WAITING:  # the watch was faster than the answer to the create request
            run.mark_created(asyncio.get_running_loop().time())
        verdict = judge(pod, fatal=self._settings.fatal_reasons)
        if run.claim is not None and run.claim.given_up and verdict.state is BaseState.TERMINATED:
            # It ends when the pod is gone: a request that starts the task may still be under way.
            if self._group is not None:
                self._group.create_task(self._end_though_held(run, pod))
            return
        if verdict.over:
            own_deletion = run.disposition is PodDisposition.DELETE
            self._end(run, pod, verdict, "" if own_deletion else self._loss(run, pod, verdict))
        elif verdict.state is BaseState.RUNNING:
            self._lifecycle.base_started(run)
            if verdict.deleting:
                self._lifecycle.pod_deleting(run)
        elif verdict.reason in _ORDINARY_REASONS:
            run.wait = None
        else:
            run.wait = WaitReason(partial(self._why, essentials(dict(pod))), verdict.reason)

    def pod_gone(self, run: WorkerRun, last_state: Pod) -> None:
        """End the run of a pod that is gone, unless it has ended or was revoked before."""
        if self._lifecycle.history is not None:
            run.last_state = last_pod_state(last_state, run.requested_fields)
        own_deletion = run.disposition is PodDisposition.DELETE
        run.mark_pod_gone()
        if run.revoked:
            self._lifecycle.release_secret(run)
        elif run.stage is not RunStage.ENDED:
            verdict = judge(last_state, fatal=self._settings.fatal_reasons, deleted=True)
            loss = "" if own_deletion else self._loss(run, last_state, verdict, deleted=True)
            self._end(run, last_state, verdict, loss, deleted=True)
        self._lifecycle.forget_if_done(run)

    async def _end_though_held(self, run: WorkerRun, pod: Pod) -> None:
        """End the run of a given-up claim whose container has ended, also if something (a finalizer) keeps the pod."""
        await asyncio.sleep(_HELD_POD_S)
        if run.stage is RunStage.CREATED:
            self._end(run, pod, judge(pod), "")

    async def check_pod(self, run: WorkerRun, last_state: Pod) -> None:
        """Find out whether a pod that no watch reports is gone, or was adopted by another executor."""
        run.unseen_since = asyncio.get_running_loop().time()
        try:
            pod = as_pod(await self._client.get(PODS, run.name, namespace=run.namespace))
        except NotFound:
            self.pod_gone(run, last_state)
            return
        except CrosswindError as error:
            log.warning("Pod %s could not be read, retrying later: %s", run.pod_path, error)
            return
        if pod["metadata"]["uid"] != run.uid:
            self.pod_gone(run, last_state)
        elif (pod["metadata"].get("labels") or {}).get("airflow-worker") not in self._owners(run):
            log.info("Pod %s was adopted by another executor", run.pod_path)
            self._lifecycle.release_to_other_executor(run)
        else:
            self.pod_changed(run, pod)

    def _owners(self, run: WorkerRun) -> set[str]:
        """Return the values of ``airflow-worker`` under which a run is ours: during adoption also the former one."""
        former = {run.adoption.owner} if run.adoption is not None else set()
        return {label_value(self._settings.executor_id)} | former

    def _loss(self, run: WorkerRun, pod: Pod, verdict: Verdict, *, deleted: bool = False) -> str:
        """Return how the cluster took a task's pod. Not asked about a pod whose deletion this executor requested."""
        if not run.workload.runs_task or run.workload.exit_decides:
            return ""  # a callback's own state decides
        return loss_of(pod, verdict, deleted=deleted, deleted_is_loss=self._settings.deleted_is_loss)

    def _end(self, run: WorkerRun, pod: Pod, verdict: Verdict, loss: str, *, deleted: bool = False) -> None:
        if (unstarted := unstarted_result(run, verdict)) is not None:
            log.warning("%s", unstarted.message)
            self._lifecycle.end(run, unstarted)
            return
        if verdict.succeeded:
            message = f"Pod {run.pod_path}: the worker ended with exit code 0"
            self._lifecycle.end(run, RunResult(failed=False, message=message))
            return
        if self._lifecycle.history is not None:
            # Kept now: the pod may be deleted before the watch reports it again.
            run.last_state = last_pod_state(pod, run.requested_fields)
            if self._group is not None:
                self._group.create_task(self._read_events(run, pod))
        phase = (pod.get("status") or {}).get("phase")
        if not deleted and not verdict.started and phase not in ("Failed", "Succeeded"):
            run.delete_in_any_case()  # given up while it waits: kept, it could still start its task
        message = _infrastructure_prefix(verdict) + self._why(pod, deleted=deleted)
        log.warning("Pod %s failed: %s", run.pod_path, message)
        if self._settings.log_tasks:
            log.warning("Pod %s was for %s", run.pod_path, run.task)
        result = RunResult(failed=True, reason=verdict.reason, message=message, loss=loss)
        may_have_started = verdict.started or (verdict.state is BaseState.GONE and not deleted)
        may_relaunch = _may_relaunch(run, result, phase, may_have_started=may_have_started)
        self._lifecycle.end(run, replace(result, may_relaunch=may_relaunch))

    async def _read_events(self, run: WorkerRun, pod: Pod) -> None:
        """Read the events of a failed pod for its record. The record does not wait for them."""
        async with self._event_reads:  # a lost node ends hundreds of pods at once
            run.last_events = await events_of(self._client, pod)

    def _why(self, pod: AnyPod, *, deleted: bool = False) -> str:
        return why(pod, fatal=self._settings.fatal_reasons, deleted=deleted)


def _may_relaunch(run: WorkerRun, result: RunResult, phase: str | None, *, may_have_started: bool) -> bool:
    """Return whether another pod may run the same try, of which the database says that it has not begun.

    ``phase``: of the pod as it was last seen; None for one that was never seen.
    """
    if run.workload.exit_decides:
        # Airflow has a callback QUEUED until its end is reported, so that the pod alone shows whether it has begun.
        return not may_have_started and run.stage is not RunStage.RUNNING and phase in ("Pending", "Failed")
    # A worker that had started may have asked Airflow to run the task, and a busy server may answer after its pod has
    # gone. The row is then RUNNING for nobody, and refuses the next worker of the same try. So such a loss gets another
    # try: its new id refuses the late request.
    return not (result.loss and may_have_started)


def _infrastructure_prefix(verdict: Verdict) -> str:
    """Return the first words of the message for a pod that the cluster took: its task did not fail by itself."""
    if not verdict.infrastructure:
        return ""
    return f"The cluster took the pod {'while the task ran' if verdict.started else 'before the task began'}: "

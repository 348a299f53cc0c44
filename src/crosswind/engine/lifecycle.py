"""Applies every change of a run's state, and calls the parts of the engine that must act on it.

The launcher, the watcher, the reconcilers, the adopter and the housekeeper report here what they see; this module
decides what follows. It is the one place that sees a run begin, end and be forgotten. Nothing here waits.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Protocol

from crosswind.engine.metrics_reporter import RunMetrics
from crosswind.engine.pod_history import EndedPod, PodHistory
from crosswind.engine.state import (
    AdoptionRequest,
    PodDisposition,
    RunRegistry,
    RunResult,
    RunStage,
    RunTimes,
    SlotReleased,
    WorkerRun,
    Workload,
    attempt_unique_id,
)
from crosswind.engine.workload_secrets import SecretBatch

__all__ = ["ClusterParts", "RunLifecycle", "RunQueue"]


class ClusterParts(Protocol):
    """The parts of the engine that work with an API client. Implemented by ``cluster_session.ClusterSession``."""

    def launch(self, run: WorkerRun) -> None:
        """Compose and create the pod of a run."""
        ...

    def create_pod(self, run: WorkerRun) -> None:
        """Create the pod of a run that has its manifest and its Secret."""
        ...

    def watch_namespace(self, namespace: str) -> None:
        """Watch a namespace unless it is watched."""
        ...

    def follow_claim(self, run: WorkerRun) -> None:
        """Wait for a sign of life from the task of a claimed pod."""
        ...

    def clean_up(self, item: WorkerRun | SecretBatch) -> None:
        """Delete or keep the pod of an ended or revoked run, or delete a Secret."""
        ...

    def read_log_ahead(self, run: WorkerRun) -> None:
        """Follow the log of a run whose pod is being deleted while its task runs."""
        ...

    def quota_freed(self, namespace: str) -> None:
        """Retry a creation that a quota of this namespace refused."""
        ...

    def adopt_pods(self) -> None:
        """Look for the pods of runs at ADOPTING."""
        ...


class RunQueue(Protocol):
    """Where ended runs wait for a report. Implemented by ``reconciler.OutcomeReconciler``."""

    def put(self, run: WorkerRun) -> None:
        """Reconcile a run's end with the database."""
        ...


class RunLifecycle:
    """Changes the runs of ``registry``. Belongs to the engine's event loop and outlives reconnections.

    ``parts`` is None while the engine has no API client; what was to be done then is done by ``attach``.
    """

    def __init__(self, registry: RunRegistry, metrics: RunMetrics, history: PodHistory | None = None) -> None:
        self.registry = registry
        self.metrics = metrics
        self.history = history
        self.cluster = ""
        """The API server's address, for the pod history."""
        self.parts: ClusterParts | None = None
        self.outcomes: RunQueue | None = None

    # --- begin --------------------------------------------------------------------------------------------------------

    def accept(self, workloads: Sequence[Workload]) -> None:
        """Launch a run for each workload."""
        for workload in workloads:
            cold = self.registry.begins_cold(workload.task)
            self._begin(WorkerRun(workload, workload.task, RunTimes(_now()), starts_cold=cold))
        # After all have begun: an error in one workload is raised again, for its run alone, by its payload.
        for workload in workloads:
            if workload.prepare is not None:
                workload.prepare()

    def request_adoption(self, requests: Sequence[AdoptionRequest]) -> None:
        """Register a run for each request, for the adopter to find its pod."""
        for request in requests:
            task = replace(request.workload.task, unique_id=self._unused_id(request.workload.task.unique_id))
            run = WorkerRun(request.workload, task, RunTimes(_now()), stage=RunStage.ADOPTING, adoption=request)
            self.registry.add(run)
            self.registry.newest[run.workload.key] = run
        if self.parts is not None:
            self.parts.adopt_pods()

    def relaunch(self, run: WorkerRun) -> None:
        """Give the workload of a run whose task never began another pod."""
        attempt = run.attempt + 1
        task = replace(run.task, unique_id=attempt_unique_id(run.workload.task.unique_id, attempt))
        failed_claims = run.failed_claims if run.began else (*run.failed_claims, run.name)
        self._begin(
            WorkerRun(
                run.workload,
                task,
                RunTimes(_now()),
                attempt=attempt,
                events_sent=run.events_sent,
                failed_claims=failed_claims,
            )
        )

    def _begin(self, run: WorkerRun) -> None:
        if (unique_id := self._unused_id(run.unique_id)) != run.unique_id:
            run.task = replace(run.task, unique_id=unique_id)
        self.registry.add(run)
        self.registry.newest[run.workload.key] = run
        if self.registry.refusal:
            self.fail_without_pod(run, f"No pod could be created: {self.registry.refusal}")
        elif self.parts is not None:
            self.parts.launch(run)

    def _unused_id(self, unique_id: str) -> str:
        """Return the id, or one derived from it: core may not renew it while an earlier pod still exists."""
        candidates = (attempt_unique_id(unique_id, attempt) for attempt in itertools.count())
        return next(candidate for candidate in candidates if candidate not in self.registry.runs)

    # --- on the way ---------------------------------------------------------------------------------------------------

    def pod_created(self, run: WorkerRun) -> None:
        """Watch a pod that was created or adopted; a pod whose run was revoked meanwhile is deleted."""
        if self.parts is not None:
            self.parts.watch_namespace(run.namespace)
            if run.revoked:
                self._clean_up(run)
            elif not run.began or run.failed_claims:
                self.parts.follow_claim(run)

    def claim_alive(self, run: WorkerRun) -> None:
        """Record that the task of a claimed pod has begun."""
        if run.claim is not None and not run.claim.alive:
            run.claim.alive = True
            self.metrics.observe("crosswind.warm_start", _now() - run.times.requested)
            if run.stage is RunStage.CREATED:
                self.base_started(run)

    def base_started(self, run: WorkerRun) -> None:
        """Record that the base container runs; it has read its workload by then. A claimed pod's says nothing."""
        if run.began and run.stage is not RunStage.RUNNING:
            run.mark_running(_now())
            self.registry.secrets.mark_read(run.namespace, run.secret, run.unique_id)

    def started_unseen(self, run: WorkerRun) -> None:
        """Record that a pod has started although no watch has reported it; if none does soon, the pod is read."""
        self.claim_alive(run)
        self.base_started(run)
        if run.unseen_since is None:  # the watch has reported the pod before it fell silent
            run.unseen_since = _now()

    def pod_deleting(self, run: WorkerRun) -> None:
        """Read the log of a task whose pod a user deletes while it runs: later it may be too late."""
        if self.parts is not None:
            self.parts.read_log_ahead(run)

    # --- end ----------------------------------------------------------------------------------------------------------

    def end(self, run: WorkerRun, result: RunResult) -> None:
        """End a run whose base container has terminated or will never start.

        A success frees its slot now. A failure frees it after the database was asked what the failure means.
        """
        self._finish(run, result)
        if self.outcomes is not None and not run.settled:
            self.outcomes.put(run)
        if self.parts is not None:
            self.parts.quota_freed(run.namespace)
            self._clean_up(run)
        self.forget_if_done(run)  # one whose slot was released before, and whose pod is gone

    def _finish(self, run: WorkerRun, result: RunResult) -> None:
        run.mark_ended(result, _now())
        if not run.revoked:
            if result.failed:
                self.metrics.count("crosswind.pod_failures", result.reason or "Unknown")
            elif not run.settled:
                self.registry.outbox.append(SlotReleased(run.workload))
        self.release_secret(run)
        self._not_newest(run)

    def fail_without_pod(self, run: WorkerRun, message: str, *, pod_may_exist: bool = False) -> None:
        """End a run that gets no pod; ``pod_may_exist``: a request to create one got no answer."""
        if pod_may_exist:
            run.delete_in_any_case()
        else:
            run.mark_pod_gone()
        self.end(run, RunResult(failed=True, reason="NotLaunched", message=message))

    def fail_waiting(self, cause: object, patience: float) -> None:
        """Fail the runs that have waited for a pod longer than ``patience`` seconds, because of ``cause``."""
        for run in self.registry.at(RunStage.WAITING):
            # An unanswered claim may have succeeded: the next connection finds out.
            if run.claim is None and _now() - run.times.requested >= patience:
                self.fail_without_pod(run, f"No pod could be created: {cause}")

    def release_to_other_executor(self, run: WorkerRun) -> None:
        """Forget a run whose pod another executor has adopted."""
        run.recorded_elsewhere = True
        run.mark_pod_gone()
        if run.stage is not RunStage.ENDED:
            self._finish(run, RunResult(failed=False, message="adopted"))
        self.settle(run)

    # --- give up ------------------------------------------------------------------------------------------------------

    def revoke(self, key: Hashable) -> None:
        """Revoke the newest run of a key, if one has not ended."""
        if run := self.registry.newest.get(key):
            self._abandon(run)

    def drop(self, run: WorkerRun) -> None:
        """Free the slot of a run that its task no longer needs, and delete its pod."""
        self.release_slot(run)
        self._abandon(run)

    def release_slot(self, run: WorkerRun) -> None:
        """Free the slot of a run that has not ended as far as its pod was seen, but whose task needs no report.

        The run stays until its pod's end is seen: the log is stored then, and the settings decide about the pod.
        """
        if not run.settled:
            self.registry.outbox.append(SlotReleased(run.workload))
        run.settle()
        self._not_newest(run)

    def restart(self, run: WorkerRun) -> None:
        """Delete the pod of a cleared task that it has not begun, so that the end of the run can be reported."""
        if run.stage is RunStage.CREATED and self.parts is not None:
            run.delete_in_any_case()
            self._clean_up(run)
        elif run.stage is RunStage.WAITING:
            # A request to create the pod may be under way, and its answer needs this run. Another one carries the end.
            self._abandon(run)
            task = replace(run.task, unique_id=self._unused_id(run.unique_id))
            cleared = WorkerRun(run.workload, task, RunTimes(_now()), disposition=PodDisposition.GONE)
            cleared.recorded_elsewhere = True
            cleared.mark_ended(RunResult(failed=True, message="It was cleared before it began"), _now())
            self.registry.add(cleared)
            if self.outcomes is not None:
                self.outcomes.put(cleared)

    def delete_pod(self, run: WorkerRun) -> None:
        """Delete a pod until the API server confirms it, even one that the settings would keep."""
        if run.name and self.parts is not None:
            run.delete_in_any_case()
            self._clean_up(run)

    def _abandon(self, run: WorkerRun) -> None:
        """End a run without an outcome and delete its pod; ``pod_created`` deletes one that is being created."""
        self._not_newest(run)
        run.revoke()
        run.times.cleanup = _now()
        if run.stage in (RunStage.CREATED, RunStage.RUNNING) and self.parts is not None:
            self._clean_up(run)

    def _not_newest(self, run: WorkerRun) -> None:
        if self.registry.newest.get(run.workload.key) is run:
            del self.registry.newest[run.workload.key]

    # --- forget -------------------------------------------------------------------------------------------------------

    def settle(self, run: WorkerRun) -> None:
        """Record that a run's end needs no (further) report, and have a pod cleaned up that was held for that."""
        run.settle()
        if run.held and not run.pod_gone and self.parts is not None:
            self._clean_up(run)
        self.forget_if_done(run)

    def pod_removed(self, run: WorkerRun) -> None:
        """Record that a run's pod is deleted, or kept and marked as done."""
        run.mark_pod_gone()
        self.release_secret(run)
        self.forget_if_done(run)

    def forget_if_done(self, run: WorkerRun) -> None:
        """Forget a run whose pod is gone and whose end is settled."""
        if run.pod_gone and run.settled and self.registry.remove(run):
            self.metrics.observe_run(run)
            if self.history is not None and not run.recorded_elsewhere:
                offset = time.time() - time.monotonic()
                self.history.put(EndedPod(run, run.last_state, self.cluster, time.time(), offset, run.last_events))
                run.last_state, run.last_events = None, ()

    # --- Secrets ------------------------------------------------------------------------------------------------------

    def use_secret(self, run: WorkerRun, name: str) -> None:
        """Record that an adopted run needs a Secret."""
        run.secret = name
        self.registry.secrets.adopt(run.namespace, name, run.unique_id, run.workload.renew)

    def release_secret(self, run: WorkerRun) -> None:
        """Record that a run no longer needs its Secret; the last run of a Secret has it deleted."""
        if run.secret:
            self._delete_secret(self.registry.secrets.release(run.namespace, run.secret, run.unique_id))
            run.secret = ""

    def secret_creation_ended(self, batch: SecretBatch) -> None:
        """Record that a Secret exists, or that no request to create it is under way any more."""
        self._delete_secret(self.registry.secrets.creation_ended(batch))

    def _delete_secret(self, batch: SecretBatch | None) -> None:
        if batch is None:
            return
        if self.parts is None:
            self.registry.unused_secrets.append(batch)
        else:
            self.parts.clean_up(batch)

    # --- connections --------------------------------------------------------------------------------------------------

    def attach(self, parts: ClusterParts) -> None:
        """Hand all known runs to the parts of a new connection.

        Must not wait: a run that ``accept`` launched in between would be launched twice, and its first Secret leak.
        """
        self.parts = parts
        # A Secret whose creation was never answered is given up: its runs get another one.
        unanswered = self.registry.secrets.pending()
        for run in self.registry.at(*RunStage):
            if run.stage is RunStage.WAITING:
                self._attach_waiting(run, parts)
            elif not run.pod_gone and run.stage is not RunStage.ADOPTING:
                run.unseen_since = _now()
                parts.watch_namespace(run.namespace)
                if run.stage is RunStage.ENDED or run.revoked:
                    self._clean_up(run)
                elif not run.began or run.failed_claims:
                    parts.follow_claim(run)
        for batch in unanswered:
            self.secret_creation_ended(batch)
        while self.registry.unused_secrets:
            parts.clean_up(self.registry.unused_secrets.pop())

    def _attach_waiting(self, run: WorkerRun, parts: ClusterParts) -> None:
        if run.claim is not None:
            parts.launch(run)
        elif self.registry.secrets.exists(run.namespace, run.secret):
            parts.create_pod(run)  # the pod may exist already, and mount this very Secret
        else:
            self.release_secret(run)
            parts.launch(run)

    def detach(self) -> None:
        """Stop calling the parts of a connection that has failed."""
        self.parts = None

    def _clean_up(self, run: WorkerRun) -> None:
        assert self.parts is not None
        run.times.cleanup = _now()
        self.parts.clean_up(run)


def _now() -> float:
    return asyncio.get_running_loop().time()

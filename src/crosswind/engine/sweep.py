"""Finds pods and Secrets that no executor looks after, and has them cleaned up or adopted.

``Housekeeper`` calls ``LeftoverSweep.sweep``, which owns no task.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from crosswind.engine.database import MetadataDatabase
from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.sealed_workload import deployment_label, deployment_scope
from crosswind.engine.state import (
    LOCAL_EXECUTOR_PREFIX,
    WORKER_LABEL,
    AdoptionRequest,
    RunResult,
    RunStage,
    RunTimes,
    WorkerRun,
    Workload,
)
from crosswind.engine.warm_requests import WarmRequests
from crosswind.engine.worker_namespaces import WorkerNamespaces
from crosswind.engine.worker_pod import WorkerTask
from crosswind.engine.workload_secrets import SECRET_LABELS, SecretBatch, secrets_of
from crosswind.errors import CrosswindError
from crosswind.event_loop import call_blocking
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS, SECRETS
from crosswind.kube.retry import is_transient
from crosswind.pods.fields import as_pod
from crosswind.pods.kept_logs import log_outlives_pod
from crosswind.pods.naming import DEPLOYMENT_LABEL, label_value, team_label
from crosswind.pods.verdict import Verdict, judge
from crosswind.settings import EngineSettings
from crosswind.types import Manifest, ObjectMeta, Pod

__all__ = ["Cleaner", "LeftoverSweep", "belongs_to_live_dag_test"]

log = logging.getLogger(__name__)

_DAG_TEST_MAX_AGE = datetime.timedelta(days=1)


class Cleaner(Protocol):
    """Where leftovers go: ``PodCleaner``, or the ``LogArchiver`` in front of it."""

    def put(self, item: WorkerRun | SecretBatch) -> None:
        """Clean up the pod of an ended run, or delete a Secret."""
        ...


@dataclass(frozen=True, slots=True)
class _Orphan:
    """A pod of a dead executor, as an ended run."""

    run: WorkerRun
    over: bool
    started: bool
    annotations: Mapping[str, str]
    owner: str
    ours: bool
    """Whether its label says that this deployment created or adopted it."""


class LeftoverSweep:
    """Sweeps the namespaces of an executor: pods and Secrets of dead executors, and stray ones of its own.

    It also sweeps those that its configuration does not name and in which it, or an executor before it, had pods.

    Another deployment may share a namespace. Its executors look dead, because the database does not know them, or have
    the ids of this deployment's. So a label or the database must say that an object belongs to this deployment.
    """

    def __init__(
        self,
        client: Client,
        lifecycle: RunLifecycle,
        settings: EngineSettings,
        database: MetadataDatabase,
        cleaner: Cleaner,
        namespaces: WorkerNamespaces,
    ) -> None:
        self._client = client
        self._lifecycle = lifecycle
        self._registry = lifecycle.registry
        self._settings = settings
        self._database = database
        self._cleaner = cleaner
        self._namespaces = namespaces
        self._deployment = deployment_label(settings.warm_secret).get(DEPLOYMENT_LABEL)
        """The value of the label on this deployment's objects; None: they have no such label."""
        self._unreadable: set[str | None] = set()
        """Namespaces that may not be read, each reported once."""
        self._waiting_pods: WarmRequests | None = None
        if settings.warm is None and settings.warm_secret:  # with ``warm`` on, ``WarmPool`` sweeps them
            scope = deployment_scope(settings.warm_secret, settings.team)
            owner = label_value(settings.executor_id)
            self._waiting_pods = WarmRequests(client, settings.warm_secret, scope, owner)
        self._suspect_secrets: set[tuple[str, str]] = set()
        self._suspect_pods: set[str] = set()
        # What the cleaner got, by uid, a Secret by namespace and name. It gets the same object at each sweep: it knows
        # its requests by identity, and a sidecar that ends slowly must not be shut down again meanwhile.
        self._handed_over: dict[Hashable, WorkerRun | SecretBatch] = {}
        self._found: set[Hashable] = set()

    @property
    def has_suspects(self) -> bool:
        """Whether the next sweep deletes the Secrets and pods that are unused in it as well."""
        return bool(self._suspect_secrets or self._suspect_pods)

    async def sweep(self) -> None:
        """Sweep once. Raises the first error of the API server or the database after all namespaces."""
        live = {label_value(executor) for executor in await call_blocking(self._database.live_executors)}
        siblings = live - {label_value(self._settings.executor_id)}
        configured = await self._namespaces.configured()
        others, errors = frozenset[str](), list[Exception]()
        try:
            others = await self._namespaces.visited() - configured if None not in configured else others
        except Exception as error:
            errors.append(error)
        self._forget_suspects_outside(configured | others)
        self._found, strays = set(), dict[str, WorkerRun]()
        for namespace in (*configured, *others):
            failures = await self._sweep_namespace(namespace, live, siblings, strays)
            if namespace in configured:
                errors += failures
            else:
                errors += self._note_refusal(namespace, failures)
        self._clean_up_strays(strays)
        if errors:
            raise errors[0]
        self._handed_over = {key: item for key, item in self._handed_over.items() if key in self._found}

    async def _sweep_namespace(
        self, namespace: str | None, live: set[str], siblings: set[str], strays: dict[str, WorkerRun]
    ) -> list[Exception]:
        """Sweep a namespace. Return the errors: what may not be read is swept by nobody, all else is."""
        parts: list[Callable[[], Awaitable[None]]] = [
            partial(self._sweep_orphans, namespace, live),
            partial(self._sweep_secrets, namespace, siblings),
            partial(self._find_strays, namespace, strays),
        ]
        if self._waiting_pods is not None:
            parts.append(partial(self._waiting_pods.sweep_dead, [namespace], live))
        errors: list[Exception] = []
        for part in parts:
            try:
                await part()
            except Exception as error:
                errors.append(error)
        return errors

    def _note_refusal(self, namespace: str | None, failures: list[Exception]) -> list[Exception]:
        """Report once that a namespace may not be read, which the configuration does not name; return other errors.

        A former executor has left its name. Its Role may be removed by now, or the namespace itself.
        """
        refusals = [error for error in failures if isinstance(error, CrosswindError) and not is_transient(error)]
        if not refusals:
            self._unreadable.discard(namespace)
        elif namespace not in self._unreadable:
            self._unreadable.add(namespace)
            log.warning("Leftovers in namespace %s are not cleaned up: %s", namespace, refusals[0])
        return [error for error in failures if error not in refusals]

    def _forget_suspects_outside(self, namespaces: frozenset[str | None]) -> None:
        """Forget the suspects of namespaces that are not swept (any longer): each suspect has the next sweep hurry."""
        swept = namespaces - self._unreadable
        if None not in swept:
            self._suspect_secrets = {secret for secret in self._suspect_secrets if secret[0] in swept}

    def _hand_over(self, key: Hashable, item: WorkerRun | SecretBatch) -> None:
        self._handed_over[key] = item
        self._cleaner.put(item)

    # --- pods of this executor ----------------------------------------------------------------------------------------

    async def _find_strays(self, namespace: str | None, strays: dict[str, WorkerRun]) -> None:
        """Add the pods of a namespace with our label and no run to ``strays``."""
        selector = f"{_worker_selector()},airflow-worker={label_value(self._settings.executor_id)}"
        selector += f",airflow_executor_done!=True,{self._team_selector()}"
        for run in (await self._client.list_mapped(PODS, self._stray, namespace=namespace, labels=selector)).items:
            if run is not None:
                strays[run.uid] = run

    def _clean_up_strays(self, strays: Mapping[str, WorkerRun]) -> None:
        """Clean up pods with our label and no run, if two sweeps in a row find them so.

        Their deletion was refused for good, or their creation was carried out after it was given up. While this
        scheduler lives, no other one deletes them. A pod that runs is left to end by itself: its task has ended or has
        another pod, and its worker learns that from its heartbeats.
        """
        for uid in strays.keys() & self._suspect_pods:
            log.warning("Pod %s has this scheduler's label but no task; cleaning it up", strays[uid].pod_path)
            self._hand_over(uid, strays[uid])
        self._suspect_pods = strays.keys() - self._suspect_pods

    def _stray(self, pod: Manifest) -> WorkerRun | None:
        """Return a pod without a run as an ended run; None for one that runs or is being deleted."""
        metadata, verdict = as_pod(pod)["metadata"], judge(pod)
        run = self._registry.pods.get((metadata["namespace"], metadata["name"]))
        if "deletionTimestamp" in metadata or (run is not None and run.uid in ("", metadata["uid"])):
            return None
        if verdict.started and not verdict.over:
            return None
        if (metadata.get("labels") or {}).get(DEPLOYMENT_LABEL) != self._deployment:
            return None  # all that this executor created or adopted has the label
        stray = self._as_ended_run(as_pod(pod), verdict)
        if not verdict.over:
            stray.delete_in_any_case()
        return stray

    # --- pods of dead executors ---------------------------------------------------------------------------------------

    async def _sweep_orphans(self, namespace: str | None, live: set[str]) -> None:
        """Clean up or adopt pods of dead executors that have ended, or that need not start.

        An ended pod stays until the database has the end of its task: before that, the pod is the only proof of it, and
        without the pod the executor that adopts the task would run it again.
        """
        others = ",".join(sorted({*live, label_value(self._settings.executor_id)}))
        selector = f"{_worker_selector()},airflow-worker notin ({others}),airflow_executor_done!=True"
        selector += f",{self._team_selector()}"
        pods = (await self._client.list_mapped(PODS, self._orphan, namespace=namespace, labels=selector)).items
        orphans = {orphan.run.uid: orphan for orphan in pods if orphan is not None}
        if not orphans:
            return
        annotations = {uid: orphan.annotations for uid, orphan in orphans.items()}
        ours = {uid for uid, orphan in orphans.items() if orphan.ours}
        workloads = await call_blocking(self._database.orphaned_workloads, annotations, ours)
        for uid, workload in workloads.items():
            orphan = orphans[uid]
            if workload is not None:
                if not self._is_adopting(workload):
                    self._lifecycle.request_adoption([_adoption_request(workload, orphan)])
            elif orphan.over:
                self._hand_over(uid, orphan.run)
            elif not orphan.started:
                orphan.run.delete_in_any_case()
                self._hand_over(uid, orphan.run)

    def _is_adopting(self, workload: Workload) -> bool:
        # The registry does not know its pod before the adopter has found it, which may take minutes.
        run = self._registry.newest.get(workload.key)
        return run is not None and run.stage is RunStage.ADOPTING

    def _orphan(self, pod: Manifest) -> _Orphan | None:
        """Return what matters of a dead executor's pod; None for one whose task runs, or that is adopted by now."""
        metadata, verdict = as_pod(pod)["metadata"], judge(pod)
        if belongs_to_live_dag_test(metadata) or (metadata["namespace"], metadata["name"]) in self._registry.pods:
            return None
        annotations = metadata.get("annotations") or {}
        if verdict.started and not verdict.over and "task_instance_id" in annotations:
            return None
        labels = metadata.get("labels") or {}
        ours = self._deployment is not None and labels.get(DEPLOYMENT_LABEL) == self._deployment
        run = self._as_ended_run(as_pod(pod), verdict)
        return _Orphan(run, verdict.over, verdict.started, annotations, labels.get("airflow-worker", ""), ours)

    def _as_ended_run(self, pod: Pod, verdict: Verdict) -> WorkerRun:
        metadata, archive = pod["metadata"], self._settings.archive
        self._found.add(metadata["uid"])
        known = self._handed_over.get(metadata["uid"])
        if isinstance(known, WorkerRun) and not known.pod_gone:  # given up: a new run gets it cleaned up again
            return known
        ti_id = (metadata.get("annotations") or {}).get("task_instance_id", "")
        task = WorkerTask("", "", "", 0, metadata["uid"], ti_id=ti_id)
        result = RunResult(failed=not verdict.succeeded)
        workload = Workload(metadata["uid"], task, 0.0, None)
        run = WorkerRun(workload, task, RunTimes(0.0), stage=RunStage.ENDED, result=result)
        run.settle()
        run.name, run.namespace, run.uid = metadata["name"], metadata["namespace"], metadata["uid"]
        run.log_on_volume = archive is not None and log_outlives_pod(pod, archive.folder)
        return run

    # --- Secrets ------------------------------------------------------------------------------------------------------

    async def _sweep_secrets(self, namespace: str | None, siblings: set[str]) -> None:
        """Delete workload Secrets that no pod needs in two sweeps in a row: a new one exists before its pods.

        ``siblings``: live executors, which delete their own Secrets, as do those of other teams.
        """
        selector = ",".join(f"{key}={value}" for key, value in SECRET_LABELS.items())
        selector += f",airflow-worker notin ({','.join(sorted(siblings))})" if siblings else ""
        selector += f",{self._team_selector()}"
        secrets = await self._client.list_mapped(SECRETS, self._sweepable_secret, namespace=namespace, labels=selector)
        unused = {secret for secret in secrets.items if secret is not None and secret not in self._registry.secrets}
        if unused:
            selector = "kubernetes_executor=True"
            used = await self._client.list_mapped(
                PODS, lambda pod: secrets_of([as_pod(pod)]), namespace=namespace, labels=selector
            )
            unused -= set().union(*used.items)
        self._found |= unused
        for secret in unused & self._suspect_secrets:
            batch = SecretBatch(name=secret[1], namespace=secret[0], minted_at=0.0)
            self._hand_over(secret, self._handed_over.get(secret, batch))
        elsewhere = {secret for secret in self._suspect_secrets if namespace not in (None, secret[0])}
        self._suspect_secrets = elsewhere | (unused - self._suspect_secrets)

    def _sweepable_secret(self, secret: Manifest) -> tuple[str, str] | None:
        metadata = secret["metadata"]
        # One without the label is of an earlier version, which did not set it.
        foreign = (metadata.get("labels") or {}).get(DEPLOYMENT_LABEL) not in (None, self._deployment)
        return None if foreign or belongs_to_live_dag_test(metadata) else (metadata["namespace"], metadata["name"])

    def _team_selector(self) -> str:
        team = team_label(self._settings.team)
        return ",".join(f"{key}={value}" for key, value in team.items()) or "!crosswind/team"


def _worker_selector() -> str:
    return ",".join(f"{key}={value}" for key, value in WORKER_LABEL.items())


def _adoption_request(workload: Workload, orphan: _Orphan) -> AdoptionRequest:
    """Return a request for a workload whose pod exists; the adopter finds the pod by its annotations."""
    task = workload.task
    key = task.dag_id, task.task_id, task.run_id, task.try_number, task.map_index
    return AdoptionRequest(task.run_id, key, workload, owner=orphan.owner, namespace=orphan.run.namespace)


def belongs_to_live_dag_test(metadata: ObjectMeta) -> bool:
    """Return whether an object belongs to a ``dag.test`` that may still run: the database does not know.

    It deletes its own objects when it ends. A day later it counts as killed, whatever the difference of the clocks.
    """
    if not (metadata.get("labels") or {}).get("airflow-worker", "").startswith(LOCAL_EXECUTOR_PREFIX):
        return False
    created = datetime.datetime.fromisoformat(metadata["creationTimestamp"])
    return datetime.datetime.now(datetime.UTC) - created < _DAG_TEST_MAX_AGE

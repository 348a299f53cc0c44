"""From workloads to pods: composed in batches, a Secret per batch, created as fast as the API server likes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from crosswind.errors import (
    AlreadyExists,
    ApiError,
    ConfigError,
    Conflict,
    CredentialsError,
    NotFound,
    QuotaExceeded,
    ServerError,
    TemplateError,
    Unreachable,
)
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS, SECRETS
from crosswind.pods.naming import label_value, team_label
from crosswind.pods.workloads import (
    SECRET_LIMIT,
    SECRET_PREFIX,
    InlineWorkload,
    SecretWorkload,
    batches,
    workload_secret,
)
from crosswind.runs.batches import Batch
from crosswind.runs.board import Board
from crosswind.runs.composing import Composer
from crosswind.runs.dispatching import Dispatcher
from crosswind.runs.pacing import Pace
from crosswind.runs.priorities import Priorities
from crosswind.runs.quotas import Quotas
from crosswind.runs.refusals import GiveUp, Retry, after, is_denied, waits_for
from crosswind.runs.workloads import End, Run, Stage
from crosswind.settings import EngineSettings
from crosswind.types import Manifest

__all__ = ["Launcher"]

log = logging.getLogger(__name__)


class Launcher:
    """Creates the pods of an executor. ``over`` hears of runs that failed before there was a pod."""

    def __init__(
        self,
        client: Client,
        composer: Composer,
        board: Board,
        settings: EngineSettings,
        *,
        over: Callable[[Run], None],
        created: Callable[[Run], None],
    ) -> None:
        self._client = client
        self._composer = composer
        self._board = board
        self._settings = settings
        self._over = over
        self._created = created
        self._pending = Priorities[Run]()
        self._wanted = asyncio.Event()
        self._creating = Dispatcher[Run | Batch](self._create, self._refused, Pace(ceiling=settings.max_requests))
        self._prepared: dict[str, tuple[Manifest, list[Run]]] = {}
        self._quotas = Quotas()
        self._quotas_changed = asyncio.Event()

    @property
    def pace(self) -> Pace:
        """How fast pods are created."""
        return self._creating.pace

    def put(self, run: Run) -> None:
        """Queue a run for creation."""
        self._pending.put(run, run.workload.priority)
        self._wanted.set()

    def create(self, run: Run) -> None:
        """Queue a run that has its manifest, and its Secret, already."""
        self._creating.put(run, run.workload.priority)

    def freed(self, namespace: str) -> None:
        """Say that a pod of a namespace is over: its part of a quota is free."""
        self._quotas.freed(namespace, _now())
        self._quotas_changed.set()

    async def run(self) -> None:
        """Launch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._creating.run())
            group.create_task(self._ask_for_quotas())
            while True:
                await self._wanted.wait()
                if not self._pending:
                    self._wanted.clear()
                    continue
                await self._creating.room()
                runs = self._take()
                paths = {self._composer.path(run.workload.config, run.task.queue) for run in runs}
                looked = await self._composer.templates.look(path for path in paths if path)
                self._prepare([run for run in runs if not self._dropped(run)], looked)
                await asyncio.sleep(0)

    async def _ask_for_quotas(self) -> None:
        """Let those ask whose turn it is, among the runs that wait for a quota."""
        while True:
            self._quotas_changed.clear()
            for run in self._quotas.due(_now()):
                self.create(run)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._quotas.pause(_now())):
                    await self._quotas_changed.wait()

    def _take(self) -> list[Run]:
        runs = self._pending.take(self._settings.secret_batch)
        return [run for run in runs if not self._dropped(run)]

    def _dropped(self, run: Run) -> bool:
        if run.revoked and run.stage is Stage.WAITING:
            run.pod_is_gone()
            self._board.release_batch(run)
            self._board.drop_if_over(run)
        return run.revoked or run.stage is not Stage.WAITING

    def _prepare(self, runs: list[Run], templates: Mapping[str, Manifest | TemplateError]) -> None:
        secret = f"{SECRET_PREFIX}{uuid.uuid4().hex[:16]}" if self._settings.workload_delivery == "secret" else None
        with self._composer.templates.at_once(templates):
            composed = [run for run in runs if self._compose(run, secret)]
        if secret is None:
            for run in composed:
                self.create(run)
            return
        by_namespace = defaultdict(list)
        for run in composed:
            by_namespace[run.namespace].append(run)
        for namespace, group in by_namespace.items():
            self._prepare_secret(secret, namespace, group)

    def _compose(self, run: Run, secret: str | None) -> bool:
        """Give the run its manifest; False when that failed and the run is over."""
        try:
            mint = run.workload.payload
            assert mint is not None
            payload = mint()
            delivery = SecretWorkload(secret, run.unique) if secret else InlineWorkload(payload.decode())
            if secret and len(payload) > SECRET_LIMIT:  # its neighbours of the batch are no worse for it
                raise ConfigError(
                    f"The workload of {run.unique} has {len(payload)} bytes, and a Secret takes {SECRET_LIMIT}:"
                    " pass less to the task or callback, for instance a path in place of the data"
                )
            manifest = run.manifest = self._composer.compose(run.workload, run.task, delivery)
            run.payload = payload if secret else None
            self._board.placed(run, manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        except Exception as error:
            if not isinstance(error, ConfigError):
                log.exception("The pod of %s could not be composed", run.unique)
            self._fail(run, error)
            return False
        return True

    def _prepare_secret(self, name: str, namespace: str, runs: list[Run]) -> None:
        """Cut the payloads into Secrets. Almost always it is one; a second gets pods composed anew."""
        by_unique = {run.unique: run for run in runs}
        mints = {run.unique: run.workload.payload for run in runs if run.workload.payload}
        first, *rest = batches({run.unique: run.payload for run in runs if run.payload})
        for part in rest:
            self._requeue((by_unique[unique] for unique in part), 0.0)
        batch = Batch(name, namespace, _now(), {unique: mints[unique] for unique in first}, pending=True)
        self._board.batches.add(batch)
        labels = {"airflow-worker": label_value(self._settings.executor_id), **team_label(self._settings.team)}
        users = [by_unique[unique] for unique in first]
        for run in users:
            run.batch, run.payload = name, None
        self._prepared[namespace + "/" + name] = workload_secret(name, namespace, first, labels), users
        self._creating.put(batch, max(run.workload.priority for run in users))

    async def _create(self, item: Run | Batch) -> None:
        if isinstance(item, Batch):
            await self._create_secret(item)
        else:
            await self._create_pod(item)

    async def _create_secret(self, batch: Batch) -> None:
        """Create a Secret, then its pods; the runs may have been given up before the server answers."""
        manifest, runs = self._prepared[batch.namespace + "/" + batch.name]
        wanted = self._users(batch, runs)
        if wanted and _now() - batch.minted_at > self._settings.token_lifetime / 2:
            fresh = {run.unique: batch.users[run.unique]() for run in wanted}
            manifest = workload_secret(batch.name, batch.namespace, fresh, manifest["metadata"]["labels"])
            batch.minted_at = _now()
        if wanted:
            try:
                await self._client.create(SECRETS, manifest, namespace=batch.namespace)
            except AlreadyExists:  # made by a request whose answer was lost
                pass
            except Conflict:
                if not batch.doubtful:  # else it is the same, with a Status that a proxy has replaced
                    raise
        self._close(batch, made=bool(wanted) or batch.doubtful)
        for run in self._users(batch, runs):
            self.create(run)

    def _users(self, batch: Batch, runs: Iterable[Run]) -> list[Run]:
        """Return the runs that wait for a Secret still."""
        return [run for run in runs if not self._dropped(run) and run.batch == batch.name]

    def _close(self, batch: Batch, *, made: bool) -> None:
        """Say that no more is done for a Secret; ``made``: it is there, or may be."""
        del self._prepared[batch.namespace + "/" + batch.name]
        if made:
            self._board.decide_batch(batch)
        else:
            self._board.batches.decided(batch)

    async def _create_pod(self, run: Run) -> None:
        if run.revoked or run.manifest is None:
            self._leave_line(run)
            self._dropped(run)
            return
        if (refusal := self._quotas.hold(run)) is not None:
            run.waits_for = partial(waits_for, refusal, f"Pod {run.where}")
            run.held_up = type(refusal).__name__
            return
        try:
            pod = await self._client.create(PODS, run.manifest, namespace=run.namespace)
        except AlreadyExists:
            pod = await self._ours(run)
        except Conflict as conflict:  # a proxy may have replaced the Status that says AlreadyExists
            try:
                pod = await self._ours(run)
            except NotFound:
                raise conflict from None
        run.uid = pod["metadata"]["uid"]
        if run.stage is Stage.WAITING:
            run.has_pod(_now())
        self._leave_line(run)
        self._created(run)

    def _leave_line(self, run: Run) -> None:
        if self._quotas:
            self._quotas.left(run, _now())
            self._quotas_changed.set()

    async def _ours(self, run: Run) -> Manifest:
        """Return the pod that exists under the run's name, if a lost answer or an earlier try made it."""
        pod = await self._client.get(PODS, run.name, namespace=run.namespace)
        labels = pod["metadata"].get("labels") or {}
        wanted = ((run.manifest or {}).get("metadata") or {}).get("labels") or {}
        if any(labels.get(key) != value for key, value in wanted.items()):
            raise ConfigError(f"A pod {run.where} exists and is not of this task: delete it, then clear the task")
        return pod

    def _refused(self, item: Run | Batch, error: Exception) -> float | None:
        if isinstance(item, Run):
            return self._refused_pod(item, error)
        return self._refused_secret(item, error)

    def _refused_pod(self, run: Run, error: Exception) -> float | None:
        if not isinstance(error, QuotaExceeded):
            self._leave_line(run)
        doubtful = _is_doubtful(error)
        if run.revoked and run.stage is Stage.WAITING and doubtful:
            run.has_pod(_now())
            self._created(run)  # which has it deleted
            return None
        if run.revoked or run.stage is not Stage.WAITING:
            self._dropped(run)
            return None
        decision = self._decide(run, error, f"Pod {run.where}")
        if isinstance(decision, GiveUp):
            self._fail(run, decision.message, doubtful=doubtful)
            return None
        if isinstance(error, QuotaExceeded):
            self._quotas.refused(run, error, _now())
            self._quotas_changed.set()
            return None
        return decision.delay

    def _refused_secret(self, batch: Batch, error: Exception) -> float | None:
        """Try again under the same name, so that a Secret whose creation was not answered is not left over."""
        batch.doubtful = batch.doubtful or _is_doubtful(error)
        _, runs = self._prepared[batch.namespace + "/" + batch.name]
        delays = []
        for run in self._users(batch, runs):
            decision = self._decide(run, error, f"Secret {batch.namespace}/{batch.name}")
            if isinstance(decision, GiveUp):
                self._fail(run, decision.message)
            else:
                delays.append(decision.delay)
        if delays:
            return max(delays)
        self._close(batch, made=batch.doubtful)
        return None

    def _decide(self, run: Run, error: Exception, what: str) -> Retry | GiveUp:
        now, patience = _now(), self._settings.launch_timeout
        if is_denied(error):
            run.denied_at = run.denied_at or now
        denied = now - run.denied_at
        decision = after(error, what=what, waited=now - run.asked_at, patience=patience, denied=denied)
        if not isinstance(decision, GiveUp):
            run.waits_for, run.held_up = partial(waits_for, error, what), type(error).__name__
        return decision

    def _requeue(self, runs: Iterable[Run], delay: float) -> None:
        for run in runs:
            asyncio.get_running_loop().call_later(delay, self.put, run)

    def _fail(self, run: Run, error: Exception | str, *, doubtful: bool = False) -> None:
        """End a run that gets no pod; ``doubtful``: it may have one, of whose creation no answer came."""
        if doubtful:
            run.pod_is_unwanted()
        else:
            run.pod_is_gone()
        self._board.end(run, End(failed=True, reason="NotLaunched", message=str(error)))
        self._over(run)


def _is_doubtful(error: Exception) -> bool:
    """Return whether the server may have done what it was asked, though the request failed.

    Only a refusal is certain, and a request that never left. An answer that is not understood is no refusal.
    """
    if isinstance(error, Unreachable):
        return error.sent
    return not isinstance(error, ApiError | ConfigError | CredentialsError) or isinstance(error, ServerError)


def _now() -> float:
    return asyncio.get_running_loop().time()

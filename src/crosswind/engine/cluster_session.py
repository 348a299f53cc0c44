"""The parts of the engine that work with one API client, from connect to the first failure.

``ClusterSession.run`` owns the tasks of all parts in one task group: when one part fails, the others are cancelled, and
the engine opens a new session. The runs stay in the registry meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from crosswind.engine.adoption import PodAdopter
from crosswind.engine.database import MetadataDatabase
from crosswind.engine.housekeeping import Housekeeper
from crosswind.engine.launcher import Launcher
from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.log_archiver import LogArchiver, LogStore
from crosswind.engine.pod_cleanup import PodCleaner
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.pod_inspection import PodInspector, PodViews
from crosswind.engine.preflight import preflight_problems, server_version
from crosswind.engine.state import WorkerRun
from crosswind.engine.warm_claims import WarmClaims
from crosswind.engine.warm_pool import WarmPool
from crosswind.engine.watch_positions import WatchPositions, position_server
from crosswind.engine.watcher import WorkerWatcher
from crosswind.engine.worker_namespaces import WorkerNamespaces
from crosswind.engine.workload_secrets import SecretBatch
from crosswind.errors import ConfigError, CrosswindError
from crosswind.kube.client import Client
from crosswind.settings import EngineSettings
from crosswind.sidecars.shutdown import ShutdownSettings, SidecarShutdown

__all__ = ["ClusterSession", "SessionContext"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What all sessions of an engine share."""

    settings: EngineSettings
    composer: PodComposer
    lifecycle: RunLifecycle
    database: MetadataDatabase
    shutdown: ShutdownSettings
    log_store: LogStore | None = None
    pod_views: PodViews | None = None


class ClusterSession:
    """Implements ``lifecycle.ClusterParts`` with one API client."""

    def __init__(self, client: Client, context: SessionContext) -> None:
        settings, lifecycle, database = context.settings, context.lifecycle, context.database
        self._client = client
        self._composer = context.composer
        self._settings = settings
        self._lifecycle = lifecycle
        self._watcher = WorkerWatcher(client, lifecycle, settings)
        server = position_server(client.host, settings)
        namespaces = WorkerNamespaces(server, settings, context.composer, database, self._watcher)
        self._pool = None
        if settings.warm is not None:
            self._pool = WarmPool(client, context.composer, lifecycle, settings, settings.warm, database)
        self._claims = WarmClaims(
            client, context.composer, lifecycle, settings, self._pool, database, lambda run: self._launcher.put(run)
        )
        claim = self._claims.take if self._pool is not None else None
        self._launcher = Launcher(client, context.composer, lifecycle, settings, database, claim)
        self._cleaner: PodCleaner | LogArchiver = PodCleaner(
            client, lifecycle, settings, SidecarShutdown(client, settings=context.shutdown)
        )
        self._archiver: LogArchiver | None = None
        if context.log_store is not None and settings.archive is not None:
            self._cleaner = self._archiver = LogArchiver(client, self._cleaner, context.log_store, settings.archive)
        self._housekeeper = Housekeeper(client, lifecycle, settings, database, self._watcher, self._cleaner, namespaces)
        self._adopter = PodAdopter(client, lifecycle, settings, database, self._watcher, self._housekeeper, namespaces)
        views = context.pod_views
        self._inspector = None if views is None else PodInspector(client, lifecycle, views)
        self._positions = WatchPositions(server, settings, database, self._watcher)

    async def run(self) -> None:
        """Work until a part fails, or until cancelled."""
        self._lifecycle.cluster = self._client.host
        self._composer.set_server_version(await server_version(self._client))
        parts = (
            self._watcher,
            self._launcher,
            self._cleaner,
            self._housekeeper,
            self._adopter,
            self._positions,
            self._claims,
            *(part for part in (self._pool, self._inspector) if part is not None),
        )
        try:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(part.run())
                group.create_task(self._check())
                # The watcher and the archiver start tasks on demand, in task groups that their run methods open first.
                await self._watcher.started.wait()
                if self._archiver is not None:
                    await self._archiver.started.wait()
                self._lifecycle.attach(self)
        finally:
            self._lifecycle.detach()

    async def drain(self) -> None:
        """Save the positions of the watches, and wait until no clean-up is under way."""
        await self._positions.save()
        await self._cleaner.wait_until_empty()

    # --- what the lifecycle calls -------------------------------------------------------------------------------------

    def launch(self, run: WorkerRun) -> None:
        """Compose and create the pod of a run, unless it has claimed a waiting one: then the claim is resolved."""
        if run.claim is not None:
            self._claims.resolve(run)
        else:
            self._launcher.put(run)

    def create_pod(self, run: WorkerRun) -> None:
        """Create the pod of a run that has its manifest and its Secret."""
        self._launcher.create_pod(run)

    def watch_namespace(self, namespace: str) -> None:
        """Watch a namespace unless it is watched."""
        self._watcher.watch_namespace(namespace)

    def follow_claim(self, run: WorkerRun) -> None:
        """Wait for a sign of life from the task of a claimed pod."""
        self._claims.follow(run)

    def clean_up(self, item: WorkerRun | SecretBatch) -> None:
        """Delete or keep the pod of an ended or revoked run, or delete a Secret."""
        self._cleaner.put(item)

    def read_log_ahead(self, run: WorkerRun) -> None:
        """Follow the log of a run whose pod is being deleted while its task runs."""
        if self._archiver is not None:
            self._archiver.read_ahead(run)

    def quota_freed(self, namespace: str) -> None:
        """Retry a creation that a quota of this namespace refused."""
        self._launcher.quota_freed(namespace)

    def adopt_pods(self) -> None:
        """Look for the pods of runs at ADOPTING."""
        self._adopter.wake()

    # --- figures ------------------------------------------------------------------------------------------------------

    def gauges(self) -> dict[str, float]:
        """Return the gauges of the parts, by their names in ``crosswind.metrics``."""
        return {
            "crosswind.creation_pace": float(self.creation_limit),
            "crosswind.watch_silence": self._watcher.silence,
            "crosswind.logs_to_keep": float(self._archiver.archiving if self._archiver is not None else 0),
            **(self._pool.gauges() if self._pool is not None else {}),
        }

    @property
    def creation_limit(self) -> int:
        """How many creations may be under way."""
        return int(self._launcher.limit.limit)

    @property
    def cleaning_up(self) -> int:
        """How many pods and Secrets are being cleaned up."""
        return len(self._cleaner)

    # --- preflight ----------------------------------------------------------------------------------------------------

    async def _check(self) -> None:
        """Log what will make tasks fail. A check that cannot be made does not end the session."""
        await asyncio.to_thread(self._check_templates)
        try:
            for problem in await preflight_problems(self._client, self._settings):
                log.error("Tasks will fail: %s", problem)
        except CrosswindError as error:
            log.warning("Namespaces and permissions could not be checked: %s", error)

    def _check_templates(self) -> None:
        try:
            self._composer.check()
        except ConfigError as error:
            log.error("Tasks without a pod template of their own will fail: %s", error)
        for queue in self._composer.queues:
            try:
                self._composer.check_queue(queue)
            except ConfigError as error:
                log.error("Tasks of queue %s will fail: %s", queue, error)

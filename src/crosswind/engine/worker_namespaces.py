"""Finds out in which namespaces the pods of an executor, and of those before it, may be.

The configuration names some. A pod template, a task's ``executor_config`` or a ``pod_mutation_hook`` may choose another
one, which takes precedence. It is computed by the rules by which pods are composed. Former executors have saved the
namespaces that they watched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from crosswind.engine.database import POSITION_MAX_AGE_S, MetadataDatabase, WatchPosition
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.state import Workload
from crosswind.engine.watcher import WorkerWatcher
from crosswind.engine.worker_pod import worker_namespace
from crosswind.engine.workload_secrets import SecretWorkload
from crosswind.errors import ConfigError, TemplateError
from crosswind.event_loop import call_blocking
from crosswind.pods.merge import merge_pods
from crosswind.settings import EngineSettings
from crosswind.types import Manifest

__all__ = ["WorkerNamespaces"]

log = logging.getLogger(__name__)

_PODS_PER_TURN = 100
"""Pods that are composed before other tasks get the event loop: some milliseconds, tens with a slow hook."""


class WorkerNamespaces:
    """Knows in which namespaces worker pods may be. ``server``: from ``position_server``."""

    def __init__(
        self,
        server: str,
        settings: EngineSettings,
        composer: PodComposer,
        database: MetadataDatabase,
        watcher: WorkerWatcher,
    ) -> None:
        self._server = server
        self._settings = settings
        self._composer = composer
        self._database = database
        self._watcher = watcher

    async def configured(self) -> frozenset[str | None]:
        """Return the namespaces that the configuration, its templates and its queues name; None: the whole cluster.

        A template that cannot be read is left out: no pod can be composed from it.
        """
        if None in self._settings.namespaces:
            return frozenset({None})
        queues = ("", *self._composer.queues)
        templates = await self._load((None, queue) for queue in queues)
        namespaces = set(self._settings.namespaces)
        with self._composer.templates.snapshot(templates):
            for queue in queues:
                try:
                    template, override = self._composer.choose(None, queue)
                except ConfigError as error:
                    log.debug("The namespace of the pods of queue %r cannot be determined: %s", queue, error)
                else:
                    namespaces.add(worker_namespace(template, override, self._composer.settings))
        return frozenset(namespaces)

    async def visited(self) -> frozenset[str]:
        """Return the namespaces that an executor has watched for its pods, this one or one before it.

        A stored watch of the whole cluster is left out: this executor's configuration decides whether it may look
        everywhere. Raises the database's errors.
        """
        saved = {position.namespace for position in await self.saved()}
        return frozenset(namespace for namespace in (*self._watcher.namespaces, *saved) if namespace is not None)

    async def saved(self, max_age: float = POSITION_MAX_AGE_S) -> Collection[WatchPosition]:
        """Return the positions that executors have saved in the last seconds. Raises the database's errors."""
        return await call_blocking(self._database.load_positions, self._server, max_age)

    async def of_workloads(self, workloads: Collection[Workload]) -> dict[Workload, frozenset[str]]:
        """Return where the pod of each workload may be. Those are left out whose namespace cannot be determined.

        Raises the database's errors.
        """
        configs = await call_blocking(self._database.executor_configs, workloads)
        templates = await self._load((config, workload.task.queue) for workload, config in configs.items())
        namespaces: dict[Workload, frozenset[str]] = {}
        items = list(configs.items())
        for start in range(0, len(items), _PODS_PER_TURN):
            # Without an await inside: the cache has one snapshot, and the launcher uses it too.
            with self._composer.templates.snapshot(templates):
                for workload, config in items[start : start + _PODS_PER_TURN]:
                    try:
                        namespaces[workload] = frozenset(self._pod_namespaces(workload, config))
                    except Exception as error:  # of the author's override, or of the deployment's hook
                        log.debug("The namespace of %s cannot be determined: %s", workload.task.row_key, error)
            await asyncio.sleep(0)
        return namespaces

    def _pod_namespaces(self, workload: Workload, config: Mapping[str, object] | None) -> Iterator[str]:
        """Yield the namespace of a task's pod after each number of losses: ``after_losses`` may change it too."""
        queue = workload.task.queue
        policy = self._composer.loss_policy(config, queue)
        for losses in (0, *policy.after):
            if self._composer.mutates:
                delivery, chosen = SecretWorkload("unknown", "unknown"), replace(workload, config=config)
                pod = self._composer.compose(chosen, workload.task, delivery, losses)
                yield pod["metadata"]["namespace"]
                continue
            template, override = self._composer.choose(config, queue)
            if (patch := policy.patch(losses)) is not None:
                override = patch if override is None else merge_pods(override, patch)
            yield worker_namespace(template, override, self._composer.settings)

    async def _load(
        self, choices: Iterable[tuple[Mapping[str, object] | None, str]]
    ) -> Mapping[str, Manifest | TemplateError]:
        paths = {self._composer.path(config, queue) for config, queue in choices}
        return await self._composer.templates.load(path for path in paths if path)

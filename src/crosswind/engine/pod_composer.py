"""Builds the manifest of a workload's pod from template, queue and ``executor_config``.

This module reads the template files; the merging itself is pure, in ``worker_pod`` and ``pods.merge``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from crosswind.documents import read_text
from crosswind.engine.executor_config import PodChoice, read_executor_config, read_loss_choice
from crosswind.engine.losses import LossChoice, LossPolicy
from crosswind.engine.queues import QueueSettings, apply_queue
from crosswind.engine.state import WorkerRun, Workload
from crosswind.engine.worker_pod import Delivery, WorkerSettings, WorkerTask, check_template, check_worker, worker_pod
from crosswind.engine.workload_secrets import SecretWorkload
from crosswind.errors import ConfigError, CrosswindError, OverrideError, TemplateError
from crosswind.pods.merge import merge_pods
from crosswind.pods.templates import parse_template
from crosswind.types import Manifest

__all__ = ["PodComposer", "TemplateCache"]

_Version: TypeAlias = tuple[int, int, int]
"""Inode, time of modification and size of a file."""

_READ_TIMEOUT_S = 10.0
"""Seconds for a file system to answer: a network file system may hang."""


class TemplateCache:
    """Pod templates by path, parsed once per version of the file."""

    def __init__(self) -> None:
        self._parsed: dict[str, tuple[_Version, Manifest]] = {}
        self._snapshot: dict[str, Manifest | TemplateError] | None = None
        self._reading: dict[str, tuple[asyncio.Future[Manifest], float]] = {}
        """The reads that are under way, and their deadlines, by path."""

    def get(self, path: str) -> Manifest:
        """Return the template, which must not be changed. Raises ``TemplateError`` with file, field and fix."""
        # The check at the start of a session calls this in a thread, which may still read when the snapshot ends.
        snapshot = self._snapshot
        if snapshot is None:
            return self._read(path)
        if path not in snapshot:
            snapshot[path] = self._read(path)
        template = snapshot[path]
        if isinstance(template, TemplateError):
            raise TemplateError(str(template))  # a new error: one error raised twice collects both tracebacks
        return template

    @contextlib.contextmanager
    def snapshot(self, templates: Mapping[str, Manifest | TemplateError] | None = None) -> Iterator[None]:
        """Check each file for changes only once inside the block, however many pods are composed.

        ``templates``: the result of ``load`` for the files that they need.
        """
        self._snapshot = dict(templates or {})
        try:
            yield
        finally:
            self._snapshot = None

    async def load(self, paths: Iterable[str]) -> dict[str, Manifest | TemplateError]:
        """Return each template, or the error in it, without blocking the event loop.

        A new or changed file is read in a thread: its author decides its size, and its file system may hang. A known
        file costs one ``stat``.
        """
        distinct = set(paths)
        templates: dict[str, Manifest | TemplateError] = {}
        for path in distinct:
            if (template := self._unchanged(path)) is not None:
                templates[path] = template
        new = sorted(distinct - templates.keys())
        if not new:
            return templates
        return templates | dict(zip(new, await asyncio.gather(*map(self._read_in_thread, new)), strict=True))

    async def _read_in_thread(self, path: str) -> Manifest | TemplateError:
        """Read in a thread, with a deadline. While a thread still hangs on a file, no second one is started for it.

        The launcher and the warm pool read the same files: who comes second waits for the rest of the first one's time.
        """
        reading, deadline = self._reading_of(path)
        # Unlike wait_for, it does not cancel the read at the deadline.
        done, _ = await asyncio.wait([reading], timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        if not done:
            return TemplateError(
                f"Pod template {path} cannot be read: its file system did not answer in {_READ_TIMEOUT_S:g} s"
            )
        error = reading.exception()
        if error is None or isinstance(error, TemplateError):
            return error or reading.result()
        raise error

    def _reading_of(self, path: str) -> tuple[asyncio.Future[Manifest], float]:
        """Return the read of a file that is under way, else a new one, and its deadline."""
        if (known := self._reading.get(path)) is not None:
            return known
        reading = asyncio.ensure_future(asyncio.to_thread(self._read, path))
        # When the read ends, not when a caller has its result: none may be left to wait, and the next load must read
        # the file as it is then.
        reading.add_done_callback(functools.partial(self._forget_reading, path))
        self._reading[path] = reading, asyncio.get_running_loop().time() + _READ_TIMEOUT_S
        return self._reading[path]

    def _forget_reading(self, path: str, reading: asyncio.Future[Manifest]) -> None:
        del self._reading[path]
        if not reading.cancelled():
            reading.exception()  # asyncio logs an error that nobody has looked at

    def _unchanged(self, path: str) -> Manifest | None:
        cached = self._parsed.get(path)
        if cached is None:
            return None
        try:
            return cached[1] if cached[0] == _version(path) else None
        except OSError:
            return None

    def _read(self, path: str) -> Manifest:
        if (cached := self._unchanged(path)) is not None:
            return cached
        try:
            version = _version(path)  # before reading: a change in between is noticed the next time
            template = parse_template(read_text(path, what="pod template"), path)
        except TemplateError:
            raise
        except (OSError, ValueError) as error:
            raise TemplateError(f"Pod template {path} cannot be read: {getattr(error, 'strerror', error)}") from error
        except ConfigError as error:
            raise TemplateError(str(error)) from error
        self._parsed[path] = version, template
        return template


def _version(path: str) -> _Version:
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns, status.st_size


class PodComposer:
    """Composes the pods of one executor.

    ``template``: path of the global template, or None to start from ``fallback``. ``queues``: settings by queue name.
    ``mutate``: the deployment's ``pod_mutation_hook``, from JSON to JSON, or None. ``losses``: what holds for all tasks
    whose pods the cluster takes.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        template: str | None,
        fallback: Manifest | None = None,
        queues: Mapping[str, QueueSettings] | None = None,
        mutate: Callable[[Manifest], Manifest] | None = None,
        losses: LossPolicy | None = None,
    ) -> None:
        self.settings = settings
        self.templates = TemplateCache()
        self._template = template
        self._fallback = fallback
        self._queues = queues or {}
        self._mutate = mutate
        self._losses = losses or LossPolicy()
        self._last_settings: WorkerSettings | None = None

    def base(self, path: str | None = None) -> Manifest:
        """Return the template at ``path``, else the global one. Raises ``TemplateError``."""
        if path or self._template:
            return self.templates.get(path or self._template or "")
        if self._fallback is None:
            raise TemplateError(
                "There is no pod template: set [kubernetes_executor] pod_template_file to a file with a container "
                "named base and an image, or worker_container_repository and worker_container_tag to an Airflow image."
            )
        return self._fallback

    def set_server_version(self, version: tuple[int, int] | None) -> None:
        """Compose for an API server of this version from now on; None: not known."""
        self.settings, self._last_settings = replace(self.settings, server_version=version), None

    def check(self) -> None:
        """Raise ``TemplateError`` unless pods of the global template can run."""
        check_template(self.base(), self.settings, self._template or "the built-in template")

    def check_queue(self, name: str) -> None:
        """Raise ``TemplateError`` unless pods of the queue's own template, if it has one, can run."""
        if path := self._queues[name].template:
            check_template(self.base(path), self.settings, path)

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of the queues that are configured."""
        return tuple(self._queues)

    def choose(self, config: Mapping[str, object] | None, queue: str) -> tuple[Manifest, Manifest | None]:
        """Return the template and the override of a task.

        The task's ``executor_config`` wins over its queue, and the queue over the global settings. Raises
        ``ConfigError``.
        """
        return self._choose(read_executor_config(config), queue)

    def _choose(self, choice: PodChoice, queue: str) -> tuple[Manifest, Manifest | None]:
        settings = self._queues.get(queue)
        if settings is None:
            return self.base(choice.template), choice.override
        template = self.base(choice.template or settings.template)
        return apply_queue(template, settings, chosen=choice.template is not None), choice.override

    def loss_policy(self, config: Mapping[str, object] | None, queue: str) -> LossPolicy:
        """Return what holds for a task when the cluster takes its pod. Raises ``ConfigError``."""
        return self._policy(read_loss_choice(config), queue)

    def _policy(self, choice: LossChoice, queue: str) -> LossPolicy:
        settings = self._queues.get(queue)
        return self._losses.chosen(choice) if settings is None else self._losses.chosen(settings.losses, choice)

    def counts_losses(self, run: WorkerRun) -> bool:
        """Whether the pod of a run depends on the losses of its task."""
        try:
            return run.workload.runs_task and bool(self.loss_policy(run.workload.config, run.task.queue).after)
        except ConfigError:
            return False  # ``compose`` raises it for this run alone

    def path(self, config: Mapping[str, object] | None, queue: str) -> str | None:
        """Return the path of the template that ``choose`` uses, None for the built-in one."""
        of_task = config.get("pod_template_file") if isinstance(config, Mapping) else None
        of_queue = self._queues[queue].template if queue in self._queues else None
        return (of_task if isinstance(of_task, str) else None) or of_queue or self._template

    @property
    def mutates(self) -> bool:
        """Whether a ``pod_mutation_hook`` changes the pods."""
        return self._mutate is not None

    def runs_shim(self, workload: Workload, queue: str) -> bool:
        """Whether the worker shim runs a workload: a task in Python."""
        return self.settings.shim and workload.runs_task and queue not in self.settings.coordinated_queues

    def compose(self, workload: Workload, task: WorkerTask, delivery: Delivery, losses: int = 0) -> Manifest:
        """Return the pod's manifest. ``losses``: of the task in a row. Raises ``ConfigError``."""
        choice = read_executor_config(workload.config)
        template, override = self._choose(choice, task.queue)
        policy = self._policy(choice.losses, task.queue)
        if (patch := policy.patch(losses)) is not None:
            override = patch if override is None else merge_pods(override, patch)
        # A task that must not run twice keeps the cluster's patience with its node.
        settings = self._tolerating(policy.node_seconds if policy.retries else 0)
        if isinstance(delivery, SecretWorkload) and self.runs_shim(workload, task.queue):
            delivery = SecretWorkload(delivery.secret, delivery.key, shim=True)
        try:
            pod = worker_pod(template, override, task, settings, delivery)
        except CrosswindError:
            raise
        except Exception as error:
            raise OverrideError(
                f"executor_config cannot be merged over the pod template: {type(error).__name__}: {error}"
            ) from error
        return self._mutated(pod) if self._mutate else pod

    def _tolerating(self, node_seconds: int) -> WorkerSettings:
        """Return the settings with this ``node_loss_seconds``; the last ones are kept, as most pods have the same."""
        if self._last_settings is None or self._last_settings.node_loss_seconds != node_seconds:
            self._last_settings = replace(self.settings, node_loss_seconds=node_seconds)
        return self._last_settings

    def _mutated(self, pod: Manifest) -> Manifest:
        assert self._mutate is not None
        try:
            mutated = self._mutate(pod)
        except Exception as error:
            raise OverrideError(f"pod_mutation_hook failed: {type(error).__name__}: {error}") from error
        check_worker(mutated)
        return mutated

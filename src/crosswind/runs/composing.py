"""From a workload to the manifest of its pod: template files are read here, the merging is pure, in ``pods``."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from crosswind.errors import ConfigError, CrosswindError, OverrideError, TemplateError
from crosswind.pods.queues import Queue, apply_queue
from crosswind.pods.templates import parse_template
from crosswind.pods.workers import WorkerSettings, WorkerTask, check_template, check_worker, worker_pod
from crosswind.pods.workloads import InlineWorkload, SecretWorkload
from crosswind.regular_files import read_text
from crosswind.runs.overrides import read_executor_config
from crosswind.runs.workloads import Workload
from crosswind.types import Manifest

__all__ = ["Composer", "Templates"]

_Version: TypeAlias = tuple[int, int, int]

_READ_S = 10.0
"""Seconds for a file system to answer: a network's may be away."""


class Templates:
    """Pod templates by path, parsed once per version of the file."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[_Version, Manifest]] = {}
        self._looked: dict[str, Manifest | TemplateError] | None = None
        self._reading: dict[str, asyncio.Future[Manifest]] = {}

    def get(self, path: str) -> Manifest:
        """Return the template; not to be changed. Raises ``TemplateError`` with file, field and mend."""
        if self._looked is None:
            return self._look(path)
        if path not in self._looked:
            self._looked[path] = self._look(path)
        found = self._looked[path]
        if isinstance(found, TemplateError):
            raise TemplateError(str(found))
        return found

    @contextlib.contextmanager
    def at_once(self, looked: Mapping[str, Manifest | TemplateError] | None = None) -> Iterator[None]:
        """Look at each file once only, inside: for many pods that are composed in one go.

        ``looked``: what ``look`` returned for the files that they need.
        """
        self._looked = dict(looked or {})
        try:
            yield
        finally:
            self._looked = None

    async def look(self, paths: Iterable[str]) -> dict[str, Manifest | TemplateError]:
        """Return each template, or what is wrong with it, without holding up the event loop.

        A file that is new or has changed is read in a thread: it is a task author's, of any size that is allowed, and
        its file system may not answer. One that is known is only compared with what it was.
        """
        wanted = set(paths)
        looked: dict[str, Manifest | TemplateError] = {}
        for path in wanted:
            if (known := self._unchanged(path)) is not None:
                looked[path] = known
        new = sorted(wanted - looked.keys())
        if not new:
            return looked
        return looked | dict(zip(new, await asyncio.gather(*map(self._look_aside, new)), strict=True))

    async def _look_aside(self, path: str) -> Manifest | TemplateError:
        """Read in a thread, within a deadline; a thread that still hangs is not joined by another one."""
        reading, patience = self._reading.get(path), 0.0
        if reading is None:
            reading, patience = asyncio.ensure_future(asyncio.to_thread(self._look, path)), _READ_S
            self._reading[path] = reading
        done, _ = await asyncio.wait([reading], timeout=patience)
        if not done:
            return TemplateError(f"Pod template {path} cannot be read: its file system did not answer in {_READ_S:g} s")
        del self._reading[path]
        error = reading.exception()
        if error is None or isinstance(error, TemplateError):
            return error or reading.result()
        raise error

    def _unchanged(self, path: str) -> Manifest | None:
        known = self._read.get(path)
        if known is None:
            return None
        try:
            return known[1] if known[0] == _version(path) else None
        except OSError:
            return None

    def _look(self, path: str) -> Manifest:
        if (known := self._unchanged(path)) is not None:
            return known
        try:
            version = _version(path)  # before it is read: a change meanwhile is noticed the next time
            template = parse_template(read_text(path, what="pod template"), path)
        except TemplateError:
            raise
        except (OSError, ValueError) as error:
            raise TemplateError(f"Pod template {path} cannot be read: {getattr(error, 'strerror', error)}") from error
        except ConfigError as error:
            raise TemplateError(str(error)) from error
        self._read[path] = version, template
        return template


def _version(path: str) -> _Version:
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns, status.st_size


class Composer:
    """Makes the pods of one executor.

    ``template``: path of the global template, or None to start from ``fallback``. ``queues``: what some queues say, by
    name. ``mutate``: the deployment's ``pod_mutation_hook`` on JSON, or None.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        template: str | None,
        fallback: Manifest | None = None,
        queues: Mapping[str, Queue] | None = None,
        mutate: Callable[[Manifest], Manifest] | None = None,
    ) -> None:
        self.settings = settings
        self.templates = Templates()
        self._template = template
        self._fallback = fallback
        self._queues = queues or {}
        self._mutate = mutate

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

    def check(self) -> None:
        """Raise ``TemplateError`` unless the global template makes pods that can run."""
        check_template(self.base(), self.settings, self._template or "the built-in template")

    def check_queue(self, name: str) -> None:
        """Raise ``TemplateError`` unless the queue's own template, if it has one, makes pods that can run."""
        if path := self._queues[name].template:
            check_template(self.base(path), self.settings, path)

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of the queues that are configured."""
        return tuple(self._queues)

    def choose(self, config: Mapping[str, Any] | None, queue: str) -> tuple[Manifest, Manifest | None]:
        """Return the template and the override of a task: its ``executor_config`` wins over its queue, that over all.

        Raises ``ConfigError``.
        """
        choice, wanted = read_executor_config(config), self._queues.get(queue)
        if wanted is None:
            return self.base(choice.template), choice.override
        template = self.base(choice.template or wanted.template)
        return apply_queue(template, wanted, chosen=choice.template is not None), choice.override

    def path(self, config: Mapping[str, Any] | None, queue: str) -> str | None:
        """Return the path of the template that ``choose`` takes, None for the built-in one."""
        own = config.get("pod_template_file") if isinstance(config, Mapping) else None
        queued = self._queues[queue].template if queue in self._queues else None
        return (own if isinstance(own, str) else None) or queued or self._template

    def compose(self, workload: Workload, task: WorkerTask, delivery: SecretWorkload | InlineWorkload) -> Manifest:
        """Return the pod's manifest. Raises ``ConfigError``."""
        template, override = self.choose(workload.config, task.queue)
        try:
            pod = worker_pod(template, override, task, self.settings, delivery)
        except CrosswindError:
            raise
        except Exception as error:
            raise OverrideError(
                f"executor_config cannot be merged over the pod template: {type(error).__name__}: {error}"
            ) from error
        return self._mutated(pod) if self._mutate else pod

    def _mutated(self, pod: Manifest) -> Manifest:
        assert self._mutate is not None
        try:
            mutated = self._mutate(pod)
        except Exception as error:
            raise OverrideError(f"pod_mutation_hook failed: {type(error).__name__}: {error}") from error
        check_worker(mutated)
        return mutated

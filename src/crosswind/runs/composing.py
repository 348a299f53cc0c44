"""From a workload to the manifest of its pod: template files are read here, the merging is pure, in ``pods``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from crosswind.errors import CrosswindError, OverrideError, TemplateError
from crosswind.pods.queues import Queue, apply_queue
from crosswind.pods.templates import parse_template
from crosswind.pods.workers import WorkerSettings, WorkerTask, check_template, check_worker, worker_pod
from crosswind.pods.workloads import InlineWorkload, SecretWorkload
from crosswind.runs.overrides import read_executor_config
from crosswind.runs.workloads import Workload
from crosswind.types import Manifest

__all__ = ["Composer", "Templates"]


class Templates:
    """Pod templates by path, parsed once per version of the file."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[tuple[int, int, int], Manifest]] = {}
        self._looked: set[str] | None = None

    def get(self, path: str) -> Manifest:
        """Return the template; not to be changed. Raises ``TemplateError`` with file, field and mend."""
        if self._looked is None or path not in self._looked:
            self._look(path)
        if self._looked is not None:
            self._looked.add(path)
        return self._read[path][1]

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Look at each file once only, inside: for many pods that are composed in one go."""
        self._looked = set()
        try:
            yield
        finally:
            self._looked = None

    def _look(self, path: str) -> None:
        try:
            status = os.stat(path)
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            known = self._read.get(path)
            if known is None or known[0] != version:
                known = version, parse_template(Path(path).read_text(encoding="utf-8"), path)
                self._read[path] = known
        except OSError as error:
            raise TemplateError(
                f"Pod template {path} cannot be read: {error.strerror}. Correct the path, or mount the file."
            ) from error
        except UnicodeDecodeError as error:
            raise TemplateError(
                f"Pod template {path} is not UTF-8 text: {error.reason} at byte {error.start}."
            ) from error


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

"""Composes waiting pods: for one task, and for a queue before any task of it is there. Does not wait."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace

from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.pod_fingerprint import PodIdentity, WaitingTemplate, separate
from crosswind.engine.sealed_workload import deployment_scope, owner_labels
from crosswind.engine.state import WORKER_LABEL, WorkerRun, Workload
from crosswind.engine.warm_secrets import WarmWorkload
from crosswind.engine.worker_pod import WorkerTask
from crosswind.settings import EngineSettings, WarmSettings

__all__ = ["WarmTemplates", "early_cold_reason"]


def early_cold_reason(run: WorkerRun, settings: EngineSettings, composer: PodComposer) -> str:
    """Return why a run starts cold whatever its pod is, in a word for metrics; "" if its pod decides."""
    warm = settings.warm
    if warm is None or warm.options(run.task.queue).max == 0:
        return "off"
    if run.failed_claims or run.starts_cold:
        return "failed_claim"
    if not run.workload.runs_task or run.workload.ref is None:
        return "no_task"
    if settings.workload_delivery != "secret":
        return "args"
    return "" if composer.runs_shim(run.workload, run.task.queue) else "no_shim"


class WarmTemplates:
    """Composes the pods that wait. Call it within a snapshot of the composer's template files."""

    def __init__(self, composer: PodComposer, settings: EngineSettings, warm: WarmSettings) -> None:
        self._composer = composer
        self._labels = {**WORKER_LABEL, **owner_labels(settings.warm_secret, settings.team)}
        self._warm = warm
        self.scope = deployment_scope(warm.secret, settings.team)

    def of_run(self, run: WorkerRun) -> tuple[WaitingTemplate, PodIdentity]:
        """Return the pod that could wait for a run's task, and what a claim adds. Raises ``ConfigError``."""
        return self._compose(run.workload, run.task, run.losses)

    def of_queue(self, queue: str, config: Mapping[str, object] | None = None) -> WaitingTemplate:
        """Return the pod for the tasks of a queue with this ``executor_config``. Raises ``ConfigError``.

        A ``pod_mutation_hook`` that writes a run's identity into the pod shows as the reason ``hook``.
        """
        workload = Workload("waiting", _a_task(queue, self._labels), 0.0, None, config=config)
        template, _ = self._compose(workload, workload.task)
        return self.checked(template, workload, workload.task)

    def checked(self, template: WaitingTemplate, workload: Workload, task: WorkerTask) -> WaitingTemplate:
        """Return the template, with the reason ``hook`` if another run of the same task would get another one."""
        if template.reason or not self._composer.mutates:
            return template
        unique_id, ti_id = str(uuid.uuid4()), str(uuid.uuid4())
        another_run = replace(
            task, run_id=f"{task.run_id}-2", try_number=task.try_number + 1, unique_id=unique_id, ti_id=ti_id
        )
        other, _ = self._compose(workload, another_run)
        return template if other.fingerprint == template.fingerprint else replace(template, reason="hook")

    def _compose(self, workload: Workload, task: WorkerTask, losses: int = 0) -> tuple[WaitingTemplate, PodIdentity]:
        options = self._warm.options(task.queue)
        # Twice the age at which a scheduler replaces a pod: it ends by itself only when no scheduler is left.
        delivery = WarmWorkload(options.preload, int(2 * options.max_age + 60))
        return separate(self._composer.compose(workload, task, delivery, losses), self.scope)


def _a_task(queue: str, labels: Mapping[str, str]) -> WorkerTask:
    """Return a task for which a pod can be composed while there is none."""
    unique_id, ti_id = str(uuid.uuid4()), str(uuid.uuid4())
    return WorkerTask("waiting", "waiting", "waiting", 1, unique_id, queue=queue, ti_id=ti_id, labels=labels)

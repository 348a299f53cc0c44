"""A run lifecycle without its neighbours: what it would hand to them is recorded."""

from __future__ import annotations

from typing import Any

from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.metrics_reporter import RunMetrics
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.state import RunRegistry, WorkerRun
from crosswind.engine.watcher import WorkerWatcher
from crosswind.engine.worker_namespaces import WorkerNamespaces
from crosswind.engine.worker_pod import WorkerSettings
from crosswind.engine.workload_secrets import SecretBatch
from crosswind.settings import EngineSettings


def worker_namespaces(
    settings: EngineSettings, database: Any, watcher: WorkerWatcher | None = None, composer: PodComposer | None = None
) -> WorkerNamespaces:
    """Return the namespaces of an executor whose pods have no namespace of their own."""
    composer = composer or PodComposer(WorkerSettings(namespace=settings.namespaces[0] or "a"), template=None)
    watcher = watcher or WorkerWatcher(None, RecordedLifecycle(), settings)  # type: ignore[arg-type]
    return WorkerNamespaces("https://api", settings, composer, database, watcher)


class RecordedLifecycle(RunLifecycle):
    """Records what goes to the parts of a session, and the runs that ended."""

    def __init__(self, registry: RunRegistry | None = None) -> None:
        super().__init__(registry or RunRegistry(), RunMetrics())
        self.launched: list[WorkerRun] = []
        self.watched: list[str] = []
        self.cleaned_up: list[WorkerRun | SecretBatch] = []
        self.read_ahead: list[WorkerRun] = []
        self.ended: list[WorkerRun] = []
        self.parts: Any = _Parts(self)
        self.outcomes: Any = _Outcomes(self)

    @property
    def deleted_secrets(self) -> list[SecretBatch]:
        return [item for item in self.cleaned_up if isinstance(item, SecretBatch)]


class _Outcomes:
    def __init__(self, lifecycle: RecordedLifecycle) -> None:
        self.put = lifecycle.ended.append


class _Parts:
    def __init__(self, lifecycle: RecordedLifecycle) -> None:
        self.launch = self.create_pod = lifecycle.launched.append
        self.watch_namespace = lifecycle.watched.append
        self.clean_up = lifecycle.cleaned_up.append
        self.read_log_ahead = lifecycle.read_ahead.append

    def quota_freed(self, namespace: str) -> None: ...

    def adopt_pods(self) -> None: ...

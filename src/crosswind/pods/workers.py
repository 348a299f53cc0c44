"""The pod of one task instance: a template, what the configuration adds, what the task's author overrides.

A list of small steps, each ``(manifest, order) -> manifest``, that copy what they change and nothing else. To extend is
to put one more into the list. Who wins: the author's override, then the template, then the configuration; but the pod's
name and the labels by which Airflow finds it are nobody's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from crosswind.errors import OverrideError, TemplateError
from crosswind.pods.merging import merge_pods
from crosswind.pods.naming import bad_label, mesh_labels, pod_name, task_annotations, task_labels
from crosswind.pods.sidecars import NATIVE_ANNOTATION, NATIVE_SINCE, make_native, native_requests
from crosswind.pods.workloads import WORKLOAD_PATH, InlineWorkload, SecretWorkload, workload_volume
from crosswind.types import Json, Manifest

__all__ = [
    "BASE",
    "PLACEHOLDERS",
    "WorkerSettings",
    "WorkerTask",
    "check_template",
    "check_worker",
    "worker_name",
    "worker_namespace",
    "worker_pod",
]

BASE = "base"
"""The container that runs the task."""

PLACEHOLDERS = frozenset({"dummy_image", "placeholder-name-dont-delete"})
"""Images and namespaces in Airflow's own example templates that stand for "from the configuration"."""

_COMMAND = ["python", "-m", "airflow.sdk.execution_time.execute_workload"]


@dataclass(frozen=True, slots=True)
class WorkerTask:
    """The task instance that a pod is for."""

    dag_id: str
    task_id: str
    run_id: str
    try_number: int
    unique_id: str
    """Ends the pod's name; Airflow's pre-assigned external executor id."""
    map_index: int = -1
    executor_id: str = ""
    """Value of the label ``airflow-worker``: with stock the scheduler's job id. "" leaves it out."""
    queue: str = "default"
    ti_id: str = ""
    """The task instance's own id, for the annotation ``task_instance_id``; "" leaves it out."""
    airflow_version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    """More labels that nothing may override."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What the configuration says about all worker pods."""

    namespace: str = "default"
    """For pods whose template and override name none."""
    image: str | None = None
    """For templates whose image is a placeholder of Airflow's examples; a real image in the template wins."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment of the base container; a variable that template or override set stays theirs."""
    server_version: tuple[int, int] | None = None
    """Major and minor version of the API server; None (not known) makes and asks for no native sidecars."""
    ask_native: tuple[str, ...] = ("istio", "linkerd")
    """Injectors that are asked, by annotation, for native sidecars: names of ``sidecars.KNOWN``; no harm if absent."""
    native_sidecars: bool = False
    """Turn declared ordinary sidecars into native ones. Off by default: a native one is started again whenever it ends,
    which a helper that runs to its end does not expect. The annotation ``crosswind/native-sidecars`` decides for one
    pod."""


@dataclass(frozen=True, slots=True)
class _Order:
    """All that the steps read."""

    template: Manifest
    override: Manifest | None
    task: WorkerTask
    settings: WorkerSettings
    workload: SecretWorkload | InlineWorkload


_Step: TypeAlias = Callable[[Manifest, _Order], Manifest]


def worker_pod(
    template: Manifest,
    override: Manifest | None,
    task: WorkerTask,
    settings: WorkerSettings,
    workload: SecretWorkload | InlineWorkload,
) -> Manifest:
    """Return the pod that runs ``task``.

    ``template``: from ``parse_template``. ``override``: the task's ``pod_override`` as JSON, or None. ``workload``:
    where the worker finds what to run. No argument is changed; the outcome shares parts with them, copy before changing
    it in place.

    Raises ``OverrideError`` for an override that is no pod or leaves none that can run, ``TemplateError`` when no image
    is known.
    """
    order = _Order(template, override, task, settings, workload)
    pod = template
    for step in _STEPS:
        pod = step(pod, order)
    check_worker(pod)
    return pod


def worker_name(task: WorkerTask) -> str:
    """Return the name of the task's pod: the same for the same task and unique id."""
    return pod_name(task.dag_id, task.task_id, task.unique_id)


def worker_namespace(template: Manifest, override: Manifest | None, settings: WorkerSettings) -> str:
    """Return the namespace of the pod that ``worker_pod`` makes of the same."""
    for manifest in (override, template):
        metadata = (manifest or {}).get("metadata")
        namespace = metadata.get("namespace") if isinstance(metadata, Mapping) else None
        if isinstance(namespace, str) and namespace and namespace not in PLACEHOLDERS:
            return namespace
    return settings.namespace


def check_template(template: Manifest, settings: WorkerSettings, where: str = "pod template") -> None:
    """Raise ``TemplateError`` when ``template`` makes no pod under these settings, for a check at start."""
    task = WorkerTask("check", "check", "check", 1, "0")
    try:
        worker_pod(template, None, task, settings, SecretWorkload("check", "check"))
    except (OverrideError, TemplateError) as error:
        raise TemplateError(f"{where}: {error}") from error


def check_worker(pod: Manifest) -> None:
    """Raise ``OverrideError`` unless ``pod`` can still run a task: after an override or a ``pod_mutation_hook``."""
    spec = pod.get("spec") or {}
    regular, init = spec.get("containers") or (), spec.get("initContainers") or ()
    _check_names([container.get("name") for container in regular], [container.get("name") for container in init])
    names = [container.get("name") for container in (*regular, *init)]
    for container in (*regular, *init):
        if not str(container.get("image") or "").strip():
            raise OverrideError(_no_image(container.get("name"), names))
    _check_labels((pod.get("metadata") or {}).get("labels") or {})


def _check_names(regular: list[Json], init: list[Json]) -> None:
    if BASE not in regular:
        raise OverrideError("the pod has no container named base any more; keep the name base for the Airflow task")
    names = [*regular, *init]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise OverrideError(f"the pod has two containers named {twice!r}; rename one (init containers count too)")


def _check_labels(labels: Mapping[str, Json]) -> None:
    if (key := bad_label(labels)) is not None:
        raise OverrideError(
            f"metadata.labels[{key}] is {labels[key]!r}, which Kubernetes refuses; use at most 63 letters, digits, "
            "'-', '_' and '.', beginning and ending with a letter or digit, or an annotation"
        )


def _no_image(name: Json, names: list[Json]) -> str:
    if name == BASE:
        return "container base has no image any more; give it an image, or leave image out to keep the template's"
    others = ", ".join(sorted(str(other) for other in names if other != name))
    return (
        f"container {name!r} has no image; to add a sidecar give it one, to change a container of the template use its "
        f"name ({others})"
    )


# --- steps ------------------------------------------------------------------------------------------------------------


def _apply_defaults(pod: Manifest, order: _Order) -> Manifest:
    """Namespace, image and restart policy, where the template names none."""
    base = _base(pod)
    spec = pod["spec"]
    if base.get("image") in PLACEHOLDERS:
        if not order.settings.image and not _overrides_image(order.override):
            raise TemplateError(
                f"container base has the placeholder image {base['image']!r} and the configuration names no other; "
                "give it the Airflow image, or set worker_container_repository and worker_container_tag"
            )
        spec = _with_base(spec, image=order.settings.image or "")
    if not spec.get("restartPolicy"):
        spec = {**spec, "restartPolicy": "Never"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"], "spec": spec}


def _overrides_image(override: Manifest | None) -> bool:
    containers = ((override or {}).get("spec") or {}).get("containers") or ()
    return any(container.get("name") == BASE and container.get("image") for container in containers)


def _set_command(pod: Manifest, order: _Order) -> Manifest:
    """Airflow's own command as arguments: the image's entrypoint, or the template's ``command``, runs it."""
    if isinstance(order.workload, InlineWorkload):
        arguments = [*_COMMAND, "--json-string", order.workload.json]
    else:
        arguments = [*_COMMAND, "--json-path", WORKLOAD_PATH]
    return {**pod, "spec": _with_base(pod["spec"], args=arguments)}


def _set_environment(pod: Manifest, order: _Order) -> Manifest:
    """What stock sets, and what the configuration adds; nothing secret."""
    own = {"name": "AIRFLOW_IS_K8S_EXECUTOR_POD", "value": "True"}
    given = [variable for variable in _base(pod).get("env") or () if variable["name"] != own["name"]]
    have = {variable["name"] for variable in given}
    extra = [{"name": name, "value": value} for name, value in order.settings.environment.items() if name not in have]
    return {**pod, "spec": _with_base(pod["spec"], env=[*given, *extra, own])}


def _mount_workload(pod: Manifest, order: _Order) -> Manifest:
    if isinstance(order.workload, InlineWorkload):
        return pod
    volume, mount = workload_volume(order.workload)
    spec = _with_base(pod["spec"], volumeMounts=[*(_base(pod).get("volumeMounts") or ()), mount])
    return {**pod, "spec": {**spec, "volumes": [*(spec.get("volumes") or ()), volume]}}


def _apply_override(pod: Manifest, order: _Order) -> Manifest:
    return merge_pods(pod, order.override) if order.override else pod


def _make_sidecars_native(pod: Manifest, order: _Order) -> Manifest:
    """Declared sidecars, when the author or the configuration asks for it and the server can."""
    choice = (pod["metadata"].get("annotations") or {}).get(NATIVE_ANNOTATION)
    wanted = order.settings.native_sidecars if choice is None else choice.strip().lower() not in ("false", "")
    if not wanted or not _has_native(order.settings):
        return pod
    names = None if choice is None or choice.strip().lower() == "true" else _names(choice)
    return {**pod, "spec": make_native(pod["spec"], names, BASE)}


def _names(choice: str) -> frozenset[str]:
    return frozenset(name.strip() for name in choice.split(","))


def _ask_for_native(pod: Manifest, order: _Order) -> Manifest:
    """Annotations for the injectors, unless the author said otherwise."""
    if not _has_native(order.settings):
        return pod
    annotations = pod["metadata"].get("annotations") or {}
    wanted = native_requests(annotations, order.settings.ask_native)
    return {**pod, "metadata": {**pod["metadata"], "annotations": {**annotations, **wanted}}}


def _has_native(settings: WorkerSettings) -> bool:
    return settings.server_version is not None and settings.server_version >= NATIVE_SINCE


def _identify(pod: Manifest, order: _Order) -> Manifest:
    """Name, namespace, labels, annotations: the last step, as nothing may change by what Airflow finds the pod."""
    task, metadata = order.task, pod["metadata"]
    facts = {"dag_id": task.dag_id, "task_id": task.task_id, "run_id": task.run_id}
    labels = metadata.get("labels") or {}
    annotations = {
        **(metadata.get("annotations") or {}),
        **task_annotations(**facts, try_number=task.try_number, map_index=task.map_index),
    }
    if task.ti_id:
        annotations["task_instance_id"] = task.ti_id
    own = task_labels(
        **facts,
        try_number=task.try_number,
        map_index=task.map_index,
        executor_id=task.executor_id or None,
        airflow_version=task.airflow_version,
    )
    identity = {
        "name": worker_name(task),
        "namespace": worker_namespace(order.template, order.override, order.settings),
        "labels": {**labels, **mesh_labels(labels), **own, **task.labels},
        "annotations": annotations,
    }
    return {**pod, "metadata": {**metadata, **identity}}


_STEPS: tuple[_Step, ...] = (
    _apply_defaults,
    _set_command,
    _set_environment,
    _mount_workload,
    _apply_override,
    _make_sidecars_native,
    _ask_for_native,
    _identify,
)


def _base(pod: Manifest) -> Manifest:
    for container in pod["spec"]["containers"]:
        if container.get("name") == BASE:
            found: Manifest = container
            return found
    raise TemplateError("the template has no container named base; name the container that runs the Airflow task: base")


def _with_base(spec: Manifest, **fields: Json) -> Manifest:
    """Return a copy of ``spec`` in which fields of the base container are set."""
    containers = [
        {**container, **fields} if container.get("name") == BASE else container for container in spec["containers"]
    ]
    return {**spec, "containers": containers}

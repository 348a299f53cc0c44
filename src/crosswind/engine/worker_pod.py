"""Builds the pod of one task instance from a template, the configuration and the author's override. Pure.

The steps in ``_STEPS`` each return a copy of the manifest with their change. The author's override wins over the
template, and the template over the configuration. Nothing overrides the pod's name and the labels by which Airflow
finds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from crosswind.engine.warm_secrets import WarmWorkload, shim_facts, warm_volumes
from crosswind.engine.workload_secrets import (
    SHIM_PATH,
    WORKLOAD_PATH,
    InlineWorkload,
    SecretWorkload,
    mounted_workload,
    workload_volume,
)
from crosswind.errors import OverrideError, TemplateError
from crosswind.pods.fields import annotations_of
from crosswind.pods.merge import merge_pods
from crosswind.pods.naming import (
    CLAIM_LABEL,
    UNIQUE_ID_ANNOTATION,
    bad_label,
    mesh_labels,
    pod_name,
    task_annotations,
    task_labels,
)
from crosswind.pods.node_tolerations import node_loss_tolerations
from crosswind.sidecars.native import NATIVE_ANNOTATION, NATIVE_SINCE, make_native, native_requests
from crosswind.types import Json, Manifest, Pod

__all__ = [
    "BASE",
    "PLACEHOLDERS",
    "READY_COMMAND",
    "SHIM_COMMAND",
    "Delivery",
    "WorkerSettings",
    "WorkerTask",
    "check_template",
    "check_worker",
    "unique_id_of",
    "worker_name",
    "worker_namespace",
    "worker_pod",
]

BASE = "base"
"""The container that runs the task."""

PLACEHOLDERS = frozenset({"dummy_image", "placeholder-name-dont-delete"})
"""Images and namespaces in Airflow's own example templates that mean "take it from the configuration"."""

BYTECODE_DIRECTORY = "/run/crosswind-bytecode"
"""Where the bytecode volume is mounted, unless the template mounts it itself."""

SHIM_VARIABLE = "CROSSWIND_WORKER"
"""Environment variable that describes the pod to the worker shim, as JSON."""

_GRACE_S, _MESSAGE_PATH = 30, "/dev/termination-log"
"""Kubernetes' defaults, which the shim assumes."""

_COMMAND = ["python", "-m", "airflow.sdk.execution_time.execute_workload"]

SHIM_COMMAND = ["python", SHIM_PATH]
"""Arguments of base under the worker shim; the path of the workload follows in a pod that is created for its task."""

UID_VARIABLE = "CROSSWIND_POD_UID"
"""Environment variable from which a waiting worker knows for which pod its workload is sealed."""

READY_COMMAND = ["sh", "-c", 'until test -s "$1"; do sleep 0.1; done', "sh"]
"""Ends when the file of the next argument has content. The shim writes into the termination message, which is empty
before, as soon as everything is imported. It blocks, because a kubelet writes an event for each probe that fails."""

_READY_PROBE = {"periodSeconds": 1, "timeoutSeconds": 60, "failureThreshold": 10}
"""A startup probe ends with its first success: the running task is never probed."""

Delivery: TypeAlias = SecretWorkload | InlineWorkload | WarmWorkload
"""How a workload reaches its worker."""


@dataclass(frozen=True, slots=True)
class WorkerTask:
    """The task instance that a pod runs."""

    dag_id: str
    task_id: str
    run_id: str
    try_number: int
    unique_id: str
    """The end of the pod's name; Airflow's pre-assigned external executor id."""
    map_index: int = -1
    executor_id: str = ""
    """Value of the label ``airflow-worker``, as with the stock executor the scheduler's job id. "" leaves it out."""
    queue: str = "default"
    ti_id: str = ""
    """The task instance's own id, for the annotation ``task_instance_id``; "" leaves it out."""
    airflow_version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Further labels that nothing may override."""

    @property
    def row_key(self) -> tuple[str, str, str, int]:
        """DAG, task, run and map index, the key of the task's row, which stays the same for all its tries."""
        return self.dag_id, self.task_id, self.run_id, self.map_index


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The configuration of all worker pods."""

    namespace: str = "default"
    """For pods whose template and override have no namespace."""
    image: str | None = None
    """Replaces a placeholder of Airflow's example templates; a real image in the template wins."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment of the base container; a variable of the template or the override wins."""
    server_version: tuple[int, int] | None = None
    """Major and minor version of the API server; None: not known, so that no sidecar becomes native."""
    ask_native: tuple[str, ...] = ("istio", "linkerd")
    """Injectors that annotations ask for native sidecars, by their names in ``sidecars.KNOWN``."""
    native_sidecars: bool = False
    """Turn declared ordinary sidecars into native ones. Off by default, because the kubelet restarts a native sidecar
    whenever it exits, also a helper that is meant to run once. The annotation ``crosswind/native-sidecars`` decides for
    one pod."""

    shim: bool = True
    """Run tasks under the worker shim if the workload comes from a Secret."""
    coordinated_queues: frozenset[str] = frozenset()
    """Queues whose tasks another language's coordinator runs; the shim supports Python only."""
    node_loss_seconds: int = 0
    """Seconds that a pod stays bound to a node that does not answer; 0 leaves that to the cluster."""
    bytecode_volume: str = ""
    """Name of the template's volume with bytecode for images that have none; "" is none."""


@dataclass(frozen=True, slots=True)
class _Order:
    """Everything that the steps read."""

    template: Manifest
    override: Manifest | None
    task: WorkerTask
    settings: WorkerSettings
    workload: Delivery


_Step: TypeAlias = Callable[[Manifest, _Order], Manifest]


def worker_pod(
    template: Manifest,
    override: Manifest | None,
    task: WorkerTask,
    settings: WorkerSettings,
    workload: Delivery,
) -> Manifest:
    """Return the pod that runs ``task``.

    ``template``: from ``parse_template``. ``override``: the task's ``pod_override`` as JSON, or None. ``workload``:
    where the worker finds what to run. No argument is changed, but the result shares parts with them: copy it before
    changing it in place.

    Raises ``OverrideError`` for an override that is not a pod, or after which the pod cannot run; ``TemplateError`` if
    there is no image.
    """
    order = _Order(template, override, task, settings, workload)
    pod = template
    for step in _STEPS:
        pod = step(pod, order)
    check_worker(pod)
    return pod


def worker_name(task: WorkerTask) -> str:
    """Return the name of the task's pod, which depends on the task and the unique id alone.

    A ``pod_mutation_hook`` may change it: ``unique_id_of`` knows the pod nevertheless.
    """
    return pod_name(task.dag_id, task.task_id, task.unique_id)


def unique_id_of(pod: Pod) -> str:
    """Return the unique id of the run that a pod was created for, or claimed by; "" if only its name may show it."""
    if claim := (pod["metadata"].get("labels") or {}).get(CLAIM_LABEL):
        return claim
    mounted = mounted_workload(pod)
    return mounted.key if mounted is not None else annotations_of(pod).get(UNIQUE_ID_ANNOTATION, "")


def worker_namespace(template: Manifest, override: Manifest | None, settings: WorkerSettings) -> str:
    """Return the namespace of the pod that ``worker_pod`` builds from the same arguments."""
    for manifest in (override, template):
        metadata = (manifest or {}).get("metadata")
        namespace = metadata.get("namespace") if isinstance(metadata, Mapping) else None
        if isinstance(namespace, str) and namespace and namespace not in PLACEHOLDERS:
            return namespace
    return settings.namespace


def check_template(template: Manifest, settings: WorkerSettings, where: str = "pod template") -> None:
    """Raise ``TemplateError`` if no pod can be built from ``template`` with these settings."""
    task = WorkerTask("check", "check", "check", 1, "0")
    try:
        pod = worker_pod(template, None, task, settings, SecretWorkload("check", "check"))
    except (OverrideError, TemplateError) as error:
        raise TemplateError(f"{where}: {error}") from error
    if settings.bytecode_volume and not _has_volume(pod["spec"], settings.bytecode_volume):
        raise TemplateError(
            f"{where}: [crosswind] bytecode_volume is {settings.bytecode_volume}, and the template has no such volume; "
            "add it to spec.volumes, or leave the option empty"
        )


def check_worker(pod: Manifest) -> None:
    """Raise ``OverrideError`` unless ``pod`` can run a task, after an override or a ``pod_mutation_hook``."""
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
        raise OverrideError("the pod no longer has a container named base; keep the name base for the Airflow task")
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
        return "container base no longer has an image; give it an image, or omit image to keep the template's"
    others = ", ".join(sorted(str(other) for other in names if other != name))
    return (
        f"container {name!r} has no image; to add a sidecar give it one, to change a container of the template use its "
        f"name ({others})"
    )


# --- steps ------------------------------------------------------------------------------------------------------------


def _apply_defaults(pod: Manifest, order: _Order) -> Manifest:
    """Set namespace, image and restart policy where the template has none."""
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
    """Set the shim or Airflow's own command as arguments of the image's entrypoint or the template's ``command``."""
    if isinstance(order.workload, InlineWorkload):
        arguments = [*_COMMAND, "--json-string", order.workload.json]
    elif isinstance(order.workload, WarmWorkload):
        arguments = SHIM_COMMAND
    elif order.workload.shim:
        arguments = [*SHIM_COMMAND, "--json-path", WORKLOAD_PATH]
    else:
        arguments = [*_COMMAND, "--json-path", WORKLOAD_PATH]
    return {**pod, "spec": _with_base(pod["spec"], args=arguments)}


def _set_environment(pod: Manifest, order: _Order) -> Manifest:
    """Set what the stock executor sets, and what the configuration adds. None of it is secret."""
    own = {"name": "AIRFLOW_IS_K8S_EXECUTOR_POD", "value": "True"}
    variables = [variable for variable in _base(pod).get("env") or () if variable["name"] != own["name"]]
    have = {variable["name"] for variable in variables}
    extra = [{"name": name, "value": value} for name, value in order.settings.environment.items() if name not in have]
    return {**pod, "spec": _with_base(pod["spec"], env=[*variables, *extra, own])}


def _mount_workload(pod: Manifest, order: _Order) -> Manifest:
    if isinstance(order.workload, InlineWorkload):
        return pod
    if isinstance(order.workload, WarmWorkload):
        volumes, mounts = warm_volumes()
    else:
        volume, mount = workload_volume(order.workload)
        volumes, mounts = [volume], [mount]
    spec = _with_base(pod["spec"], volumeMounts=[*(_base(pod).get("volumeMounts") or ()), *mounts])
    return {**pod, "spec": {**spec, "volumes": [*(spec.get("volumes") or ()), *volumes]}}


def _apply_override(pod: Manifest, order: _Order) -> Manifest:
    return merge_pods(pod, order.override) if order.override else pod


def _mount_bytecode(pod: Manifest, order: _Order) -> Manifest:
    """Mount the volume unless the author does. Read-only: a task that can write there changes what others execute."""
    name = order.settings.bytecode_volume
    if not _runs_shim(order) or not _has_volume(pod["spec"], name) or _mount_path(_base(pod), name):
        return pod
    mount = {"name": name, "mountPath": BYTECODE_DIRECTORY, "readOnly": True}
    return {**pod, "spec": _with_base(pod["spec"], volumeMounts=[*(_base(pod).get("volumeMounts") or ()), mount])}


def _describe_to_shim(pod: Manifest, order: _Order) -> Manifest:
    """Pass on what a process cannot see of its pod, where it is not Kubernetes' default. Runs after the override."""
    if not _runs_shim(order):
        return pod
    base, grace = _base(pod), pod["spec"].get("terminationGracePeriodSeconds")
    facts: dict[str, Json] = {
        "grace": None if grace == _GRACE_S else grace,
        "message": None if base.get("terminationMessagePath") == _MESSAGE_PATH else base.get("terminationMessagePath"),
        "fallback": base.get("terminationMessagePolicy") == "FallbackToLogsOnError" or None,
        "bytecode": _mount_path(base, order.settings.bytecode_volume) or None,
        "warm": shim_facts(order.workload) if isinstance(order.workload, WarmWorkload) else None,
    }
    description = {name: value for name, value in facts.items() if value is not None}
    if not description:
        return pod
    others = [variable for variable in base.get("env") or () if variable["name"] != SHIM_VARIABLE]
    variable = {"name": SHIM_VARIABLE, "value": json.dumps(description, separators=(",", ":"))}
    return {**pod, "spec": _with_base(pod["spec"], env=[*others, variable])}


def _prepare_for_claim(pod: Manifest, order: _Order) -> Manifest:
    """Pass the pod's uid to a waiting worker, and have Kubernetes report when it is ready for a claim."""
    if not isinstance(order.workload, WarmWorkload):
        return pod
    base = _base(pod)
    uid = {"name": UID_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}
    others = [variable for variable in base.get("env") or () if variable["name"] != UID_VARIABLE]
    test = {"exec": {"command": [*READY_COMMAND, base.get("terminationMessagePath") or _MESSAGE_PATH]}}
    probe = base.get("startupProbe") or {**test, **_READY_PROBE}
    return {**pod, "spec": _with_base(pod["spec"], env=[*others, uid], startupProbe=probe)}


def _runs_shim(order: _Order) -> bool:
    return isinstance(order.workload, WarmWorkload) or (
        isinstance(order.workload, SecretWorkload) and order.workload.shim
    )


def _has_volume(spec: Manifest, name: str) -> bool:
    return bool(name) and any(volume.get("name") == name for volume in spec.get("volumes") or ())


def _mount_path(base: Manifest, volume: str) -> str:
    mounts = base.get("volumeMounts") or ()
    return next((str(mount.get("mountPath") or "") for mount in mounts if volume and mount.get("name") == volume), "")


def _tolerate_node_loss(pod: Manifest, order: _Order) -> Manifest:
    """Shorten the time for which Kubernetes waits for a node, 300 s by default, unless the author has set one."""
    tolerations = pod["spec"].get("tolerations") or []
    own = node_loss_tolerations(tolerations, order.settings.node_loss_seconds)
    return {**pod, "spec": {**pod["spec"], "tolerations": [*tolerations, *own]}} if own else pod


def _make_sidecars_native(pod: Manifest, order: _Order) -> Manifest:
    """Make declared sidecars native if the author or the configuration asks for it and the server supports it."""
    choice = (pod["metadata"].get("annotations") or {}).get(NATIVE_ANNOTATION)
    enabled = order.settings.native_sidecars if choice is None else choice.strip().lower() not in ("false", "")
    if not enabled or not _supports_native(order.settings):
        return pod
    names = None if choice is None or choice.strip().lower() == "true" else _names(choice)
    return {**pod, "spec": make_native(pod["spec"], names, BASE)}


def _names(choice: str) -> frozenset[str]:
    return frozenset(name.strip() for name in choice.split(","))


def _ask_for_native(pod: Manifest, order: _Order) -> Manifest:
    """Annotate the pod for the injectors, unless the author has set these annotations."""
    if not _supports_native(order.settings):
        return pod
    annotations = pod["metadata"].get("annotations") or {}
    requests = native_requests(annotations, order.settings.ask_native)
    return {**pod, "metadata": {**pod["metadata"], "annotations": {**annotations, **requests}}}


def _supports_native(settings: WorkerSettings) -> bool:
    return settings.server_version is not None and settings.server_version >= NATIVE_SINCE


def _identify(pod: Manifest, order: _Order) -> Manifest:
    """Set name, namespace, labels and annotations. The last step: nothing may change how Airflow finds the pod."""
    task, metadata = order.task, pod["metadata"]
    facts = {"dag_id": task.dag_id, "task_id": task.task_id, "run_id": task.run_id}
    labels = metadata.get("labels") or {}
    annotations = {
        **(metadata.get("annotations") or {}),
        **task_annotations(**facts, try_number=task.try_number, map_index=task.map_index, queue=task.queue),
    }
    if task.ti_id:
        annotations["task_instance_id"] = task.ti_id
    if isinstance(order.workload, InlineWorkload):
        annotations[UNIQUE_ID_ANNOTATION] = task.unique_id
    own = task_labels(
        **facts,
        try_number=task.try_number,
        map_index=task.map_index,
        executor_id=task.executor_id or None,
        airflow_version=task.airflow_version,
        queue=task.queue,
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
    _mount_bytecode,
    _describe_to_shim,
    _prepare_for_claim,
    _tolerate_node_loss,
    _make_sidecars_native,
    _ask_for_native,
    _identify,
)


def _base(pod: Manifest) -> Manifest:
    for container in pod["spec"]["containers"]:
        if container.get("name") == BASE:
            base: Manifest = container
            return base
    raise TemplateError("the template has no container named base; name the container that runs the Airflow task: base")


def _with_base(spec: Manifest, **fields: Json) -> Manifest:
    """Return a copy of ``spec`` with these fields of the base container set."""
    containers = [
        {**container, **fields} if container.get("name") == BASE else container for container in spec["containers"]
    ]
    return {**spec, "containers": containers}

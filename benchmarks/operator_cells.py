"""The cells of ``benchmarks.sidecars``: one task of a pod operator beside a sidecar, run as Airflow runs it."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kubernetes.client import models as k8s

from crosswind.event_loop import run_in_own_loop
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.settings import KubeSettings

ISTIO = "sidecar.istio.io/"
LINKERD = "config.linkerd.io/"
VAULT = "vault.hashicorp.com/"

_POLITE = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"
_DEAF = "trap '' TERM; while :; do sleep 1; done"
_RESULT = '{"rows": 7}'
_WRITE = f"mkdir -p /airflow/xcom; echo '{_RESULT}' > /airflow/xcom/return.json"

SWAP = "cr.l5d.io/linkerd/proxy-init:v2.4.2"
"""An image that exits with 0 at once: the ``sidecar_swap_image`` for sidecars that no other step ends."""

SCRIPTS = {
    "success": "echo begin; sleep 0.3; WRITE; echo end",
    "failure": "echo begin; WRITE; exit 3",
    "oom": "echo begin; WRITE; head -c 300m /dev/zero | tail > /dev/null; echo not reached",
}


@dataclass(frozen=True)
class SidecarCase:
    """The sidecar beside the task: injected by annotations and labels, or declared in the pod."""

    annotations: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    container: tuple[tuple[str, Any], ...] | None = None

    @property
    def containers(self) -> list[k8s.V1Container]:
        """Return the declared containers."""
        return [k8s.V1Container(**dict(self.container))] if self.container else []


def _injected(annotations: dict[str, str], labels: dict[str, str] | None = None) -> SidecarCase:
    return SidecarCase(tuple(annotations.items()), tuple((labels or {}).items()))


def _declared(container: dict[str, Any]) -> SidecarCase:
    return SidecarCase(container=tuple(container.items()))


def _istio(native: str) -> SidecarCase:
    return _injected({f"{ISTIO}nativeSidecar": native}, {f"{ISTIO}inject": "true"})


def _linkerd(**more: str) -> SidecarCase:
    names = {f"{LINKERD}{name.replace('_', '-')}": value for name, value in more.items()}
    return _injected({"linkerd.io/inject": "enabled", f"{LINKERD}proxy-enable-native-sidecar": "false"} | names)


_GCSFUSE = {"gke-gcsfuse/volumes": "true"}
_KUMA = {"kuma.io/sidecar-injection": "enabled"}
_SQL = {
    "name": "cloud-sql-proxy",
    "image": "gcr.io/cloud-sql-connectors/cloud-sql-proxy:2.18.0-alpine",
    "args": ["project:region:instance"],
}
"""Without its endpoint only TERM ends it, and its exit code is then 143."""

SIDECARS: dict[str, SidecarCase] = {
    "none": SidecarCase(),
    "istio": _istio("false"),
    "istio-native": _istio("true"),
    "linkerd": _linkerd(),
    "linkerd-endpoint": _linkerd(proxy_admin_shutdown="enabled"),
    "vault": _injected({f"{VAULT}agent-inject": "true", f"{VAULT}agent-enable-quit": "true", f"{VAULT}role": "r"}),
    "cloud-sql": _declared(_SQL),
    "gcsfuse": _injected(_GCSFUSE),
    "kuma": _injected({}, _KUMA),
    "unknown": _declared({"name": "side", "image": "busybox", "command": ["sh", "-c", _POLITE]}),
    "unknown-shell-less": _declared({"name": "side", "image": "crosswind/sidecar:1"}),
    "two-waiters": _injected(_GCSFUSE, _KUMA),
    "deaf": _declared({"name": "side", "image": "busybox", "command": ["sh", "-c", _DEAF]}),
}


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    sidecar: str
    outcome: str = "success"
    deferrable: bool = False
    action: str = "delete_pod"
    xcom: bool = False

    def __str__(self) -> str:
        mode = "deferrable" if self.deferrable else "sync"
        return " ".join((self.sidecar, self.outcome, mode, self.action, "xcom" if self.xcom else "no-xcom"))


@dataclass(frozen=True)
class CellOutcome:
    """The end of a cell. ``state``: success or failed; ``pod``: gone, Succeeded, Failed, Running..."""

    state: str
    pod: str
    seconds: float
    value: Any = None
    message: str = ""

    def wrong(self, cell: Cell) -> str:
        """Return the difference from the right outcome, "" if there is none."""
        right_state = "success" if cell.outcome == "success" else "failed"
        if self.state != right_state:
            return f"state {self.state}, not {right_state}"
        if cell.xcom and cell.outcome == "success" and self.value != json.loads(_RESULT):
            return f"XCom {self.value!r}"
        deleted = cell.action == "delete_pod" or (cell.action == "delete_succeeded_pod" and right_state == "success")
        if deleted and self.pod != "gone":
            return f"pod {self.pod}, not gone"
        if not deleted and self.pod not in ("Succeeded", "Failed"):
            return f"pod {self.pod}, not finished"
        return ""

    def unexplained(self, cell: Cell) -> str:
        """Return the fact that the message of a failure lacks, "" if it names the cause."""
        cause = {"failure": "exit code 3", "oom": "memory"}.get(cell.outcome, "")
        return "" if cause in self.message else f"the message does not say {cause!r}"


class Instance:
    """The task instance that an operator sees."""

    dag_id, run_id, try_number, map_index, start_date = "table", "run", 1, -1, None

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Record the value that a task pushes."""
        self.pushed[key] = value


def new_task() -> str:
    """Return a new task id, which is the label ``task_id`` of its pods."""
    return f"cell-{uuid.uuid4().hex[:12]}"


def run(
    operator_class: Any, cell: Cell, kubeconfig: str, namespace: str, task_id: str = "", *, settle: float = 10.0
) -> CellOutcome:
    """Run a cell; ``settle``: seconds until the pod must be deleted or finished afterwards."""
    logging.getLogger("airflow").setLevel(logging.ERROR)
    task_id = task_id or new_task()
    instance = Instance(task_id)
    began = time.monotonic()
    value, state, message = None, "success", ""
    try:
        value = execute(lambda: make(operator_class, cell, kubeconfig, namespace, task_id), instance)
    except Exception as error:
        state, message = "failed", str(error).splitlines()[0] if str(error) else type(error).__name__
    seconds = time.monotonic() - began
    pod = run_in_own_loop(lambda: _pod(kubeconfig, namespace, instance.pushed.get("pod_name", ""), settle), settle + 30)
    return CellOutcome(state, pod, seconds, value, message)


def make(operator_class: Any, cell: Cell, kubeconfig: str, namespace: str, task_id: str, **more: Any) -> Any:
    """Return the operator of a cell."""
    from airflow.sdk import DAG

    sidecar = SIDECARS[cell.sidecar]
    spec = k8s.V1PodSpec(containers=[k8s.V1Container(name="base"), *sidecar.containers])
    limits = {"memory": "64Mi"} if cell.outcome == "oom" else None
    script = SCRIPTS[cell.outcome].replace("WRITE", _WRITE if cell.xcom else ":")
    with DAG("table", schedule=None):
        return operator_class(
            task_id=task_id,
            kubernetes_conn_id=None,
            config_file=kubeconfig,
            namespace=namespace,
            image="busybox",
            cmds=["sh", "-c", script],
            labels=dict(sidecar.labels),
            annotations=dict(sidecar.annotations),
            full_pod_spec=k8s.V1Pod(metadata=k8s.V1ObjectMeta(), spec=spec) if sidecar.containers else None,
            container_resources=k8s.V1ResourceRequirements(limits=limits) if limits else None,
            do_xcom_push=cell.xcom,
            deferrable=cell.deferrable,
            on_finish_action=cell.action,
            termination_grace_period=1,
            log_pod_spec_on_failure=False,
            log_events_on_startup=False,
            startup_check_interval_seconds=1,
            **more,
        )


def execute(new: Any, instance: Any) -> Any:
    """Execute as the task runner and the triggerer do, with a new operator for each part."""
    from airflow.sdk.exceptions import TaskDeferred

    operator = new()
    context = {"ti": instance, "run_id": instance.run_id, "dag": operator.dag}
    method, arguments = "execute", {}
    try:
        while True:
            try:
                return getattr(operator, method)(context, **arguments)
            except TaskDeferred as deferred:
                release(operator)
                operator, method = new(), deferred.method_name
                arguments = {"event": asyncio.run(first_event(*deferred.trigger.serialize()))}
    finally:
        release(operator)


def release(operator: Any) -> None:
    """Close the connections of an operator's hook, which a task's process leaves to its end."""
    if "client" in vars(operator):
        operator.client.api_client.rest_client.pool_manager.clear()


async def first_event(path: str, arguments: dict[str, Any]) -> Any:
    """Run a trigger, made from its row, to its first event, and return that as the database gives it back."""
    module, _, name = path.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**arguments)
    try:
        async for event in trigger.run():
            return json.loads(json.dumps(event.payload, default=str))
    finally:
        await trigger.cleanup()
        if module.startswith("crosswind"):
            from crosswind.podrun.shared_watch import shared_informers

            await shared_informers().close()


async def _pod(kubeconfig: str, namespace: str, name: str, settle: float) -> str:
    from crosswind.errors import NotFound

    phase = "none"
    async with await Client.connect(KubeSettings(kubeconfig=kubeconfig)) as client:
        ends = time.monotonic() + settle
        while name:
            try:
                pod = await client.get(PODS, name, namespace=namespace)
            except NotFound:
                return "gone"
            phase = pod["status"].get("phase", "")
            finished = phase in ("Succeeded", "Failed") and "deletionTimestamp" not in pod["metadata"]
            if finished or time.monotonic() > ends:
                return str(phase)
            await asyncio.sleep(0.2)
    return phase


def pairs(sidecars: Iterable[str], outcomes: Sequence[str]) -> Iterator[Cell]:
    """Yield a cell of each mode for each sidecar and outcome; actions and XCom alternate."""
    actions = ("delete_pod", "keep_pod", "delete_succeeded_pod")
    for place, sidecar in enumerate(sidecars):
        for number, (outcome, deferrable) in enumerate(itertools.product(outcomes, (False, True))):
            xcom = (number // 2 + number + place // 3) % 2 == 0
            yield Cell(sidecar, outcome, deferrable, actions[(number + place) % 3], xcom)

"""The first half of ``KubernetesPodOperator``: a pod for the task, a new one or that of an earlier try.

``podrun.reattach`` decides whether a try attaches to a pod. The second half, in ``crosswind.operators``, follows the
pod to its end.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import generic_api_retry
from airflow.providers.cncf.kubernetes.operators import pod as stock_module
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator as StockOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import OnFinishAction, OnKillAction
from airflow.providers.common.compat.sdk import AirflowException, conf
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from crosswind.engine.executor_config import to_pod
from crosswind.errors import CrosswindError
from crosswind.kube.client import Client
from crosswind.podrun import xcom_delivery
from crosswind.podrun.cleanup import delete_pod, end_sidecars
from crosswind.podrun.follow import OPERATOR_FATAL_REASONS, StateChange, events_of
from crosswind.podrun.reattach import (
    EarlierPodState,
    could_start,
    earlier_pod_state,
    is_of_same_task,
    preferred_pod,
    was_stopped,
)
from crosswind.podrun.relaunch import LOSSES, losses_before, name_after_losses
from crosswind.pods.fields import as_pod, metadata_of
from crosswind.pods.loss_evidence import loss_of
from crosswind.pods.naming import dns_label, label_value, mesh_labels
from crosswind.pods.node_tolerations import node_loss_tolerations
from crosswind.pods.verdict import judge
from crosswind.provider.config import read_pod_settings
from crosswind.provider.hook_client import run_with_client, to_plain_json
from crosswind.provider.pod_creation import PodCreation
from crosswind.provider.task_state import UsedPods, stored_pod_identity
from crosswind.sidecars.native import native_requests, quit_requests
from crosswind.types import AnyPod

if TYPE_CHECKING:
    from airflow.sdk import Context
    from kubernetes.client.models import V1Pod, V1PodSpec

__all__ = ["PodLauncher"]

T = TypeVar("T")

_APP_LABEL = "airflow-pod-operator"
_LABEL_TIMEOUT_S = 5.0
"""For the label that a killed task puts on its pod: Airflow gives ``on_kill`` little time."""


_stock_module: Any = stock_module  # it imports the hook, and exports it to nobody
_building = threading.RLock()


@contextlib.contextmanager
def _before_mutation_hook(change: Callable[[V1Pod], None]) -> Iterator[None]:
    """Have stock's operator call ``change`` with the pod it has built, before the deployment's ``pod_mutation_hook``.

    The hook has the last word on the whole pod. Stock calls it at the end of the one method that builds the pod.
    """
    with _building:  # the name belongs to the process, and a process may build pods in several threads
        hook: Callable[[V1Pod], None] = _stock_module.pod_mutation_hook

        def change_first(pod: V1Pod) -> None:
            change(pod)
            hook(pod)

        _stock_module.pod_mutation_hook = change_first
        try:
            yield
        finally:
            _stock_module.pod_mutation_hook = hook


class PodLauncher(StockOperator):
    """Builds the pod, attaches to the pod of an earlier try, or creates one; deletes or keeps pods.

    All methods run in the task's own thread. ``on_kill`` may interrupt them, from a signal handler.
    """

    xcom_sidecar: Literal["native", "stock"]
    infra_retries: int | None
    _was_killed: bool
    _used_pods = UsedPods()
    _losses = 0
    """How many pods of this try the cluster took before the present one."""
    _is_late = False
    """Whether the task's time is up while its pod runs on."""

    # --- the pod's manifest ---------------------------------------------------------------------------------------

    def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> V1Pod:
        """Return the pod: stock's, with labels that meshes accept, the sidecar that XCom needs, and tolerations."""
        adds_native_sidecar = self.do_xcom_push and self.xcom_sidecar == "native"
        pushes_xcom, self.do_xcom_push = self.do_xcom_push, self.do_xcom_push and not adds_native_sidecar
        try:  # without do_xcom_push stock adds no sidecar of its own
            with _before_mutation_hook(lambda pod: self._complete(pod, adds_native_sidecar)):
                return super().build_pod_request_obj(context, dry_run=dry_run)
        finally:
            self.do_xcom_push = pushes_xcom

    def _complete(self, pod: V1Pod, adds_native_sidecar: bool) -> None:
        """Give stock's pod our labels, annotations, tolerations and the XCom sidecar."""
        pod.metadata.name = dns_label(pod.metadata.name, self.name or self.task_id)
        labels, annotations = pod.metadata.labels or {}, pod.metadata.annotations or {}
        pod.metadata.labels = labels | mesh_labels(labels, _APP_LABEL)
        requests = native_requests(annotations, read_pod_settings(conf).ask_native)
        pod.metadata.annotations = annotations | requests | quit_requests(annotations)
        if adds_native_sidecar:
            self._add_xcom_sidecar(pod.spec)
        self._tolerate_node_loss(pod.spec)

    @staticmethod
    def _get_ti_pod_labels(context: Context | None = None, include_try_number: bool = True) -> dict[str, str]:
        """Return stock's labels, with values that Kubernetes accepts for ids without any ASCII letter, too."""
        labels: dict[str, str] = StockOperator._get_ti_pod_labels(context, include_try_number)
        if context:
            ti = context["ti"]
            ids = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": context["run_id"]}
            labels |= {key: label_value(str(value)) for key, value in ids.items()}
        return labels

    def _add_xcom_sidecar(self, spec: V1PodSpec) -> None:
        """Add the XCom sidecar and its volume.

        The rest of the spec stays the same object: models may hold dicts of the author's, which a conversion to JSON
        and back would change.
        """
        base = next(container for container in spec.containers if container.name == self.base_container_name)
        security_context = self.xcom_sidecar_container_security_context
        if security_context is None:
            security_context = self.hook.get_xcom_sidecar_container_security_context() or base.security_context
        bare_pod = {"spec": {"containers": [{"name": base.name}]}}
        pod_with_sidecar = xcom_delivery.add_sidecar(
            bare_pod,
            base=base.name,
            image=self.hook.get_xcom_sidecar_container_image() or xcom_delivery.IMAGE,
            resources=to_plain_json(self.hook.get_xcom_sidecar_container_resources()),
            security_context=to_plain_json(security_context),
        )
        additions = to_pod(pod_with_sidecar).spec
        base.volume_mounts = [*(base.volume_mounts or []), *additions.containers[0].volume_mounts]
        spec.volumes = [*(spec.volumes or []), *additions.volumes]
        spec.init_containers = [*(spec.init_containers or []), *additions.init_containers]

    def _tolerate_node_loss(self, spec: V1PodSpec) -> None:
        """Shorten the tolerations for dead nodes if the task can launch another pod; the author's own stay."""
        seconds = self._loss_option("node_loss_seconds", read_pod_settings(conf).node_loss_seconds)
        tolerations = list(spec.tolerations or [])
        if self._loss_limit() and (own := node_loss_tolerations(to_plain_json(tolerations), seconds)):
            bare_pod = {"spec": {"containers": [{"name": self.base_container_name}], "tolerations": own}}
            spec.tolerations = [*tolerations, *to_pod(bare_pod).spec.tolerations]

    # --- the pod of an earlier try --------------------------------------------------------------------------------

    def get_or_create_pod(self, pod_request_obj: V1Pod, context: Context) -> V1Pod:
        """Return the pod of an earlier try that this try attaches to, or create one."""
        self._used_pods = UsedPods.read(context)
        earlier = self._find_earlier_pod(pod_request_obj, context)
        if earlier is not None:
            self._persist_pod_identity_to_task_state_store(context, earlier)
            return earlier
        creation = PodCreation(
            self.client,
            self.log,
            schedule_timeout=float(self.schedule_timeout_seconds),
            may_attach=self.random_name_suffix or self.reattach_on_restart,
            is_killed=lambda: self._was_killed,
        )
        if not self.random_name_suffix:
            creation.await_name(pod_request_obj)
        created = creation.create(pod_request_obj)
        if self.reattach_on_restart:
            self._persist_pod_identity_to_task_state_store(context, created)
        return created

    def _find_earlier_pod(self, request: V1Pod, context: Context) -> V1Pod | None:
        """Return the pod to attach to, of the one in core's task state store and the one that the labels select.

        The labels are searched even when the store names a pod, because that pod may be over while another lives.
        """
        if not self.reattach_on_restart:
            return None
        stored = self._get_pod_from_task_state_store(context)
        if stored is not None and not is_of_same_task(to_plain_json(stored), to_plain_json(request)):
            stored = None  # the name, which may be fixed, belongs to another task instance's pod by now
        if stored is not None and self._standing(stored) is EarlierPodState.ALIVE:
            return self._attached(stored)
        pods = [pod for pod in (stored, self._search(request.metadata.namespace, context)) if pod is not None]
        while pods:
            pod = pods.pop(self._preferred(pods))
            match self._standing(pod):
                case EarlierPodState.ALIVE:
                    return self._attached(pod)
                case EarlierPodState.SUCCEEDED if not self._was_stopped(pod):
                    return self._attached(pod)
                case EarlierPodState.FAILED:
                    self._dispose(self._judged(to_plain_json(pod)))
        return None

    def _attached(self, pod: V1Pod) -> V1Pod:
        self.log.info("Attaching to pod %s of an earlier try", pod.metadata.name)
        return pod

    def _standing(self, pod: V1Pod) -> EarlierPodState:
        return earlier_pod_state(
            to_plain_json(pod), self.base_container_name, OPERATOR_FATAL_REASONS, self._used_pods.uids
        )

    def _preferred(self, pods: Sequence[V1Pod]) -> int:
        return preferred_pod([to_plain_json(pod) for pod in pods], [self._standing(pod) for pod in pods])

    def _was_stopped(self, pod: V1Pod) -> bool:
        """Whether the kubelet stopped the container of a pod that is being deleted, by its events.

        The times in the pod do not decide, because they are of two clocks, the API server's and the node's.
        """
        if pod.metadata.deletion_timestamp is None:
            return False
        manifest = to_plain_json(pod)
        events = self._call_api(lambda client: events_of(client, manifest))
        return was_stopped(manifest, events, self.base_container_name)

    def _search(self, namespace: str, context: Context) -> V1Pod | None:
        try:
            return self.find_pod(namespace, context=context)
        except ApiException as error:
            if error.status != 403:
                raise
            raise AirflowException(
                f"Pods of namespace {namespace} may not be listed, so that the pod of an earlier try cannot be found:"
                " grant list on pods, or set durable=False"
            ) from error

    def find_pod(self, namespace: str, context: Context, *, exclude_checked: bool = True) -> V1Pod | None:
        """Return a pod of this task instance, the living one of several; None when there is none."""
        selector = self._build_find_pod_label_selector(context, exclude_checked=exclude_checked)

        @generic_api_retry  # type: ignore[untyped-decorator]  # the provider's gap
        def list_pods() -> list[V1Pod]:
            return list(self.client.list_namespaced_pod(namespace=namespace, label_selector=selector).items)

        pods = list_pods()
        if not pods:
            return None
        if len(pods) > 1 and exclude_checked:
            self.log.warning("%d pods have the labels %s", len(pods), selector)
            pod = self.process_duplicate_label_pods(pods)
        else:
            pod = pods[self._preferred(pods)]
        self.log_matching_pod(pod=pod, context=context)
        return pod

    def process_duplicate_label_pods(self, pod_list: list[V1Pod]) -> V1Pod:
        """Return the pod to attach to, of several, and clean up the others."""
        chosen = pod_list.pop(self._preferred(pod_list))
        for other in pod_list:
            if self._standing(other) not in (EarlierPodState.TERMINATING, EarlierPodState.USED):
                self._dispose(self._judged(to_plain_json(other)))
        return chosen

    def _get_pod_from_task_state_store(self, context: Context) -> V1Pod | None:
        """Return the pod that core's task state store names, as it is now; None when it is gone."""
        identity = stored_pod_identity(context, self.log)
        if identity is None:
            return None
        name, namespace = identity
        try:
            return self.hook.get_pod(name, namespace)
        except ApiException as error:
            if error.status == 404:
                return None
            if error.status == 403:
                raise AirflowException(
                    f"Pod {namespace}/{name} of an earlier try may not be read: grant get on pods, or set durable=False"
                ) from error
            raise

    # --- a pod that the cluster took ------------------------------------------------------------------------------

    def _request_after_losses(self, request: V1Pod) -> V1Pod:
        """Return the request for the pod that follows a lost one."""
        again = copy.deepcopy(request)
        before = losses_before(to_plain_json(request))
        again.metadata.name = name_after_losses(request.metadata.name, before, self._losses)
        again.metadata.labels = {**(request.metadata.labels or {}), LOSSES: str(self._losses)}
        return again

    def _loss_of(self, last_state: StateChange) -> str:
        """Return in a word how the cluster took the pod, "" if it did not. The task's own deletion is no loss."""
        if last_state.pod is None or self._was_killed or last_state.verdict.exit_code in self.skip_on_exit_code:
            return ""
        return loss_of(
            last_state.pod,
            last_state.verdict,
            base=self.base_container_name,
            deleted=last_state.deleted,
            deleted_is_loss=read_pod_settings(conf).deleted_is_loss,
        )

    def _may_replace(self, last_state: StateChange) -> bool:
        """Return whether the cluster took the pod and the try may have another one; log which it is."""
        loss = self._loss_of(last_state)
        if not loss:
            return False
        limit, name = self._loss_limit(), metadata_of(last_state.pod or {}).get("name")
        if self._losses >= limit:
            self.log.warning("The cluster took pod %s (%s); infra_retries allows %d losses", name, loss, limit)
            return False
        self.log.warning(
            "The cluster took pod %s (%s): launching another one, %d of %d", name, loss, self._losses + 1, limit
        )
        return True

    def _loss_limit(self) -> int:
        """Return infra_retries: the operator's own, else that of ``executor_config``, else the configuration's."""
        if self.infra_retries is not None:
            return self.infra_retries
        return self._loss_option("infra_retries", read_pod_settings(conf).infra_retries)

    def _loss_option(self, name: str, default: int) -> int:
        own = self.executor_config.get("crosswind") if isinstance(self.executor_config, Mapping) else None
        chosen = own.get(name) if isinstance(own, Mapping) else None
        return chosen if isinstance(chosen, int) and not isinstance(chosen, bool) and chosen >= 0 else default

    # --- a pod that is over ---------------------------------------------------------------------------------------

    def _judged(self, pod: AnyPod) -> StateChange:
        return StateChange(
            as_pod(pod), judge(pod, self.base_container_name, fatal=OPERATOR_FATAL_REASONS, restarts=True)
        )

    def _dispose(self, last_state: StateChange, *, may_run_on: bool = False) -> None:
        """Delete the pod, or keep it, end its sidecars and label it, so that no later try attaches to it.

        ``may_run_on``: a kept pod whose program runs stays unlabelled, so that the next try attaches to it.
        Errors are logged and fail no task: the task's own result is already decided.
        """
        pod = last_state.pod
        if pod is None or last_state.deleted:
            return
        model = to_pod(pod)
        if self.process_pod_deletion(model, reraise=False):
            return
        if not (may_run_on and not last_state.verdict.over):
            self.patch_already_checked(model, reraise=False)
        if not last_state.verdict.over:
            return
        base, settings = self.base_container_name, read_pod_settings(conf).ending
        try:
            self._call_api(lambda client: end_sidecars(client, pod, base, settings))
        except CrosswindError as error:
            self.log.warning("The sidecars of pod %s may still run: %s", model.metadata.name, error)

    def process_pod_deletion(self, pod: V1Pod, *, reraise: bool = True) -> bool:
        """Delete the pod if ``on_finish_action`` says so, or if it could still start; return whether it is deleted."""
        if pod is None:
            return False
        manifest = as_pod(to_plain_json(pod))
        deletes = self._deletes(self._judged(manifest))
        self.log.info("%s pod %s", "Deleting" if deletes else "Keeping", pod.metadata.name)
        if not deletes:
            return False
        try:
            terminating = self._call_api(lambda client: delete_pod(client, manifest))
        except CrosswindError as error:
            if reraise:
                raise
            self.log.warning("Pod %s is not deleted: %s", pod.metadata.name, error)
            return False
        if terminating:  # while its sidecars drain, a later try must not take its result for an unused one
            self.patch_already_checked(pod, reraise=False)
        return True

    def _deletes(self, last_state: StateChange) -> bool:
        """Whether the pod is to be deleted.

        A pod that could still start is deleted in any case: its program would run beside that of the next try. So is
        one that runs when the task's time is up, as ``on_kill`` deletes it where the worker waits for it.
        """
        if last_state.pod is not None and could_start(last_state.pod, last_state.verdict):
            return True
        if self._is_late and not last_state.verdict.over:  # its program would run on, beside that of the next try
            return True
        match self.on_finish_action:
            case OnFinishAction.DELETE_POD:
                return True
            case OnFinishAction.DELETE_SUCCEEDED_POD:
                return last_state.verdict.succeeded
            case OnFinishAction.DELETE_ACTIVE_POD:
                return not last_state.verdict.over
        return False

    def patch_already_checked(self, pod: V1Pod, *, reraise: bool = True) -> None:
        """Label a pod as used; where the task may not patch pods, core's task state store records it."""
        try:
            super().patch_already_checked(pod, reraise=True)
        except (ApiException, HTTPError) as error:
            if isinstance(error, ApiException) and error.status == 404:
                return
            if reraise:
                raise
            reason = error.reason if isinstance(error, ApiException) else error
            self.log.warning("Pod %s is not labelled as used: %s", pod.metadata.name, reason)
            if pod.metadata.uid:
                self._used_pods = self._used_pods.adding(pod.metadata.uid)

    def on_kill(self) -> None:
        """Delete the pod, unless ``on_kill_action`` says otherwise, and label it: the next try gets its own pod.

        Airflow calls this from a signal handler, so it waits for a few seconds at most.
        """
        self._was_killed = True
        super().on_kill()
        if self.pod is None or self.on_kill_action is OnKillAction.KEEP_POD:
            return
        body = {"metadata": {"labels": {self.POD_CHECKED_KEY: "True"}}}
        name, namespace = self.pod.metadata.name, self.pod.metadata.namespace
        try:
            self.client.patch_namespaced_pod(name, namespace, body, _request_timeout=_LABEL_TIMEOUT_S)
        except (ApiException, HTTPError) as error:
            self.log.debug("Pod %s is not labelled as used: %s", name, error)

    def _call_api(self, call: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        return run_with_client(self.client, call)

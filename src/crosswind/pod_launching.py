"""The first half of ``KubernetesPodOperator``: builds the pod, reattaches to the one of an earlier try, or creates one.

``pods.reattaching`` decides whether a try attaches. The second half, in ``operators``, follows the pod to its end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import generic_api_retry
from airflow.providers.cncf.kubernetes.operators.pod import POD_IDENTIFIER_STATE_KEY
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator as StockOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import OnFinishAction, OnKillAction
from airflow.providers.common.compat.sdk import AirflowException, conf
from airflow.sdk._shared.secrets_masker import should_hide_value_for_key
from kubernetes.client import ApiClient, ApiException, Configuration
from urllib3.exceptions import HTTPError

from crosswind.config import read_pod_settings
from crosswind.errors import AlreadyExists, CrosswindError, Unreachable
from crosswind.kube.client import Client
from crosswind.kube.replies import error_of
from crosswind.kube.requests import create as create_request
from crosswind.kube.resources import PODS
from crosswind.pods import xcoms
from crosswind.pods.authors import OPERATOR
from crosswind.pods.masking import is_sensitive, mask_pod
from crosswind.pods.naming import dns_label, label_value, mesh_labels
from crosswind.pods.reattaching import Standing, could_start, preferred, standing, was_stopped
from crosswind.pods.sidecars import native_requests, quit_requests
from crosswind.pods.verdicts import judge
from crosswind.runs.attending import FATAL, Seen, events_of
from crosswind.runs.departing import delete_pod, end_sidecars, name_is_taken
from crosswind.runs.overrides import to_pod
from crosswind.runs.refusals import GiveUp, after, is_denied, waits_for
from crosswind.runs.threads import run_apart
from crosswind.settings import KubeSettings
from crosswind.types import Manifest

if TYPE_CHECKING:
    from airflow.sdk import Context
    from kubernetes.client.models import V1Pod

__all__ = ["PodLauncher", "hides", "plain"]

T = TypeVar("T")

_APP = "airflow-pod-operator"
_USED = "crosswind_used_pods"
"""Key of the task state store for the uids of pods that were dealt with and could not be labelled."""
_AFTERWARDS_S = 600.0
"""How long what follows base's end may take in all; each part has a shorter limit of its own."""
_PATIENCE_S = 900.0
"""How long the API server may be out of reach while the pod is created: as long as while it runs."""
_REQUEST_S = 60.0
_MARK_S = 5.0
_SLICE_S = 0.5
"""The longest sleep between two looks at whether the task was killed."""


class PodLauncher(StockOperator):
    """Builds the pod, finds the one of an earlier try, or creates one; deletes pods, or keeps them."""

    xcom_sidecar: Literal["native", "stock"]
    _was_killed: bool
    _seen: Seen | None
    _used: tuple[str, ...] = ()

    # --- the pod that is asked for --------------------------------------------------------------------------------

    def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> V1Pod:
        """Return the pod: stock's, with labels that meshes accept and the sidecar that XCom needs."""
        native = self.do_xcom_push and self.xcom_sidecar == "native"
        wished, self.do_xcom_push = self.do_xcom_push, self.do_xcom_push and not native
        try:
            pod = super().build_pod_request_obj(context, dry_run=dry_run)
        finally:
            self.do_xcom_push = wished
        pod.metadata.name = dns_label(pod.metadata.name, self.name or self.task_id)
        labels, annotations = pod.metadata.labels or {}, pod.metadata.annotations or {}
        pod.metadata.labels = labels | mesh_labels(labels, _APP)
        wishes = native_requests(annotations, read_pod_settings(conf).ask_native)
        pod.metadata.annotations = annotations | wishes | quit_requests(annotations)
        if native:
            self._add_xcom(pod.spec)
        return pod

    @staticmethod
    def _get_ti_pod_labels(context: Context | None = None, include_try_number: bool = True) -> dict[str, str]:
        """Return stock's labels; of an id without any ASCII letter stock makes a value that Kubernetes refuses."""
        labels: dict[str, str] = StockOperator._get_ti_pod_labels(context, include_try_number)
        if context:
            ti = context["ti"]
            ids = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": context["run_id"]}
            labels |= {key: label_value(str(value)) for key, value in ids.items()}
        return labels

    def _add_xcom(self, spec: Any) -> None:
        """Add the XCom sidecar and its volume, and leave all else as it is: models may hold dicts of the author's."""
        base = next(one for one in spec.containers if one.name == self.base_container_name)
        context = self.xcom_sidecar_container_security_context
        if context is None:
            context = self.hook.get_xcom_sidecar_container_security_context() or base.security_context
        bare = {"spec": {"containers": [{"name": base.name}]}}
        made = xcoms.add_sidecar(
            bare,
            base=base.name,
            image=self.hook.get_xcom_sidecar_container_image() or xcoms.IMAGE,
            resources=plain(self.hook.get_xcom_sidecar_container_resources()),
            security_context=plain(context),
        )
        parts = to_pod(made).spec
        base.volume_mounts = [*(base.volume_mounts or []), *parts.containers[0].volume_mounts]
        spec.volumes = [*(spec.volumes or []), *parts.volumes]
        spec.init_containers = [*(spec.init_containers or []), *parts.init_containers]

    # --- the pod of an earlier try --------------------------------------------------------------------------------

    def get_or_create_pod(self, pod_request_obj: V1Pod, context: Context) -> V1Pod:
        """Return the pod of an earlier try that this one goes on with, or create one."""
        self._used = self._read_used(context)
        earlier = self._find_earlier(pod_request_obj.metadata.namespace, context)
        if earlier is not None:
            self._persist_pod_identity_to_task_state_store(context, earlier)
            return earlier
        if not self.random_name_suffix:
            self._await_name(pod_request_obj)
        created = self._create(pod_request_obj)
        if self.reattach_on_restart:
            self._persist_pod_identity_to_task_state_store(context, created)
        return created

    def _find_earlier(self, namespace: str, context: Context) -> V1Pod | None:
        """Return the pod to go on with. What core remembers counts as much as what the labels find."""
        if not self.reattach_on_restart:
            return None
        stored = self._get_pod_from_task_state_store(context)
        if stored is not None and self._standing(stored) is Standing.LIVING:
            return self._taken_over(stored)
        found = [pod for pod in (stored, self._search(namespace, context)) if pod is not None]
        while found:
            pod = found.pop(self._preferred(found))
            match self._standing(pod):
                case Standing.LIVING:
                    return self._taken_over(pod)
                case Standing.SUCCEEDED if not self._was_stopped(pod):
                    return self._taken_over(pod)
                case Standing.DEAD:
                    self._put_away(self._judged(plain(pod)))
        return None

    def _taken_over(self, pod: V1Pod) -> V1Pod:
        self.log.info("Going on with pod %s of an earlier try", pod.metadata.name)
        return pod

    def _standing(self, pod: V1Pod) -> Standing:
        return standing(plain(pod), self.base_container_name, FATAL, self._used)

    def _preferred(self, pods: Sequence[V1Pod]) -> int:
        return preferred([plain(pod) for pod in pods], [self._standing(pod) for pod in pods])

    def _was_stopped(self, pod: V1Pod) -> bool:
        """Whether the container of a pod that is being deleted was stopped, whatever the clocks of the nodes say."""
        if pod.metadata.deletion_timestamp is None:
            return False
        manifest = plain(pod)
        events = self._apart(lambda client: events_of(client, manifest))
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
        def pods() -> list[V1Pod]:
            return list(self.client.list_namespaced_pod(namespace=namespace, label_selector=selector).items)

        found = pods()
        if not found:
            return None
        if len(found) > 1 and exclude_checked:
            self.log.warning("Found %d pods with labels %s", len(found), selector)
            pod = self.process_duplicate_label_pods(found)
        else:
            pod = found[self._preferred(found)]
        self.log_matching_pod(pod=pod, context=context)
        return pod

    def process_duplicate_label_pods(self, pod_list: list[V1Pod]) -> V1Pod:
        """Return the one of several pods to attach to, and clean up the others."""
        chosen = pod_list.pop(self._preferred(pod_list))
        for other in pod_list:
            if self._standing(other) not in (Standing.LEAVING, Standing.USED):
                self._put_away(self._judged(plain(other)))
        return chosen

    def _get_pod_from_task_state_store(self, context: Context) -> V1Pod | None:
        """Return the pod that core remembers for this task instance, as it is now."""
        store = context.get("task_state_store")
        stored = store.get(POD_IDENTIFIER_STATE_KEY) if store is not None else None
        if not isinstance(stored, dict):
            return None
        name, namespace = stored.get("name"), stored.get("namespace")
        if not (isinstance(name, str) and isinstance(namespace, str)):
            self.log.warning("The pod in the task state store is malformed (%s); searching by labels", stored)
            return None
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

    # --- a new pod ------------------------------------------------------------------------------------------------

    def _create(self, request: V1Pod) -> V1Pod:
        """Create the pod. What keeps it from that is waited for as long as the pod may wait for a node.

        Raises ``AirflowException`` with the cause and the fix. Only the debug log shows the whole pod.
        """
        manifest = plain(request)
        name, namespace = request.metadata.name, request.metadata.namespace
        what, began, logged, denied = f"Pod {namespace}/{name}", time.monotonic(), "", None
        self.log.debug("Creating pod:\n%s", json.dumps(mask_pod(manifest, hides), indent=1))
        while True:
            error = None
            try:
                return self._post(manifest, namespace)
            except AlreadyExists:
                if (found := self._settle_name(request)) is not None:
                    return found
                continue
            except CrosswindError as caught:
                error = caught
            now = time.monotonic()
            denied = (denied or now) if is_denied(error) else None
            decision = after(
                error,
                what=what,
                waited=now - began,
                patience=_PATIENCE_S if isinstance(error, Unreachable) else float(self.schedule_timeout_seconds),
                denied=now - denied if denied else 0.0,
                quota=float(self.schedule_timeout_seconds),
                author=OPERATOR,
            )
            if isinstance(decision, GiveUp):
                raise AirflowException(decision.message) from error
            if type(error).__name__ != logged:  # one warning per kind of error, however long the wait
                logged = type(error).__name__
                self.log.warning("%s", waits_for(error, what, OPERATOR))
            self._sleep(decision.delay)

    def _post(self, manifest: Manifest, namespace: str) -> V1Pod:
        """Create by the hook's client; its errors come as ours."""
        try:
            return self.client.create_namespaced_pod(body=manifest, namespace=namespace, _request_timeout=_REQUEST_S)
        except ApiException as error:
            request = create_request(PODS, manifest, namespace=namespace)
            body = error.body.encode() if isinstance(error.body, str) else error.body or b""
            raise error_of(request, error.status or 500, dict(error.headers or {}), body) from error
        except HTTPError as error:
            raise Unreachable(f"the API server did not answer: {error}") from error

    def _sleep(self, seconds: float) -> None:
        """Wait in slices: a signal handler that kills the task cannot end a sleep."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._was_killed:
                raise AirflowException("The task was killed")
            time.sleep(min(left, _SLICE_S))

    def _await_name(self, request: V1Pod) -> Manifest | None:
        """Return the pod of this task that has the request's name, None when the name is, or gets, free.

        Raises ``AirflowException`` when another pod keeps it.
        """
        name, namespace = request.metadata.name, request.metadata.namespace
        taken = self._apart(lambda client: name_is_taken(client, name, namespace))
        if taken is None:
            return None
        labels = taken["metadata"].get("labels") or {}
        own = {key: value for key, value in (request.metadata.labels or {}).items() if key != "try_number"}
        going = "deletionTimestamp" in taken["metadata"]
        if going or self.POD_CHECKED_KEY in labels or not own.items() <= labels.items():
            raise AirflowException(_name_taken(taken))
        return taken

    def _settle_name(self, request: V1Pod) -> V1Pod | None:
        """Return this task's pod although its name was taken: by itself, when the answer to its creation was lost.

        None: the name is free by now.
        """
        taken = self._await_name(request)
        if taken is None:
            return None
        if not (self.random_name_suffix or self.reattach_on_restart):
            raise AirflowException(_name_taken(taken))
        return to_pod(taken)

    # --- a pod that is over ---------------------------------------------------------------------------------------

    def _judged(self, pod: Manifest) -> Seen:
        return Seen(pod, judge(pod, self.base_container_name, fatal=FATAL, restarts=True))

    def _put_away(self, seen: Seen) -> None:
        """Delete the pod or keep it, and mark it, so that no later try attaches to it. Errors fail no task."""
        pod = seen.pod
        if pod is None or seen.deleted:
            return
        model = to_pod(pod)
        if self.process_pod_deletion(model, reraise=False):
            return
        self.patch_already_checked(model, reraise=False)
        if not seen.verdict.over:
            return
        base, ending = self.base_container_name, read_pod_settings(conf).ending
        try:
            self._apart(lambda client: end_sidecars(client, pod, base, ending))
        except (CrosswindError, TimeoutError) as error:
            self.log.warning("Pod %s is kept as it is: %s", model.metadata.name, error)

    def process_pod_deletion(self, pod: V1Pod, *, reraise: bool = True) -> bool:
        """Delete the pod when ``on_finish_action`` says so, or it could still start; return whether it is deleted."""
        if pod is None:
            return False
        seen = self._judged(plain(pod))
        delete = self._is_deleted(seen)
        self.log.info("%s pod %s", "Deleting" if delete else "Keeping", pod.metadata.name)
        if not delete:
            return False
        assert seen.pod is not None
        manifest = seen.pod
        try:
            left = self._apart(lambda client: delete_pod(client, manifest))
        except (CrosswindError, TimeoutError) as error:
            if reraise:
                raise
            self.log.warning("The pod is left over: %s", error)
            return False
        if left:  # while its sidecars drain, a later try must not mistake its result for one that is unused
            self.patch_already_checked(pod, reraise=False)
        return True

    def _is_deleted(self, seen: Seen) -> bool:
        """Whether the pod goes. One that could still start goes in any case: its program would run beside the next."""
        if seen.pod is not None and could_start(seen.pod, seen.verdict):
            return True
        match self.on_finish_action:
            case OnFinishAction.DELETE_POD:
                return True
            case OnFinishAction.DELETE_SUCCEEDED_POD:
                return seen.verdict.succeeded
            case OnFinishAction.DELETE_ACTIVE_POD:
                return not seen.verdict.over
        return False

    def patch_already_checked(self, pod: V1Pod, *, reraise: bool = True) -> None:
        """Label a pod as dealt with; where pods may not be changed, core's task state store remembers it."""
        try:
            super().patch_already_checked(pod, reraise=True)
        except (ApiException, HTTPError) as error:
            if isinstance(error, ApiException) and error.status == 404:
                return
            if reraise:
                raise
            reason = error.reason if isinstance(error, ApiException) else error
            self.log.warning("Pod %s is not marked as dealt with: %s", pod.metadata.name, reason)
            if pod.metadata.uid:
                self._used = (*self._used, pod.metadata.uid)

    def _read_used(self, context: Context) -> tuple[str, ...]:
        store = context.get("task_state_store")
        used = store.get(_USED) if store is not None else None
        return tuple(uid for uid in used if isinstance(uid, str)) if isinstance(used, list) else ()

    def _write_used(self, context: Context) -> None:
        """Have core remember what could not be labelled, the last few."""
        store = context.get("task_state_store")
        if store is not None and self._used and self._used != self._read_used(context):
            store.set(_USED, list(self._used[-10:]))

    def on_kill(self) -> None:
        """Delete the pod, unless ``on_kill_action`` says otherwise, and mark it: the next try has a pod of its own."""
        self._was_killed = True
        super().on_kill()
        if self.pod is None or self.on_kill_action is OnKillAction.KEEP_POD:
            return
        body = {"metadata": {"labels": {self.POD_CHECKED_KEY: "True"}}}
        name, namespace = self.pod.metadata.name, self.pod.metadata.namespace
        try:
            self.client.patch_namespaced_pod(name, namespace, body, _request_timeout=_MARK_S)
        except (ApiException, HTTPError) as error:
            self.log.debug("Pod %s is not marked as dealt with: %s", name, error)

    # --- connections ----------------------------------------------------------------------------------------------

    def _ready(self) -> None:
        """Make the hook's client in this thread, where Airflow's connections can be read."""
        _ = self.client

    async def _connect(self) -> Client:
        return await Client.borrowing(self.client.api_client.configuration, KubeSettings())

    def _apart(self, ask: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        async def work() -> T:
            async with await self._connect() as client:
                return await ask(client)

        self._ready()
        return run_apart(work, _AFTERWARDS_S)


def _name_taken(pod: Manifest) -> str:
    metadata = pod["metadata"]
    labels = metadata.get("labels") or {}
    whose = [f"{key} {labels[key]}" for key in ("dag_id", "task_id", "run_id", "try_number") if key in labels]
    return (
        f"Pod {metadata['namespace']}/{metadata['name']} is there already"
        f" ({', '.join(whose) or 'not made by Airflow'}): delete it, or let names differ by random_name_suffix=True"
    )


def hides(name: str) -> bool:
    """Whether a value under a name is a secret, to Airflow or to us: it is not logged."""
    return is_sensitive(name) or bool(should_hide_value_for_key(name))  # type: ignore[no-untyped-call]  # Airflow's gap


def plain(value: Any) -> Any:
    """Return a model, a dict or (from a connection) JSON text as JSON."""
    return json.loads(value) if isinstance(value, str) else ApiClient(Configuration()).sanitize_for_serialization(value)

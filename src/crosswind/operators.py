"""``KubernetesPodOperator``: stock's operator, with waiting, XCom and cleanup that no sidecar can hold up.

One import swaps it in::

    from crosswind.operators import KubernetesPodOperator
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pendulum
from airflow.providers.cncf.kubernetes.callbacks import ExecutionMode
from airflow.providers.cncf.kubernetes.operators.pod import FoundMoreThanOnePodFailure
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator as StockOperator
from airflow.providers.cncf.kubernetes.utils.container import container_is_completed, container_is_succeeded
from airflow.providers.cncf.kubernetes.utils.pod_manager import OnFinishAction
from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException, conf
from kubernetes.client import ApiClient, ApiException, Configuration

from crosswind.config import read_pod_settings
from crosswind.errors import CrosswindError, PodTimeout, XComError
from crosswind.kube.client import Client
from crosswind.kube.loglines import LogCursor
from crosswind.pods import xcoms
from crosswind.pods.naming import mesh_labels
from crosswind.pods.sidecars import native_requests, quit_requests
from crosswind.pods.verdicts import Stage, Verdict, judge
from crosswind.runs.attending import FATAL, Line, News, Seen, Told, Wanted, attend
from crosswind.runs.collecting import collect_xcom
from crosswind.runs.departing import delete_pod, explain, keep_pod, name_is_taken
from crosswind.runs.overrides import to_pod
from crosswind.runs.threads import Feed, run_apart
from crosswind.settings import KubeSettings
from crosswind.triggers import PodTrigger
from crosswind.types import Manifest

if TYPE_CHECKING:
    from airflow.sdk import Context
    from kubernetes.client.models import V1Pod

__all__ = ["KubernetesPodOperator"]

T = TypeVar("T")

_APP = "airflow-pod-operator"
_LEVEL = re.compile(r"\s*\[?(DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)\]?\b", re.IGNORECASE)
_AFTERWARDS_S = 600.0
"""How long what follows base's end may take in all; each part has a shorter limit of its own."""


class KubernetesPodOperator(StockOperator):
    """Run a task in a pod.

    Takes all that stock's ``KubernetesPodOperator`` takes, and works as it does, but:

    - the base container alone decides: once it has ended the task is over, whatever other containers do;
    - with ``on_finish_action="keep_pod"`` sidecars that still run are told to end, so that the pod is finished;
    - the message of a failure says why;
    - XCom needs neither ``pods/exec`` nor a sidecar that runs on.

    ``xcom_sidecar``: how the content of ``/airflow/xcom/return.json`` is fetched. ``native`` (default; up to 10 MB;
    Kubernetes 1.29) by a native sidecar that hands it over, ``stock`` by stock's sidecar and ``pods/exec``.
    """

    def __init__(self, *, xcom_sidecar: Literal["native", "stock"] = "native", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if xcom_sidecar not in ("native", "stock"):
            raise ValueError(f"xcom_sidecar must be native or stock, is {xcom_sidecar!r}")
        self.xcom_sidecar = xcom_sidecar
        self._seen: Seen | None = None
        self._feed: Feed[News] | None = None
        self._was_killed = False

    # --- before ---------------------------------------------------------------------------------------------------

    def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> V1Pod:
        """Return the pod: stock's, with labels that meshes accept and the sidecar that XCom needs."""
        native = self.do_xcom_push and self.xcom_sidecar == "native"
        wished, self.do_xcom_push = self.do_xcom_push, self.do_xcom_push and not native
        try:
            pod = super().build_pod_request_obj(context, dry_run=dry_run)
        finally:
            self.do_xcom_push = wished
        labels, annotations = pod.metadata.labels or {}, pod.metadata.annotations or {}
        pod.metadata.labels = labels | mesh_labels(labels, _APP)
        wishes = native_requests(annotations, read_pod_settings(conf).ask_native)
        pod.metadata.annotations = annotations | wishes | quit_requests(annotations)
        if native:
            self._add_xcom(pod.spec)
        return pod

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
            resources=_plain(self.hook.get_xcom_sidecar_container_resources()),
            security_context=_plain(context),
        )
        parts = to_pod(made).spec
        base.volume_mounts = [*(base.volume_mounts or []), *parts.containers[0].volume_mounts]
        spec.volumes = [*(spec.volumes or []), *parts.volumes]
        spec.init_containers = [*(spec.init_containers or []), *parts.init_containers]

    def get_or_create_pod(self, pod_request_obj: V1Pod, context: Context) -> V1Pod:
        """Return the pod of an earlier try that lost its worker, or create one.

        A finished one is taken over when its base container succeeded; when it failed, a new one is made.
        """
        earlier = self._find_earlier(pod_request_obj.metadata.namespace, context)
        if earlier is not None and container_is_completed(earlier, self.base_container_name):
            if container_is_succeeded(earlier, self.base_container_name):
                self.log.info("Taking over pod %s, whose task has succeeded", earlier.metadata.name)
                return earlier
            self.patch_already_checked(earlier, reraise=False)  # while it goes, nothing shall attach to it
            self._put_away(Seen(_plain(earlier), Verdict(Stage.ENDED)))
        if not self.random_name_suffix:
            self._await_name(pod_request_obj)  # stock would insist for a quarter of a minute
        try:
            return super().get_or_create_pod(pod_request_obj, context)
        except ApiException as error:
            if error.status != 409:
                raise
            return self._settle_name(pod_request_obj, context)

    def _find_earlier(self, namespace: str, context: Context) -> V1Pod | None:
        if not self.reattach_on_restart:
            return None
        try:
            return self.find_pod(namespace, context=context)
        except FoundMoreThanOnePodFailure:
            return None  # what stock remembers by name may tell which one it is
        except ApiException as error:
            if error.status != 403:
                raise
            raise AirflowException(
                f"Pods of namespace {namespace} may not be listed, so that the pod of an earlier try cannot be found:"
                " grant list on pods, or set durable=False"
            ) from error

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

    def _settle_name(self, request: V1Pod, context: Context) -> V1Pod:
        """Return this task's pod although its name was taken: by itself, when the answer to its creation was lost."""
        taken = self._await_name(request)
        if taken is None:
            return super().get_or_create_pod(request, context)
        if not (self.random_name_suffix or self.reattach_on_restart):
            raise AirflowException(_name_taken(taken))
        return to_pod(taken)

    def _launch(self, context: Context) -> None:
        if self.pod_request_obj is None:
            self.pod_request_obj = self.build_pod_request_obj(context)
        self._call("on_pod_manifest_created", context, pod_request=self.pod_request_obj)
        if self.pod is None:
            self.pod = self.get_or_create_pod(self.pod_request_obj, context)
        # at once, so that they are there when the task fails
        context["ti"].xcom_push(key="pod_name", value=self.pod.metadata.name)
        context["ti"].xcom_push(key="pod_namespace", value=self.pod.metadata.namespace)
        if self._was_killed:  # before there was a pod to delete
            super().on_kill()
            raise AirflowException("The task was killed")
        self._call("on_pod_creation", context, pod=self._live())

    # --- during ---------------------------------------------------------------------------------------------------

    def execute_sync(self, context: Context) -> Any:
        """Launch the pod, follow it to its base container's end and return its XCom."""
        try:
            self._launch(context)
            self._attend(context, self._wanted())
            return self._conclude(context)
        finally:
            self._leave(context)

    def execute_async(self, context: Context) -> None:
        """Launch the pod and wait for its end in the triggerer."""
        self._launch(context)
        self.invoke_defer_method(context=context)

    def invoke_defer_method(self, last_log_time: Any = None, context: Context | None = None) -> None:
        """Hand the pod over to the triggerer. The trigger's row holds no credentials."""
        assert self.pod is not None
        deadline = timeout = None
        if self.execution_timeout is not None and context is not None:
            # a minute more than the trigger takes, so that it is the trigger that notices
            started = context["ti"].start_date or datetime.now().astimezone()
            deadline = (started + self.execution_timeout).timestamp()
            left = max(0.0, deadline - datetime.now().timestamp())
            timeout = timedelta(seconds=left + 60)
        trigger = PodTrigger(
            pod_name=self.pod.metadata.name,
            pod_namespace=self.pod.metadata.namespace,
            base_container_name=self.base_container_name,
            kubernetes_conn_id=self.kubernetes_conn_id,
            cluster_context=self.cluster_context,
            config_file=self.config_file,
            in_cluster=self.in_cluster,
            schedule_timeout=self.schedule_timeout_seconds,
            startup_timeout=self.startup_timeout_seconds,
            deadline=deadline,
            follow_logs=bool(self.get_logs and self.logging_interval),
            on_kill_action=self.on_kill_action.value,
            termination_grace_period=self.termination_grace_period,
            trigger_kwargs=self.trigger_kwargs,
        )
        self.defer(trigger=trigger, method_name="trigger_reentry", timeout=timeout)

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on where the trigger stopped: read the logs, fetch the XCom, clean up."""
        stub = {"metadata": {"name": event["name"], "namespace": event["namespace"]}}
        self.pod = to_pod(event.get("pod") or stub)
        try:
            self._call("on_operator_resuming", context, pod=self._live(), event=event)
            late = event["status"] == "timeout"
            if event["status"] == "error":
                self.log.warning("The triggerer could not follow the pod, this worker does: %s", event.get("message"))
            last, count = event.get("log_cursor") or ("", 0)
            self._attend(context, self._wanted(LogCursor(last, count), at_once=late), known=self._known(event))
            if late:
                raise AirflowException(event["message"])
            return self._conclude(context)
        finally:
            self._leave(context)

    def _known(self, event: Mapping[str, Any]) -> Seen | None:
        """Return what the trigger saw: all there is when the pod has been removed meanwhile."""
        if not event.get("pod"):
            return None
        pod, deleted = event["pod"], bool(event.get("deleted"))
        return Seen(pod, judge(pod, self.base_container_name, fatal=FATAL, deleted=deleted, restarts=True), deleted)

    def _wanted(self, cursor: LogCursor | None = None, *, at_once: bool = False) -> Wanted:
        return Wanted(
            base=self.base_container_name,
            logs=_names(self.container_logs) if self.get_logs else (),
            init_logs=_names(self.init_container_logs),
            schedule_timeout=self.schedule_timeout_seconds,
            startup_timeout=self.startup_timeout_seconds,
            events_every=self.startup_check_interval_seconds if self.log_events_on_startup else None,
            seen=cursor,
            at_once=at_once,
        )

    def _attend(self, context: Context, wanted: Wanted, known: Seen | None = None) -> None:
        """Print the pod's logs until its base container has ended; ``known``: what the trigger saw."""
        assert self.pod is not None
        name, namespace = self.pod.metadata.name, self.pod.metadata.namespace
        self._seen = known

        async def work(hand: Callable[[News], Awaitable[None]]) -> None:
            async with await self._connect() as client:
                await attend(client, name, namespace, wanted, hand)

        started = False
        self._ready()
        with Feed(work) as feed:
            self._feed = feed
            if self._was_killed:
                feed.end(AirflowException("The task was killed"))
            try:
                for news in feed:
                    if isinstance(news, Seen):
                        if not (known and news.deleted):
                            self._seen = news
                            self._check_xcom(news)
                        if news.verdict.started and not started:
                            started = True
                            self._call("on_pod_starting", context, pod=self._live())
                    else:
                        self._print(news)
            except (PodTimeout, CrosswindError) as error:
                raise AirflowException(str(error)) from error
            finally:
                self._feed = None

    def _check_xcom(self, seen: Seen) -> None:
        """Fail early where the XCom sidecar would be an init container that never ends."""
        if self.do_xcom_push and self.xcom_sidecar == "native" and xcoms.is_blocking(seen.pod):
            raise AirflowException(
                f"The cluster does not take {xcoms.CONTAINER} as a native sidecar: it is older than Kubernetes 1.29, or"
                ' a webhook has taken restartPolicy away; use xcom_sidecar="stock"'
            )

    def _print(self, news: Line | Told) -> None:
        if isinstance(news, Told):
            self.log.info("The pod has an event: %s", news.text)
            return
        if not news.text:
            return
        for callback in self.callbacks:
            callback.progress_callback(
                line=news.text,
                client=self.client,
                mode=ExecutionMode.SYNC,
                container_name=news.container,
                timestamp=pendulum.instance(datetime.fromisoformat(news.stamp)) if news.stamp else None,
                pod=self.pod,
            )
        if news.text.startswith(("::group::", "::endgroup::")):
            print(news.text)
            return
        level = _LEVEL.match(news.text)
        if self.log_formatter:
            line = self.log_formatter(news.container, news.text)
        else:
            line = f"[{news.container}] {news.text}" if self.container_name_log_prefix_enabled else news.text
        self.log.log(_LEVELS[level[1].upper()] if level else 20, "%s", line)

    def on_kill(self) -> None:
        """End the wait and, unless ``on_kill_action`` says otherwise, delete the pod."""
        self._was_killed = True
        super().on_kill()
        if self._feed is not None:
            self._feed.end(AirflowException("The task was killed"))

    # --- after ----------------------------------------------------------------------------------------------------

    def _conclude(self, context: Context) -> Any:
        """Judge the end: return the XCom, or raise."""
        seen = self._seen
        assert seen is not None
        live = self._live()
        self._call("on_pod_completion", context, pod=live)
        self._call("on_pod_teardown", context, pod=live)
        if seen.verdict.succeeded:
            return self._result(seen) if self.do_xcom_push else None
        if seen.verdict.exit_code is not None and seen.verdict.exit_code in self.skip_on_exit_code:
            name = live.metadata.name
            raise AirflowSkipException(f"Pod {name} returned exit code {seen.verdict.exit_code}. Skipping.")
        self._push_in_spite(context, seen)
        raise AirflowException(self._cause(seen))

    def _result(self, seen: Seen) -> Any:
        if self.xcom_sidecar == "stock":
            self.pod_manager.await_xcom_sidecar_container_start(pod=self.pod)
            return self.extract_xcom(self.pod)
        pod = seen.pod
        assert pod is not None  # or base would not have been seen to end
        may_delete, ending = self._is_deleted(seen), read_pod_settings(conf).ending
        content = self._apart(
            lambda client: collect_xcom(client, pod, self.base_container_name, ending, may_delete=may_delete)
        )
        if content is None:
            self.log.warning("The pod was removed before its XCom could be read")
            return None
        if not content.strip():
            self.log.info("The XCom file is empty")
            return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise XComError(f"/airflow/xcom/return.json is no JSON: {error}; write it with json.dump") from error

    def _push_in_spite(self, context: Context, seen: Seen) -> None:
        """Push the XCom of a task that failed, if it left one."""
        if not self.do_xcom_push or not seen.verdict.over or not seen.verdict.started or seen.deleted:
            return
        try:
            value = self._result(seen)
        except Exception as error:
            self.log.info("The failed task left no XCom: %s", error)
            return
        if value is None:
            return
        if self.multiple_outputs and isinstance(value, Mapping):
            for key, part in value.items():
                context["ti"].xcom_push(str(key), part)
        context["ti"].xcom_push("return_value", value)

    def _cause(self, seen: Seen) -> str:
        assert self.pod is not None
        where = f"Pod {self.pod.metadata.namespace}/{self.pod.metadata.name}"
        cause, events = self._apart(lambda client: explain(client, seen, self.base_container_name))
        if self.log_events_on_failure:
            for event in events:
                self.log.info("Pod event: %s: %s", event.get("reason"), event.get("message"))
        if self.log_pod_spec_on_failure and seen.pod is not None:
            self.log.info("The pod as last seen:\n%s", json.dumps(_without_fields(seen.pod), indent=1))
        return f"{where} failed: {cause or 'it is gone, and nobody saw its end'}"

    def _leave(self, context: Context) -> None:
        """Delete the pod or keep it, as ``on_finish_action`` says; what goes wrong here fails no task."""
        if self.pod is None or self._was_killed:
            return
        stub = {"metadata": {"name": self.pod.metadata.name, "namespace": self.pod.metadata.namespace}}
        self._put_away(self._seen or Seen(stub, Verdict(Stage.WAITING)))
        self._call("on_pod_cleanup", context, pod=self.pod)

    def _put_away(self, seen: Seen) -> None:
        pod, delete = seen.pod, self._is_deleted(seen)
        if pod is None or seen.deleted:
            return
        base, over = self.base_container_name, seen.verdict.over
        self.log.info("%s pod %s", "Deleting" if delete else "Keeping", pod["metadata"]["name"])
        try:
            ending = read_pod_settings(conf).ending
            self._apart(
                lambda client: delete_pod(client, pod) if delete else keep_pod(client, pod, base, ending, over=over)
            )
        except (CrosswindError, TimeoutError) as error:
            self.log.warning("The pod is left over: %s", error)

    def _is_deleted(self, seen: Seen) -> bool:
        match self.on_finish_action:
            case OnFinishAction.DELETE_POD:
                return True
            case OnFinishAction.DELETE_SUCCEEDED_POD:
                return seen.verdict.succeeded
            case OnFinishAction.DELETE_ACTIVE_POD:
                return not seen.verdict.over
        return False

    # --- doors ----------------------------------------------------------------------------------------------------

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

    def _live(self) -> V1Pod:
        """Return the pod as it is now, for callbacks; as it was last when it is gone or nobody asks."""
        assert self.pod is not None
        if self.callbacks:
            try:
                self.pod = self.hook.get_pod(self.pod.metadata.name, self.pod.metadata.namespace)
            except ApiException as error:
                if error.status != 404:
                    raise
        return self.pod

    def _call(self, name: str, context: Context, **what: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, name)(client=self.client, mode=ExecutionMode.SYNC, operator=self, context=context, **what)


_LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50}


def _name_taken(pod: Manifest) -> str:
    metadata = pod["metadata"]
    labels = metadata.get("labels") or {}
    whose = [f"{key} {labels[key]}" for key in ("dag_id", "task_id", "run_id", "try_number") if key in labels]
    return (
        f"Pod {metadata['namespace']}/{metadata['name']} is there already"
        f" ({', '.join(whose) or 'not made by Airflow'}): delete it, or let names differ by random_name_suffix=True"
    )


def _names(given: Any) -> Literal[True] | Sequence[str]:
    if given is True:
        return True
    return (given,) if isinstance(given, str) else tuple(given or ())


def _plain(value: Any) -> Any:
    """Return a model, a dict or (from a connection) JSON text as JSON."""
    return json.loads(value) if isinstance(value, str) else ApiClient(Configuration()).sanitize_for_serialization(value)


def _without_fields(pod: Manifest) -> Manifest:
    return pod | {"metadata": {key: value for key, value in pod["metadata"].items() if key != "managedFields"}}

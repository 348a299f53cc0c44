"""``KubernetesPodOperator``: stock's operator, with waiting, XCom and cleanup that no sidecar can hold up.

One import swaps it in::

    from crosswind.operators import KubernetesPodOperator
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import pendulum
from airflow.providers.cncf.kubernetes.callbacks import ExecutionMode
from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import PodLaunchFailedException
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator as StockOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodLaunchTimeoutException
from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException, conf
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from crosswind.config import read_pod_settings
from crosswind.errors import CrosswindError, PodTimeout, XComError
from crosswind.kube.loglines import LogCursor
from crosswind.pod_launching import PodLauncher, hides, plain
from crosswind.pods import xcoms
from crosswind.pods.masking import mask_pod
from crosswind.pods.verdicts import Stage, judge
from crosswind.runs.attending import FATAL, Line, News, Seen, Told, Wanted, attend
from crosswind.runs.collecting import collect_xcom
from crosswind.runs.departing import explain
from crosswind.runs.overrides import to_pod
from crosswind.runs.printing import LogStyle, is_group_mark, level_of
from crosswind.runs.threads import Feed
from crosswind.triggers import PodTrigger
from crosswind.types import Manifest

if TYPE_CHECKING:
    from airflow.sdk import Context
    from kubernetes.client.models import V1Pod

__all__ = ["KubernetesPodOperator"]

_NEVER_CALLED: Mapping[str, str] = {
    "convert_config_file_to_dict": "no kubeconfig is put into a trigger's row",
    "is_istio_enabled": "the base container decides, with any sidecar",
    "kill_istio_sidecar": "sidecars are ended by [crosswind] sidecars_file and docs/sidecars.md",
    "pod_manager": "pods are followed by crosswind itself; override hook or client",
    "_clean": "override post_complete_action or cleanup",
    "_write_logs": "use log_formatter or a callback",
    "_handle_api_exception": "credentials are renewed by crosswind itself",
    "_refresh_cached_properties": "credentials are renewed by crosswind itself",
    "_read_pod_events": "use log_events_on_failure or a callback",
    "_read_pod_container_states": "use a callback",
    "_get_most_recent_pod_index": "override process_duplicate_label_pods",
}
"""Stock's methods that nothing calls here, each with what to do instead of overriding it."""


class KubernetesPodOperator(PodLauncher):
    """Run a task in a pod.

    Takes all that stock's ``KubernetesPodOperator`` takes, and works as it does, but:

    - the base container alone decides: once it has ended the task is over, whatever other containers do;
    - with ``on_finish_action="keep_pod"`` sidecars that still run are told to end, so that the pod is finished;
    - the message of a failure says why;
    - XCom needs neither ``pods/exec`` nor a sidecar that runs on.

    ``xcom_sidecar``: how the content of ``/airflow/xcom/return.json`` is fetched. ``native`` (default; up to 10 MB;
    Kubernetes 1.29) by a native sidecar that hands it over, ``stock`` by stock's sidecar and ``pods/exec``.

    A subclass may override what it may override of stock's operator. ``TypeError`` names a method of stock's that is
    overridden and that nothing would call here.
    """

    def __init__(self, *, xcom_sidecar: Literal["native", "stock"] = "native", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if xcom_sidecar not in ("native", "stock"):
            raise ValueError(f"xcom_sidecar must be native or stock, is {xcom_sidecar!r}")
        _refuse_what_is_never_called(type(self))
        self.xcom_sidecar = xcom_sidecar
        self._seen = None
        self._feed: Feed[News] | None = None
        self._news: Iterator[News] = iter(())
        self._plan = Wanted()
        self._is_known = False
        self._was_killed = False
        self._failure: AirflowException | None = None

    # --- before ---------------------------------------------------------------------------------------------------

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
        result = None
        try:
            self._launch(context)
            assert self.pod is not None
            self._plan = self._wanted()
            self.await_pod_start(pod=self.pod)
            self.await_init_containers_completion(pod=self.pod)
            self._call_when_started(context)
            self.await_pod_completion(pod=self.pod)
            self._follow(lambda: False)  # to the end, whatever an override has waited for
            result = self._conclude(context)
        finally:
            self._leave(context, result)
        return result

    def await_pod_start(self, pod: V1Pod) -> None:
        """Follow the pod until its base container has started.

        Raises stock's ``PodLaunchTimeoutException`` when that takes too long, and ``PodLaunchFailedException`` with the
        cause when it never will start.
        """
        self._follow(lambda: self._seen is not None and (self._seen.verdict.started or self._seen.verdict.over))
        if self._seen is not None and self._seen.verdict.over and not self._seen.verdict.started:
            self._follow(lambda: False)  # the log of an init container says why
            if not self._seen.verdict.succeeded:
                raise PodLaunchFailedException(self._cause(self._seen))

    def await_init_containers_completion(self, pod: V1Pod) -> None:  # type: ignore[override]  # stock's is decorated
        """Do nothing: init containers have ended when base starts, and their lines were printed on the way."""

    def await_pod_completion(self, pod: V1Pod) -> None:  # type: ignore[override]  # stock's is decorated
        """Follow the pod until its base container has ended and all lines are printed."""
        self._follow(lambda: False)

    def execute_async(self, context: Context) -> None:
        """Launch the pod and wait for its end in the triggerer."""
        self._launch(context)
        if "context" in inspect.signature(self.invoke_defer_method).parameters:
            self.invoke_defer_method(context=context)
        else:  # an override of the time before stock passed the context
            self.invoke_defer_method()

    def invoke_defer_method(self, last_log_time: Any = None, context: Context | None = None) -> None:
        """Hand the pod over to the triggerer. The trigger's row holds no credentials."""
        assert self.pod is not None
        deadline = timeout = None
        if self.execution_timeout is not None and context is not None:
            # a minute more than the trigger takes, so that it is the trigger that notices
            started = context["ti"].start_date or datetime.now().astimezone()
            left = max(0.0, (started + self.execution_timeout - datetime.now().astimezone()).total_seconds())
            deadline = self._apart(lambda client: client.now()) + left
            timeout = timedelta(seconds=left + 60)
        style = LogStyle(self.container_name_log_prefix_enabled, self.log_formatter)
        follow = bool(self.get_logs and self.logging_interval)
        if follow and not style.travels:
            self.log.warning(
                "log_formatter is no function at the top of a module, so the triggerer cannot import it:"
                " the log is printed when the pod has ended"
            )
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
            follow_logs=follow and style.travels,
            log_style=style.to_json() if follow and style.travels else None,
            on_kill_action=self.on_kill_action.value,
            termination_grace_period=self.termination_grace_period,
            trigger_kwargs=self.trigger_kwargs,
        )
        self.defer(trigger=trigger, method_name="trigger_reentry", timeout=timeout)

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on where the trigger stopped: read the logs, fetch the XCom, clean up."""
        stub = {"metadata": {"name": event["name"], "namespace": event["namespace"]}}
        self.pod = to_pod(event.get("pod") or stub)
        result = None
        try:
            self._call("on_operator_resuming", context, pod=self._live(), event=event)
            late = event["status"] == "timeout"
            if event["status"] == "error":
                self.log.warning("The triggerer could not follow the pod, this worker does: %s", event.get("message"))
            last, count = event.get("log_cursor") or ("", 0)
            self._plan = self._wanted(LogCursor(last, count), at_once=late)
            self._know(event)
            self.await_pod_start(pod=self.pod)
            self._call_when_started(context)
            self._follow(lambda: False)
            if late:
                raise AirflowException(event["message"])
            result = self._conclude(context)
            if self._failure is not None:
                raise self._failure
        finally:
            self._leave(context, result)
        return result

    def _know(self, event: Mapping[str, Any]) -> None:
        """Take what the trigger saw: all there is when the pod has been removed meanwhile."""
        if event.get("pod"):
            pod, deleted = event["pod"], bool(event.get("deleted"))
            verdict = judge(pod, self.base_container_name, fatal=FATAL, deleted=deleted, restarts=True)
            self._seen, self._is_known = Seen(pod, verdict, deleted), True

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

    def _follow(self, enough: Callable[[], bool]) -> None:
        """Take the pod's news until ``enough`` holds, or base has ended and its log is printed."""
        if self._feed is None:
            self._open()
        try:
            while not enough():
                news = next(self._news, None)
                if news is None:
                    return
                self._take(news)
        except PodTimeout as error:
            raise PodLaunchTimeoutException(str(error)) from error
        except CrosswindError as error:
            raise AirflowException(str(error)) from error

    def _open(self) -> None:
        """Start following the pod, in a thread that ``_leave`` ends."""
        assert self.pod is not None
        name, namespace, plan = self.pod.metadata.name, self.pod.metadata.namespace, self._plan

        async def work(hand: Callable[[News], Awaitable[None]]) -> None:
            async with await self._connect() as client:
                await attend(client, name, namespace, plan, hand)

        self._ready()
        feed = Feed(work)
        feed.__enter__()
        self._feed, self._news = feed, iter(feed)
        if self._was_killed:
            feed.end(AirflowException("The task was killed"))

    def _take(self, news: News) -> None:
        if not isinstance(news, Seen):
            self._print(news)
        elif not (self._is_known and news.deleted):
            self._seen = news
            self._check_xcom(news)

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
        if is_group_mark(news.text):
            print(news.text)
            return
        style = LogStyle(self.container_name_log_prefix_enabled, self.log_formatter)
        self.log.log(level_of(news.text), "%s", style.line(news.container, news.text))

    def on_kill(self) -> None:
        """End the wait and, unless ``on_kill_action`` says otherwise, delete the pod."""
        super().on_kill()
        if self._feed is not None:
            self._feed.end(AirflowException("The task was killed"))

    # --- after ----------------------------------------------------------------------------------------------------

    def _conclude(self, context: Context) -> Any:
        """Judge the end: return the XCom; how the task failed is what ``cleanup`` raises, as stock's does."""
        seen = self._seen
        assert seen is not None
        live = self._live()
        self._call("on_pod_completion", context, pod=live)
        self._call("on_pod_teardown", context, pod=live)
        if seen.verdict.succeeded:
            return self._result(live) if self.do_xcom_push else None
        if seen.verdict.exit_code is not None and seen.verdict.exit_code in self.skip_on_exit_code:
            name = live.metadata.name
            self._failure = AirflowSkipException(f"Pod {name} returned exit code {seen.verdict.exit_code}. Skipping.")
            return None
        self._push_in_spite(context, seen)
        self._failure = AirflowException(self._cause(seen))
        return None

    def _result(self, pod: V1Pod) -> Any:
        if self.xcom_sidecar == "stock":
            self.pod_manager.await_xcom_sidecar_container_start(pod=pod)
        return self.extract_xcom(pod=pod)

    def extract_xcom(self, pod: V1Pod, *, ignore_kill_failure: bool = True) -> Any:
        """Return what the task wrote to ``/airflow/xcom/return.json``, None when it wrote nothing.

        Raises ``XComError`` when the value is lost or no JSON.
        """
        if self.xcom_sidecar == "stock":
            return super().extract_xcom(pod, ignore_kill_failure=ignore_kill_failure)
        seen = self._seen
        assert seen is not None
        assert seen.pod is not None  # or base would not have been seen to end
        manifest, may_delete, ending = seen.pod, self._is_deleted(seen), read_pod_settings(conf).ending
        content = self._apart(
            lambda client: collect_xcom(client, manifest, self.base_container_name, ending, may_delete=may_delete)
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
        assert self.pod is not None
        try:
            self._push_xcom_with_fan_out(context["ti"], self._result(self.pod))
        except Exception as error:
            self.log.info("The failed task left no XCom: %s", error)

    def _cause(self, seen: Seen) -> str:
        assert self.pod is not None
        where = f"Pod {self.pod.metadata.namespace}/{self.pod.metadata.name}"
        cause, events = self._apart(lambda client: explain(client, seen, self.base_container_name))
        if self.log_events_on_failure:
            for event in events:
                self.log.info("Pod event: %s: %s", event.get("reason"), event.get("message"))
        if self.log_pod_spec_on_failure and seen.pod is not None:
            pod = mask_pod(_without_fields(seen.pod), hides)
            self.log.info("The pod as last seen:\n%s", json.dumps(pod, indent=1))
        return f"{where} failed: {cause or 'it is gone, and nobody saw its end'}"

    def _leave(self, context: Context, result: Any) -> None:
        """Stop following the pod, and let stock's hooks put it away."""
        if self._feed is not None:
            self._feed.__exit__()
            self._feed, self._news = None, iter(())
        if self.pod is not None:
            known = self._seen.pod if self._seen is not None and not self._seen.deleted else None
            self.remote_pod = self.pod if known is None else to_pod(known)
        self.post_complete_action(
            pod=self.pod or self.pod_request_obj, remote_pod=self.remote_pod, context=context, result=result
        )

    def post_complete_action(
        self, *, pod: V1Pod, remote_pod: V1Pod, context: Context, result: Any, **kwargs: Any
    ) -> None:
        """Put the pod away; the callbacks hear of it when the task has failed, too."""
        try:
            self.cleanup(pod=pod, remote_pod=remote_pod, xcom_result=result, context=context)
        finally:
            if pod is not None:
                self._call("on_pod_cleanup", context, pod=pod)

    def cleanup(self, pod: V1Pod, remote_pod: V1Pod, xcom_result: Any = None, context: Context | None = None) -> None:
        """Delete the pod or keep it, as ``on_finish_action`` says, and raise how the task failed, if it did."""
        if self._was_killed or not remote_pod:
            return
        self._put_away(self._last_look(remote_pod))
        if context is not None:
            self._write_used(context)
        if self._failure is not None:
            raise self._failure

    def _last_look(self, pod: V1Pod) -> Seen:
        """Return how the pod is; one that was not seen to end is looked at again, for it may have begun meanwhile."""
        if self._seen is not None and (self._seen.deleted or self._seen.verdict.over):
            return self._seen
        try:
            return self._judged(plain(self.hook.get_pod(pod.metadata.name, pod.metadata.namespace)))
        except (ApiException, HTTPError) as error:
            known = self._seen or self._judged(plain(pod))
            gone = isinstance(error, ApiException) and error.status == 404
            return Seen(known.pod, known.verdict._replace(stage=Stage.GONE), True) if gone else known

    # --- callbacks ------------------------------------------------------------------------------------------------

    def _call_when_started(self, context: Context) -> None:
        if self._seen is not None and self._seen.verdict.started:
            self._call("on_pod_starting", context, pod=self._live())

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


def _refuse_what_is_never_called(kind: type[KubernetesPodOperator]) -> None:
    for name, instead in _NEVER_CALLED.items():
        if inspect.getattr_static(kind, name) is not inspect.getattr_static(StockOperator, name):
            raise TypeError(
                f"{kind.__module__}.{kind.__qualname__} overrides {name}, which crosswind's KubernetesPodOperator never"
                f" calls: {instead}"
            )


def _names(given: Any) -> Literal[True] | Sequence[str]:
    if given is True:
        return True
    return (given,) if isinstance(given, str) else tuple(given or ())


def _without_fields(pod: Manifest) -> Manifest:
    return pod | {"metadata": {key: value for key, value in pod["metadata"].items() if key != "managedFields"}}

"""``KubernetesPodOperator``: stock's operator, with waiting, XCom and cleanup that sidecars cannot delay.

One changed import replaces stock's operator::

    from crosswind.operators import KubernetesPodOperator
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import pendulum
from airflow.providers.cncf.kubernetes.callbacks import ExecutionMode
from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import PodLaunchFailedException
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator as StockOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import OnKillAction
from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException, TaskDeferred, conf
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from crosswind.engine.executor_config import to_pod
from crosswind.errors import XComError
from crosswind.kube.log_lines import LogCursor
from crosswind.podrun import xcom_delivery
from crosswind.podrun.cleanup import explain
from crosswind.podrun.follow import OPERATOR_FATAL_REASONS, ContainerLine, EventMessage, FollowOptions, StateChange
from crosswind.podrun.log_output import LogStyle, is_group_mark, level_of
from crosswind.podrun.relaunch import losses_before
from crosswind.podrun.xcom import collect_xcom
from crosswind.pods.masking import mask_pod
from crosswind.pods.verdict import BaseState, judge
from crosswind.provider.config import read_pod_settings
from crosswind.provider.hook_client import to_plain_json
from crosswind.provider.pod_follower import PodFollower
from crosswind.provider.pod_launcher import PodLauncher
from crosswind.provider.redaction import is_secret_name
from crosswind.triggers import PodTrigger, server_time
from crosswind.types import Manifest, Pod

if TYPE_CHECKING:
    from airflow.sdk import Context
    from kubernetes.client.models import V1Pod

__all__ = ["KubernetesPodOperator"]

_NEVER_CALLED: Mapping[str, str] = {
    "convert_config_file_to_dict": "no kubeconfig is put into a trigger's row",
    "is_istio_enabled": "the base container decides, whatever sidecars run",
    "kill_istio_sidecar": "sidecars are stopped as [crosswind] sidecars_file and docs/guides/sidecars.md say",
    "pod_manager": "crosswind follows pods itself; override hook or client",
    "_clean": "override post_complete_action or cleanup",
    "_write_logs": "use log_formatter or a callback",
    "_handle_api_exception": "crosswind renews credentials itself",
    "_refresh_cached_properties": "crosswind renews credentials itself",
    "_read_pod_events": "use log_events_on_failure or a callback",
    "_read_pod_container_states": "use a callback",
    "_get_most_recent_pod_index": "override process_duplicate_label_pods",
}
"""Stock's methods that nothing calls here, each with the reason, or what to use instead of an override."""

_DEFER_MARGIN_S = 60
"""Seconds by which core's deferral timeout exceeds the trigger's deadline: the trigger notices first and cleans up."""


class KubernetesPodOperator(PodLauncher):
    """Run a task in a pod.

    Accepts all arguments of stock's ``KubernetesPodOperator`` and works as it does, with these differences:

    - the base container alone decides: once it has ended the task is over, whatever other containers do;
    - with ``on_finish_action="keep_pod"`` sidecars that still run are stopped, so that the pod completes;
    - the message of a failure names its cause;
    - XCom needs neither ``pods/exec`` nor a sidecar that keeps running;
    - a pod that the cluster takes (eviction, preemption, a node that is drained, shut down or dead) costs no retry:
      the task launches it again in the same try.

    ``xcom_sidecar``: how the content of ``/airflow/xcom/return.json`` is fetched. ``native`` (default; up to 10 MB;
    Kubernetes 1.29): a native sidecar prints it at its end. ``stock``: stock's sidecar and ``pods/exec``.

    ``infra_retries``: how many pods the cluster may take in one try; default ``[crosswind] infra_retries``, 3. Set it
    to 0 where a second run would do harm.

    A subclass may override the methods of stock's operator. ``TypeError`` names an overridden method that nothing would
    call here.
    """

    def __init__(
        self, *, xcom_sidecar: Literal["native", "stock"] = "native", infra_retries: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if xcom_sidecar not in ("native", "stock"):
            raise ValueError(f"xcom_sidecar must be native or stock, not {xcom_sidecar!r}")
        _refuse_overrides_that_nothing_calls(type(self))
        if infra_retries is not None and (type(infra_retries) is not int or infra_retries < 0):
            raise ValueError(f"infra_retries must be a whole number of at least 0, not {infra_retries!r}")
        self.xcom_sidecar = xcom_sidecar
        self.infra_retries = infra_retries
        # Core executes a shallow copy of the operator, so what one execution changes is created there.
        self._follower: PodFollower | None = None
        self._wanted = FollowOptions()
        self._was_killed = self._is_late = False
        self._failure: AirflowException | None = None

    # --- launch ---------------------------------------------------------------------------------------------------

    def _launch(self, context: Context) -> V1Pod:
        if self.pod_request_obj is None:
            self.pod_request_obj = self.build_pod_request_obj(context)
        if self._losses:
            self.pod_request_obj = self._request_after_losses(self.pod_request_obj)
        self._run_callbacks("on_pod_manifest_created", context, pod_request=self.pod_request_obj)
        if self.pod is None:
            self.pod = self.get_or_create_pod(self.pod_request_obj, context)
        self._losses = max(self._losses, losses_before(to_plain_json(self.pod)))  # of the earlier try that made it
        # Pushed at once, so that they are there when the task fails.
        context["ti"].xcom_push(key="pod_name", value=self.pod.metadata.name)
        context["ti"].xcom_push(key="pod_namespace", value=self.pod.metadata.namespace)
        if self._was_killed:  # while the pod was being created: on_kill had no pod to delete then
            super().on_kill()
            raise AirflowException("The task was killed")
        self._run_callbacks("on_pod_creation", context, pod=self._live_pod())
        return self.pod

    # --- follow ---------------------------------------------------------------------------------------------------

    def execute_sync(self, context: Context) -> Any:
        """Launch the pod, follow it to its base container's end and return its XCom.

        A pod that the cluster takes is launched again, up to ``infra_retries`` times.
        """
        result = None
        try:
            self._run_pod(context)
            while self._gives_up_lost_pod():
                self._run_pod(context)
            result = self._conclude(context)
        finally:
            self._finish(context, result)
        if self._failure is not None:  # a task that is killed now has still failed; its clean-up raises nothing
            raise self._failure
        return result

    def _run_pod(self, context: Context) -> None:
        """Launch the pod, or attach to an earlier one, and follow it until its base container has ended."""
        pod = self._launch(context)
        self._wanted = self._what_to_follow()
        self.await_pod_start(pod=pod)
        self.await_init_containers_completion(pod=pod)
        self._announce_start(context)
        self.await_pod_completion(pod=pod)
        self._follow_to_end()  # an override of await_pod_completion may have waited for less

    def _gives_up_lost_pod(self) -> bool:
        """Return whether the cluster took the pod and the task launches another; if so, clean up the lost pod.

        Its base container has ended: only then, or when its node is dead, does a pod count as lost.
        """
        last_state = self._last_state
        if last_state is None or not self._may_replace(last_state):
            return False
        if self._follower is not None:
            self._follower.close()
            self._follower = None
        self._dispose(last_state)
        self.pod, self._losses = None, self._losses + 1
        return True

    def await_pod_start(self, pod: V1Pod) -> None:
        """Follow the pod until its base container has started.

        Raises stock's ``PodLaunchTimeoutException`` when that takes too long, and ``PodLaunchFailedException`` with the
        cause when the container can never start.
        """
        follower = self._opened_follower()
        self._follow(lambda: follower.has_started or follower.is_over)
        if follower.seen is not None and follower.is_over and not follower.has_started:
            self._follow_to_end()  # the log of an init container names the cause
            if not follower.seen.verdict.succeeded and not self._loss_of(follower.seen):
                raise PodLaunchFailedException(self._failure_text(follower.seen))

    def await_init_containers_completion(self, pod: V1Pod) -> None:  # type: ignore[override]  # stock's is decorated
        """Do nothing: init containers end before base starts, and their lines are printed until then."""

    def await_pod_completion(self, pod: V1Pod) -> None:  # type: ignore[override]  # stock's is decorated
        """Follow the pod until its base container has ended and all lines are printed."""
        self._follow_to_end()

    def execute_async(self, context: Context) -> None:
        """Launch the pod and wait for its end in the triggerer. A pod that cannot be waited for is cleaned up."""
        try:
            self._launch(context)
            self._defer(context)
        except TaskDeferred:
            raise
        except BaseException:  # a signal too, as in execute_sync
            self._finish(context, None)
            raise

    def _defer(self, context: Context) -> None:
        if "context" in inspect.signature(self.invoke_defer_method).parameters:
            self.invoke_defer_method(context=context)
        else:  # an override written for versions of stock that pass no context
            self.invoke_defer_method()

    def invoke_defer_method(self, last_log_time: Any = None, context: Context | None = None) -> None:
        """Hand the pod over to the triggerer. The trigger's row holds no credentials."""
        assert self.pod is not None
        deadline = timeout = None
        if self.execution_timeout is not None and context is not None:
            started = context["ti"].start_date or datetime.now().astimezone()
            remaining = max(0.0, (started + self.execution_timeout - datetime.now().astimezone()).total_seconds())
            # By the API server's clock, because those of worker and triggerer may differ.
            deadline = self._call_api(server_time) + remaining
            timeout = timedelta(seconds=remaining + _DEFER_MARGIN_S)
        style = LogStyle(self.container_name_log_prefix_enabled, self.log_formatter)
        follows_logs = bool(self.get_logs and self.logging_interval)
        if follows_logs and not style.travels:
            self.log.warning(
                "log_formatter is not a function at the top of a module, so the triggerer cannot import it:"
                " the log is printed when the pod has ended"
            )
            follows_logs = False
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
            follow_logs=follows_logs,
            log_style=style.to_json() if follows_logs else None,
            on_kill_action=self.on_kill_action.value,
            termination_grace_period=self.termination_grace_period,
            trigger_kwargs=self.trigger_kwargs,
            losses=self._losses,
            pod_uid=self.pod.metadata.uid,
        )
        self.defer(trigger=trigger, method_name="trigger_reentry", timeout=timeout)

    def defer(self, **options: Any) -> NoReturn:
        """Defer the task, unless it has been killed: the trigger may see its program exit with 0.

        ``options``: those of ``BaseOperator.defer``.
        """
        if self._was_killed:
            raise AirflowException("The task was killed")
        super().defer(**options)

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> Any:
        """Continue where the trigger stopped: read the logs, fetch the XCom, clean up.

        If the cluster took the pod, launch it again and defer again.
        """
        stub = {"metadata": {"name": event["name"], "namespace": event["namespace"], "uid": event.get("uid")}}
        pod = self.pod = to_pod(event.get("pod") or stub)
        result, is_lost = None, False
        self._losses = int(event.get("losses") or 0)
        try:
            self._run_callbacks("on_operator_resuming", context, pod=self._live_pod(), event=event)
            is_late = event["status"] == "timeout"
            if event["status"] == "error":
                self.log.warning(
                    "The triggerer could not follow the pod; this worker follows it instead: %s", event.get("message")
                )
            last_stamp, count = event.get("log_cursor") or ("", 0)
            self._wanted = self._what_to_follow(LogCursor(last_stamp, count), at_once=is_late)
            self._resume_from(event)
            self.await_pod_start(pod=pod)
            self._announce_start(context)
            self._follow_to_end()
            if is_late:
                self._give_up_late_pod()
                raise AirflowException(event["message"])
            is_lost = self._gives_up_lost_pod()
            if not is_lost:
                result = self._conclude(context)
            if self._failure is not None:
                raise self._failure
        finally:
            if not is_lost:  # else the next pod's end is the task's
                self._finish(context, result)
        if is_lost:
            # Not execute_async: in this process a subclass' ``execute`` has not yet set the arguments of the pod.
            self.execute(context)
        return result

    def _give_up_late_pod(self) -> None:
        """Make the clean-up handle a pod that keeps running as ``on_kill`` does when the worker waits for the pod."""
        last_state = self._last_state
        if last_state is not None and not (last_state.deleted or last_state.verdict.over):
            self._is_late = self.on_kill_action is not OnKillAction.KEEP_POD

    def _resume_from(self, event: Mapping[str, Any]) -> None:
        """Take the pod's state from the event: it is all there is if the pod has been deleted since."""
        if event.get("pod"):
            pod, deleted = event["pod"], bool(event.get("deleted"))
            verdict = judge(pod, self.base_container_name, fatal=OPERATOR_FATAL_REASONS, deleted=deleted, restarts=True)
            self._pod_follower.resume_from(StateChange(pod, verdict, deleted))

    def _what_to_follow(self, cursor: LogCursor | None = None, *, at_once: bool = False) -> FollowOptions:
        return FollowOptions(
            base=self.base_container_name,
            logs=_container_names(self.container_logs) if self.get_logs else (),
            init_logs=_container_names(self.init_container_logs),
            schedule_timeout=self.schedule_timeout_seconds,
            startup_timeout=self.startup_timeout_seconds,
            events_every=self.startup_check_interval_seconds if self.log_events_on_startup else None,
            seen=cursor,
            at_once=at_once,
            uid=None if self.pod is None else self.pod.metadata.uid,
        )

    @property
    def _pod_follower(self) -> PodFollower:
        if self._follower is None:
            self._follower = PodFollower()
        return self._follower

    def _opened_follower(self) -> PodFollower:
        """Return the follower, which ``_finish`` closes; its thread starts with the first call."""
        follower = self._pod_follower
        if not follower.is_open:
            assert self.pod is not None
            follower.open(self.client, self.pod.metadata.name, self.pod.metadata.namespace, self._wanted)
            if self._was_killed:  # before there was a wait to end
                follower.kill()
        return follower

    def _follow(self, is_enough: Callable[[], bool]) -> None:
        """Print the pod's news until ``is_enough`` holds, or base has ended and its log is printed."""
        for news in self._opened_follower().receive_until(is_enough):
            if isinstance(news, StateChange):
                self._check_xcom_sidecar(news)
            else:
                self._print(news)

    def _follow_to_end(self) -> None:
        self._follow(lambda: False)

    def _check_xcom_sidecar(self, last_state: StateChange) -> None:
        """Fail early where the XCom sidecar is an ordinary init container, which would never end."""
        if self.do_xcom_push and self.xcom_sidecar == "native" and xcom_delivery.is_blocking(last_state.pod):
            raise AirflowException(
                f"The cluster does not run {xcom_delivery.CONTAINER} as a native sidecar: it is older than Kubernetes"
                ' 1.29, or a webhook has removed restartPolicy; use xcom_sidecar="stock"'
            )

    def _print(self, news: ContainerLine | EventMessage) -> None:
        if isinstance(news, EventMessage):
            self.log.info("Pod event: %s", news.text)
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
        if is_group_mark(news.text):  # unformatted and without the container's name, else the UI folds nothing
            print(news.text)
            return
        style = LogStyle(self.container_name_log_prefix_enabled, self.log_formatter)
        self.log.log(level_of(news.text), "%s", style.line(news.container, news.text))

    def on_kill(self) -> None:
        """End the wait and, unless ``on_kill_action`` says otherwise, delete the pod."""
        # First: the program may exit with 0 because of the deletion, before the API server's answer returns.
        if self._follower is not None:
            self._follower.kill()
        super().on_kill()

    # --- result ---------------------------------------------------------------------------------------------------

    @property
    def _last_state(self) -> StateChange | None:
        """The latest state of the pod; None if it was never read."""
        return None if self._follower is None else self._follower.seen

    def _conclude(self, context: Context) -> Any:
        """Return the XCom of a task that succeeded; otherwise keep the failure, which ``cleanup`` raises as stock does.

        It is not raised here, because stock's ``on_pod_teardown`` and ``cleanup`` come first.
        """
        last_state = self._last_state
        assert last_state is not None
        pod = self._live_pod()
        self._run_callbacks("on_pod_completion", context, pod=pod)
        self._run_callbacks("on_pod_teardown", context, pod=pod)
        if last_state.verdict.succeeded:
            return self._fetch_xcom(pod) if self.do_xcom_push else None
        self._push_xcom_of_failed_task(context, last_state, pod)  # also where the task is skipped, as stock does
        if last_state.verdict.exit_code is not None and last_state.verdict.exit_code in self.skip_on_exit_code:
            name = pod.metadata.name
            self._failure = AirflowSkipException(
                f"Pod {name} returned exit code {last_state.verdict.exit_code}. Skipping."
            )
            return None
        self._failure = AirflowException(self._failure_text(last_state))
        return None

    def _fetch_xcom(self, pod: V1Pod) -> Any:
        if self.xcom_sidecar == "stock":
            self.pod_manager.await_xcom_sidecar_container_start(pod=pod)
        return self.extract_xcom(pod=pod)

    def extract_xcom(self, pod: V1Pod, *, ignore_kill_failure: bool = True) -> Any:
        """Return what the task wrote to ``/airflow/xcom/return.json``, None when it wrote nothing.

        Raises ``XComError`` when the value is lost or is not JSON.
        """
        if self.xcom_sidecar == "stock":
            return super().extract_xcom(pod, ignore_kill_failure=ignore_kill_failure)
        last_state = self._last_state
        assert last_state is not None
        assert last_state.pod is not None  # base was seen to end, in a pod
        manifest, may_delete, ending = last_state.pod, self._deletes(last_state), read_pod_settings(conf).ending
        content = self._call_api(
            lambda client: collect_xcom(client, manifest, self.base_container_name, ending, may_delete=may_delete)
        )
        if content is None and self._was_killed:  # on_kill has deleted the pod: a success without its value is none
            raise AirflowException("The task was killed before its XCom was read")
        if content is None:
            self.log.warning("The pod was deleted before its XCom could be read")
            return None
        if not content.strip():
            self.log.info("The XCom file is empty")
            return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise XComError(f"/airflow/xcom/return.json is not JSON: {error}; write it with json.dump") from error

    def _push_xcom_of_failed_task(self, context: Context, last_state: StateChange, pod: V1Pod) -> None:
        """Push the XCom of a task that failed, if it wrote one, as stock does."""
        if not self.do_xcom_push or not last_state.verdict.over or not last_state.verdict.started or last_state.deleted:
            return
        try:
            self._push_xcom_with_fan_out(context["ti"], self._fetch_xcom(pod))
        except Exception as error:  # the task's own failure counts, which is raised later
            self.log.info("The failed task left no XCom: %s", error)

    def _failure_text(self, last_state: StateChange) -> str:
        assert self.pod is not None
        pod_path = f"{self.pod.metadata.namespace}/{self.pod.metadata.name}"
        cause, events = self._call_api(lambda client: explain(client, last_state, self.base_container_name))
        if self.log_events_on_failure:
            for event in events:
                self.log.info("Pod event: %s: %s", event.get("reason"), event.get("message"))
        if self.log_pod_spec_on_failure and last_state.pod is not None:
            pod = mask_pod(_without_managed_fields(last_state.pod), is_secret_name)
            self.log.info("The pod as last seen:\n%s", json.dumps(pod, indent=1))
        return f"Pod {pod_path} failed: {cause or 'it no longer exists, and its end was not observed'}"

    # --- cleanup --------------------------------------------------------------------------------------------------

    def _finish(self, context: Context, result: Any) -> None:
        """Stop following the pod, and call stock's hooks that clean up."""
        last_state = self._last_state
        if self._follower is not None:
            self._follower.close()
        if self.pod is not None:
            latest = last_state.pod if last_state is not None and not last_state.deleted else None
            self.remote_pod = self.pod if latest is None else to_pod(latest)
        self.post_complete_action(
            pod=self.pod or self.pod_request_obj, remote_pod=self.remote_pod, context=context, result=result
        )

    def post_complete_action(
        self, *, pod: V1Pod, remote_pod: V1Pod, context: Context, result: Any, **kwargs: Any
    ) -> None:
        """Clean up; callbacks run after a failure, too."""
        try:
            self.cleanup(pod=pod, remote_pod=remote_pod, xcom_result=result, context=context)
        finally:
            if pod is not None:
                self._run_callbacks("on_pod_cleanup", context, pod=pod)

    def cleanup(self, pod: V1Pod, remote_pod: V1Pod, xcom_result: Any = None, context: Context | None = None) -> None:
        """Delete or keep the pod, as ``on_finish_action`` says, and raise the task's failure, if it failed."""
        if self._was_killed or not remote_pod:  # on_kill has deleted the pod
            return
        self._dispose(self._final_state(remote_pod), may_run_on=self.on_kill_action is OnKillAction.KEEP_POD)
        if context is not None:
            self._used_pods.write(context)
        if self._failure is not None:
            raise self._failure

    def _final_state(self, pod: V1Pod) -> StateChange:
        """Return the pod's state, read again unless its end was seen: base may have started since."""
        last_state = self._last_state
        if last_state is not None and (last_state.deleted or last_state.verdict.over):
            return last_state
        try:
            return self._judged(to_plain_json(self.hook.get_pod(pod.metadata.name, pod.metadata.namespace)))
        except (ApiException, HTTPError) as error:
            last = last_state or self._judged(to_plain_json(pod))
            is_gone = isinstance(error, ApiException) and error.status == 404
            return StateChange(last.pod, last.verdict._replace(state=BaseState.GONE), True) if is_gone else last

    # --- callbacks ------------------------------------------------------------------------------------------------

    def _announce_start(self, context: Context) -> None:
        if self._pod_follower.has_started:
            self._run_callbacks("on_pod_starting", context, pod=self._live_pod())

    def _live_pod(self) -> V1Pod:
        """Return the pod as it is now, for callbacks; the last known state without callbacks or when it is gone."""
        assert self.pod is not None
        if self.callbacks:
            try:
                latest = self.hook.get_pod(self.pod.metadata.name, self.pod.metadata.namespace)
                if self.pod.metadata.uid in (None, latest.metadata.uid):  # else another pod has taken the name
                    self.pod = latest
            except ApiException as error:
                if error.status != 404:
                    raise
        return self.pod

    def _run_callbacks(self, name: str, context: Context, **arguments: Any) -> None:
        for callback in self.callbacks:
            method = getattr(callback, name)
            method(client=self.client, mode=ExecutionMode.SYNC, operator=self, context=context, **arguments)


def _refuse_overrides_that_nothing_calls(kind: type[KubernetesPodOperator]) -> None:
    for name, advice in _NEVER_CALLED.items():
        if inspect.getattr_static(kind, name) is not inspect.getattr_static(StockOperator, name):
            raise TypeError(
                f"{kind.__module__}.{kind.__qualname__} overrides {name}, which crosswind's KubernetesPodOperator never"
                f" calls: {advice}"
            )


def _container_names(value: Any) -> Literal[True] | Sequence[str]:
    """Return the names of ``container_logs``, which is True for all, a name, or names."""
    if value is True:
        return True
    return (value,) if isinstance(value, str) else tuple(value or ())


def _without_managed_fields(pod: Pod) -> Manifest:
    return {**pod, "metadata": {key: value for key, value in pod["metadata"].items() if key != "managedFields"}}

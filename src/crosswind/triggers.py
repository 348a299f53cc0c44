"""``PodTrigger`` waits in the triggerer for the end of a pod's base container.

All deferred pods of a namespace share one watch (``podrun.shared_watch``). The triggerer owns the task that runs a
trigger. It cancels that task when the task instance is cleared or the triggerer stops; the pod then goes on, and the
next triggerer resumes the wait from the trigger's row.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.triggers.base import BaseTrigger, TriggerEvent
from structlog.contextvars import get_contextvars

from crosswind.errors import CrosswindError, PodTimeout
from crosswind.kube.client import Client
from crosswind.kube.log_lines import LogCursor
from crosswind.podrun.cleanup import delete_pod, mark_pod
from crosswind.podrun.follow import ContainerLine, FollowOptions, PodNews, StateChange, follow_pod
from crosswind.podrun.log_output import LogStyle, is_group_mark, level_of
from crosswind.podrun.shared_watch import SharedPodInformer, shared_informers
from crosswind.podrun.xcom_delivery import is_delivery_due
from crosswind.pods.fields import containers_of, init_containers_of, metadata_of, spec_of
from crosswind.settings import KubeSettings
from crosswind.types import Manifest, Pod

__all__ = ["PodTrigger", "server_time"]

_DEFAULT_CONNECTION = "kubernetes_default"
_SERVICE_ACCOUNT_TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105  # a path
_XCOM_WAIT_S = 2.0
"""How long to wait, after base has ended, for the XCom sidecar's termination message. With it in the event the XCom
survives if the pod is deleted before a worker resumes the task."""


class PodTrigger(BaseTrigger):
    """Fires when the base container has ended, the pod is gone, or the time is up.

    The trigger's row names the connection (or the context and file of a kubeconfig) and holds no credentials. Times are
    in seconds. ``deadline``: seconds since 1970 by the API server's clock, because the clocks of worker and triggerer
    may differ. ``follow_logs``: print base's log to the triggerer's log while waiting, in the style of ``log_style``
    (``LogStyle.to_json``). ``losses``: pods of this try that the cluster took before this one. ``pod_uid``: None in the
    rows of earlier versions.
    """

    def __init__(
        self,
        *,
        pod_name: str,
        pod_namespace: str,
        base_container_name: str = "base",
        kubernetes_conn_id: str | None = None,
        cluster_context: str | None = None,
        config_file: str | None = None,
        in_cluster: bool | None = None,
        schedule_timeout: float = 120,
        startup_timeout: float = 120,
        deadline: float | None = None,
        follow_logs: bool = False,
        log_style: dict[str, Any] | None = None,
        on_kill_action: str = "delete_pod",
        termination_grace_period: int | None = None,
        trigger_kwargs: dict[str, Any] | None = None,
        losses: int = 0,
        pod_uid: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's gap
        self._arguments: dict[str, Any] = {
            "pod_name": pod_name,
            "pod_namespace": pod_namespace,
            "base_container_name": base_container_name,
            "kubernetes_conn_id": kubernetes_conn_id,
            "cluster_context": cluster_context,
            "config_file": config_file,
            "in_cluster": in_cluster,
            "schedule_timeout": schedule_timeout,
            "startup_timeout": startup_timeout,
            "deadline": deadline,
            "follow_logs": follow_logs,
            "log_style": log_style,
            "on_kill_action": on_kill_action,
            "termination_grace_period": termination_grace_period,
            "trigger_kwargs": trigger_kwargs,
            "losses": losses,
            "pod_uid": pod_uid,
        }
        self._name, self._namespace, self._base = pod_name, pod_namespace, base_container_name
        self._uid = pod_uid
        self._deadline, self._follow_logs = deadline, follow_logs
        self._style = LogStyle()
        self._cursor = LogCursor()
        self._seen: StateChange | None = None
        self._fired = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments, which the row holds."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self._arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event."""
        try:
            status, message = await self._wait()
        except PodTimeout as error:
            status, message = "timeout", str(error)
        except Exception as error:  # the worker that resumes the task follows the pod instead
            self.log.warning("Pod %s/%s could not be followed", self._namespace, self._name, exc_info=True)
            status, message = "error", str(error)
        self._fired = True
        yield TriggerEvent(self._event(status, message))  # type: ignore[no-untyped-call]  # Airflow's gap

    async def on_kill(self) -> None:
        """Delete the pod when a user ends the deferred task, unless ``on_kill_action`` is keep_pod."""
        if self._fired or self._arguments["on_kill_action"] == "keep_pod":
            return
        self.log.info("Deleting pod %s/%s", self._namespace, self._name)
        pod: Pod = {"metadata": {"name": self._name, "namespace": self._namespace}}
        if self._uid:
            pod["metadata"]["uid"] = self._uid
        if self._seen is not None and self._seen.pod is not None:
            pod = self._seen.pod
        async with shared_informers().watch(await self.settings(), self._namespace) as shared:
            if await delete_pod(shared.client, pod, self._arguments["termination_grace_period"]):
                await mark_pod(shared.client, pod)

    async def settings(self) -> KubeSettings:
        """Return how to reach the cluster: from the arguments, else the connection, else this process's environment."""
        return kube_settings(self._arguments, await _extras(self._arguments["kubernetes_conn_id"]))

    async def _wait(self) -> tuple[str, str]:
        settings = await self.settings()
        self._load_log_style()
        try:
            async with asyncio.timeout(None) as limit, shared_informers().watch(settings, self._namespace) as shared:
                if self._deadline is not None:
                    left = self._deadline - await server_time(shared.client)
                    limit.reschedule(asyncio.get_running_loop().time() + left)
                await self._follow(shared)
        except TimeoutError:
            if not limit.expired():
                raise
            return "timeout", f"Pod {self._namespace}/{self._name} did not end within the task's execution_timeout"
        assert self._seen is not None
        return ("success", "") if self._seen.verdict.succeeded else ("failed", self._seen.verdict.reason)

    async def _follow(self, shared: SharedPodInformer) -> None:
        options = FollowOptions(
            base=self._base,
            logs=(self._base,) if self._follow_logs else (),
            schedule_timeout=self._arguments["schedule_timeout"],
            startup_timeout=self._arguments["startup_timeout"],
            seen=self._cursor,
            uid=self._uid,
        )
        states = shared.states(self._name, self._uid)
        await follow_pod(shared.client, self._name, self._namespace, options, self._receive, states)
        if self._seen is not None and self._seen.verdict.succeeded and is_delivery_due(self._seen.pod, self._base):
            await self._await_xcom(shared)

    async def _receive(self, news: PodNews) -> None:
        if isinstance(news, StateChange):
            self._seen = news
        elif isinstance(news, ContainerLine) and news.text:
            self._print(news)

    def _load_log_style(self) -> None:
        """Import the formatter of the lines. If that fails, the worker prints the lines when the pod has ended."""
        try:
            self._style = LogStyle.from_json(self._arguments["log_style"])
        except Exception as error:
            self.log.warning(
                "The log is printed when the pod has ended: its log_formatter cannot be imported: %s", error
            )
            self._follow_logs = False

    def _print(self, line: ContainerLine) -> None:
        if not is_group_mark(line.text):
            self.log.log(level_of(line.text), "%s", self._style.line(line.container, line.text))
        elif "trigger_id" in get_contextvars():
            self.log.info("%s", line.text)  # a triggerer's output does not reach the task's log, its log lines do
        else:
            print(line.text)

    async def _await_xcom(self, shared: SharedPodInformer) -> None:
        """Wait for the XCom sidecar's termination message, for a short time: without it the worker reads the log."""
        assert self._seen is not None
        with contextlib.suppress(TimeoutError):
            states = shared.states(self._name, self._uid)
            async with asyncio.timeout(_XCOM_WAIT_S), contextlib.aclosing(states):
                async for pod, gone in states:
                    if pod is not None:
                        self._seen = StateChange(pod, self._seen.verdict)
                    if gone or not is_delivery_due(pod, self._base):
                        return

    def _event(self, status: str, message: str) -> dict[str, Any]:
        event: dict[str, Any] = {"status": status, "name": self._name, "namespace": self._namespace, "message": message}
        event |= {"uid": self._uid, "losses": self._arguments["losses"]}
        if self._seen is not None and self._seen.pod is not None:
            event |= {"pod": _without_secrets(self._seen.pod), "deleted": self._seen.deleted}
        if self._follow_logs:
            event["log_cursor"] = [self._cursor.last, self._cursor.count]
        return event | (self._arguments["trigger_kwargs"] or {})


def kube_settings(arguments: Mapping[str, Any], extras: Mapping[str, Any]) -> KubeSettings:
    """Return how to reach a cluster, with the precedence of stock's hook.

    ``arguments``: the trigger's. ``extras``: the connection's.
    """

    def extra_field(name: str) -> Any:
        return extras.get(name) or extras.get(f"extra__kubernetes__{name}") or None

    def argument(name: str, extra: str) -> Any:
        return arguments[name] if arguments[name] is not None else extra_field(extra)

    text = extra_field("kube_config")
    path = argument("config_file", "kube_config_path")
    in_cluster = argument("in_cluster", "in_cluster")
    if not (in_cluster or text or path):
        in_cluster = os.path.exists(_SERVICE_ACCOUNT_TOKEN_FILE) and "KUBERNETES_SERVICE_HOST" in os.environ
    return KubeSettings(
        in_cluster=str(in_cluster).lower() == "true",
        kubeconfig=path,
        kubeconfig_text=text if text is None or isinstance(text, str) else orjson.dumps(text).decode(),
        context=argument("cluster_context", "cluster_context"),
        verify_ssl=str(extra_field("disable_verify_ssl")).lower() != "true",
    )


async def server_time(client: Client) -> float:
    """Return the time by the API server's clock, or by this machine's if the server does not answer."""
    try:
        return await client.now()
    except CrosswindError:
        return time.time()


async def _extras(connection_id: str | None) -> dict[str, Any]:
    if not connection_id:
        return {}
    try:
        connection = await get_async_connection(connection_id)
    except AirflowNotFoundException:
        if connection_id != _DEFAULT_CONNECTION:
            raise
        return {}
    return await get_async_extra_dejson(connection)


def _without_secrets(pod: Pod) -> Manifest:
    """Return the fields by which the operator judges a pod that is gone: no environment, no arguments.

    The event is stored in the database, where the secrets of a pod's spec must not appear.
    """
    container_fields = ("name", "image", "restartPolicy", "resources")
    return {
        "metadata": _only(metadata_of(pod), "name", "namespace", "uid", "deletionTimestamp"),
        "spec": {
            **_only(spec_of(pod), "nodeName", "restartPolicy", "terminationGracePeriodSeconds"),
            "containers": [_only(container, *container_fields) for container in containers_of(pod)],
            "initContainers": [_only(container, *container_fields) for container in init_containers_of(pod)],
        },
        "status": pod.get("status") or {},
    }


def _only(fields: Mapping[str, object], *names: str) -> Manifest:
    return {name: fields[name] for name in names if name in fields}

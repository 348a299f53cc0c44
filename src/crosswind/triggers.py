"""``PodTrigger``: waits for a pod's base container in the triggerer, on one watch for all deferred pods."""

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
from crosswind.kube.loglines import LogCursor
from crosswind.pods.states import mapping, mappings
from crosswind.pods.xcoms import awaited
from crosswind.runs.attending import Line, News, Seen, Wanted, attend
from crosswind.runs.departing import delete_pod, mark_pod
from crosswind.runs.printing import LogStyle, is_group_mark, level_of
from crosswind.runs.sharing import SharedWatch, hub
from crosswind.settings import KubeSettings
from crosswind.types import Manifest

__all__ = ["PodTrigger"]

_DEFAULT_CONNECTION = "kubernetes_default"
_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105  # a path
_LINGER_S = 2.0
"""How long the XCom of a pod that is over is waited for, so that it survives the pod's removal."""


class PodTrigger(BaseTrigger):
    """Fires when the base container has ended, the pod is gone, or time is up.

    Its row names the connection (or context and file of a kubeconfig) and holds no credentials. Times in seconds;
    ``deadline``: seconds since 1970 by the API server's clock, so that those of worker and triggerer may differ.
    ``follow_logs``: print base's log into the triggerer's while waiting, as ``log_style`` (``LogStyle.to_json``) says.
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
        }
        self._name, self._namespace, self._base = pod_name, pod_namespace, base_container_name
        self._deadline, self._follow_logs = deadline, follow_logs
        self._style = LogStyle()
        self._cursor = LogCursor()
        self._seen: Seen | None = None
        self._fired = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the row holds."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self._arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and fire once."""
        try:
            status, message = await self._wait()
        except PodTimeout as error:
            status, message = "timeout", str(error)
        except Exception as error:
            self.log.warning("Pod %s/%s could not be followed", self._namespace, self._name, exc_info=True)
            status, message = "error", str(error)
        self._fired = True
        yield TriggerEvent(self._event(status, message))  # type: ignore[no-untyped-call]  # Airflow's gap

    async def on_kill(self) -> None:
        """Delete the pod of a task that a user ended, unless ``on_kill_action`` is keep_pod."""
        if self._fired or self._arguments["on_kill_action"] == "keep_pod":
            return
        self.log.info("Deleting pod %s/%s", self._namespace, self._name)
        pod = {"metadata": {"name": self._name, "namespace": self._namespace}}
        if self._seen is not None and self._seen.pod is not None:
            pod = self._seen.pod
        async with hub().watch(await self.settings(), self._namespace) as shared:
            if await delete_pod(shared.client, pod, self._arguments["termination_grace_period"]):
                await mark_pod(shared.client, pod)

    async def settings(self) -> KubeSettings:
        """Return how to reach the cluster: by the arguments, then the connection, then what surrounds this process."""
        return kube_settings(self._arguments, await _extras(self._arguments["kubernetes_conn_id"]))

    async def _wait(self) -> tuple[str, str]:
        settings = await self.settings()
        self._prepare_printing()
        try:
            async with asyncio.timeout(None) as limit, hub().watch(settings, self._namespace) as shared:
                if self._deadline is not None:
                    left = self._deadline - await _now(shared.client)
                    limit.reschedule(asyncio.get_running_loop().time() + left)
                await self._attend(shared)
        except TimeoutError:
            if not limit.expired():
                raise
            return "timeout", f"Pod {self._namespace}/{self._name} did not end within the task's execution_timeout"
        assert self._seen is not None
        return ("success", "") if self._seen.verdict.succeeded else ("failed", self._seen.verdict.reason)

    async def _attend(self, shared: SharedWatch) -> None:
        wanted = Wanted(
            base=self._base,
            logs=(self._base,) if self._follow_logs else (),
            schedule_timeout=self._arguments["schedule_timeout"],
            startup_timeout=self._arguments["startup_timeout"],
            seen=self._cursor,
        )
        await attend(shared.client, self._name, self._namespace, wanted, self._take, shared.states(self._name))
        if self._seen is not None and self._seen.verdict.succeeded and awaited(self._seen.pod, self._base):
            await self._linger(shared)

    async def _take(self, news: News) -> None:
        if isinstance(news, Seen):
            self._seen = news
        elif isinstance(news, Line) and news.text:
            self._print(news)

    def _prepare_printing(self) -> None:
        """Import the formatter of the lines; without it they are left to the worker, which has it."""
        try:
            self._style = LogStyle.from_json(self._arguments["log_style"])
        except Exception as error:
            self.log.warning(
                "The log is printed when the pod has ended: its log_formatter cannot be imported: %s", error
            )
            self._follow_logs = False

    def _print(self, line: Line) -> None:
        if not is_group_mark(line.text):
            self.log.log(level_of(line.text), "%s", self._style.line(line.container, line.text))
        elif "trigger_id" in get_contextvars():
            self.log.info("%s", line.text)  # in a triggerer only what is logged reaches the task's log
        else:
            print(line.text)

    async def _linger(self, shared: SharedWatch) -> None:
        """Wait a moment for what the XCom sidecar says at its end."""
        assert self._seen is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S), contextlib.aclosing(shared.states(self._name)) as states:
                async for pod, gone in states:
                    if pod is not None:
                        self._seen = Seen(pod, self._seen.verdict)
                    if gone or not awaited(pod, self._base):
                        return

    def _event(self, status: str, message: str) -> dict[str, Any]:
        event: dict[str, Any] = {"status": status, "name": self._name, "namespace": self._namespace, "message": message}
        if self._seen is not None and self._seen.pod is not None:
            event |= {"pod": _outline(self._seen.pod), "deleted": self._seen.deleted}
        if self._follow_logs:
            event["log_cursor"] = [self._cursor.last, self._cursor.count]
        return event | (self._arguments["trigger_kwargs"] or {})


def kube_settings(arguments: Mapping[str, Any], extras: Mapping[str, Any]) -> KubeSettings:
    """Return how to reach a cluster, in the order that stock's hook has; ``extras`` are the connection's."""

    def field(name: str) -> Any:
        return extras.get(name) or extras.get(f"extra__kubernetes__{name}") or None

    def argument(name: str, extra: str) -> Any:
        return arguments[name] if arguments[name] is not None else field(extra)

    text = field("kube_config")
    path = argument("config_file", "kube_config_path")
    in_cluster = argument("in_cluster", "in_cluster")
    if not (in_cluster or text or path):
        in_cluster = os.path.exists(_TOKEN) and "KUBERNETES_SERVICE_HOST" in os.environ
    return KubeSettings(
        in_cluster=str(in_cluster).lower() == "true",
        kubeconfig=path,
        kubeconfig_text=text if text is None or isinstance(text, str) else orjson.dumps(text).decode(),
        context=argument("cluster_context", "cluster_context"),
        verify_ssl=str(field("disable_verify_ssl")).lower() != "true",
    )


async def _now(client: Client) -> float:
    """Return the time of the API server's clock, of ours while it cannot be asked."""
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


def _outline(pod: Manifest) -> Manifest:
    """Return what the operator needs to judge a pod that is gone: no environment, no arguments."""
    spec, metadata = mapping(pod.get("spec")), pod["metadata"]
    told = ("name", "image", "restartPolicy", "resources")
    return {
        "metadata": {
            key: metadata[key] for key in ("name", "namespace", "uid", "deletionTimestamp") if key in metadata
        },
        "spec": {
            **{key: spec[key] for key in ("nodeName", "restartPolicy", "terminationGracePeriodSeconds") if key in spec},
            **{
                part: [{key: one[key] for key in told if key in one} for one in mappings(spec.get(part))]
                for part in ("containers", "initContainers")
            },
        },
        "status": pod.get("status") or {},
    }

"""Reads the log of a task from its pod, for Airflow's web server, which runs no engine."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from airflow.configuration import conf
from airflow.executors.base_executor import ExecutorConf
from airflow.models.dag import DagModel

from crosswind.engine.worker_pod import BASE, unique_id_of, worker_namespace
from crosswind.errors import ConfigError, CrosswindError, Forbidden, NotFound
from crosswind.event_loop import run_in_own_loop
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.pods.fields import as_pod
from crosswind.pods.naming import task_labels
from crosswind.provider import config
from crosswind.settings import KubeSettings
from crosswind.types import Manifest

__all__ = ["choose_pod", "read_log", "read_task_log"]

log = logging.getLogger(__name__)

_TIMEOUT_S = 20.0


def read_task_log(
    executor_conf: ExecutorConf,
    team: str | None,
    executor_id: str,
    ti: Any,
    try_number: int,
    *,
    whole: bool,
    stored: Collection[str] = (),
) -> tuple[list[str], list[str]]:
    """Return messages about the log's origin, and its text; the last lines or the ``whole`` log.

    ``stored``: uids of pods whose log need not be read. Errors become messages: Airflow shows them in place of the log.
    """
    try:
        settings = config.read_executor_settings(_conf_of_task(executor_conf, team, ti), executor_id)
        labels = task_labels(
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            try_number=try_number,
            map_index=-1 if ti.map_index is None else ti.map_index,
        )
        namespaces = _namespaces(settings, ti)
        unique_id, lines = ti.external_executor_id, None if whole else settings.log_lines
        messages, text = run_in_own_loop(
            lambda: read_log(settings.kube, namespaces, labels, unique_id=unique_id, lines=lines, stored=stored),
            _TIMEOUT_S,
        )
    except (CrosswindError, TimeoutError) as error:
        return [f"The pod's log cannot be read: {error or 'no answer in time'}"], [""]
    return messages, [text]


def _conf_of_task(executor_conf: ExecutorConf, team: str | None, ti: Any) -> ExecutorConf:
    """Return the configuration of a task's team: Airflow asks the global executor for the logs of all teams."""
    if team is not None or not conf.getboolean("core", "multi_team", fallback=False):
        return executor_conf
    team = DagModel.get_team_name(ti.dag_id)
    return ExecutorConf(team) if team else executor_conf


def _namespaces(settings: config.ExecutorSettings, ti: Any) -> set[str | None]:
    """Return the namespaces where a task's pod may be."""
    namespaces = set(settings.engine.namespaces)
    try:
        template, override = settings.composer().choose(ti.executor_config, ti.queue or "")
        namespaces.add(worker_namespace(template, override, settings.worker))
    except ConfigError as error:
        log.debug("The namespace of %s is not known, the configured ones are searched: %s", ti, error)
    return namespaces


def choose_pod(pods: Collection[Manifest], unique_id: str | None) -> Manifest | None:
    """Return the pod of ``unique_id``, by what it carries or by its name, else the newest; None without pods."""
    for pod in pods:
        if unique_id and (unique_id_of(as_pod(pod)) == unique_id or str(pod["metadata"]["name"]).endswith(unique_id)):
            return pod
    return max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), default=None)


async def read_log(
    kube: KubeSettings,
    namespaces: Collection[str | None],
    labels: Mapping[str, str],
    *,
    unique_id: str | None,
    lines: int | None,
    stored: Collection[str] = (),
) -> tuple[list[str], str]:
    """Return messages about the log's origin, and its last lines (None: all); "" if there is no pod.

    ``namespaces``: where to look; None is everywhere. ``stored``: uids of pods to leave out. Raises ``CrosswindError``.
    """
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    async with await Client.connect(kube) as client:
        pods: list[Manifest] = []
        problems: list[str] = []
        for namespace in (None,) if None in namespaces else namespaces:
            try:
                pods += (await client.list(PODS, namespace=namespace, labels=selector)).items
            except (Forbidden, NotFound) as error:
                problems.append(f"Pods cannot be listed: {error}")
        pod = choose_pod([pod for pod in pods if pod["metadata"]["uid"] not in stored], unique_id)
        if pod is None:
            searched = ", ".join(str(namespace or "all namespaces") for namespace in namespaces)
            return [*problems, f"No pod of this task exists in {searched}"], ""
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        text = await client.log(name, namespace=namespace, container=BASE, tail_lines=lines)
        extent = "" if lines is None else f", last {lines} lines"
        return [f"Container {BASE} of pod {namespace}/{name}{extent}"], text.decode(errors="replace")

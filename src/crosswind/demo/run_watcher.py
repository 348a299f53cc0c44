"""Watches a run of the demo, and shows it until it is over.

``show_until_over`` owns two tasks, one that watches pods and one that polls Airflow. It cancels both when the run is
over, stalls or exceeds its limits. A task that fails ends the demo with its error.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.live import Live

from crosswind.demo import screen
from crosswind.demo.airflow_api import AirflowApi
from crosswind.demo.processes import Airflow
from crosswind.demo.progress import RunProgress
from crosswind.demo.reasons import Attempt, last_error, troubled_attempts
from crosswind.demo.summary import Stall, find_stall
from crosswind.errors import CrosswindError
from crosswind.kube.client import Client
from crosswind.kube.resources import EVENTS, PODS
from crosswind.pods.fields import as_events, as_pod
from crosswind.types import Pod, PodEvent

__all__ = ["Limits", "show_until_over", "watch_pods"]

AIRFLOW_POLL_S = 0.5
SCREEN_REFRESH_S = 0.25
WATCH_TIMEOUT_S = 300
REMOVAL_TIMEOUT_S = 30.0
"""How long to wait for the removal of the pods after the DAG run has ended."""
NO_CHANGE_LIMIT_S = 300.0
"""A run without any change for this time is given up. The slowest step, the first import of Airflow on a slow machine,
takes a fraction of it."""
WAIT_REPORT_S = 20.0
"""Without a live table, a line names what the run waits for after this time without a change."""
MAX_LOG_READS = 20
"""How often to read the log of a failed try: it may reach the server after the state."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to give up. Seconds."""

    total: float | None
    stall: float


async def show_until_over(
    limits: Limits,
    console: Console,
    client: Client,
    namespace: str,
    airflow: Airflow,
    api: AirflowApi,
    run: RunProgress,
) -> Stall | None:
    """Watch and show the run until it is over. Return the stall, if it stalls."""
    try:
        async with asyncio.TaskGroup() as group:
            watchers = [
                group.create_task(watch_pods(client, namespace, run)),
                group.create_task(_watch_airflow(airflow, api, run)),
            ]
            try:
                return await _show(limits, console, run)
            finally:
                for watcher in watchers:
                    watcher.cancel()
    except BaseExceptionGroup as group_error:
        raise group_error.exceptions[0] from None


async def watch_pods(client: Client, namespace: str, run: RunProgress) -> None:
    """Watch the pods of the namespace and their warnings until cancelled.

    The server closes a watch after its timeout; the next one continues at the last version.
    """
    pods: dict[str, Pod] = {}
    warnings: dict[str, list[PodEvent]] = defaultdict(list)

    async def watch_states() -> None:
        version = (await client.list(PODS, namespace=namespace)).version
        while True:
            async for event in client.watch(PODS, namespace=namespace, version=version, timeout=WATCH_TIMEOUT_S):
                pod = as_pod(event["object"])
                version = pod["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    name = pod["metadata"]["name"]
                    pods[name] = pod
                    run.observe_pod(event["type"], pod, warnings[name])
                    if event["type"] == "DELETED":
                        del pods[name]

    async def watch_warnings() -> None:
        version = (await client.list(EVENTS, namespace=namespace)).version
        while True:
            async for event in client.watch(EVENTS, namespace=namespace, version=version, timeout=WATCH_TIMEOUT_S):
                (pod_event,) = as_events([event["object"]])
                version = pod_event["metadata"]["resourceVersion"]
                name = (pod_event.get("involvedObject") or {}).get("name", "")
                if event["type"] in ("ADDED", "MODIFIED") and pod_event.get("type") == "Warning":
                    warnings[name].append(pod_event)
                    if name in pods:
                        run.observe_trouble("MODIFIED", pods[name], warnings[name])

    async with asyncio.TaskGroup() as group:
        group.create_task(watch_states())
        group.create_task(watch_warnings())


async def _watch_airflow(airflow: Airflow, api: AirflowApi, run: RunProgress) -> None:
    """Poll the state of the DAG run, and the error of each try that failed, until cancelled."""
    log_reads: dict[Attempt, int] = defaultdict(int)
    while True:
        airflow.check()
        if errors := await api.import_errors():
            raise CrosswindError(f"the DAG file cannot be parsed:\n{errors[0]}")
        dag_run, tasks = await api.dag_run(), await api.task_instances()
        run.observe(api.answered, dag_run, tasks)
        for attempt in troubled_attempts(tasks) if dag_run else ():
            log_reads[attempt] += 1
            await _report_failure(api, run, attempt, is_last_read=log_reads[attempt] == MAX_LOG_READS)
        await asyncio.sleep(AIRFLOW_POLL_S)


async def _report_failure(api: AirflowApi, run: RunProgress, attempt: Attempt, *, is_last_read: bool) -> None:
    if run.dag_run is None or run.is_reported(attempt):
        return
    log = await api.log(run.dag_run["dag_run_id"], attempt.task, attempt.map_index, attempt.number)
    error = last_error(log) or ("failed; its log contains no error" if is_last_read and attempt.failed else "")
    if error:
        run.report(attempt, screen.event_line(run.now, attempt.label, str(attempt.number), error))


@contextlib.contextmanager
def _live_display(console: Console) -> Iterator[Live | None]:
    if not console.is_terminal:
        yield None
        return
    with Live(console=console, auto_refresh=False, transient=False) as live:
        yield live


async def _show(limits: Limits, console: Console, run: RunProgress) -> Stall | None:
    """Show the run until it is over or stalls; return the stall, if any. Raises ``CrosswindError`` at a limit."""
    plain_lines = screen.PlainLines()
    last_wait_report = 0.0
    with _live_display(console) as live:
        while limits.total is None or run.now < limits.total:
            _print(console, run.take_lines())
            if live is not None:
                live.update(_table(console, run), refresh=True)
            else:
                _print(console, plain_lines.news(run.pods.values(), run.now))
                if min(run.unchanged_for, run.now - last_wait_report) > WAIT_REPORT_S and (waits := run.waits_for()):
                    last_wait_report = run.now
                    _print(console, [f"{run.now:6.1f} s  waits for {waits}"])
            if run.is_over and (run.has_no_pods or run.unchanged_for > REMOVAL_TIMEOUT_S):
                if live is not None:
                    live.vertical_overflow = "visible"
                    live.update(_table(console, run, all_rows=True), refresh=True)
                return None
            stalls = run.unchanged_for > limits.stall
            if stalls and (stall := find_stall(run.tasks, run.pods.values(), run.unchanged_for)):
                return stall
            if run.unchanged_for > NO_CHANGE_LIMIT_S:
                break
            await asyncio.sleep(SCREEN_REFRESH_S)
    raise CrosswindError(_limit_exceeded(run))


def _print(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(console: Console, run: RunProgress, *, all_rows: bool = False) -> RenderableType:
    rows = None if all_rows else max(4, console.height - screen.OTHER_LINES)
    return screen.pod_table(run.pods.values(), run.tasks, run.now, run.waits_for(), console.width, rows)


def _limit_exceeded(run: RunProgress) -> str:
    states = ", ".join(f"{task['task_id']} {task['state'] or 'waiting'}" for task in run.tasks) or "none yet"
    return (
        f"the DAG was not finished after {run.now:.0f} s, and nothing has changed for {run.unchanged_for:.0f} s. "
        f"It waits for {run.waits_for() or 'nothing'}. Its tasks: {states}"
    )

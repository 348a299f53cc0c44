"""Following a run of the demo: two watchers that learn, and a screen that shows what they know until it is over."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.live import Live

from crosswind.demo import screen
from crosswind.demo.processes import Airflow
from crosswind.demo.reasons import Attempt, last_error, pod_trouble, troubled_attempts, waits_for
from crosswind.demo.summary import OVER, Stall, find_stall
from crosswind.demo.timelines import Timeline, advance
from crosswind.demo.webapi import AirflowApi
from crosswind.errors import CrosswindError
from crosswind.kube.client import Client
from crosswind.kube.resources import EVENTS, PODS
from crosswind.types import Json, Manifest

__all__ = ["Limits", "Run", "follow", "watch_pods"]

POLL_S = 0.5
PODS_GONE_S = 30.0
PATIENCE_S = 300.0
"""A run in which nothing changes for so long is given up; what a slow machine needs for its slowest step, the first
import of Airflow, is a fraction of that."""
TELL_AFTER_S = 20.0
"""What is waited for is reported after so long without news, where there is no live table."""
LOG_READS = 20
"""How often the log of a failed try is read: it may reach the server after the state."""
SETTLED_S = 3.0
"""A pod that waits is in trouble after so long: some reasons pass by themselves."""


@dataclass(slots=True)
class Run:
    """What the watchers have seen so far; ``changed`` is when something last did."""

    begun: float = field(default_factory=time.monotonic)
    pods: dict[str, Timeline] = field(default_factory=dict)
    tasks: list[Json] = field(default_factory=list)
    dag_run: Json | None = None
    answered: bool = False
    changed: float = 0.0
    news: list[str] = field(default_factory=list)
    """Lines about failures and what holds pods up, not yet shown."""
    _troubles: dict[str, tuple[str, float]] = field(default_factory=dict)
    _told: set[object] = field(default_factory=set)

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.begun

    @property
    def silent(self) -> float:
        """Seconds since something changed."""
        return self.now - self.changed

    @property
    def over(self) -> bool:
        """Whether the DAG run has ended."""
        return self.dag_run is not None and self.dag_run["state"] in OVER

    @property
    def pods_gone(self) -> bool:
        """Whether every pod has gone."""
        return all(pod.gone is not None for pod in self.pods.values())

    def waits_for(self) -> str:
        """Say what has to happen next."""
        return waits_for(self.answered, self.dag_run, self.tasks, self.pods.values())

    def observe(self, answered: bool, dag_run: Json | None, tasks: list[Json]) -> None:
        """Take in what Airflow answers."""
        before, after = (
            (known, (run or {}).get("state"), [(task["state"], task.get("try_number")) for task in listed])
            for known, run, listed in (
                (self.answered, self.dag_run, self.tasks),
                (answered, dag_run, tasks),
            )
        )
        if before != after:
            self.changed = self.now
        self.answered, self.dag_run, self.tasks = answered, dag_run, tasks

    def observe_pod(self, kind: str, pod: Manifest, events: list[Manifest]) -> None:
        """Take in an event of the watch."""
        before, self.pods = self.pods, advance(self.pods, kind, pod, self.now)
        self.changed = self.now if self.pods != before else self.changed
        self.weigh(kind, pod, events)

    def weigh(self, kind: str, pod: Manifest, events: list[Manifest]) -> None:
        """Note what holds the pod up, or that nothing does."""
        uid = pod["metadata"]["uid"]
        trouble = "" if kind == "DELETED" or uid not in self.pods else pod_trouble(pod, events)
        if not trouble:
            self._troubles.pop(uid, None)
        elif self._troubles.get(uid, ("", 0.0))[0] != trouble:
            self._troubles[uid] = (trouble, self.now)

    def knows(self, key: object) -> bool:
        """Whether that was shown already."""
        return key in self._told

    def tell(self, key: object, line: str) -> None:
        """Have a line shown, once."""
        if key not in self._told:
            self._told.add(key)
            self.news.append(line)

    def take_news(self) -> list[str]:
        """Return the lines not yet shown, those about pods that are still in trouble among them."""
        for uid, (trouble, since) in self._troubles.items():
            pod = self.pods[uid]
            # Base's own failure is the task's, whose log says more; that line follows.
            own = pod.base_done is not None and pod.exit_code not in (None, 128)
            if not own and (pod.finished or self.now - since >= SETTLED_S):
                self.tell((uid, trouble), screen.told(self.now, pod.task, pod.attempt, trouble))
        taken, self.news = self.news, []
        return taken


@dataclass(frozen=True, slots=True)
class Limits:
    """When to give up. Seconds."""

    whole: float | None
    stall: float


async def follow(
    limits: Limits, console: Console, client: Client, namespace: str, airflow: Airflow, api: AirflowApi, run: Run
) -> Stall | None:
    """Watch and show until the run is over; what fails a watcher ends the demo. Return the stall, if it is one."""
    try:
        async with asyncio.TaskGroup() as group:
            watchers = [
                group.create_task(watch_pods(client, namespace, run)),
                group.create_task(_watch_tasks(airflow, api, run)),
            ]
            try:
                return await _show(limits, console, run)
            finally:
                for watcher in watchers:
                    watcher.cancel()
    except BaseExceptionGroup as problems:
        raise problems.exceptions[0] from None


async def watch_pods(client: Client, namespace: str, run: Run) -> None:
    """Follow every pod of the namespace and the warnings about it; a closed watch is opened again where it ended."""
    pods: dict[str, Manifest] = {}
    warnings: dict[str, list[Manifest]] = defaultdict(list)

    async def follow_pods() -> None:
        position = (await client.list(PODS, namespace=namespace)).version
        while True:
            async for event in client.watch(PODS, namespace=namespace, version=position, timeout=300):
                pod = event["object"]
                position = pod["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    name = pod["metadata"]["name"]
                    pods[name] = pod
                    run.observe_pod(event["type"], pod, warnings[name])
                    if event["type"] == "DELETED":
                        del pods[name]

    async def follow_events() -> None:
        position = (await client.list(EVENTS, namespace=namespace)).version
        while True:
            async for event in client.watch(EVENTS, namespace=namespace, version=position, timeout=300):
                said = event["object"]
                position = said["metadata"]["resourceVersion"]
                name = (said.get("involvedObject") or {}).get("name", "")
                if event["type"] in ("ADDED", "MODIFIED") and said.get("type") == "Warning":
                    warnings[name].append(said)
                    if name in pods:
                        run.weigh("MODIFIED", pods[name], warnings[name])

    async with asyncio.TaskGroup() as group:
        group.create_task(follow_pods())
        group.create_task(follow_events())


async def _watch_tasks(airflow: Airflow, api: AirflowApi, run: Run) -> None:
    """Ask Airflow for the state of the DAG, twice a second; and, of a try that failed, why."""
    asked: dict[Attempt, int] = defaultdict(int)
    while True:
        airflow.check()
        if errors := await api.import_errors():
            raise CrosswindError(f"the DAG file cannot be parsed:\n{errors[0]}")
        dag_run, tasks = await api.dag_run(), await api.task_instances()
        run.observe(api.answered, dag_run, tasks)
        for attempt in troubled_attempts(tasks) if dag_run else ():
            asked[attempt] += 1
            await _tell_failure(api, run, attempt, last=asked[attempt] == LOG_READS)
        await asyncio.sleep(POLL_S)


async def _tell_failure(api: AirflowApi, run: Run, attempt: Attempt, *, last: bool) -> None:
    if run.dag_run is None or run.knows(attempt):
        return
    log = await api.log(run.dag_run["dag_run_id"], attempt.task, attempt.map_index, attempt.number)
    error = last_error(log) or ("failed; its log holds no error" if last and attempt.failed else "")
    if error:
        run.tell(attempt, screen.told(run.now, attempt.label, str(attempt.number), error))


@contextlib.contextmanager
def _live(console: Console) -> Iterator[Live | None]:
    if not console.is_terminal:
        yield None
        return
    with Live(console=console, auto_refresh=False, transient=False) as live:
        yield live


async def _show(limits: Limits, console: Console, run: Run) -> Stall | None:
    """Show the run until it is over or stands still; return the stall, if it is one."""
    lines = screen.PlainLines()
    told = 0.0
    with _live(console) as live:
        while limits.whole is None or run.now < limits.whole:
            _print(console, run.take_news())
            if live is not None:
                live.update(_frame(console, run), refresh=True)
            else:
                _print(console, lines.news(run.pods.values(), run.now))
                if run.silent > TELL_AFTER_S and run.now - told > TELL_AFTER_S and (waits := run.waits_for()):
                    told = run.now
                    _print(console, [f"{run.now:6.1f} s  waits for {waits}"])
            if run.over and (run.pods_gone or run.silent > PODS_GONE_S):
                if live is not None:
                    live.vertical_overflow = "visible"
                    live.update(_frame(console, run, whole=True), refresh=True)
                return None
            if run.silent > limits.stall and (stall := find_stall(run.tasks, run.pods.values(), run.silent)):
                return stall
            if run.silent > PATIENCE_S:
                break
            await asyncio.sleep(0.25)
    raise CrosswindError(_gave_up(run))


def _print(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _frame(console: Console, run: Run, *, whole: bool = False) -> RenderableType:
    rows = None if whole else max(4, console.height - screen.OTHER_LINES)
    return screen.pod_table(run.pods.values(), run.tasks, run.now, run.waits_for(), console.width, rows)


def _gave_up(run: Run) -> str:
    states = ", ".join(f"{task['task_id']} {task['state'] or 'waiting'}" for task in run.tasks) or "none yet"
    return (
        f"the DAG was not finished after {run.now:.0f} s, and nothing has changed for {run.silent:.0f} s. "
        f"It waits for {run.waits_for() or 'nothing'}. Its tasks: {states}"
    )

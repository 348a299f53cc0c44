"""``crosswind top``: one live screen of the fleet of pods.

``_Top.run`` owns all tasks: an informer for the pods of tasks, one for warm pods, and one for the open page or the
deletion. They end with it, and the terminal is restored.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from crosswind.cli.airflow_tasks import AirflowServer, airflow_options, choose_airflow
from crosswind.cli.cluster_options import ClusterChoice, choose_cluster, cluster_options
from crosswind.cli.interrupts import run_until_interrupted
from crosswind.cli.pod_options import filter_options, pod_filter
from crosswind.errors import ApiError, CrosswindError
from crosswind.pods.pod_filter import PodFilter
from crosswind.pods.pod_summary import PodSummary

if TYPE_CHECKING:
    from crosswind.cli.text_table import Line
    from crosswind.cli.top_frame import Frame
    from crosswind.cli.top_view import Action
    from crosswind.kube.client import Client

__all__ = ["top"]

_AGES_S = 1.0
_MAX_LOG_LINES = 10_000
_FIRST_LOG_LINES = 1_000


@click.command()
@filter_options
@click.option(
    "--once", is_flag=True, help="Print the screen once, without keys; the default where there is no terminal."
)
@airflow_options
@cluster_options
@click.pass_context
def top(ctx: click.Context, /, once: bool, airflow_url: str | None, **options: Any) -> None:
    """Show the pods of Airflow tasks live, with keys to filter, sort, describe, read logs and delete.

    ? shows the keys, which are those of k9s; q quits. The server sends changes; nothing is polled.
    """
    choice, selection = choose_cluster(options), pod_filter(options)
    if once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        asyncio.run(_print_once(choice, selection))
        return
    done = run_until_interrupted(_show(choice, selection, choose_airflow(airflow_url)))
    ctx.exit(130 if done is None else 0)


async def _print_once(choice: ClusterChoice, selection: PodFilter) -> None:
    from crosswind.cli.pod_list import print_styled, table_width
    from crosswind.cli.pod_reading import check_namespace, count_warm_pods, read_pods
    from crosswind.cli.pod_table import pod_lines, sorted_pods
    from crosswind.cli.top_frame import Frame, fleet_lines
    from crosswind.kube.client import Client

    async with await Client.connect(choice.settings) as client:
        pods = sorted_pods(await read_pods(client, choice.namespace, selection), "state")
        if not pods:
            await check_namespace(client, choice)
        warm = await count_warm_pods(client, choice.namespace)
    now, width, namespaces = time.time(), table_width(), choice.namespace is None
    frame = Frame(choice.context, choice.title, namespaces, width or 100, 0, now, warm)
    lines = [line for line in fleet_lines(frame, pods)[:3] if line]
    print_styled([*lines, [], *pod_lines(pods, now, width, namespaces=namespaces)] if pods else lines)


async def _show(choice: ClusterChoice, selection: PodFilter, airflow: AirflowServer | None) -> bool:
    from crosswind.cli.live_pods import check_access
    from crosswind.kube.client import Client

    # A line of a log in the middle of the screen would stay there; trouble has a line of its own.
    logging.getLogger("crosswind").addHandler(logging.NullHandler())
    logging.getLogger("crosswind").propagate = False
    async with await Client.connect(choice.settings) as client:
        await check_access(client, choice, selection)
        await _Top(client, choice, selection, airflow).run()
    return True


class _Top:
    """The screen, its state, and the tasks behind it."""

    def __init__(
        self, client: Client, choice: ClusterChoice, selection: PodFilter, airflow: AirflowServer | None
    ) -> None:
        from crosswind.cli.top_view import View

        self._client, self._choice, self._selection, self._airflow = client, choice, selection, airflow
        self._first_namespace = choice.namespace
        self._view = View()
        self._page: deque[Line] = deque(maxlen=_MAX_LOG_LINES)
        self._work: asyncio.Task[None] | None = None
        """Fills the open page."""
        self._requests: set[asyncio.Task[None]] = set()
        """Deletions and the like, which go on when a page opens."""
        self._followers: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._pressed: deque[str] = deque()
        self._width = 80

    async def run(self) -> None:
        """Show the screen until the user quits."""
        from crosswind.cli.terminal import Terminal

        with Terminal(self._press, self._wake.set) as terminal:
            self._follow(self._choice)
            try:
                await self._loop(terminal)
            finally:
                self._close_page()
                tasks = [*self._followers, *self._requests]
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    def _follow(self, choice: ClusterChoice) -> None:
        """Follow the pods of a choice in place of those that were followed before."""
        from crosswind.cli.live_pods import LivePods
        from crosswind.cli.pod_reading import WARM_PODS

        for task in self._followers:
            task.cancel()
        self._choice = choice
        self._live = LivePods(self._client, choice.namespace, self._selection)
        self._warm = LivePods(self._client, choice.namespace, PodFilter(), labels=WARM_PODS)
        self._followers = [asyncio.create_task(live.run(self._changed)) for live in (self._live, self._warm)]

    async def _loop(self, terminal: Any) -> None:
        from crosswind.cli.live_pods import MIN_REDRAW_INTERVAL_S

        while True:
            self._wake.clear()
            if self._handle_keys(terminal.size):
                return
            terminal.draw(self._lines(terminal.size))
            for task in self._followers:
                if task.done():
                    task.result()  # an informer never ends by itself, unless by a bug: show it
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _AGES_S)
            if not self._pressed:  # changes are drawn a few times a second, keys at once
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._key_comes(), MIN_REDRAW_INTERVAL_S)

    async def _key_comes(self) -> None:
        while not self._pressed:
            self._wake.clear()
            await self._wake.wait()

    def _changed(self, *_: object) -> None:
        self._wake.set()

    def _press(self, key: str) -> None:
        self._pressed.append(key)
        self._wake.set()

    # --- keys ---------------------------------------------------------------------------------------------------------

    def _handle_keys(self, size: tuple[int, int]) -> bool:
        """Handle the keys that were pressed; return whether the user quits."""
        from crosswind.cli.top_frame import list_rows, page_rows
        from crosswind.cli.top_view import Action, press, selected_pod, visible_pods

        while self._pressed:
            key = self._pressed.popleft()
            pods = visible_pods(self._live.pods.values(), self._view)
            rows = page_rows(size[1]) if self._view.page else list_rows(size[1])
            before, lines = self._view, len(self._shown_page(size[0]))
            self._view, action = press(before, key, pods, rows, lines)
            if action is Action.QUIT:
                return True
            self._act(action, selected_pod(pods, self._view)[1])
        return False

    def _act(self, action: Action, pod: PodSummary | None) -> None:
        from crosswind.cli.top_view import Action

        if action is Action.CLOSE_PAGE:
            self._close_page()
        elif action is Action.DELETE:
            pods_to_delete = [pod for uid in self._view.confirming if (pod := self._live.pods.get(uid))]
            self._view = replace(self._view, confirming=frozenset(), marked=frozenset())
            self._begin(functools.partial(self._delete, pods_to_delete))
        elif action is Action.NAMESPACES:
            self._begin(self._switch_namespaces)
        elif action is not Action.NONE and pod is not None:
            self._open(action, pod)

    def _open(self, action: Action, pod: PodSummary) -> None:
        from crosswind.cli.top_view import Action, Page

        titles = {
            Action.DESCRIBE: "",
            Action.YAML: "manifest",
            Action.LOGS: "log",
            Action.PREVIOUS_LOGS: "previous log",
        }
        is_log = action in (Action.LOGS, Action.PREVIOUS_LOGS)
        self._page.clear()
        title = f"{titles[action]} {pod.namespace}/{pod.name}".strip()
        self._view = replace(self._view, page=Page(title, at_end=is_log))
        if self._work is not None:
            self._work.cancel()
        self._work = asyncio.create_task(self._guarded(functools.partial(self._fill, action, pod)))

    def _close_page(self) -> None:
        if self._work is not None:
            self._work.cancel()
        self._work = None
        self._page.clear()

    def _begin(self, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(self._guarded(work))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Show an error of the cluster as a message: the screen goes on."""
        from crosswind.cli.text_table import clean

        try:
            await work()
        except CrosswindError as error:
            text = error.message if isinstance(error, ApiError) else str(error)
            self._view = replace(self._view, message=clean(text))
        self._wake.set()

    # --- what pages show ----------------------------------------------------------------------------------------------

    async def _fill(self, action: Action, pod: PodSummary) -> None:
        from crosswind.cli.top_view import Action
        from crosswind.kube.resources import PODS

        manifest = await self._client.get(PODS, pod.name, namespace=pod.namespace)
        if action is Action.DESCRIBE:
            await self._describe(manifest)
        elif action is Action.YAML:
            from crosswind.cli.pod_table import document

            manifest["metadata"].pop("managedFields", None)
            self._add(document(manifest, "yaml"))
        else:
            await self._log(manifest, previous=action is Action.PREVIOUS_LOGS)

    async def _describe(self, manifest: dict[str, Any]) -> None:
        from crosswind.cli.pod_describe import describe_in_cluster
        from crosswind.cli.pod_description import description_lines

        described = await describe_in_cluster(self._client, manifest, self._airflow)
        self._page.extend(description_lines(described, time.time(), self._width))

    async def _log(self, manifest: dict[str, Any], *, previous: bool) -> None:
        from crosswind.cli.container_logs import container_log, followed_log
        from crosswind.kube.watch import LineSplitter
        from crosswind.pods.causes import why
        from crosswind.pods.pod_summary import base_container, summarise

        container, lines = base_container(manifest), LineSplitter()
        if summarise(manifest).state == "pending":
            self._add(f"({container} has not started yet. {why(manifest, base=container)})")
            self._wake.set()
        if previous:
            chunks = container_log(self._client, manifest, container, tail=_FIRST_LOG_LINES, previous=True)
        else:
            chunks = followed_log(self._client, manifest, container, tail=_FIRST_LOG_LINES)
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                self._add(*(line.decode(errors="replace") for line in lines.feed(chunk)))
                self._wake.set()
        self._add(lines.rest().decode(errors="replace"))
        self._view = replace(self._view, message=f"{container} has ended; end of the log")

    def _add(self, *texts: str) -> None:
        from crosswind.cli.text_table import clean

        for text in texts:
            self._page.extend([(clean(line), "")] for line in text.splitlines())

    async def _delete(self, pods: Sequence[PodSummary]) -> None:
        from crosswind.cli.pod_delete import delete_pod, refusal

        done = 0
        for pod in pods:
            if problem := refusal(pod):
                self._view = replace(self._view, message=f"{pod.name} was not deleted: {problem}")
                continue
            outcome = await delete_pod(self._client, pod)
            done += 1
            message = f"{pod.name} {outcome}" if len(pods) == 1 else f"{done} of {len(pods)} pods deleted"
            self._view = replace(self._view, message=message)
            self._wake.set()

    async def _switch_namespaces(self) -> None:
        """Show all namespaces, or the first choice again."""
        from crosswind.cli.live_pods import check_access

        if self._first_namespace is None:
            self._view = replace(self._view, message="all namespaces are shown; restart with --namespace to show one")
            return
        namespace = self._first_namespace if self._choice.namespace is None else None
        choice = replace(self._choice, namespace=namespace)
        await check_access(self._client, choice, self._selection)  # else the screen would stay empty
        self._follow(choice)

    # --- the screen ---------------------------------------------------------------------------------------------------

    def _lines(self, size: tuple[int, int]) -> list[Line]:
        from crosswind.cli.top_frame import frame_lines
        from crosswind.cli.top_view import visible_pods

        self._width = size[0]
        everything = list(self._live.pods.values())
        rows = visible_pods(everything, self._view)
        return frame_lines(self._frame(size), self._view, everything, rows, self._shown_page(size[0]))

    def _shown_page(self, width: int) -> list[Line]:
        from crosswind.cli.top_frame import shown_lines

        return shown_lines(self._view.page, self._page, width) if self._view.page else []

    def _frame(self, size: tuple[int, int]) -> Frame:
        from crosswind.cli.top_frame import Frame

        width, height = size
        trouble = self._live.trouble
        return Frame(
            context=self._choice.context,
            place=self._choice.title,
            namespaces=self._choice.namespace is None,
            width=width,
            height=height,
            now=time.time(),
            warm=len(self._warm.pods),
            trouble=str(trouble) if trouble else "",
            listed=self._live.listed.is_set(),
        )

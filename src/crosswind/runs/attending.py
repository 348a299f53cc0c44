"""One pod's life from its creation until its base container is over, told as it happens: states, log lines, events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from crosswind.errors import BadRequest, CrosswindError, Forbidden, Gone, NotFound, PodTimeout
from crosswind.kube.client import Client
from crosswind.kube.loglines import LogCursor, LogLine
from crosswind.kube.requests import LogOptions
from crosswind.kube.resources import EVENTS, PODS
from crosswind.kube.retry import is_transient, pause_after
from crosswind.pods.authors import OPERATOR
from crosswind.pods.causes import why
from crosswind.pods.states import ContainerReport, Kind, State, containers, mapping, mappings
from crosswind.pods.verdicts import Stage, Verdict, judge
from crosswind.types import Manifest

__all__ = ["FATAL", "Line", "News", "Seen", "Told", "Wanted", "attend", "events_of", "pod_states"]

log = logging.getLogger(__name__)

FATAL = frozenset({"ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"})
"""Reasons of a waiting container that fail the task at once; a missing Secret, say, may still come in time."""

_WATCH_S = 300.0
_POLL_S = 2.0
_PATIENCE_S = 900.0
"""How long the API server may be out of reach, while the pod goes on; an upgrade of a control plane takes minutes."""
_FLUSH_S = 30.0
"""How long the last lines of the logs are waited for."""
_AGAIN_S = 0.2
_BACKOFF_POLL_S = 30.0
"""How long the log of a container that does not run is left alone, should its start not be seen."""

Names: TypeAlias = Literal[True] | Collection[str]
"""Names of containers; True is all of them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be told, and how long a start may take. Times in seconds."""

    base: str = "base"
    logs: Names = ()
    """Ordinary containers, and native sidecars by name, whose lines are told."""
    init_logs: Names = ()
    schedule_timeout: float = 120.0
    startup_timeout: float = 120.0
    """From the pod's scheduling until it left the phase Pending."""
    events_every: float | None = None
    """Tell the pod's events while it starts, this often; None for not at all."""
    seen: LogCursor | None = None
    """Where the reading of base's log goes on."""
    at_once: bool = False
    """Wait for nothing: tell what there is now."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log. ``stamp``: its time (RFC 3339), "" for a word of the kubelet."""

    container: str
    stamp: str
    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """A message of an event about the pod."""

    text: str


@dataclass(frozen=True, slots=True)
class Seen:
    """The pod entered another stage. ``pod``: None when it was gone before anybody looked."""

    pod: Manifest | None
    verdict: Verdict
    deleted: bool = False


News: TypeAlias = Line | Told | Seen
Hand: TypeAlias = Callable[[News], Awaitable[None]]
States: TypeAlias = AsyncGenerator[tuple[Manifest | None, bool]]
"""States of a pod, each with whether it is gone."""


async def attend(
    client: Client,
    name: str,
    namespace: str,
    wanted: Wanted,
    hand: Hand,
    states: States | None = None,
) -> None:
    """Tell a pod's news until base is over and the logs are read; the last ``Seen`` comes before the last lines.

    ``states``: where the pod's states come from; by default a watch of this pod alone (``pod_states``). Raises
    ``PodTimeout`` when the pod does not start in time, and errors of the API server that do not pass.
    """
    attendance = _Attendance(client, name, namespace, wanted, hand)
    await attendance.run(states or pod_states(client, name, namespace))


async def pod_states(client: Client, name: str, namespace: str) -> States:
    """Yield a pod's states, each with whether it is gone, until it is. Survives interruptions; needs no list.

    Without the permission to watch it asks every two seconds. A pod that is not there is (None, True).
    """
    last: Manifest | None = None
    failures, reached = 0, _now()
    while True:
        pause = 0.0
        try:
            pod = await client.get(PODS, name, namespace=namespace)
            failures, reached = 0, _now()
            if last is not None and pod["metadata"]["uid"] != last["metadata"]["uid"]:
                break
            last = pod
            yield pod, False
            async with contextlib.aclosing(_changes(client, pod)) as changes:
                async for last, deleted in changes:
                    if deleted:
                        yield last, True
                        return
                    yield last, False
        except NotFound:
            break
        except (Gone, Forbidden) as error:
            if isinstance(error, Forbidden) and failures:
                raise
            pause = _POLL_S if isinstance(error, Forbidden) else 0.0
            failures += isinstance(error, Forbidden)
        except CrosswindError as error:
            failures += 1
            if _now() - reached > _PATIENCE_S or not is_transient(error):
                raise
            pause = pause_after(failures, error)
            log.log(logging.WARNING if failures == 3 else logging.DEBUG, "Pod %s/%s: %s", namespace, name, error)
        await asyncio.sleep(pause)
    yield last, True


async def _changes(client: Client, pod: Manifest) -> AsyncGenerator[tuple[Manifest, bool]]:
    metadata = pod["metadata"]
    watch = client.watch(
        PODS,
        namespace=metadata["namespace"],
        fields=f"metadata.name={metadata['name']}",
        version=metadata["resourceVersion"],
        timeout=_WATCH_S,
    )
    async with contextlib.aclosing(watch) as events:
        async for event in events:
            if event["type"] != "BOOKMARK" and event["object"]["metadata"]["uid"] == metadata["uid"]:
                yield event["object"], event["type"] == "DELETED"


async def events_of(client: Client, pod: Manifest) -> list[Manifest]:
    """Return the events about a pod, oldest first; none when they may not be read."""
    metadata = pod["metadata"]
    try:
        found = await client.list(
            EVENTS, namespace=metadata["namespace"], fields=f"involvedObject.uid={metadata['uid']}"
        )
    except CrosswindError as error:
        log.info("The events of pod %s/%s cannot be read: %s", metadata["namespace"], metadata["name"], error)
        return []
    return sorted(found.items, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))


class _Attendance:
    def __init__(self, client: Client, name: str, namespace: str, wanted: Wanted, hand: Hand) -> None:
        self._client, self._name, self._namespace, self._wanted, self._hand = client, name, namespace, wanted, hand
        self._reports: dict[str, ContainerReport] = {}
        self._over = self._scheduled = False
        self._changed = asyncio.Event()
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._cursors: dict[str, LogCursor] = {}
        self._stage: Stage | None = None
        self._giving = asyncio.Lock()

    async def run(self, states: States) -> None:
        """Follow the pod."""
        events = asyncio.create_task(self._events()) if self._wanted.events_every else None
        try:
            await self._follow(states)
            await self._flush()
        finally:
            beside = [task for task in (events, *self._readers.values()) if task is not None]
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _follow(self, states: States) -> None:
        """Follow the states until base is over.

        A start counts as late only if the pod, looked at again, still waits as before: what we know of it may be old,
        when the API server was out of reach.
        """
        while not await self._is_seen_to_end(states):
            async with contextlib.aclosing(pod_states(self._client, self._name, self._namespace)) as again:
                pod, deleted = await anext(again)
            if not (deleted or _has_started(pod) or _is_scheduled(pod) > self._scheduled):
                raise PodTimeout(await self._late(pod))
            states = pod_states(self._client, self._name, self._namespace)

    async def _is_seen_to_end(self, states: States) -> bool:
        """Take states, the first of which starts the clock; return False when the pod's start has taken too long."""
        async with contextlib.aclosing(states):
            try:
                async with asyncio.timeout(None) as limit:
                    async for pod, deleted in states:
                        before, self._scheduled = self._scheduled, _is_scheduled(pod)
                        if _has_started(pod):
                            limit.reschedule(None)
                        elif limit.when() is None or self._scheduled > before:
                            limit.reschedule(_now() + self._start_limit())
                        if await self._see(pod, deleted) or self._wanted.at_once:
                            return True
            except TimeoutError:
                if not limit.expired():
                    raise
        return False

    async def _late(self, pod: Manifest | None) -> str:
        started, scheduled = "start within startup_timeout_seconds", "be scheduled within schedule_timeout_seconds"
        what, limit, cause = started if self._scheduled else scheduled, self._start_limit(), ""
        if pod is not None:
            cause = why(pod, await events_of(self._client, pod), base=self._wanted.base, fatal=FATAL, author=OPERATOR)
        return f"Pod {self._namespace}/{self._name} did not {what} = {limit:g}. {cause}".strip()

    def _start_limit(self) -> float:
        return self._wanted.startup_timeout if self._scheduled else self._wanted.schedule_timeout

    async def _see(self, pod: Manifest | None, deleted: bool) -> bool:
        """Take a state; return whether base is over."""
        verdict = judge(pod, self._wanted.base, fatal=FATAL, deleted=deleted, restarts=True)
        self._reports = {report.name: report for report in containers(pod, self._wanted.base)}
        self._over = verdict.over
        self._changed.set()
        self._changed.clear()
        for name in self._to_read():
            if name not in self._readers:
                base = self._wanted.seen if name == self._wanted.base else None
                self._cursors[name] = base or LogCursor()
                self._readers[name] = asyncio.create_task(self._read(name))
        if verdict.stage is not self._stage:
            self._stage = verdict.stage
            await self._hand(Seen(pod, verdict, deleted))
        return verdict.over

    def _to_read(self) -> Iterable[str]:
        """Return the containers with a log that is wanted and not read yet."""
        for report in self._reports.values():
            begun = report.state in (State.RUNNING, State.TERMINATED) or report.last is not None
            if begun and self._is_wanted(report):
                yield report.name

    def _is_wanted(self, report: ContainerReport) -> bool:
        if report.kind is Kind.NATIVE:
            return _lists(self._wanted.init_logs, report.name) or _lists(self._wanted.logs, report.name)
        names = self._wanted.init_logs if report.kind is Kind.INIT else self._wanted.logs
        return names is True or report.name in names

    async def _read(self, container: str) -> None:
        """Tell a container's lines until it has ended, each once, however often the reading breaks off."""
        cursor, failures, fruitless = self._cursors[container], 0, 0
        while True:
            ended, begun, before = self._has_ended(container), self._starts(container), (cursor.last, cursor.count)
            try:
                await self._pass_on(container, cursor, follow=True)
                failures = 0
                fruitless = fruitless + 1 if before == (cursor.last, cursor.count) else 0
            except (NotFound, Forbidden, BadRequest) as error:
                if ended or isinstance(error, Forbidden):
                    log.warning("The log of %s in pod %s cannot be read: %s", container, self._name, error)
                    return
                fruitless += 1
            except CrosswindError as error:
                failures += 1
                ended = ended and failures > 5
                log.debug("The log of %s in pod %s broke off: %s", container, self._name, error)
            if ended:
                return
            if self._has_ended(container):
                await asyncio.sleep(pause_after(failures))  # once more at once, for its last lines
            else:
                pause = max(_AGAIN_S, pause_after(max(failures, fruitless)))
                await self._until_worth_reading(container, begun, pause)

    async def _until_worth_reading(self, container: str, begun: tuple[bool, int], pause: float) -> None:
        """Wait ``pause`` seconds, or until the container has ended or started once more.

        A container that waits for its restart writes nothing; its back-off takes minutes.
        """
        if not self._starts(container)[0]:
            pause = _BACKOFF_POLL_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                while not self._has_ended(container) and begun == self._starts(container):
                    await self._changed.wait()

    def _starts(self, container: str) -> tuple[bool, int]:
        """Return whether a container runs, and how often it was started before."""
        report = self._reports.get(container)
        return (report is not None and report.state is State.RUNNING, report.restarts if report else 0)

    async def _pass_on(self, container: str, cursor: LogCursor, *, follow: bool) -> None:
        cursor.begin()
        options = LogOptions(container=container, timestamps=True, since_time=cursor.since)
        if follow:
            following = self._client.follow_log(self._name, namespace=self._namespace, **options)
            async with contextlib.aclosing(following) as chunks:
                async for chunk in chunks:
                    async with self._giving:
                        await self._give(container, cursor.feed(chunk))
        else:
            chunk = await self._client.log(self._name, namespace=self._namespace, **options)
            await self._give(container, cursor.feed(chunk))
        if self._has_ended(container):
            await self._give(container, cursor.rest())

    async def _give(self, container: str, lines: Iterable[LogLine]) -> None:
        for line in lines:
            await self._hand(Line(container, line.stamp, line.text))

    def _has_ended(self, container: str) -> bool:
        if container == self._wanted.base:
            return self._over
        report = self._reports.get(container)
        return report is None or report.state is State.TERMINATED

    async def _flush(self) -> None:
        """Wait for the last lines of what has ended; of the sidecars that still run take what is there."""
        waited = [task for name, task in self._readers.items() if self._has_ended(name)]
        if waited:
            _, late = await asyncio.wait(waited, timeout=_FLUSH_S)
            if late:
                log.warning("The last lines of the log of pod %s may be missing", self._name)
        for name, task in self._readers.items():
            if task not in waited:
                async with self._giving:  # never between taking lines and telling them
                    task.cancel()
                await asyncio.wait([task])
                with contextlib.suppress(CrosswindError):
                    await self._pass_on(name, self._cursors[name], follow=False)

    async def _events(self) -> None:
        """Tell the pod's events until base runs."""
        assert self._wanted.events_every
        told: set[str] = set()
        while self._stage not in (Stage.RUNNING, Stage.ENDED, Stage.GONE):
            await asyncio.sleep(self._wanted.events_every)
            try:
                fields = f"involvedObject.name={self._name}"
                found = await self._client.list(EVENTS, namespace=self._namespace, fields=fields)
            except CrosswindError as error:
                log.warning("The events of pod %s are not told: %s", self._name, error)
                return
            for event in found.items:
                if event["metadata"]["uid"] not in told:
                    told.add(event["metadata"]["uid"])
                    await self._hand(Told(f"{event.get('reason')}: {event.get('message')}"))


def _lists(names: Names, name: str) -> bool:
    return names is not True and name in names


def _has_started(pod: Manifest | None) -> bool:
    return mapping(mapping(pod).get("status")).get("phase") not in (None, "Pending", "Unknown")


def _is_scheduled(pod: Manifest | None) -> bool:
    conditions = mappings(mapping(mapping(pod).get("status")).get("conditions"))
    return any(one.get("type") == "PodScheduled" and one.get("status") == "True" for one in conditions)


def _now() -> float:
    return asyncio.get_running_loop().time()

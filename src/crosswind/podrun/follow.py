"""Follows one pod from its creation until its base container is over: states, log lines and events as they happen.

``follow_pod`` owns all its tasks: a reader for each container's log and, if requested, one for the events. They end
with the call; when it is cancelled they are cancelled with it. The pod itself is never changed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from crosswind.errors import BadRequest, CrosswindError, Forbidden, Gone, NotFound, PodTimeout
from crosswind.kube.client import Client
from crosswind.kube.log_lines import LogCursor, LogLine
from crosswind.kube.requests import LogSelection
from crosswind.kube.resources import EVENTS, PODS
from crosswind.kube.retry import is_transient, pause_after, retry_transient
from crosswind.pods.causes import why
from crosswind.pods.field_names import OPERATOR_FIELDS
from crosswind.pods.fields import as_events, as_pod, conditions_of, status_of
from crosswind.pods.states import ContainerKind, ContainerReport, RuntimeState, container_reports
from crosswind.pods.verdict import BaseState, Verdict, judge
from crosswind.types import Manifest, Pod, PodEvent

__all__ = [
    "OPERATOR_FATAL_REASONS",
    "ContainerLine",
    "EventMessage",
    "FollowOptions",
    "PodNews",
    "PodStates",
    "StateChange",
    "events_of",
    "follow_pod",
    "memory_of",
    "pod_states",
]

log = logging.getLogger(__name__)

OPERATOR_FATAL_REASONS = frozenset({"ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"})
"""Reasons of a waiting container that fail the task at once. A missing Secret is none: it may still be created."""

_WATCH_TIMEOUT_S = 300.0
_POLL_INTERVAL_S = 2.0
_API_PATIENCE_S = 900.0
"""Limit for an API server that is down while the pod runs on; an upgrade of a control plane takes minutes."""
_FLUSH_TIMEOUT_S = 30.0
"""Time without a new line after which the last lines of a container that has ended are given up. It covers a restart of
the kubelet or of the control plane's tunnel to the nodes (konnectivity)."""
_STALE_STREAM_S = 5.0
"""Time without a new line after which the log of a container that has ended is requested anew. A stream whose
connection died silently, as behind a load balancer, never ends, while the kubelet answers a fresh request."""
_FLUSH_PAUSE_S = 2.0
"""The longest pause between attempts to read those lines: a task's end waits for them."""
_LOG_RETRY_S = 0.2
_BACKOFF_POLL_S = 30.0
"""Pause before the log of a container that waits for its restart is read again, in case its start is not observed."""

_STATE_BYTES = 64 * 1024
"""An ordinary pod in memory. Not measured, because a pod has a handful of states, and to walk through it costs more."""

ContainerNames: TypeAlias = Literal[True] | Collection[str]
"""Names of containers; True is all of them."""


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """Selects the news to report and limits the time for the start. Times in seconds."""

    base: str = "base"
    logs: ContainerNames = ()
    """Ordinary containers, and native sidecars by name, whose lines are reported."""
    init_logs: ContainerNames = ()
    schedule_timeout: float = 120.0
    startup_timeout: float = 120.0
    """Limit from the pod's scheduling until it leaves the phase Pending."""
    events_every: float | None = None
    """Interval at which the pod's events are reported while it starts; None reports none."""
    seen: LogCursor | None = None
    """Position from which base's log is read."""
    at_once: bool = False
    """Do not wait: report only what exists now."""
    uid: str | None = None
    """Uid of the pod, where it is known: another pod that has taken the name counts as the end of this one."""


@dataclass(frozen=True, slots=True)
class ContainerLine:
    """One line of a log. ``stamp``: its time (RFC 3339), "" for a line of the kubelet's own."""

    container: str
    stamp: str
    text: str


@dataclass(frozen=True, slots=True)
class EventMessage:
    """The reason and message of an Event about the pod."""

    text: str


@dataclass(frozen=True, slots=True)
class StateChange:
    """Base entered another state. ``pod``: None when the pod was gone before its first read."""

    pod: Pod | None
    verdict: Verdict
    deleted: bool = False


PodNews: TypeAlias = ContainerLine | EventMessage | StateChange
NewsHandler: TypeAlias = Callable[[PodNews], Awaitable[None]]
PodStates: TypeAlias = AsyncGenerator[tuple[Pod | None, bool]]
"""The states of a pod, each with whether it is gone."""


def memory_of(news: PodNews) -> int:
    """Return the bytes of memory that an item of news takes: an upper bound for a text, an estimate for a state."""
    if isinstance(news, StateChange):
        return _STATE_BYTES
    # Four bytes a character are Python's widest form of a text. sys.getsizeof is exact, but costs as much again as the
    # line's way through the buffer.
    return len(news.text) if news.text.isascii() else 4 * len(news.text)


async def follow_pod(
    client: Client,
    name: str,
    namespace: str,
    options: FollowOptions,
    handler: NewsHandler,
    states: PodStates | None = None,
) -> None:
    """Pass a pod's news to ``handler`` until base is over and the logs are read.

    The last ``StateChange`` precedes the last lines. ``states``: the source of the pod's states; by default a watch of
    this pod alone (``pod_states``). Raises ``PodTimeout`` when the pod does not start in time, and errors of the API
    server that do not pass.
    """
    follower = _Follower(client, name, namespace, options, handler)
    await follower.run(states or pod_states(client, name, namespace, options.uid))


async def pod_states(client: Client, name: str, namespace: str, uid: str | None = None) -> PodStates:
    """Yield a pod's states, each with whether it is gone, until it is gone. Needs no permission to list.

    A watch that breaks is opened again. Without the permission to watch, the pod is polled every two seconds. A pod
    that does not exist is (None, True). ``uid``: of the pod that is meant; None is the first that is found.
    """
    last: Manifest | None = None
    failures, reached_at = 0, _now()
    while True:
        pause = 0.0
        try:
            pod = await client.get(PODS, name, namespace=namespace)
            failures, reached_at = 0, _now()
            uid = uid or pod["metadata"]["uid"]
            if pod["metadata"]["uid"] != uid:
                break  # another pod has taken the name: ours is gone
            last = pod
            yield as_pod(pod), False
            # aclosing: a caller that stops early closes the connection now, not when the generator is collected
            async with contextlib.aclosing(_changes(client, pod)) as changes:
                async for last, deleted in changes:
                    if deleted:
                        yield as_pod(last), True
                        return
                    yield as_pod(last), False
        except NotFound:
            break
        except (Gone, Forbidden) as error:
            # A Forbidden after a successful read is the watch's: poll. A second one in a row is the read's: nothing is
            # left to try. After Gone (410) the next read brings a version from which to watch.
            if isinstance(error, Forbidden) and failures:
                raise
            pause = _POLL_INTERVAL_S if isinstance(error, Forbidden) else 0.0
            failures += isinstance(error, Forbidden)
        except CrosswindError as error:
            failures += 1
            # The pod runs on without us, so the wait is bound by time, not by attempts.
            if _now() - reached_at > _API_PATIENCE_S or not is_transient(error):
                raise
            pause = pause_after(failures, error)
            log.log(logging.WARNING if failures == 3 else logging.DEBUG, "Pod %s/%s: %s", namespace, name, error)
        await asyncio.sleep(pause)
    yield (None if last is None else as_pod(last)), True


async def _changes(client: Client, pod: Manifest) -> AsyncGenerator[tuple[Manifest, bool]]:
    metadata = pod["metadata"]
    watch = client.watch(
        PODS,
        namespace=metadata["namespace"],
        fields=f"metadata.name={metadata['name']}",
        version=metadata["resourceVersion"],
        timeout=_WATCH_TIMEOUT_S,
    )
    async with contextlib.aclosing(watch) as events:
        async for event in events:
            if event["type"] != "BOOKMARK" and event["object"]["metadata"]["uid"] == metadata["uid"]:
                yield event["object"], event["type"] == "DELETED"


async def events_of(client: Client, pod: Pod) -> list[PodEvent]:
    """Return the events about a pod, oldest first; none when they cannot be read."""
    metadata = pod["metadata"]
    try:
        listing = await client.list(
            EVENTS, namespace=metadata["namespace"], fields=f"involvedObject.uid={metadata['uid']}"
        )
    except CrosswindError as error:
        log.info("The events of pod %s/%s cannot be read: %s", metadata["namespace"], metadata["name"], error)
        return []
    return sorted(
        as_events(listing.items), key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or "")
    )


@dataclass(slots=True)
class _LogReading:
    """How far the log of one container is read."""

    cursor: LogCursor
    lines: int = 0
    """New lines that were reported."""
    quiet_since: float = -math.inf
    """When the last new line was reported; infinite while lines are reported, for which the handler may take long."""
    error: CrosswindError | None = None
    """Why the last request failed; None when it did not."""
    _renewed: float = -math.inf
    """``quiet_since`` when the stream was renewed last: once is enough until a line comes."""

    def restart_clock(self) -> None:
        """Restart the timer of the time without a new line."""
        self.quiet_since = max(self.quiet_since, _now())

    def time_left(self) -> float:
        """Return the seconds until the rest of the log is given up, if no line comes."""
        return self.quiet_since + _FLUSH_TIMEOUT_S - _now()

    def renews_stream(self) -> bool:
        """Return whether to request the log anew, once for each time without a line."""
        if self._renewed == self.quiet_since or _now() - self.quiet_since < _STALE_STREAM_S:
            return False
        self._renewed = self.quiet_since
        return True


class _Follower:
    """Follows one pod. The reader tasks wait for ``_changed``, which is set and cleared at each state."""

    def __init__(self, client: Client, name: str, namespace: str, options: FollowOptions, handler: NewsHandler) -> None:
        self._client, self._name, self._namespace = client, name, namespace
        self._options, self._handle = options, handler
        self._reports: dict[str, ContainerReport] = {}
        self._over = self._scheduled = False
        # Set and cleared at once by the one writer, _handle_state: it wakes those that wait at that moment, like a
        # condition without a lock.
        self._changed = asyncio.Event()
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._readings: dict[str, _LogReading] = {}
        self._base_state: BaseState | None = None
        # Held while lines are fed and reported, so that _flush never cancels a reader between the two: those lines
        # would be lost or repeated.
        self._handing_over = asyncio.Lock()

    async def run(self, states: PodStates) -> None:
        """Follow the pod; every task that was started has ended on return."""
        events = asyncio.create_task(self._report_events()) if self._options.events_every else None
        try:
            # Cancellation ends here or in _flush; the finally below then ends all readers, and nothing runs on.
            await self._follow(states)
            await self._flush()
        finally:
            tasks = [task for task in (events, *self._readers.values()) if task is not None]
            for task in tasks:
                task.cancel()
            # Their errors were handled where they belong; here only their end counts.
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, states: PodStates) -> None:
        """Follow the states until base is over.

        When the time for the start is over, the pod is read once more. The start is late only if the pod still waits:
        our state may be old, because the API server was down.
        """
        while not await self._follow_to_end(states):
            async with contextlib.aclosing(self._own_states()) as again:
                pod, deleted = await anext(again)
            if not (deleted or _has_started(pod) or _is_scheduled(pod) > self._scheduled):
                raise PodTimeout(await self._timeout_message(pod))
            # The given source is used up: it was closed at the time-out.
            states = self._own_states()

    def _own_states(self) -> PodStates:
        return pod_states(self._client, self._name, self._namespace, self._options.uid)

    async def _follow_to_end(self, states: PodStates) -> bool:
        """Handle states until base is over; return False when the pod's start has taken too long.

        The first state starts the clock. The pod's scheduling starts it again, with the limit for the start.
        """
        async with contextlib.aclosing(states):
            try:
                async with asyncio.timeout(None) as limit:
                    async for pod, deleted in states:
                        before, self._scheduled = self._scheduled, _is_scheduled(pod)
                        if _has_started(pod):  # no limit from here on: the task may run for days
                            limit.reschedule(None)
                        # True > False: the pod was scheduled since the last state, and the second limit begins.
                        elif limit.when() is None or self._scheduled > before:
                            limit.reschedule(_now() + self._start_limit())
                        if await self._handle_state(pod, deleted) or self._options.at_once:
                            return True
            except TimeoutError:
                if not limit.expired():  # not our limit: an error from below
                    raise
        return False

    async def _timeout_message(self, pod: Pod | None) -> str:
        started, scheduled = "start within startup_timeout_seconds", "be scheduled within schedule_timeout_seconds"
        what, limit, cause = started if self._scheduled else scheduled, self._start_limit(), ""
        if pod is not None:
            cause = why(
                pod,
                await events_of(self._client, pod),
                base=self._options.base,
                fatal=OPERATOR_FATAL_REASONS,
                fields=OPERATOR_FIELDS,
            )
        return f"Pod {self._namespace}/{self._name} did not {what} = {limit:g}. {cause}".strip()

    def _start_limit(self) -> float:
        return self._options.startup_timeout if self._scheduled else self._options.schedule_timeout

    async def _handle_state(self, pod: Pod | None, deleted: bool) -> bool:
        """Start the readers that a state calls for and report a change; return whether base is over."""
        verdict = judge(pod, self._options.base, fatal=OPERATOR_FATAL_REASONS, deleted=deleted, restarts=True)
        self._reports = {report.name: report for report in container_reports(pod, self._options.base)}
        self._over = verdict.over
        # wakes the readers that wait now; one that waits later looks at the new reports first
        self._changed.set()
        self._changed.clear()
        for name in self._to_read():
            if name not in self._readers:
                base = self._options.seen if name == self._options.base else None
                self._readings[name] = _LogReading(base or LogCursor())
                # Started once per container and kept: a reader follows its container through restarts by itself.
                self._readers[name] = asyncio.create_task(self._read(name))
        if verdict.state is not self._base_state:
            self._base_state = verdict.state
            await self._handle(StateChange(pod, verdict, deleted))
        return verdict.over

    def _to_read(self) -> Iterable[str]:
        """Yield the containers that have started and whose log is requested."""
        for report in self._reports.values():
            started = report.state in (RuntimeState.RUNNING, RuntimeState.TERMINATED) or report.last is not None
            if started and self._is_requested(report):
                yield report.name

    def _is_requested(self, report: ContainerReport) -> bool:
        if report.kind is ContainerKind.NATIVE:
            return _lists(self._options.init_logs, report.name) or _lists(self._options.logs, report.name)
        names = self._options.init_logs if report.kind is ContainerKind.INIT else self._options.logs
        return names is True or report.name in names

    async def _read(self, container: str, ended: bool = False) -> None:
        """Report a container's lines until it has ended, each once, however often the stream breaks.

        ``failures`` counts errors in a row, ``fruitless`` reads in a row that brought no line; both lengthen the pause.
        A state that says that the container has ended counts only if it was known before the read began: the read then
        saw the last line. ``ended``: whether it was known before this call.
        """
        reading, failures, fruitless = self._readings[container], 0, 0
        while True:
            if self._has_ended(container) and not ended:
                reading.restart_clock()  # the container may have been silent for hours before its end
            # All three before the read: what changes during it calls for one more.
            ended, starts, before = self._has_ended(container), self._starts(container), reading.lines
            try:
                await self._read_once(container, reading, follow=True)
                failures, reading.error = 0, None
                # A kubelet ends the stream of a container that waits for its restart at once, without an error.
                fruitless = fruitless + 1 if before == reading.lines else 0
                if ended:
                    return
            except CrosswindError as error:
                reading.error = error
                log.debug("The log of %s in pod %s broke off: %s", container, self._name, error)
                if self._is_final(error, reading, ended):
                    self._warn_of_missing_lines(container)
                    return
                # 400: the container waits to start. 404: the pod is gone. The next state decides whether to go on.
                is_refused = isinstance(error, NotFound | BadRequest)
                fruitless += is_refused
                failures = (failures if before == reading.lines else 0) + (not is_refused)
            if self._has_ended(container):
                await asyncio.sleep(pause_after(failures, ceiling=_FLUSH_PAUSE_S))  # one more read, for the last lines
            else:
                pause = max(_LOG_RETRY_S, pause_after(max(failures, fruitless)))
                await self._until_worth_reading(container, starts, pause)

    async def _until_worth_reading(self, container: str, starts: tuple[bool, int], pause: float) -> None:
        """Wait ``pause`` seconds, or until the container has ended or started again.

        A container that waits for its restart writes nothing, and its back-off takes up to five minutes: without this
        the reader would poll the API server all that time.
        """
        # CrashLoopBackOff: the event below ends the pause as soon as the watch reports the restart.
        if not self._starts(container)[0]:
            pause = _BACKOFF_POLL_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                while not self._has_ended(container) and starts == self._starts(container):
                    await self._changed.wait()

    def _starts(self, container: str) -> tuple[bool, int]:
        """Return whether a container runs, and how often it was restarted."""
        report = self._reports.get(container)
        return (report is not None and report.state is RuntimeState.RUNNING, report.restarts if report else 0)

    @staticmethod
    def _is_final(error: CrosswindError, reading: _LogReading, ended: bool) -> bool:
        """Return whether a log is not read again after this error. ``ended``: the container had ended before the read.

        A node or the tunnel to it may be away for a moment. A log that is gone (404) stays gone.
        """
        if isinstance(error, Forbidden):
            return True
        return ended and (not is_transient(error) or reading.time_left() <= 0)

    def _warn_of_missing_lines(self, container: str) -> None:
        error = self._readings[container].error or f"no line came for {_FLUSH_TIMEOUT_S:g} s"
        log.warning("The log of %s in pod %s cannot be read to its end: %s", container, self._name, error)

    async def _read_once(self, container: str, reading: _LogReading, *, follow: bool) -> None:
        """Read a container's log from the cursor on and report the new lines."""
        cursor = reading.cursor
        cursor.begin()
        options = LogSelection(container=container, timestamps=True, since_time=cursor.since)
        if follow:
            stream = self._client.follow_log(self._name, namespace=self._namespace, **options)
            async with contextlib.aclosing(stream) as chunks:
                async for chunk in chunks:
                    await self._report_lines(container, reading, functools.partial(cursor.feed, chunk))
        else:
            chunk = await self._client.log(self._name, namespace=self._namespace, **options)
            await self._report_lines(container, reading, functools.partial(cursor.feed, chunk))
        if self._has_ended(container):
            # A last line without line end is complete only when nothing can follow.
            await self._report_lines(container, reading, cursor.rest)

    async def _report_lines(
        self, container: str, reading: _LogReading, take_lines: Callable[[], Iterable[LogLine]]
    ) -> None:
        before, quiet_since, reading.quiet_since = reading.lines, reading.quiet_since, math.inf
        async with self._handing_over:
            for line in take_lines():
                await self._handle(ContainerLine(container, line.stamp, line.text))
                # The kubelet's own lines have no stamp. Each attempt brings them again, so they are no progress.
                reading.lines += bool(line.stamp)
        reading.quiet_since = _now() if reading.lines > before else quiet_since

    def _has_ended(self, container: str) -> bool:
        if container == self._options.base:
            return self._over
        report = self._reports.get(container)
        return report is None or report.state is RuntimeState.TERMINATED

    async def _flush(self) -> None:
        """Wait for the last lines of containers that have ended; of sidecars that still run, read once what exists."""
        ended = [name for name in self._readers if self._has_ended(name)]
        await self._await_last_lines(ended)
        for name in self._readers:
            if name not in ended:
                await self._stop_reading(name)
                await self._read_what_exists(name)

    async def _stop_reading(self, container: str) -> None:
        task = self._readers[container]
        # under the lock the reader is not between feeding its cursor and reporting the lines
        async with self._handing_over:
            task.cancel()
        await asyncio.wait([task])

    async def _await_last_lines(self, containers: Iterable[str]) -> None:
        """Wait until the readers have ended; give up those that get no line for so long.

        A node that is lost with its pod never ends the stream. The time as a whole has no limit: a long log, or a slow
        handler, may take any.
        """
        for name in containers:
            self._readings[name].restart_clock()
        while reading := [name for name in containers if not self._readers[name].done()]:
            left = max(self._readings[name].time_left() for name in reading)
            if left <= 0:
                break
            for name in reading:
                if not self._readers[name].done() and self._readings[name].renews_stream():
                    await self._stop_reading(name)
                    self._readers[name] = asyncio.create_task(self._read(name, ended=True))
            # At most one limit at a time: while lines are reported, the time left is infinite.
            await asyncio.wait([self._readers[name] for name in reading], timeout=min(left, _STALE_STREAM_S))
        for name in reading:
            self._warn_of_missing_lines(name)
            self._readers[name].cancel()  # now, or it could fail meanwhile, and warn again

    async def _read_what_exists(self, container: str) -> None:
        reading = self._readings[container]
        try:
            await retry_transient(lambda: self._read_once(container, reading, follow=False), _FLUSH_TIMEOUT_S)
        except (NotFound, BadRequest) as error:  # deleted with its pod, or it waits for a restart
            log.debug("The log of %s in pod %s is not there: %s", container, self._name, error)
        except CrosswindError as error:
            reading.error = error
            self._warn_of_missing_lines(container)

    async def _report_events(self) -> None:
        """Report the pod's events until base runs."""
        assert self._options.events_every
        reported: set[str] = set()
        # Polled, as stock does: a watch of Events would need one more connection for each pod that starts.
        while self._base_state not in (BaseState.RUNNING, BaseState.TERMINATED, BaseState.GONE):
            await asyncio.sleep(self._options.events_every)
            try:
                fields = f"involvedObject.name={self._name}"
                listing = await self._client.list(EVENTS, namespace=self._namespace, fields=fields)
            except CrosswindError as error:
                log.warning("The events of pod %s cannot be read: %s", self._name, error)
                return
            for event in listing.items:
                if event["metadata"]["uid"] not in reported:
                    reported.add(event["metadata"]["uid"])
                    await self._handle(EventMessage(f"{event.get('reason')}: {event.get('message')}"))


def _lists(names: ContainerNames, name: str) -> bool:
    return names is not True and name in names


def _has_started(pod: Pod | None) -> bool:
    return status_of(pod or {}).get("phase") not in (None, "Pending", "Unknown")


def _is_scheduled(pod: Pod | None) -> bool:
    conditions = conditions_of(pod or {})
    return any(item.get("type") == "PodScheduled" and item.get("status") == "True" for item in conditions)


def _now() -> float:
    return asyncio.get_running_loop().time()

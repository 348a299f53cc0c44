"""The lines of a container's log, each with its time, so that a reading which broke off goes on where it was.

The API server cuts ``sinceTime`` to whole seconds, so that a second reading repeats lines. The cursor recognises
them by their time stamps, of nanoseconds.

The stamps of a log are not in order: containerd stamps a container's stdout and stderr in two goroutines, which then
write one after the other, and a node's clock may be set back. So the cursor never drops a line for being older than its
neighbours, only for having been given by an earlier reading.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from crosswind.kube.watching import Lines

__all__ = ["LogCursor", "LogLine", "moment"]

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_SLACK = datetime.timedelta(seconds=1)
"""How much earlier than its last line a log is read again: neighbours change places over the end of a second, too."""
_REMEMBERED = 50_000
"""Most lines of the last seconds whose time stamps the cursor keeps; beyond that it keeps the newest time only."""

Moment = tuple[str, str]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. ``stamp``: its time as the node wrote it (RFC 3339), "" for a line that the node put in itself."""

    stamp: str
    text: str


def moment(stamp: str) -> Moment | None:
    """Return a time stamp as something to compare: the second in UTC, and the fraction; None if it is none."""
    match = _STAMP.fullmatch(stamp)
    if match is None:
        return None
    second, fraction, zone = match.groups()
    if zone != "Z":
        utc = datetime.datetime.fromisoformat(second + zone).astimezone(datetime.UTC)
        second = utc.strftime("%Y-%m-%dT%H:%M:%S")
    return second, (fraction or "").ljust(9, "0")


class LogCursor:
    """Where the reading of one container's log stands. ``begin`` each reading, ``feed`` it, and ``rest`` at its end.

    ``last`` and ``count`` of another cursor make one that goes on where that one stood: it leaves out all lines at or
    before that time.
    """

    def __init__(self, last: str = "", count: int = 0) -> None:
        self.last, self.count = last, count
        """Time stamp of the newest line that was given out, and how many of that very time were."""
        self._newest = self._floor = moment(last)
        # by times: how many lines of the last seconds were given, and how many of those this reading may repeat
        self._given: dict[Moment, int] = {self._newest: count} if self._newest else {}
        self._repeated: dict[Moment, int] = {}
        self._is_full = False
        self._second, self._start = "", ""
        self._lines = Lines()
        if self._newest:
            self._go_on(self._newest)

    @property
    def since(self) -> str | None:
        """What to ask for: ``sinceTime``; None for the whole log."""
        return f"{self._start}Z" if self._start else None

    def begin(self) -> None:
        """Start a reading: what is repeated of the one before will be left out."""
        if self._is_full:
            self._is_full, self._floor = False, self._newest
        self._lines, self._repeated = Lines(), dict(self._given)

    def feed(self, chunk: bytes) -> list[LogLine]:
        """Take a chunk that ends anywhere; return the new lines that it completes."""
        return [line for raw in self._lines.feed(chunk) if (line := self._take(raw)) is not None]

    def rest(self) -> list[LogLine]:
        """Return the last line, which has no end: of a log that is over."""
        begun = self._lines.rest()
        line = self._take(begun) if begun else None
        return [] if line is None else [line]

    def _take(self, raw: bytes) -> LogLine | None:
        stamp, _, text = raw.decode(errors="backslashreplace").rstrip("\r").partition(" ")
        time = moment(stamp)
        if time is None:  # words of the kubelet, such as "unable to retrieve container logs"
            return LogLine("", f"{stamp} {text}".rstrip()) if raw else None
        if left := self._repeated.get(time):
            self._repeated[time] = left - 1
            return None
        if self._floor is not None:
            if time < self._floor:
                return None
            if time > self._floor:
                self._floor = None
        self._note(stamp, time)
        return LogLine(stamp, text)

    def _note(self, stamp: str, time: Moment) -> None:
        """Remember that a line was given."""
        if self._newest is None or time > self._newest:
            self._newest, self.last = time, stamp
        self._given[time] = self._given.get(time, 0) + 1
        self.count = self._given[self._newest]
        # after a clock was set back the line read last counts: the node leaves out what is older than asked for
        self._go_on(min(time, self._newest))
        if len(self._given) > _REMEMBERED:
            self._is_full, self._given = True, {self._newest: self.count}

    def _go_on(self, time: Moment) -> None:
        """Have the next reading begin shortly before a time, and forget what it cannot repeat."""
        if time[0] == self._second:
            return
        self._second = time[0]
        second = datetime.datetime.fromisoformat(time[0])
        self._start = (second - _SLACK).strftime("%Y-%m-%dT%H:%M:%S")
        # a neighbour that comes yet may be older by the slack, and have more read again by as much
        oldest, newest = (second - 3 * _SLACK).strftime("%Y-%m-%dT%H:%M:%S"), self._newest
        self._given = {one: count for one, count in self._given.items() if one[0] >= oldest or one == newest}

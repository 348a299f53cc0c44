"""Splits a container's log into lines with their times, and resumes a broken reading without loss or repetition.

The API server cuts ``sinceTime`` to whole seconds, so a second reading repeats lines. The cursor recognises them by
their time stamps, which have nanoseconds.

The stamps of a log are not in order: containerd stamps a container's stdout and stderr in two goroutines, which then
write one after the other, and a node's clock may be set back. So the cursor never drops a line because it is older than
its neighbours, only because an earlier reading returned it.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from crosswind.kube.watch import LineSplitter

__all__ = ["LogCursor", "LogLine", "moment"]

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_OVERLAP = datetime.timedelta(seconds=1)
"""The part before its last line that is read again: neighbours change places across the end of a second too."""
_MAX_STAMPS = 50_000
"""The most time stamps of the last seconds that the cursor keeps; beyond that it keeps the newest only."""

Moment = tuple[str, str]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. ``stamp``: its time as the node wrote it (RFC 3339), "" for a line that the node itself inserted."""

    stamp: str
    text: str


def moment(stamp: str) -> Moment | None:
    """Return a time stamp in a comparable form, the second in UTC and the fraction; None for another text."""
    match = _STAMP.fullmatch(stamp)
    if match is None:
        return None
    second, fraction, zone = match.groups()
    if zone != "Z":
        utc = datetime.datetime.fromisoformat(second + zone).astimezone(datetime.UTC)
        second = utc.strftime("%Y-%m-%dT%H:%M:%S")
    return second, (fraction or "").ljust(9, "0")


class LogCursor:
    """The position in one container's log. Call ``begin`` before each reading, ``feed`` during it, ``rest`` at its end.

    ``last`` and ``count`` of another cursor make one that continues from there: it skips all lines at or before that
    time.
    """

    def __init__(self, last: str = "", count: int = 0) -> None:
        self.last, self.count = last, count
        """Time stamp of the newest line that was returned, and the number of lines with exactly that time."""
        self._newest = self._floor = moment(last)
        # for each time of the last seconds: the lines returned, and those of them that this reading may still repeat
        self._returned: dict[Moment, int] = {self._newest: count} if self._newest else {}
        self._repeated: dict[Moment, int] = {}
        self._is_full = False
        self._second, self._start = "", ""
        self._lines = LineSplitter()
        if self._newest:
            self._resume_from(self._newest)

    @property
    def since(self) -> str | None:
        """``sinceTime`` for the next reading; None for the whole log."""
        return f"{self._start}Z" if self._start else None

    def begin(self) -> None:
        """Start a reading: lines that repeat an earlier reading are skipped."""
        if self._is_full:
            self._is_full, self._floor = False, self._newest
        self._lines, self._repeated = LineSplitter(), dict(self._returned)

    def feed(self, chunk: bytes) -> list[LogLine]:
        """Return the new lines that a chunk completes; it may end anywhere."""
        return [line for raw in self._lines.feed(chunk) if (line := self._parse(raw)) is not None]

    def rest(self) -> list[LogLine]:
        """Return the last line of a log that is over, which has no line end."""
        unfinished = self._lines.rest()
        line = self._parse(unfinished) if unfinished else None
        return [] if line is None else [line]

    def _parse(self, raw: bytes) -> LogLine | None:
        stamp, _, text = raw.decode(errors="backslashreplace").rstrip("\r").partition(" ")
        time = moment(stamp)
        if time is None:  # a line of the kubelet's, such as "unable to retrieve container logs"
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
        """Record that a line was returned."""
        if self._newest is None or time > self._newest:
            self._newest, self.last = time, stamp
        self._returned[time] = self._returned.get(time, 0) + 1
        self.count = self._returned[self._newest]
        # After a clock was set back, the line read last counts: the node skips lines older than sinceTime.
        self._resume_from(min(time, self._newest))
        if len(self._returned) > _MAX_STAMPS:
            self._is_full, self._returned = True, {self._newest: self.count}

    def _resume_from(self, time: Moment) -> None:
        """Make the next reading start shortly before a time, and forget the stamps that it cannot repeat."""
        if time[0] == self._second:
            return
        self._second = time[0]
        second = datetime.datetime.fromisoformat(time[0])
        self._start = (second - _OVERLAP).strftime("%Y-%m-%dT%H:%M:%S")
        # a neighbour that is still to come may be older by the overlap, and then moves the start back by as much
        oldest, newest = (second - 3 * _OVERLAP).strftime("%Y-%m-%dT%H:%M:%S"), self._newest
        self._returned = {
            stamp: count for stamp, count in self._returned.items() if stamp[0] >= oldest or stamp == newest
        }

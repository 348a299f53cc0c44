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

__all__ = ["MAX_LINE_BYTES", "LogCursor", "LogLine", "moment"]

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_OVERLAP = datetime.timedelta(seconds=1)
"""The part before its last line that is read again: neighbours change places across the end of a second too."""
_MAX_STAMPS = 50_000
"""The most time stamps of the last seconds that the cursor keeps; beyond that it keeps the newest only."""

MAX_LINE_BYTES = 1024 * 1024
"""Bytes from which a line is returned in parts. A progress bar, or a binary file on standard output, is one line of any
length, and a triggerer reads the logs of a thousand pods."""

Moment = tuple[str, str]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line, or a part of a long one.

    ``stamp``: its time as the node wrote it (RFC 3339), "" for a line that the node itself inserted.
    """

    stamp: str
    text: str


@dataclass(slots=True)
class _Line:
    stamp: str
    time: Moment | None
    is_new: bool = True
    size: int = 0
    """Bytes of its text that this reading has had."""


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
    time. ``longest_line``: bytes from which a line is returned in parts, each with the line's stamp; None: never.
    """

    def __init__(self, last: str = "", count: int = 0, *, longest_line: int | None = MAX_LINE_BYTES) -> None:
        self.last, self.count = last, count
        """Time stamp of the newest line that was returned, and the number of lines with exactly that time."""
        self._newest = self._floor = moment(last)
        # for each time of the last seconds: the lines returned, and those of them that this reading may still repeat
        self._returned: dict[Moment, int] = {self._newest: count} if self._newest else {}
        self._repeated: dict[Moment, int] = {}
        self._is_full = False
        self._second, self._start = "", ""
        self._lines = LineSplitter()
        self._longest_line = longest_line
        self._long: _Line | None = None
        """The line of which this reading has had the first part, but not the last."""
        self._cut: Moment | None = None
        self._cut_bytes = 0
        """The line of which parts were returned, and their bytes: the next reading may repeat them."""
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
        self._lines, self._repeated, self._long = LineSplitter(), dict(self._returned), None

    def feed(self, chunk: bytes) -> list[LogLine]:
        """Return the new lines that a chunk completes, and new parts of a long one; it may end anywhere."""
        lines = [self._parse(raw, ends=True) for raw in self._lines.feed(chunk)]
        if self._longest_line is not None and self._lines.size >= self._longest_line:
            lines.append(self._parse(self._take_part(), ends=False))
        return [line for line in lines if line is not None]

    def rest(self) -> list[LogLine]:
        """Return the last line of a log that is over, which has no line end."""
        unfinished = self._lines.rest()
        line = self._parse(unfinished, ends=True) if unfinished else None
        return [] if line is None else [line]

    def _take_part(self) -> bytes:
        """Return the unfinished line as far as it has come, but for its last character.

        That may not be whole yet; and without it, the line's end would come as an empty line, which is none.
        """
        part = self._lines.rest()
        end = len(part) - 1
        while end > len(part) - 4 and part[end] & 0xC0 == 0x80:  # UTF-8's second to fourth byte
            end -= 1
        self._lines.feed(part[end:])
        return part[:end]

    def _parse(self, raw: bytes, *, ends: bool) -> LogLine | None:
        """Return a line, or the next part of a long one, without what an earlier reading returned."""
        if self._long is not None:
            line, text = self._long, raw
        else:
            begin, _, text = raw.partition(b" ")
            stamp = _decode(begin)
            line = _Line(stamp, moment(stamp))
            if line.time is None:  # a line of the kubelet's, such as "unable to retrieve container logs"
                return LogLine("", _decode(raw).rstrip()) if raw else None
            line.is_new = self._is_new(line.time)
        self._long = None if ends else line
        if not line.is_new or line.time is None:
            return None
        had, line.size = line.size, line.size + len(text)
        if line.time == self._cut:
            text = text[max(0, self._cut_bytes - had) :]
        if ends:
            self._cut = None if line.time == self._cut else self._cut
            self._note(line.stamp, line.time)
        else:
            self._cut_bytes = max(line.size, self._cut_bytes if line.time == self._cut else 0)
            self._cut = line.time
        is_part = line.size > len(text)
        return LogLine(line.stamp, _decode(text)) if text or not is_part else None

    def _is_new(self, time: Moment) -> bool:
        """Return whether no earlier reading returned the line that has this time."""
        if left := self._repeated.get(time):
            self._repeated[time] = left - 1
            return False
        if self._floor is not None:
            if time < self._floor:
                return False
            if time > self._floor:
                self._floor = None
        return True

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


def _decode(text: bytes) -> str:
    return text.decode(errors="backslashreplace").rstrip("\r")

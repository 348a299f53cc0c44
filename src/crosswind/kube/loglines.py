"""The lines of a container's log, each with its time, so that a reading which broke off goes on where it was.

The API server cuts ``sinceTime`` to whole seconds, so that a second reading repeats lines. They are told by their own
time stamps, of nanoseconds; lines of the same nanosecond are counted.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

__all__ = ["LogCursor", "LogLine", "moment"]

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. ``stamp``: its time as the node wrote it (RFC 3339), "" for a line that the node put in itself."""

    stamp: str
    text: str


def moment(stamp: str) -> tuple[str, str] | None:
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
    """Where the reading of one container's log stands. ``begin`` each reading, ``feed`` it, and ``rest`` at its end."""

    def __init__(self, last: str = "", count: int = 0) -> None:
        self.last, self.count = last, count
        """Time stamp of the newest line that was given out, and how many of that very time were."""
        self._begun = b""
        self._skip = 0

    @property
    def since(self) -> str | None:
        """What to ask for: ``sinceTime``; None for the whole log."""
        found = moment(self.last)
        return f"{found[0]}Z" if found else None

    def begin(self) -> None:
        """Start a reading: what is repeated of the one before will be left out."""
        self._begun, self._skip = b"", self.count

    def feed(self, chunk: bytes) -> list[LogLine]:
        """Take a chunk that ends anywhere; return the new lines that it completes."""
        *lines, self._begun = (self._begun + chunk).split(b"\n")
        return [line for raw in lines if (line := self._take(raw)) is not None]

    def rest(self) -> list[LogLine]:
        """Return the last line, which has no end: of a log that is over."""
        begun, self._begun = self._begun, b""
        line = self._take(begun) if begun else None
        return [] if line is None else [line]

    def _take(self, raw: bytes) -> LogLine | None:
        stamp, _, text = raw.decode(errors="backslashreplace").rstrip("\r").partition(" ")
        time = moment(stamp)
        if time is None:  # words of the kubelet, such as "unable to retrieve container logs"
            return LogLine("", f"{stamp} {text}".rstrip()) if raw else None
        before = moment(self.last)
        if before is not None and time < before:
            return None
        if time == before and self._skip:
            self._skip -= 1
            return None
        self.count = self.count + 1 if time == before else 1
        self.last = stamp
        return LogLine(stamp, text)

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crosswind.kube.loglines import LogCursor, moment

STAMPS = st.integers(0, 30).map(lambda tenths: f"2026-01-01T00:00:{tenths // 10:02}.{tenths % 10}00000000Z")


def read(cursor: LogCursor, log: bytes, sizes: list[int], stop: int) -> list[str]:
    """Read as the API server gives it: from the whole second asked for on, in chunks, broken off after ``stop``."""
    if cursor.since:
        rows = [row for row in log.split(b"\n") if row[:19] >= cursor.since.encode()[:19]]
        log = b"".join(row + b"\n" for row in rows)
    cursor.begin()
    found, at = [], 0
    for size in [*sizes, len(log)]:
        chunk = log[at : min(at + size, stop)]
        found += [line.text for line in cursor.feed(chunk)]
        at += size
    return found


@given(
    st.lists(STAMPS, max_size=12).map(sorted),
    st.lists(st.integers(1, 60), max_size=8),
    st.lists(st.integers(0, 400), max_size=4),
)
def test_lines_are_neither_lost_nor_doubled_however_the_reading_breaks(
    stamps: list[str], sizes: list[int], stops: list[int]
) -> None:
    wanted = [f"line {number}" for number in range(len(stamps))]
    log = "".join(f"{stamp} {text}\n" for stamp, text in zip(stamps, wanted, strict=True)).encode()
    cursor, found = LogCursor(), []
    for stop in [*stops, 10_000]:
        found += read(cursor, log, sizes, stop)
    assert found == wanted


def test_a_last_line_without_an_end_is_given_when_the_log_is_over() -> None:
    cursor = LogCursor()
    cursor.begin()
    assert cursor.feed(b"2026-01-01T00:00:00.5Z no end") == []
    assert [line.text for line in cursor.rest()] == ["no end"]
    assert cursor.rest() == []


def test_words_of_the_kubelet_have_no_time_and_move_nothing() -> None:
    cursor = LogCursor()
    cursor.begin()
    lines = cursor.feed(b"unable to retrieve container logs for containerd://1\n")
    assert [(line.stamp, line.text) for line in lines] == [("", "unable to retrieve container logs for containerd://1")]
    assert cursor.since is None


def test_times_of_other_zones_and_lengths_compare() -> None:
    assert moment("2026-01-01T02:00:00.5+02:00") == moment("2026-01-01T00:00:00.500000000Z")
    assert moment("2026-01-01T00:00:00Z") < moment("2026-01-01T00:00:00.000000001Z")  # type: ignore[operator]
    assert moment("yesterday") is None

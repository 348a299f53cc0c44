from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from crosswind.kube.log_lines import MAX_LINE_BYTES, LogCursor, moment

STAMPS = st.integers(0, 30).map(lambda tenths: f"2026-01-01T00:00:{tenths // 10:02}.{tenths % 10}00000000Z")


def read(cursor: LogCursor, log: bytes, sizes: list[int], stop: int) -> list[str]:
    """Read as the API server sends it: from the requested whole second on, in chunks, cut off after ``stop`` bytes."""
    if cursor.since:
        rows = [row for row in log.split(b"\n") if row[:19] >= cursor.since.encode()[:19]]
        log = b"".join(row + b"\n" for row in rows)
    cursor.begin()
    texts, at = [], 0
    for size in [*sizes, len(log)]:
        chunk = log[at : min(at + size, stop)]
        texts += [line.text for line in cursor.feed(chunk)]
        at += size
    return texts


@given(
    st.lists(STAMPS, max_size=12).map(sorted),
    st.lists(st.integers(1, 60), max_size=8),
    st.lists(st.integers(0, 400), max_size=4),
)
def test_lines_are_neither_lost_nor_doubled_however_the_reading_breaks(
    stamps: list[str], sizes: list[int], stops: list[int]
) -> None:
    expected = [f"line {number}" for number in range(len(stamps))]
    log = "".join(f"{stamp} {text}\n" for stamp, text in zip(stamps, expected, strict=True)).encode()
    cursor, texts = LogCursor(), []
    for stop in [*stops, 10_000]:
        texts += read(cursor, log, sizes, stop)
    assert texts == expected


SWAPPED = [
    ("00.100", "out 1"),
    ("00.300", "err 1"),
    ("00.200", "out 2"),  # stamped before its neighbour and written after it
    ("05.000", "out 3"),
    ("03.000", "out 4"),  # the node's clock was set back
    ("04.000", "out 5"),
    ("05.500", "out 6"),
]


def log_of(lines: list[tuple[str, str]]) -> bytes:
    return "".join(f"2026-01-01T00:00:{time}Z {text}\n" for time, text in lines).encode()


def test_no_line_is_left_out_for_being_older_than_its_neighbours() -> None:
    cursor = LogCursor()
    assert read(cursor, log_of(SWAPPED), [], 10_000) == [text for _, text in SWAPPED]


@given(st.integers(0, 400), st.lists(st.integers(0, 2), min_size=20, max_size=20), st.integers(0, 450_000))
def test_neighbours_that_changed_places_are_neither_lost_nor_doubled(stop: int, jumps: list[int], step: int) -> None:
    moments = [number * step for number in range(20)]  # microseconds
    places = sorted(range(20), key=lambda number: number + jumps[number] * 1.1)
    log = log_of([(f"{moments[place] // 10**6:02}.{moments[place] % 10**6:06}", f"line {place}") for place in places])
    cursor = LogCursor()
    texts = read(cursor, log, [], stop) + read(cursor, log, [], 10_000)
    assert texts == [f"line {place}" for place in places]


def test_another_process_continues_after_the_saved_time() -> None:
    log = log_of([*SWAPPED[:3], ("00.300", "err 2"), ("00.400", "out 7"), ("00.350", "err 3")])
    before = LogCursor()
    assert len(read(before, log, [], len(log_of(SWAPPED[:3])))) == 3
    after = LogCursor(before.last, before.count)
    assert read(after, log, [], 10_000) == ["err 2", "out 7", "err 3"]


def test_more_lines_than_are_remembered_are_given_once() -> None:
    lines = [(f"{number // 10**5:02}.{number % 10**5:05}", f"{number}") for number in range(120_000)]
    cursor, log = LogCursor(), log_of(lines)
    texts = read(cursor, log, [], len(log) // 2) + read(cursor, log, [], len(log))
    assert texts == [text for _, text in lines]


def test_a_long_line_costs_time_in_proportion_to_its_length_and_memory_for_a_part() -> None:
    cursor, chunk = LogCursor(), b"x" * 65_536
    cursor.begin()
    cursor.feed(b"2026-01-01T00:00:00.5Z ")
    began = time.process_time()
    parts = [part for _ in range(512) for part in cursor.feed(chunk)] + cursor.feed(b"\n")
    assert {part.stamp for part in parts} == {"2026-01-01T00:00:00.5Z"}
    assert sum(len(part.text) for part in parts) == 32 * 2**20
    assert max(len(part.text) for part in parts) <= MAX_LINE_BYTES + len(chunk)
    assert time.process_time() - began < 5  # quadratic: half a minute


LONG = [("00.100", "short"), ("00.200", "\u00e4\U0001f600-" * 12), ("00.200", "same time " * 4), ("00.300", "last")]


@given(st.lists(st.integers(0, 400), max_size=4), st.integers(1, 40), st.integers(40, 90))
def test_a_line_that_is_returned_in_parts_is_whole_wherever_the_readings_break_off(
    stops: list[int], size: int, longest: int
) -> None:
    log, cursor, texts = log_of(LONG), LogCursor(longest_line=longest), dict[str, str]()
    returned: list[tuple[str, str]] = []
    for stop in [*stops, len(log)]:
        cursor.begin()
        for start in range(0, stop, size):
            returned += [(line.stamp, line.text) for line in cursor.feed(log[start : min(stop, start + size)])]
    for stamp, text in returned:
        texts[stamp] = texts.get(stamp, "") + text
    assert list(texts.values()) == ["short", LONG[1][1] + LONG[2][1], "last"]


def test_a_last_line_without_an_end_is_given_when_the_log_is_over() -> None:
    cursor = LogCursor()
    cursor.begin()
    assert cursor.feed(b"2026-01-01T00:00:00.5Z no end") == []
    assert [line.text for line in cursor.rest()] == ["no end"]
    assert cursor.rest() == []


def test_lines_of_the_kubelet_have_no_time_and_do_not_move_the_cursor() -> None:
    cursor = LogCursor()
    cursor.begin()
    lines = cursor.feed(b"unable to retrieve container logs for containerd://1\n")
    assert [(line.stamp, line.text) for line in lines] == [("", "unable to retrieve container logs for containerd://1")]
    assert cursor.since is None


def test_times_of_other_zones_and_lengths_compare() -> None:
    assert moment("2026-01-01T02:00:00.5+02:00") == moment("2026-01-01T00:00:00.500000000Z")
    assert moment("2026-01-01T00:00:00Z") < moment("2026-01-01T00:00:00.000000001Z")  # type: ignore[operator]
    assert moment("yesterday") is None

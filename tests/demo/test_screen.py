from __future__ import annotations

import io

import pytest
from rich.console import Console

from crosswind.demo.screen import OTHER_LINES, pod_table, stall_text
from crosswind.demo.summary import Stall
from crosswind.demo.timelines import PodTimeline
from crosswind.errors import counted

NOW = 200.0


def pods(count: int, *, gone: int = 0) -> list[PodTimeline]:
    """Mapped tasks in all their states, the first ones deleted."""
    states = [
        {"running": 61.5, "base_done": 161.5, "sidecars": ("istio-proxy", "cloud-sql-proxy")},
        {"running": 61.5},
        {"waiting": "CreateContainerConfigError"},
    ]
    return [
        PodTimeline(
            uid=str(number),
            name=f"p{number}",
            task=f"transform [{number}]",
            attempt="12",
            created=float(number),
            **({"running": 21.0, "base_done": 121.5, "gone": 131.0} if number < gone else states[number % 3]),
        )
        for number in range(count)
    ]


def shown(width: int, height: int, timelines: list[PodTimeline]) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    tasks = [{"state": "running", "task_id": "transform", "map_index": -1}]
    waits = "transform [1], transform [2] and 9 more to finish"
    console.print(pod_table(timelines, tasks, NOW, waits, width, height - OTHER_LINES))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip("\n").splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_task_try_and_times_are_whole_in_every_width(width: int) -> None:
    lines = shown(width, 50, pods(12, gone=3))
    rows = [line for line in lines if line.startswith("transform [")]
    assert len(rows) == 12
    for number, row in enumerate(rows):
        assert f"transform [{number}]" in row
        assert " 12 " in row
        spans = row.split()[-3:] if number < 3 else row.split()
        assert spans == [f"{21 - number:.1f}", "100.5", "9.5"] if number < 3 else "…" in spans[-1]
    assert "until gone" in lines[0] if width >= 100 else lines[0].rstrip().endswith("gone")
    assert max(len(line.rstrip()) for line in lines) <= width
    assert "9 more to finish" in " ".join(line.strip() for line in lines)


def test_a_state_is_shown_in_full_on_wide_terminals() -> None:
    assert any("base done, istio-proxy, cloud-sql-proxy still running" in line for line in shown(120, 50, pods(3)))
    assert any("Pending (CreateContainerConfigError)" in line for line in shown(120, 50, pods(3)))
    assert any(" base done " in line for line in shown(80, 50, pods(3)))


def test_of_more_pods_than_lines_the_first_deleted_ones_are_counted() -> None:
    lines = shown(80, 24, pods(30, gone=25))
    assert len(lines) <= 23
    assert any("before them 13 pods, deleted" in line for line in lines)
    assert [line for line in lines if line.startswith("transform [29]")]
    assert not [line for line in lines if line.startswith("transform [0]")]


def test_numbers_agree_with_their_nouns() -> None:
    assert counted(1, "pod") == "1 pod"
    assert counted(0, "pod") == "0 pods"
    text = stall_text(Stall(("p",), ("istio-proxy",), 1, 30.0), 1, 90.0)
    assert "In 1 pod " in text
    assert "1 slot " in text
    assert "1 task instance still" in text

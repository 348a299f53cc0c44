from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from crosswind.tasks.drawing import as_json, as_mermaid, as_text
from crosswind.tasks.graph import find_loops
from crosswind.tasks.layout import around, panels
from crosswind.tasks.picture import as_html, as_svg, draw_panel
from crosswind.tasks.terminal_drawing import as_drawing

SPACE = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def graph(folder: Any) -> Any:
    folder.task("orders", '"Raw<1>"', 'CREATE TABLE orders AS SELECT * FROM "Raw<1>"')
    folder.task("daily", "orders")
    folder.task("weekly", "daily, orders")
    folder.write("broken.yaml", "id: broken\n")
    return folder.compile().graph


@pytest.fixture
def knotted(folder: Any) -> Any:
    """Return sixty tasks in three folders, each of which reads up to four earlier tasks, near and far."""
    for n in range(60):
        before = sorted({n - step for step in (1, 7, 10, 27) if n >= step})
        folder.task(f"area_{n % 3}/t{n}", ", ".join(f"t{m}" for m in before))
    return folder.compile().graph


def test_text_shows_each_task_after_those_that_it_waits_for(graph: Any) -> None:
    lines = as_text(graph).splitlines()
    assert (
        lines.index("orders  (orders.yaml)") < lines.index("daily  (daily.yaml)") < lines.index("weekly  (weekly.yaml)")
    )
    assert "  reads  daily  from daily" in lines
    assert "  reads  Raw<1>  from outside" in lines
    assert "  makes  daily" in lines
    assert "broken  (broken.yaml)  BROKEN" in lines


def test_text_names_all_that_append_to_a_table(folder: Any) -> None:
    for name in ("a", "b"):
        folder.task(name, sql=f"CREATE TABLE {name} AS SELECT 1; INSERT INTO log SELECT 1", appends="log")
    folder.task("report", "log")
    lines = as_text(folder.compile().graph).splitlines()
    assert lines.count("  appends  log") == 2
    assert "  reads  log  from a, b" in lines


def test_json_has_the_same_content_as_the_text(graph: Any) -> None:
    tasks = {task["id"]: task for task in json.loads(as_json(graph))["tasks"]}
    assert tasks["weekly"] == {
        "id": "weekly",
        "file": "weekly.yaml",
        "folder": "",
        "reads": [{"table": "daily", "from": ["daily"]}, {"table": "orders", "from": ["orders"]}],
        "makes": ["weekly"],
        "appends": [],
        "after": ["daily", "orders"],
        "problem": None,
    }
    assert tasks["orders"]["reads"] == [{"table": "Raw<1>", "from": []}]
    assert "query" in tasks["broken"]["problem"]


def test_mermaid_has_an_arrow_for_each_table(graph: Any) -> None:
    text = as_mermaid(graph)
    assert text.startswith("flowchart LR\n")
    assert text.count('-->|"orders"|') == 2
    assert '[("Raw<1>")]' in text


def test_the_picture_is_svg_with_a_box_for_each_and_arrows_to_the_right(graph: Any) -> None:
    root = ET.fromstring(as_svg(graph))
    places = {text.text: float(text.attrib["x"]) for text in root.iter(f"{SPACE}text")}
    assert places.keys() == {". (4 tasks)", "Raw<1>", "orders", "daily", "weekly", "broken"}
    assert places["Raw<1>"] < places["orders"] < places["daily"] < places["weekly"]
    assert len([path for path in root.iter(f"{SPACE}path") if "marker-end" in path.attrib]) == 4
    assert float(root.attrib["width"]) > max(places.values())


def test_no_edge_runs_behind_a_box_and_no_box_stands_on_another(knotted: Any) -> None:
    for panel in panels(knotted):
        drawn = draw_panel(panel)
        lanes = {slot.key for column in panel.columns for slot in column if slot.is_lane}
        boxes = {key: box for key, box in drawn.boxes.items() if key not in lanes}
        for name, box in boxes.items():
            for other_name, other in boxes.items():
                if name < other_name and box.left < other.left + other.width and other.left < box.left + box.width:
                    assert abs(box.middle - other.middle) >= 24, (name, other_name)
        edges = [shape for shape in drawn.shapes if shape.startswith("<path")]
        assert len(edges) > 30
        for edge in edges:
            for x, y in _points(edge):
                hit = [
                    name
                    for name, box in boxes.items()
                    if box.left + 1 < x < box.left + box.width - 1 and abs(y - box.middle) < 11
                ]
                assert hit == [], edge


def _points(edge: str) -> Iterator[tuple[float, float]]:
    """Return points on an edge: along its straight part, and along its curve."""
    numbers = [float(number) for number in re.findall(r"-?\d+", re.findall(r' d="([^"]*)"', edge)[0])]
    begin, turn = (numbers[0], numbers[1]), (numbers[2], numbers[3])
    for step in range(21):
        yield begin[0] + (turn[0] - begin[0]) * step / 20, begin[1] + (turn[1] - begin[1]) * step / 20
    if len(numbers) == 10:
        bend = [turn, *zip(numbers[4::2], numbers[5::2], strict=True)]
        for step in range(41):
            t = step / 40
            shares = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
            yield tuple(sum(share * point[axis] for share, point in zip(shares, bend, strict=True)) for axis in (0, 1))  # type: ignore[misc]


def test_each_edge_of_the_graph_is_one_way_through_the_picture(knotted: Any) -> None:
    drawn: set[tuple[str, str]] = set()
    for panel in panels(knotted):
        following: dict[str, list[Any]] = {}
        for source, target, _ in panel.edges:
            assert target.column == source.column + 1
            following.setdefault(source.key, []).append(target)
        for column in panel.columns:
            for slot in column:
                todo = [] if slot.is_lane else list(following.get(slot.key, ()))
                while todo:
                    target = todo.pop()
                    if target.is_lane:
                        todo += following[target.key]
                    else:
                        drawn.add((slot.maker or slot.key, target.key))
    assert drawn == {(by, node.id) for node in knotted.nodes.values() for _, by in knotted.inputs(node)}


def test_a_thousand_tasks_are_a_page_by_folder_with_a_search(folder: Any) -> None:
    for n in range(1000):
        folder.task(f"area_{n % 20:02}/t{n}", ", ".join(f"t{m}" for m in (n - 20, n - 40) if m >= 0))
    page = as_html(folder.compile().graph)
    assert page.count("<details") == 20
    assert 0 < page.count("<details open") < 20, "folders beyond the limit are folded"
    assert "area_07 (50 tasks)" in page
    assert page.count('class="b"') == 1000
    assert 'type="search"' in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", ""), "nothing comes from elsewhere"


def test_names_cannot_break_out_of_a_page(folder: Any) -> None:
    folder.task("a", '"</script><script>alert(1)</script>"', "SELECT 1")
    page = as_html(folder.compile().graph)
    assert page.count("<script>") == 1
    assert "alert(1)</script>" not in page


def test_the_terminal_shows_which_task_follows_which(folder: Any) -> None:
    folder.task("shop/orders", "raw")
    folder.task("shop/daily", "orders")
    folder.task("shop/weekly", "daily, orders")
    folder.task("mart/report", "weekly")
    assert as_drawing(folder.compile().graph).splitlines() == [
        "mart (1 task)",
        "(weekly)─┐",
        "         └─▶[report]",
        "",
        "shop (3 tasks)",
        "(raw)─┐           ┌─▶[daily]─┐",
        "      └─▶[orders]─┤          └┬─▶[weekly]",
        "                  └───────────┘",
    ]


def test_around_a_task_are_all_before_and_after_it(knotted: Any) -> None:
    part = around(knotted, "t30")
    assert "t30" in part.nodes
    assert {"t29", "t3", "t57"} <= part.nodes.keys()
    folder_before = {by for node in part.nodes.values() for _, by in part.inputs(node)}
    assert folder_before <= part.nodes.keys()


def test_an_empty_folder_can_be_drawn(folder: Any) -> None:
    empty = folder.compile().graph
    assert as_text(empty) == ""
    assert as_drawing(empty) == ""
    ET.fromstring(as_svg(empty))
    assert "0 tasks" in as_html(empty)


@pytest.mark.parametrize(
    ("before", "loops"),
    [
        ({"a": [], "b": ["a"]}, []),
        ({"a": ["b"], "b": ["a"]}, [{"a", "b"}]),
        ({"a": ["c"], "b": ["a"], "c": ["b"], "d": ["c"], "e": []}, [{"a", "b", "c"}]),
        ({"a": ["b"], "b": ["a"], "c": ["d"], "d": ["c", "a"]}, [{"a", "b"}, {"c", "d"}]),
        ({"a": ["a"]}, [{"a"}]),
        ({"a": ["outside"]}, []),
    ],
)
def test_loops_are_found_and_nothing_else(before: dict[str, list[str]], loops: list[set[str]]) -> None:
    assert [set(loop) for loop in find_loops(before)] == loops

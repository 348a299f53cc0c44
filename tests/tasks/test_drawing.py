from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from crosswind.tasks.drawing import as_mermaid, as_svg, as_text
from crosswind.tasks.graph import find_loops


@pytest.fixture
def graph(folder: Any) -> Any:
    folder.task("orders", '"Raw<1>"', 'CREATE TABLE orders AS SELECT * FROM "Raw<1>"')
    folder.task("daily", "orders")
    folder.task("weekly", "daily, orders")
    folder.write("broken.yaml", "id: broken\n")
    return folder.compile().graph


def test_text_shows_each_task_after_those_that_it_waits_for(graph: Any) -> None:
    lines = as_text(graph).splitlines()
    assert (
        lines.index("orders  (orders.yaml)") < lines.index("daily  (daily.yaml)") < lines.index("weekly  (weekly.yaml)")
    )
    assert "  reads  daily  from daily" in lines
    assert "  reads  Raw<1>  from outside" in lines
    assert "broken  (broken.yaml)  BROKEN" in lines


def test_mermaid_has_an_arrow_for_each_table(graph: Any) -> None:
    text = as_mermaid(graph)
    assert text.startswith("flowchart LR\n")
    assert text.count('-->|"orders"|') == 2
    assert '[("Raw<1>")]' in text


def test_the_picture_is_svg_with_a_box_for_each_and_arrows_to_the_right(graph: Any) -> None:
    root = ET.fromstring(as_svg(graph))
    space = "{http://www.w3.org/2000/svg}"
    places = {text.text: float(text.attrib["x"]) for text in root.iter(f"{space}text")}
    assert places.keys() == {"Raw<1>", "orders", "daily", "weekly", "broken"}
    assert places["Raw<1>"] < places["orders"] < places["daily"] < places["weekly"]
    assert len([path for path in root.iter(f"{space}path") if "marker-end" in path.attrib]) == 4
    assert float(root.attrib["width"]) > max(places.values())


def test_an_empty_folder_can_be_drawn(folder: Any) -> None:
    empty = folder.compile().graph
    assert as_text(empty) == ""
    ET.fromstring(as_svg(empty))


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

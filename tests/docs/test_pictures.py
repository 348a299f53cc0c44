"""Pictures come from ``make pictures``, are used, and load nothing from another host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.pages import PAGES, ROOT

FOLDER = ROOT / "docs" / "pictures"
PICTURES = sorted(path for path in FOLDER.iterdir() if path.suffix in (".svg", ".png"))
MADE_BY = "".join(path.read_text() for path in (ROOT / "tools" / "pictures").glob("*.py"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_shown_by_a_page(picture: Path) -> None:
    assert any(f"pictures/{picture.name}" in page.read_text() for page in PAGES)


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_made_by_the_script(picture: Path) -> None:
    assert picture.with_suffix(".mmd").exists() or picture.name in MADE_BY or f'"{picture.stem}"' in MADE_BY


@pytest.mark.parametrize("picture", [path for path in PICTURES if path.suffix == ".svg"], ids=lambda path: path.name)
def test_a_drawing_loads_nothing(picture: Path) -> None:
    text = re.sub(r'xmlns(:\w+)?="[^"]*"|<!--.*?-->', "", picture.read_text(), flags=re.DOTALL)
    assert re.findall(r"(?:src|href|url|@import)\W{0,3}https?://[^\"') ]+", text) == []


def test_every_diagram_is_drawn() -> None:
    assert [path.name for path in FOLDER.glob("*.mmd") if not path.with_suffix(".svg").exists()] == []

"""Diagrams: docs/pictures/NAME.mmd becomes NAME.svg by mermaid, which npm brings and Chromium runs.

The site shows the SVG files: mermaid in the page would load a script from another host.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from pictures.browser import open_browser

__all__ = ["draw"]

_MERMAID = "mermaid@12.3.0"
_PAGE = "<!doctype html><meta charset=utf-8><body style='margin:0;background:white'><div id=place></div>"
_SETTINGS = {
    "startOnLoad": False,
    "theme": "neutral",
    "htmlLabels": False,  # GitHub and other viewers of SVG show no HTML inside
    "flowchart": {"htmlLabels": False, "curve": "basis"},
    "fontFamily": "sans-serif",
    "deterministicIds": True,  # the same source gives the same bytes
    "deterministicIDSeed": "crosswind",
}


def draw(folder: Path, work: Path) -> list[Path]:
    """Render every diagram of ``folder``; npm installs mermaid below ``work``."""
    subprocess.run(
        ["npm", "install", "--no-save", "--silent", "--no-audit", "--no-fund", "--prefix", str(work), _MERMAID],
        check=True,
    )
    script = work / "node_modules" / "mermaid" / "dist" / "mermaid.min.js"
    written = []
    with open_browser() as browser:
        page = browser.new_page()
        page.set_content(_PAGE)
        page.add_script_tag(path=str(script))
        page.evaluate("settings => mermaid.initialize(settings)", _SETTINGS)
        for source in sorted(folder.glob("*.mmd")):
            drawing = page.evaluate(
                "async ([name, text]) => (await mermaid.render('d-' + name, text)).svg",
                [source.stem, source.read_text()],
            )
            target = source.with_suffix(".svg")
            target.write_text(_finished(drawing) + "\n")
            written.append(target)
    return written


def _finished(drawing: str) -> str:
    """Return the drawing on white, as it is in dark mode too, and in its natural size instead of the page's width."""
    width, height = re.findall(r'viewBox="\S+ \S+ ([\d.]+) ([\d.]+)"', drawing)[0]
    drawing = drawing.replace('style="', 'style="background-color: white; ', 1)
    return re.sub(r' width="100%"', f' width="{float(width):.0f}" height="{float(height):.0f}"', drawing, count=1)

"""``make docs`` refuses dead links, dead anchors and pages that no reader can reach."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from tests.docs.checkouts import copy_checkout
from tests.docs.pages import ROOT

from deadlines import scaled

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


def make_docs(checkout: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "docs"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=scaled(280),
        check=False,
    )


BROKEN = {
    "[a page](guides/nowhere.md)": "guides/nowhere.md",
    "[an anchor](guides/executor.md#nowhere)": "does not contain an anchor '#nowhere'",
    "[an anchor of this page](#missing)": "#missing",
    "[a path from the root](/guides/executor.html)": "/guides/executor.html",
    "![a picture](pictures/nowhere.svg)": "pictures/nowhere.svg",
}
"""Links that lead nowhere, and what the build reports about each."""


def test_dead_links_dead_anchors_and_orphans_fail_make_docs(checkout: Path) -> None:
    page, orphan = checkout / "docs" / "index.md", checkout / "docs" / "guides" / "orphan.md"
    before = page.read_text()
    try:
        page.write_text("\n\n".join([before, *BROKEN, ""]))
        orphan.write_text("# Orphan\n")
        done = make_docs(checkout)
    finally:
        page.write_text(before)
        orphan.unlink()
    assert done.returncode != 0
    reported = {message for message in [*BROKEN.values(), "guides/orphan.md"] if message in done.stderr}
    assert reported == {*BROKEN.values(), "guides/orphan.md"}


def test_one_dead_anchor_alone_fails_make_docs(checkout: Path) -> None:
    page = checkout / "docs" / "index.md"
    before = page.read_text()
    try:
        page.write_text(f"{before}\n[an anchor](glossary.md#nowhere)\n")
        done = make_docs(checkout)
    finally:
        page.write_text(before)
    assert done.returncode != 0
    assert "#nowhere" in done.stderr


def test_the_documentation_as_it_is_passes_make_docs(checkout: Path) -> None:
    done = make_docs(checkout)
    assert done.returncode == 0, done.stderr


def test_continuous_integration_runs_make_docs_and_installs_chromium() -> None:
    commands = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^make docs$", commands, re.MULTILINE)
    assert "missing+=(chromium)" in commands
    (workflow,) = (ROOT / ".github" / "workflows").glob("*.yml")
    assert "- run: make docs\n" in workflow.read_text()

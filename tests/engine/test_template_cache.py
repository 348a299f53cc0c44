"""A bad template fails its own task alone, and does not block the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from pathlib import Path

import pytest

from crosswind.documents import read_text
from crosswind.engine import pod_composer
from crosswind.engine.pod_composer import TemplateCache
from crosswind.errors import TemplateError
from deadlines import scaled

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers: [{name: base, image: a}]\n"
ALIASES = "".join(f"    a{n}: &a{n} [{','.join([f'*a{n - 1}' if n else 'x'] * 9)}]\n" for n in range(9))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (POD + "  affinity: " + "[" * 50_000 + "]" * 50_000, "nested deeper than 100"),
        (POD.replace("{name: x}", "\n  name: x\n  annotations:\n" + ALIASES), "more than 100000 values"),
        (POD + "  priority: " + "9" * 400_000, "an integer of more than 20 digits"),
        (POD + "#" * 2**20, "larger than 1024 KiB"),
    ],
)
def test_a_template_that_would_exhaust_the_process_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(TemplateError, match=problem) as caught:
        TemplateCache().get(str(path))
    assert str(path) in str(caught.value)


async def test_good_and_bad_templates_load_side_by_side(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    good = tmp_path / "good.yaml"
    good.write_text(POD)
    templates = TemplateCache()
    paths = [str(good), str(tmp_path / "fifo"), "/dev/zero", str(tmp_path / "missing"), "no\0path"]
    loaded = await templates.load(paths)
    assert isinstance(loaded[paths[0]], dict)
    for path in paths[1:]:
        with templates.snapshot(loaded), pytest.raises(TemplateError, match="cannot be read"):
            templates.get(path)
    with templates.snapshot(loaded):
        assert templates.get(str(good))["kind"] == "Pod"


async def test_a_hanging_file_system_blocks_one_thread_and_no_other_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_composer, "_READ_TIMEOUT_S", 0.2)
    good, stuck = tmp_path / "good.yaml", tmp_path / "stuck.yaml"
    good.write_text(POD)
    stuck.write_text(POD)
    answers, asked = threading.Event(), []
    real_stat = os.stat

    def stat(path: object, **more: object) -> os.stat_result:
        if path == str(stuck):
            asked.append(path)
            answers.wait(60)
        return real_stat(path, **more)  # type: ignore[arg-type,call-overload,no-any-return]

    monkeypatch.setattr(os, "stat", stat)
    templates = TemplateCache()
    try:
        for _ in range(3):
            loaded = await asyncio.wait_for(templates.load([str(good), str(stuck)]), scaled(20))
            assert isinstance(loaded[str(good)], dict)
            assert "did not answer" in str(loaded[str(stuck)])
        assert len(asked) == 1
    finally:
        answers.set()
    async with asyncio.timeout(scaled(20)):
        while not isinstance((await templates.load([str(stuck)]))[str(stuck)], dict):  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.01)


async def test_two_callers_that_load_the_same_changed_template_both_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher and the warm pool load the same files, each on its own."""
    path = tmp_path / "slow.yaml"
    path.write_text(POD)
    reads = []

    def slow_read_text(path: str, *, what: str) -> str:
        reads.append(path)
        time.sleep(0.05)  # a slow file system
        return read_text(path, what=what)

    monkeypatch.setattr(pod_composer, "read_text", slow_read_text)
    templates = TemplateCache()
    first, second = await asyncio.gather(templates.load([str(path)]), templates.load([str(path)]))
    assert isinstance(first[str(path)], dict)
    assert first == second
    assert reads == [str(path)]


async def test_two_callers_that_load_the_same_bad_template_both_get_its_error(tmp_path: Path) -> None:
    path = str(tmp_path / "missing.yaml")
    templates = TemplateCache()
    for loaded in await asyncio.gather(templates.load([path]), templates.load([path])):
        assert "No such file" in str(loaded[path])


async def test_the_outcome_of_a_read_that_everybody_gave_up_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a session that failed: by the time of the next one the file may be another."""
    path = tmp_path / "late.yaml"
    path.write_text("no: pod")
    began, goes_on = threading.Event(), threading.Event()

    def late_read_text(path: str, *, what: str) -> str:
        text = read_text(path, what=what)
        began.set()
        goes_on.wait(60)
        return text

    monkeypatch.setattr(pod_composer, "read_text", late_read_text)
    templates = TemplateCache()
    load = asyncio.create_task(templates.load([str(path)]))
    async with asyncio.timeout(scaled(20)):
        await asyncio.to_thread(began.wait, 60)
        load.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await load
        (reading,) = asyncio.all_tasks() - {asyncio.current_task()}
        goes_on.set()
        await asyncio.wait([reading])
        path.write_text(POD)
        assert isinstance((await templates.load([str(path)]))[str(path)], dict)


async def test_a_thread_that_reads_a_template_outlasts_the_snapshot_in_which_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the templates at the start of a session, while the launcher composes: its error ends the session."""
    path = tmp_path / "slow.yaml"
    path.write_text(POD)
    began, goes_on = threading.Event(), threading.Event()

    def slow_read_text(path: str, *, what: str) -> str:
        began.set()
        goes_on.wait(60)
        return read_text(path, what=what)

    monkeypatch.setattr(pod_composer, "read_text", slow_read_text)
    templates = TemplateCache()
    with templates.snapshot():
        checking = asyncio.create_task(asyncio.to_thread(templates.get, str(path)))
        await asyncio.to_thread(began.wait, 60)
    goes_on.set()
    assert (await asyncio.wait_for(checking, scaled(20)))["kind"] == "Pod"

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from kubelocal.errors import SettingError
from kubelocal.storage.state_file import StateFile
from kubelocal.storage.store import Compacted, Store


def thing(name: str) -> dict[str, Any]:
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "one"}}


def filled() -> Store:
    store = Store()
    for name in "abc":
        store.put("ConfigMap", "one", name, thing(name))
    store.put("Node", "", "n", {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n"}})
    store.delete("ConfigMap", "one", "c", thing("c"))
    return store


def content(store: Store) -> list[Any]:
    return sorted((kind, namespace, name, entry.json) for kind, namespace, name, entry in store.everything())


def test_a_saved_store_comes_back_with_its_version(tmp_path: Path) -> None:
    store, again = filled(), Store()
    StateFile(tmp_path / "deep" / "state.json").close(store)
    assert StateFile(tmp_path / "deep" / "state.json").load(again)
    assert content(again) == content(store)
    assert again.version == store.version


def test_versions_of_before_the_restart_are_too_old_to_watch_from(tmp_path: Path) -> None:
    StateFile(tmp_path / "state").close(filled())
    again = Store()
    StateFile(tmp_path / "state").load(again)
    assert again.since("ConfigMap", again.version) == []
    with pytest.raises(Compacted):
        again.since("ConfigMap", again.version - 1)


def test_without_a_file_the_cluster_begins_empty(tmp_path: Path) -> None:
    assert not StateFile(tmp_path / "state").load(Store())


@pytest.mark.parametrize(
    "text",
    ["", '"format":2,"version":1,"objects":[]}', '"format":1,"version":1,"objects":[{"kind":"X"}]}', '"format":1}'],
)
def test_a_file_that_holds_no_cluster_is_refused_with_the_mend(tmp_path: Path, text: str) -> None:
    (tmp_path / "state").write_text('{"crosswind":"local state","owner":null,' + text)
    with pytest.raises(SettingError, match=f"{tmp_path}/state .*move it away"):
        StateFile(tmp_path / "state").load(Store())


def test_a_state_that_another_cluster_uses_is_refused_until_it_is_closed(tmp_path: Path) -> None:
    first, second, store = StateFile(tmp_path / "state"), StateFile(tmp_path / "state"), filled()
    first.load(Store())
    with pytest.raises(SettingError, match=f"in use by kubelocal up --state with process id {os.getpid()}"):
        second.load(Store())
    first.close(store)
    again = Store()
    assert second.load(again)
    assert content(again) == content(store)


def test_a_file_that_somebody_put_in_place_of_the_state_is_not_overwritten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = StateFile(tmp_path / "state")
    state.load(Store())
    (tmp_path / "state").write_text("mine")
    state.close(filled())
    assert (tmp_path / "state").read_text() == "mine"
    assert "The state is not saved" in caplog.text


def test_the_file_is_private_and_nothing_else_is_left(tmp_path: Path) -> None:
    StateFile(tmp_path / "state").save(filled())
    assert [(path.name, path.stat().st_mode & 0o777) for path in tmp_path.iterdir()] == [("state", 0o600)]


async def test_changes_are_saved_while_running_and_at_the_end(tmp_path: Path) -> None:
    path, store = tmp_path / "state", filled()
    state = StateFile(path, interval=0.01)
    task = asyncio.create_task(state.run(store))
    while not path.exists():  # noqa: ASYNC110 - a file gives no event
        await asyncio.sleep(0.005)
    store.put("ConfigMap", "one", "late", thing("late"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    state.close(store)
    again = Store()
    StateFile(path).load(again)
    assert content(again) == content(store)


def test_a_folder_that_cannot_be_written_is_logged_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    StateFile(tmp_path / "file" / "state").save(filled())
    assert f"The state is not saved: cannot write {tmp_path}/file" in caplog.text

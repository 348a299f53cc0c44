"""The rule for paths that are written or removed, as such; ``tests/cli/test_paths.py`` has each path that there is."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from crosswind import ownership
from crosswind.errors import ConfigError
from crosswind.ownership import Mark, Owner, line_mark

MARK = line_mark("crosswind x", "# ours\n")
CLAIM = Mark("crosswind y", lambda content: content.startswith(b"{"), lambda content: Owner.read(json.loads(content)))

CLAIMER = """
import json, sys
from pathlib import Path
from crosswind.errors import ConfigError
from crosswind.ownership import Mark, Owner, write
mark = Mark("crosswind y", lambda content: content.startswith(b"{"), lambda content: Owner.read(json.loads(content)))
me = Owner.this_process()
sys.stdin.readline()
try:
    write(Path(sys.argv[1]), json.dumps(me.fields).encode(), mark, me=me)
except ConfigError:
    print("refused", flush=True)
else:
    print("taken", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("before", [None, '{"pid": 4194399, "started": 1, "use": "x"}'])
def test_of_many_that_claim_a_path_at_once_one_gets_it(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "claim"
    if before:
        path.write_text(before)
    command = [sys.executable, "-c", CLAIMER, path]
    claimers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    for step in ("go", "end"):
        for claimer in claimers:
            assert claimer.stdin
            claimer.stdin.write(f"{step}\n")
            claimer.stdin.flush()
        if step == "go":
            words = [claimer.stdout.readline() for claimer in claimers if claimer.stdout]
            assert Owner.read(json.loads(path.read_text())).is_alive  # type: ignore[union-attr]
    for claimer in claimers:
        claimer.communicate(timeout=20)
    assert sorted(words) == ["refused\n"] * 7 + ["taken\n"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["claim"], "no temporary file is left"


def test_an_owner_is_alive_as_long_as_its_process() -> None:
    me = Owner.this_process()
    assert me.is_alive
    assert not Owner(me.pid, me.started + 1).is_alive, "a later process with the same id"
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not Owner(process.pid, 1).is_alive, "a zombie"


@pytest.mark.parametrize("fields", [None, [], "x", {}, {"pid": "1", "started": 1}, {"pid": 1}])
def test_damaged_fields_name_no_owner(fields: object) -> None:
    assert Owner.read(fields) is None


def test_a_file_keeps_its_mode_when_it_is_replaced_and_a_new_one_follows_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    before = os.umask(0o027)
    try:
        ownership.write(path, b"# ours\n1", MARK)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o755)
        ownership.write(path, b"# ours\n2", MARK)
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        ownership.write(path, b"# ours\n3", MARK, mode=0o600)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_readers_of_the_old_file_go_on_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    ownership.write(path, b"# ours\nold", MARK)
    with path.open() as reader:
        ownership.write(path, b"# ours\nnew", MARK)
        assert reader.read() == "# ours\nold"


def test_only_a_file_of_ours_is_removed(tmp_path: Path) -> None:
    ours, theirs, link = tmp_path / "ours", tmp_path / "theirs", tmp_path / "link"
    ours.write_text("# ours\n")
    theirs.write_text("# theirs\n")
    link.symlink_to(ours)
    assert [ownership.remove(path, MARK) for path in (link, theirs, ours, ours)] == [False, False, True, False]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "theirs"]


def test_a_file_in_use_by_another_is_not_removed(tmp_path: Path) -> None:
    me, path = Owner.this_process(), tmp_path / "claim"
    ownership.write(path, json.dumps(me.fields).encode(), CLAIM, me=me)
    assert not ownership.remove(path, CLAIM)
    assert ownership.remove(path, CLAIM, me)


@pytest.mark.parametrize("name", ["../outside", "a/../../outside"])
def test_no_name_leads_out_of_a_tree(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"leads out of {tmp_path}"):
        ownership.check_tree(tmp_path, [name], MARK)


def test_a_folder_of_another_kind_is_not_ours(tmp_path: Path) -> None:
    ownership.claim_folder(tmp_path / "a", "crosswind x", Owner(4194399, 1))
    with pytest.raises(ConfigError, match="was not written by crosswind y"):
        ownership.claim_folder(tmp_path / "a", "crosswind y", Owner.this_process())
    assert ownership.folder_owner(tmp_path / "a", "crosswind y") is None
    assert ownership.folder_owner(tmp_path / "a", "crosswind x") == Owner(4194399, 1, use=_use(tmp_path / "a"))


def test_a_folder_can_be_claimed_again_once_it_is_released(tmp_path: Path) -> None:
    first, second = Owner.this_process(), Owner.this_process()
    ownership.claim_folder(tmp_path / "a", "crosswind x", first)
    (tmp_path / "a" / "kept").touch()
    with pytest.raises(ConfigError, match=f"in use by crosswind x with process id {os.getpid()}"):
        ownership.claim_folder(tmp_path / "a", "crosswind x", second)
    ownership.release_folder(tmp_path / "a", "crosswind x", first)
    assert ownership.folder_owner(tmp_path / "a", "crosswind x") is None
    ownership.claim_folder(tmp_path / "a", "crosswind x", second)
    assert (tmp_path / "a" / "kept").exists()


def test_a_name_that_is_taken_is_not_written_anew(tmp_path: Path) -> None:
    ownership.write_new(tmp_path / "token", "secret")
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match=r"cannot write .*/token: File exists"):
        ownership.write_new(tmp_path / "token", "other")


def _use(folder: Path) -> str:
    use: str = json.loads((folder / ownership.FOLDER_FILE).read_text())["owner"]["use"]
    return use


def test_a_temporary_folder_goes_with_its_block_and_what_a_killed_owner_left_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(["sleep", "60"]) as owner:
        ours = Owner(owner.pid, ownership._started(owner.pid) or 0)
        ownership.claim_folder(tmp_path / "mine-left", "crosswind x", ours)
        ownership.claim_folder(tmp_path / "mine-other", "crosswind y", ours)
        (tmp_path / "mine-foreign").mkdir()
        with ownership.temporary_folder("mine-", "crosswind x"):
            assert (tmp_path / "mine-left").exists(), "its owner lives"
        owner.kill()
    with ownership.temporary_folder("mine-", "crosswind x") as folder:
        (folder / "file").touch()
        assert {entry.name for entry in tmp_path.iterdir()} == {folder.name, "mine-other", "mine-foreign"}
    assert not folder.exists()

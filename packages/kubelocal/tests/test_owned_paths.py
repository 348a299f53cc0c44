"""Files and folders with an owner; ``cli/test_written_files.py`` has each path that a cluster writes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from deadlines import scaled
from kubelocal import owned_paths
from kubelocal.errors import SettingError
from kubelocal.owned_paths import FileSignature, Owner, line_signature

SIGNATURE = line_signature("kubelocal x", "# ours\n")
CLAIM = FileSignature(
    "kubelocal y", lambda content: content.startswith(b"{"), lambda content: Owner.read(json.loads(content))
)

CLAIMER = """
import json, sys
from pathlib import Path
from kubelocal.errors import SettingError
from kubelocal.owned_paths import FileSignature, Owner, write
read = lambda content: Owner.read(json.loads(content))
signature = FileSignature("kubelocal y", lambda content: content.startswith(b"{"), read)
me = Owner.this_process()
sys.stdin.readline()
try:
    write(Path(sys.argv[1]), json.dumps(me.fields).encode(), signature, me=me)
except SettingError:
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
        claimer.communicate(timeout=scaled(20))
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
        owned_paths.write(path, b"# ours\n1", SIGNATURE)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o755)
        owned_paths.write(path, b"# ours\n2", SIGNATURE)
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        owned_paths.write(path, b"# ours\n3", SIGNATURE, mode=0o600)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_readers_of_the_old_file_go_on_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    owned_paths.write(path, b"# ours\nold", SIGNATURE)
    with path.open() as reader:
        owned_paths.write(path, b"# ours\nnew", SIGNATURE)
        assert reader.read() == "# ours\nold"


def test_only_a_file_of_ours_is_removed(tmp_path: Path) -> None:
    ours, theirs, link = tmp_path / "ours", tmp_path / "theirs", tmp_path / "link"
    ours.write_text("# ours\n")
    theirs.write_text("# theirs\n")
    link.symlink_to(ours)
    assert [owned_paths.remove(path, SIGNATURE) for path in (link, theirs, ours, ours)] == [False, False, True, False]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "theirs"]


def test_a_file_in_use_by_another_is_not_removed(tmp_path: Path) -> None:
    me, path = Owner.this_process(), tmp_path / "claim"
    owned_paths.write(path, json.dumps(me.fields).encode(), CLAIM, me=me)
    assert not owned_paths.remove(path, CLAIM)
    assert owned_paths.remove(path, CLAIM, me)


def test_a_folder_of_another_kind_is_not_ours(tmp_path: Path) -> None:
    owned_paths.claim_folder(tmp_path / "a", "kubelocal x", Owner(4194399, 1))
    with pytest.raises(SettingError, match="was not written by kubelocal y"):
        owned_paths.claim_folder(tmp_path / "a", "kubelocal y", Owner.this_process())
    assert owned_paths.folder_owner(tmp_path / "a", "kubelocal y") is None
    assert owned_paths.folder_owner(tmp_path / "a", "kubelocal x") == Owner(4194399, 1, use=_use(tmp_path / "a"))


def test_a_folder_can_be_claimed_again_once_it_is_released(tmp_path: Path) -> None:
    first, second = Owner.this_process(), Owner.this_process()
    owned_paths.claim_folder(tmp_path / "a", "kubelocal x", first)
    (tmp_path / "a" / "kept").touch()
    with pytest.raises(SettingError, match=f"in use by kubelocal x with process id {os.getpid()}"):
        owned_paths.claim_folder(tmp_path / "a", "kubelocal x", second)
    owned_paths.release_folder(tmp_path / "a", "kubelocal x", first)
    assert owned_paths.folder_owner(tmp_path / "a", "kubelocal x") is None
    owned_paths.claim_folder(tmp_path / "a", "kubelocal x", second)
    assert (tmp_path / "a" / "kept").exists()


def test_a_name_that_is_taken_is_not_written_anew(tmp_path: Path) -> None:
    owned_paths.write_new(tmp_path / "token", "secret")
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    with pytest.raises(SettingError, match=r"cannot write .*/token: File exists"):
        owned_paths.write_new(tmp_path / "token", "other")


def _use(folder: Path) -> str:
    use: str = json.loads((folder / owned_paths.FOLDER_FILE).read_text())["owner"]["use"]
    return use


def test_a_temporary_folder_goes_with_its_block_and_what_a_killed_owner_left_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(["sleep", "60"]) as owner:
        ours = Owner(owner.pid, owned_paths._started(owner.pid) or 0)
        owned_paths.claim_folder(tmp_path / "mine-left", "kubelocal x", ours)
        owned_paths.claim_folder(tmp_path / "mine-other", "kubelocal y", ours)
        (tmp_path / "mine-foreign").mkdir()
        with owned_paths.temporary_folder("mine-", "kubelocal x"):
            assert (tmp_path / "mine-left").exists(), "its owner lives"
        owner.kill()
    with owned_paths.temporary_folder("mine-", "kubelocal x") as folder:
        (folder / "file").touch()
        assert {entry.name for entry in tmp_path.iterdir()} == {folder.name, "mine-other", "mine-foreign"}
    assert not folder.exists()


def test_a_folder_that_crosswind_local_claimed_is_ours_too(tmp_path: Path) -> None:
    fields = {"command": "crosswind local up", "owner": Owner(4194399, 1).fields}
    (tmp_path / owned_paths.FOLDER_FILE).write_text(json.dumps(fields))
    owned_paths.claim_folder(tmp_path, "kubelocal up", Owner.this_process())
    assert owned_paths.folder_owner(tmp_path, "kubelocal up") is not None

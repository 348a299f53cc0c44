"""The rule for files that are written or removed, as such; ``tests/cli/test_paths.py`` has each path that there is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from crosswind.cli import output_files
from crosswind.cli.output_files import line_mark
from crosswind.errors import ConfigError

MARK = line_mark("crosswind x", "# ours\n")


def test_a_file_keeps_its_mode_when_it_is_replaced_and_a_new_one_follows_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    before = os.umask(0o027)
    try:
        output_files.write(path, b"# ours\n1", MARK)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o755)
        output_files.write(path, b"# ours\n2", MARK)
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        output_files.write(path, b"# ours\n3", MARK, mode=0o600)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_readers_of_the_old_file_go_on_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    output_files.write(path, b"# ours\nold", MARK)
    with path.open() as reader:
        output_files.write(path, b"# ours\nnew", MARK)
        assert reader.read() == "# ours\nold"


def test_only_a_file_of_ours_is_removed(tmp_path: Path) -> None:
    ours, theirs, link = tmp_path / "ours", tmp_path / "theirs", tmp_path / "link"
    ours.write_text("# ours\n")
    theirs.write_text("# theirs\n")
    link.symlink_to(ours)
    assert [output_files.remove(path, MARK) for path in (link, theirs, ours, ours)] == [False, False, True, False]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "theirs"]


@pytest.mark.parametrize("name", ["../outside", "a/../../outside"])
def test_no_name_leads_out_of_a_tree(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"leads out of {tmp_path}"):
        output_files.check_tree(tmp_path, [name], MARK)

"""No path that somebody names stops or kills the process that reads it."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from crosswind.documents import MAX_BYTES, check_regular, read_bytes, read_text
from crosswind.errors import ConfigError


def test_links_are_followed_as_a_mounted_config_map_has_them(tmp_path: Path) -> None:
    (tmp_path / "..data_1").mkdir()
    (tmp_path / "..data_1" / "pod.yaml").write_text("kind: Pod")
    (tmp_path / "..data").symlink_to("..data_1")
    (tmp_path / "pod.yaml").symlink_to("..data/pod.yaml")
    assert read_text(tmp_path / "pod.yaml") == "kind: Pod"


def test_a_path_that_is_no_regular_file_is_refused_with_its_kind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nothing")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    for path, problem in (
        ("fifo", "it is a FIFO, not a regular file"),
        ("link", "it is a FIFO, not a regular file"),
        ("socket", "it is a socket, not a regular file"),
        (".", "it is a directory, not a regular file"),
        ("/dev/zero", "it is a device, not a regular file"),
        ("/dev/stdin", "not a regular file|cannot be read"),
        ("loop", "symbolic links"),
        ("dangling", "No such file"),
        ("no\0name", "null byte|null character"),
        ("x" * 300, "too long"),
    ):
        with pytest.raises(ConfigError, match=problem) as caught:
            read_text(os.path.join(tmp_path, path), what="pod template")
        assert str(caught.value).startswith("pod template ")
    listener.close()
    with pytest.raises(OSError, match="not a regular file"):
        check_regular(tmp_path / "fifo")


def test_a_file_may_have_a_megabyte(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * MAX_BYTES)
    assert len(read_bytes(path)) == MAX_BYTES
    path.write_bytes(b"x" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than 1024 KiB"):
        read_bytes(path)


def test_a_commands_argument_may_be_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    writer = threading.Thread(target=lambda: (tmp_path / "fifo").write_text("from a pipe"))
    writer.start()
    assert read_text(tmp_path / "fifo", pipes=True) == "from a pipe"
    writer.join()
    with (tmp_path / "typed").open("w+") as typed:
        typed.write("typed")
        typed.seek(0)
        monkeypatch.setattr("sys.stdin", typed)
        assert read_text("-", pipes=True) == "typed"
    with pytest.raises(ConfigError, match="larger than 1024 KiB"):
        read_text("/dev/zero", pipes=True)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_utf_8_or_has_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "text").write_bytes("für".encode(encoding))
    assert read_text(tmp_path / "text") == "für"


def test_other_encodings_are_reported_with_the_byte(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("für".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"is not UTF-8 text: .* at byte 1"):
        read_text(tmp_path / "text")

"""A document that others wrote costs little, however it is made."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kubelocal.errors import SettingError
from kubelocal.yaml_input import MAX_BYTES, MAX_DEPTH, MAX_VALUES, parse, read_text


def aliases_of_aliases(levels: int, width: int) -> str:
    """Each level is a list of ``width`` aliases of the one before."""
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels + 1))]
    return "\n".join(lines)


def chained_aliases(levels: int) -> str:
    """Each level holds the one before once: few values, nested deeply."""
    return "".join(f"a{n}: &a{n} [{f'*a{n - 1}' if n else 'x'}]\n" for n in range(levels))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 50_000, f"nested deeper than {MAX_DEPTH}"),
        ("{a: " * 50_000, f"nested deeper than {MAX_DEPTH}"),
        ("- " * 50_000 + "x", f"nested deeper than {MAX_DEPTH}"),
        (chained_aliases(500), f"nested deeper than {MAX_DEPTH}"),
        (aliases_of_aliases(9, 9), f"more than {MAX_VALUES} values"),
        ("[" + "x," * (MAX_VALUES + 1) + "]", f"more than {MAX_VALUES} values"),
        (f"a: &a {'x' * 500_000}\nb: [{','.join(['*a'] * 50)}]", "characters, aliases counted"),
        ("a: &a {b: {c: *a}}", "an alias within its own value"),
        ("a: " + "9" * 500_000, "an integer of more than 20 digits"),
        ("a: 0x" + "f" * 400_000, "an integer of more than 20 digits"),
        ("a: " + "1:" * 5_000 + "1", "an integer of more than 20 digits"),
        ('a: !!int "' + "9" * 10_000 + '"', "an integer of more than 20 digits"),
        ("a: " + "x" * MAX_BYTES, "larger than 1024 KiB"),
        ("a: *b", "undefined alias"),
        ("a: 2026-02-30", "malformed"),
        ("? [a]\n: b", "unhashable"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: 1\n---\nb: 2", "more than one YAML document"),
        ("a: [", "not readable as YAML"),
        ("a: \x07", "not readable as YAML"),
    ],
)
def test_a_document_that_would_grow_or_is_malformed_is_refused_at_once(text: str, problem: str) -> None:
    began = time.process_time()
    with pytest.raises(SettingError, match=problem) as refused:
        parse(text, "some.yaml")
    assert str(refused.value).startswith("some.yaml:")
    assert len(str(refused.value)) < 300
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: &a {x: 1}\nb: {<<: *a, y: 2}", {"a": {"x": 1}, "b": {"x": 1, "y": 2}}),
        ("a: '" + "9" * 30 + "'", {"a": "9" * 30}),
        ("[" * 90 + "]" * 90, None),
    ],
)
def test_an_ordinary_document_is_read(text: str, value: object) -> None:
    assert parse(text, "some.yaml") == value or text.startswith("[")


def test_a_file_is_read_as_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    for content in ("ä".encode(), "\ufeffä".encode()):
        (tmp_path / "file").write_bytes(content)
        assert read_text(tmp_path / "file") == "ä"


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: None, "cannot be read: No such file"),
        (lambda path: path.mkdir(), "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.write_bytes(b"x" * (MAX_BYTES + 1)), "larger than 1024 KiB"),
        (lambda path: path.write_bytes(b"\xff"), "is not UTF-8 text"),
    ],
)
def test_a_path_that_would_block_or_fill_memory_is_refused(tmp_path: Path, make: object, problem: str) -> None:
    make(tmp_path / "file")  # type: ignore[operator]
    with pytest.raises(SettingError, match=rf"settings {tmp_path}/file .*{problem}"):
        read_text(tmp_path / "file", what="settings")


def test_a_pipe_may_be_an_argument(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"a: 1")
    os.close(writer)
    assert read_text(f"/dev/fd/{reader}", pipes=True) == "a: 1"
    os.close(reader)

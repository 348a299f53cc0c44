from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from crosswind.tasks.cache import Cache, cache_folder
from crosswind.tasks.compiling import compile_folder
from deadlines import scaled

WARM = """
import sys
from pathlib import Path
from crosswind.tasks import compile_folder
compile_folder(Path(sys.argv[1]), {"connection": "warehouse"}, Path(sys.argv[2]))
print("sqlglot" in sys.modules)
"""


@pytest.fixture
def filled(folder: Any, tmp_path: Path) -> Any:
    folder.cache = tmp_path / "cache"
    folder.task("orders")
    folder.task("daily", "orders")
    folder.write("bad.yaml", "a: [")
    return folder


def parses_sql(folder: Any) -> bool:
    command = [sys.executable, "-c", WARM, folder.path, folder.cache]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout == "True\n"


def test_unchanged_files_are_not_parsed_again(filled: Any) -> None:
    assert parses_sql(filled)
    assert not parses_sql(filled)
    filled.write("daily.sql", "INSERT INTO daily SELECT * FROM orders AS o")
    assert parses_sql(filled)
    assert not parses_sql(filled)


def test_only_changed_files_are_parsed_again(filled: Any) -> None:
    def known() -> set[str]:
        (file,) = filled.cache.iterdir()
        return set(json.loads(file.read_bytes())["entries"])

    filled.compile()
    before = known()
    filled.write("daily.sql", "INSERT INTO daily SELECT * FROM orders AS o")
    filled.compile()
    assert len(known() - before) == len(before - known()) == 1


def test_the_cache_changes_no_result(filled: Any) -> None:
    cold, warm = filled.compile(), filled.compile()
    without = compile_folder(filled.path, {"connection": "warehouse"}, None)
    assert cold.dags == warm.dags == without.dags
    assert cold.problems == warm.problems == without.problems
    filled.task("daily", "")
    assert filled.compile().dags != cold.dags


def test_a_new_checkout_behind_a_link_uses_the_same_cache(filled: Any, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(filled.path)
    shutil.copytree(filled.path, tmp_path / "newer")
    filled.path = tmp_path / "link"
    assert parses_sql(filled)
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("newer")
    assert not parses_sql(filled)


@pytest.mark.parametrize("damage", [b"", b'"entries":{', b'"entries":[]}', b"\xff" * 1000])
def test_a_damaged_cache_is_made_anew(filled: Any, damage: bytes) -> None:
    before = filled.compile()
    (file,) = filled.cache.iterdir()
    damage = b'{"crosswind":"tasks cache",' + damage
    file.write_bytes(damage)
    assert filled.compile().dags == before.dags
    assert file.read_bytes() != damage


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null/x"])
def test_a_place_that_cannot_be_written_costs_only_time(filled: Any, place: str) -> None:
    expected = filled.compile().dags
    filled.cache = Path(place)
    assert filled.compile().dags == expected


def test_a_link_in_place_of_the_cache_is_not_followed(filled: Any, tmp_path: Path) -> None:
    filled.compile()
    (file,) = filled.cache.iterdir()
    target = tmp_path / "target"
    file.rename(target)
    content = target.read_bytes()
    file.symlink_to(target)
    filled.task("more")
    filled.compile()
    assert target.read_bytes() == content
    assert file.is_symlink(), "nor replaced: it is not ours"


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2]", b"a: 1\n"])
def test_a_file_that_is_no_cache_is_not_replaced(filled: Any, content: bytes) -> None:
    before = filled.compile()
    (file,) = filled.cache.iterdir()
    file.write_bytes(content)
    assert filled.compile().dags == before.dags
    assert file.read_bytes() == content


def test_a_fifo_in_place_of_the_cache_does_not_block(filled: Any) -> None:
    before = filled.compile()
    (file,) = filled.cache.iterdir()
    file.unlink()
    os.mkfifo(file)
    assert filled.compile().dags == before.dags
    assert file.is_fifo()


def test_readers_and_writers_at_the_same_time_are_safe(filled: Any) -> None:
    command = [sys.executable, "-c", WARM, filled.path, filled.cache]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    assert [process.wait(timeout=scaled(25)) for process in running] == [0] * 4
    for process in running:
        assert process.stdout is not None
        process.stdout.close()
    assert len(list(filled.cache.iterdir())) == 1, "no temporary file is left"
    assert not parses_sql(filled)


def test_an_interrupted_load_keeps_the_entries_that_it_has_parsed(tmp_path: Path) -> None:
    def read() -> None:
        with Cache(tmp_path, Path("/x")) as cache:
            cache.fields(b"a: 1")
            raise TimeoutError

    with pytest.raises(TimeoutError):
        read()
    assert [*tmp_path.iterdir()]


def test_the_folder_is_the_users_own_or_the_configured_one() -> None:
    assert cache_folder({"CROSSWIND_CACHE": "/x"}) == Path("/x")
    assert cache_folder({"CROSSWIND_CACHE": ""}) is None
    assert str(os.getuid()) in str(cache_folder({}))


@pytest.mark.parametrize("kind", ["link", "file"])
def test_the_folder_in_the_temporary_one_is_not_trusted_when_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = cache_folder({})
    assert folder is not None
    if kind == "link":
        folder.symlink_to("/")
    else:
        folder.write_text("mine")
    assert cache_folder({}) is None

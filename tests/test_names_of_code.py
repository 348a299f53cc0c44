"""Each public class and each file has a name of its own, over both packages."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))

import check_names  # noqa: E402


def write(root: Path, path: str, text: str = "") -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_class_that_stands_twice_is_reported_with_both_places(tmp_path: Path) -> None:
    write(tmp_path, "src/crosswind/a.py", "class Pod: pass\nclass _Own: pass")
    write(tmp_path, "packages/kubelocal/src/kubelocal/b.py", "class Pod: pass\nclass _Own: pass")
    (line,) = check_names.repeated(tmp_path)
    assert line == "the class Pod: packages/kubelocal/src/kubelocal/b.py, src/crosswind/a.py"


def test_a_file_that_stands_twice_is_reported_except_where_both_packages_have_it(tmp_path: Path) -> None:
    for name in ("pods.py", "errors.py", "cli/pods.py"):
        write(tmp_path, f"src/crosswind/{name}")
        write(tmp_path, f"packages/kubelocal/src/kubelocal/{name}")
    (line,) = check_names.repeated(tmp_path)
    assert line == "the file pods.py: packages/kubelocal/src/kubelocal/pods.py, src/crosswind/pods.py"


def test_no_name_stands_twice() -> None:
    assert check_names.repeated(ROOT) == []

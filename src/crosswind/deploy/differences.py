"""What would change: against the files of a tree, or against the objects of a cluster."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from crosswind.deploy.objects import as_yaml
from crosswind.types import Json, Manifest

__all__ = ["file_differences", "object_differences"]


def file_differences(files: Mapping[str, str], present: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a unified diff from the files that are present to ``files``."""
    for path in sorted({*files, *present}):
        before, after = present.get(path, ""), files.get(path, "")
        yield from difflib.unified_diff(
            before.splitlines(),
            after.splitlines(),
            path if path in present else "/dev/null",
            path if path in files else "/dev/null",
            lineterm="",
        )


def object_differences(wanted: Manifest, live: Manifest | None) -> Iterator[str]:
    """Yield a line for each field that ``wanted`` names and the cluster has otherwise.

    Fields that only the cluster has are defaults or others' work, and are left out.
    """
    name = f"{wanted['kind']} {wanted['metadata']['name']}"
    if live is None:
        yield f"{name}: would be created"
        return
    for path, before, after in _differences(wanted, live, ""):
        yield f"{name}: {path}: {_short(before)} -> {_short(after)}"


def _differences(wanted: Json, live: Json, path: str) -> Iterator[tuple[str, Json, Json]]:
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        for key, value in wanted.items():
            yield from _differences(value, live.get(key), f"{path}.{key}" if path else key)
    elif isinstance(wanted, list | tuple) and isinstance(live, list):
        yield from _items([*wanted], live, path)
    elif wanted != live and not (live is None and wanted in ({}, [], (), "", None)):
        yield path, live, wanted


def _items(wanted: list[Json], live: list[Json], path: str) -> Iterator[tuple[str, Json, Json]]:
    """Compare lists: by name where the items have one, as Kubernetes does, else by place."""
    named = all(isinstance(item, Mapping) and "name" in item for item in (*wanted, *live))
    ours, theirs = (
        {str(item["name"]): item for item in items} if named else {str(n): item for n, item in enumerate(items)}
        for items in (wanted, live)
    )
    for key in dict.fromkeys((*ours, *theirs)):
        place = f"{path}[{key}]"
        if key in ours and key in theirs:
            yield from _differences(ours[key], theirs[key], place)
        else:
            yield place, theirs.get(key), ours.get(key)


def _short(value: Json) -> str:
    text = "nothing" if value is None else as_yaml(value).strip().removesuffix("\n...")
    return text if "\n" not in text and len(text) <= 100 else f"{text.splitlines()[0][:100]} ..."

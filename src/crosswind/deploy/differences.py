"""Differences between rendered manifests and the files of a tree, or the live objects of a cluster."""

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


def object_differences(rendered: Manifest, live: Manifest | None) -> Iterator[str]:
    """Yield a line for each field of ``rendered`` that has another value in the cluster.

    Fields that only the live object has are defaults, or set by other writers, and do not count.
    """
    name = f"{rendered['kind']} {rendered['metadata']['name']}"
    if live is None:
        yield f"{name}: would be created"
        return
    for path, before, after in _differences(rendered, live, ""):
        yield f"{name}: {path}: {_short(before)} -> {_short(after)}"


def _differences(rendered: Json, live: Json, path: str) -> Iterator[tuple[str, Json, Json]]:
    if isinstance(rendered, Mapping) and isinstance(live, Mapping):
        for key, value in rendered.items():
            yield from _differences(value, live.get(key), f"{path}.{key}" if path else key)
    elif isinstance(rendered, list | tuple) and isinstance(live, list):
        yield from _item_differences([*rendered], live, path)
    elif rendered != live and not (live is None and rendered in ({}, [], (), "", None)):
        yield path, live, rendered


def _item_differences(rendered: list[Json], live: list[Json], path: str) -> Iterator[tuple[str, Json, Json]]:
    """Compare lists by their items' names, as Kubernetes merges them, or by position where items have no name."""
    have_names = all(isinstance(item, Mapping) and "name" in item for item in (*rendered, *live))
    rendered_items, live_items = (
        {str(item["name"]) if have_names else str(index): item for index, item in enumerate(items)}
        for items in (rendered, live)
    )
    for key in dict.fromkeys((*rendered_items, *live_items)):
        place = f"{path}[{key}]"
        if key in rendered_items and key in live_items:
            yield from _differences(rendered_items[key], live_items[key], place)
        else:
            yield place, live_items.get(key), rendered_items.get(key)


def _short(value: Json) -> str:
    text = "nothing" if value is None else as_yaml(value).strip().removesuffix("\n...")
    return text if "\n" not in text and len(text) <= 100 else f"{text.splitlines()[0][:100]} ..."

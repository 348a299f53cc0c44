"""Settings from a YAML file and a command line, checked by name and type."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kubelocal.errors import SettingError
from kubelocal.settings import LocalImage, LocalSettings
from kubelocal.yaml_input import parse, read_text

__all__ = ["read_settings"]


def read_settings(file: Path | None, overrides: dict[str, Any]) -> LocalSettings:
    """Return the settings of a YAML file (a mapping of field names), with ``overrides`` on top.

    Raises ``SettingError`` for an unknown name and for a value of the wrong type.
    """
    content = parse(read_text(file, what="settings", pipes=True), str(file)) or {} if file else {}
    if not isinstance(content, dict):
        raise SettingError(f"{file}: settings are a mapping, this is a {type(content).__name__}")
    _check_names(file, content)
    try:
        return TypeAdapter(LocalSettings).validate_python({**content, **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingError(f"{file or 'settings'}: {where}: {first['msg']}, not {first['input']!r}") from error


def _check_names(file: Path | None, content: dict[Any, Any]) -> None:
    """Raise ``SettingError`` for an unknown name, also within an image: pydantic ignores those of a dataclass."""
    images = content.get("images")
    image_settings = images.items() if isinstance(images, dict) else ()
    places = [("", content, LocalSettings.__dataclass_fields__)]
    places += [(f" of image {name}", image, LocalImage.__dataclass_fields__) for name, image in image_settings]
    for where, given, known in places:
        unknown = [name for name in given if name not in known] if isinstance(given, dict) else []
        if unknown:
            raise SettingError(f"{file}: unknown setting {unknown[0]!r}{where}; {_suggestion(str(unknown[0]), known)}")


def _suggestion(unknown: str, known: Iterable[str]) -> str:
    """Return the name that was probably meant, else all names."""
    suggestions = difflib.get_close_matches(unknown, known, n=1)
    return f"did you mean {suggestions[0]}?" if suggestions else f"there are: {', '.join(known)}"

"""Causes of an invalid object with the messages of apimachinery's ``field`` package, one function per type."""

from __future__ import annotations

import json
from collections.abc import Sequence

from kubelocal.codec.status_errors import Cause
from kubelocal.types import Json

__all__ = ["broken_rules", "duplicate", "forbidden", "invalid", "not_found", "required", "too_long", "unsupported"]


def _message(sort: str, value: Json, detail: str) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return f"{sort}: {shown}: {detail}" if detail else f"{sort}: {shown}"


def invalid(field: str, value: Json, detail: str) -> Cause:
    """The value breaks a rule."""
    return Cause("FieldValueInvalid", _message("Invalid value", value, detail), field)


def required(field: str, detail: str = "") -> Cause:
    """The value is missing or empty."""
    return Cause("FieldValueRequired", f"Required value: {detail}" if detail else "Required value", field)


def forbidden(field: str, detail: str) -> Cause:
    """The field may not be set or changed here."""
    return Cause("FieldValueForbidden", f"Forbidden: {detail}", field)


def duplicate(field: str, value: Json) -> Cause:
    """The value must be unique and occurs twice."""
    return Cause("FieldValueDuplicate", _message("Duplicate value", value, ""), field)


def not_found(field: str, value: Json) -> Cause:
    """The value refers to something that does not exist."""
    return Cause("FieldValueNotFound", _message("Not found", value, ""), field)


def unsupported(field: str, value: Json, supported: Sequence[str]) -> Cause:
    """The value is not one of the supported ones."""
    quoted = ", ".join(json.dumps(choice) for choice in supported)
    return Cause("FieldValueNotSupported", _message("Unsupported value", value, f"supported values: {quoted}"), field)


def too_long(field: str, longest: int) -> Cause:
    """The value has more than ``longest`` bytes."""
    return Cause("FieldValueTooLong", f"Too long: may not be more than {longest} bytes", field)


def broken_rules(field: str, value: Json, complaints: Sequence[str]) -> list[Cause]:
    """Return one ``invalid`` cause for each complaint."""
    return [invalid(field, value, complaint) for complaint in complaints]

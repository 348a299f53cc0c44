"""Causes of an invalid object, in the words of apimachinery's ``field`` package: one function per sort."""

from __future__ import annotations

import json
from collections.abc import Sequence

from crosswind.local.statuses import Cause
from crosswind.types import Json

__all__ = ["duplicate", "forbidden", "invalid", "lacking", "not_found", "required", "too_long", "unsupported"]


def _said(sort: str, value: Json, detail: str) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return f"{sort}: {shown}: {detail}" if detail else f"{sort}: {shown}"


def invalid(field: str, value: Json, detail: str) -> Cause:
    """Say that the value breaks a rule."""
    return Cause("FieldValueInvalid", _said("Invalid value", value, detail), field)


def required(field: str, detail: str = "") -> Cause:
    """Say that the value is missing or empty."""
    return Cause("FieldValueRequired", f"Required value: {detail}" if detail else "Required value", field)


def forbidden(field: str, detail: str) -> Cause:
    """Say that the field may not be set or changed here."""
    return Cause("FieldValueForbidden", f"Forbidden: {detail}", field)


def duplicate(field: str, value: Json) -> Cause:
    """Say that the value must be unique and is there twice."""
    return Cause("FieldValueDuplicate", _said("Duplicate value", value, ""), field)


def not_found(field: str, value: Json) -> Cause:
    """Say that the value names nothing."""
    return Cause("FieldValueNotFound", _said("Not found", value, ""), field)


def unsupported(field: str, value: Json, supported: Sequence[str]) -> Cause:
    """Say that the value is not one of those that exist."""
    quoted = ", ".join(json.dumps(choice) for choice in supported)
    return Cause("FieldValueNotSupported", _said("Unsupported value", value, f"supported values: {quoted}"), field)


def too_long(field: str, longest: int) -> Cause:
    """Say that the value has more than ``longest`` bytes."""
    return Cause("FieldValueTooLong", f"Too long: may not be more than {longest} bytes", field)


def lacking(field: str, value: Json, complaints: Sequence[str]) -> list[Cause]:
    """Make one invalid cause for each complaint."""
    return [invalid(field, value, complaint) for complaint in complaints]

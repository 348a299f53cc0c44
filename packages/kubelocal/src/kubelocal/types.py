"""JSON values and manifests, as the whole package passes them around."""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = ["Json", "Manifest"]

Json: TypeAlias = Any
"""A value of a JSON document of which nothing is known yet."""

Manifest: TypeAlias = dict[str, Any]
"""An API object as JSON; its fields are those of the Kubernetes API reference."""

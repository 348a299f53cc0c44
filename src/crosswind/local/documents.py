"""What the API says about itself: health, version, discovery, OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from starlette.responses import PlainTextResponse, Response

from crosswind.local.discovery import documents as discovered
from crosswind.local.openapi import documents as described

__all__ = ["document"]

HEALTH = frozenset({"/healthz", "/livez", "/readyz"})


def document(path: str, headers: Mapping[str, str]) -> Response:
    """Answer a GET of what is no resource; a path that is not served is a plain 404 page, as in Kubernetes."""
    if path in HEALTH:
        return PlainTextResponse("ok")
    found = None
    if found is None:
        return PlainTextResponse("404 page not found\n", 404)
    return Response(orjson.dumps(found), media_type="application/json")

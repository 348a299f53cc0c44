"""The documents of the API about itself: health, version, discovery and OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from starlette.responses import PlainTextResponse, Response

from kubelocal.api import discovery, openapi
from kubelocal.codec.status_errors import method_not_allowed
from kubelocal.types import Manifest

__all__ = ["answer_document"]

HEALTH = frozenset({"/healthz", "/livez", "/readyz"})


def answer_document(method: str, path: str, headers: Mapping[str, str]) -> Response:
    """Answer a path that is not a resource; an unknown one gets a plain 404 page, as in Kubernetes."""
    path = path.rstrip("/")
    if path in HEALTH:
        return PlainTextResponse("ok")
    document = _document(path.split("/")[1:], headers.get("host", ""))
    if document is None:
        return PlainTextResponse("404 page not found\n", 404)
    if method not in {"GET", "HEAD"}:
        raise method_not_allowed()
    return Response(orjson.dumps(document), media_type="application/json")


def _document(parts: list[str], host: str) -> Manifest | None:
    match parts:
        case ["version"]:
            return discovery.INFO
        case ["api"]:
            return discovery.api_versions(host)
        case ["apis"]:
            return discovery.api_groups()
        case ["api", version]:
            return discovery.resources("", version)
        case ["apis", group]:
            return discovery.api_group(group)
        case ["apis", group, version]:
            return discovery.resources(group, version)
        case ["openapi", "v3"]:
            return openapi.index()
        case ["openapi", "v3", *rest]:
            return openapi.document("/".join(rest))
    return None

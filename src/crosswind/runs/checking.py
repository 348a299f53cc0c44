"""What can be known at start: does the server answer, do the namespaces exist, are the permissions there."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

from crosswind.errors import ApiError, NotFound
from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, PODS, SECRETS, Resource
from crosswind.settings import EngineSettings

__all__ = ["needed", "problems", "server_version"]

log = logging.getLogger(__name__)


async def server_version(client: Client) -> tuple[int, int] | None:
    """Return major and minor version of the API server; None when it tells none."""
    found = await client.version()
    numbers = [re.match(r"\d+", str(found.get(part, ""))) for part in ("major", "minor")]
    return (int(numbers[0][0]), int(numbers[1][0])) if numbers[0] and numbers[1] else None


def needed(settings: EngineSettings) -> Iterator[tuple[str, Resource, str]]:
    """Yield verb, resource and subresource of each permission that an executor needs in a namespace."""
    for verb in ("create", "get", "list", "watch", "patch", "delete"):
        yield verb, PODS, ""
    if settings.workload_delivery == "secret":
        for verb in ("create", "list", "patch", "delete"):
            yield verb, SECRETS, ""


async def problems(client: Client, settings: EngineSettings) -> list[str]:
    """Return what is wrong, a sentence each, with the mend."""
    found: list[str] = []
    for namespace in settings.namespaces:
        if namespace is not None and await _is_missing(client, namespace):
            found.append(
                f"Namespace {namespace} does not exist. Create it, or correct [kubernetes_executor] namespace "
                "(or [crosswind] queues, if it is of a queue)."
            )
            continue
        where = f"in namespace {namespace}" if namespace else "in all namespaces"
        for verb, resource, subresource in needed(settings):
            if not await client.allowed(verb, resource, namespace=namespace, subresource=subresource):
                found.append(
                    f"The scheduler may not {verb} {resource.plural} {where}. Give its service account a role."
                )
    return found


async def _is_missing(client: Client, namespace: str) -> bool:
    try:
        await client.get(NAMESPACES, namespace)
    except NotFound:
        return True
    except ApiError:
        return False  # not allowed to look; the first pod will tell
    return False

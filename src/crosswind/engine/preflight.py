"""Checks at start: whether the API server answers, the namespaces exist and the permissions are granted."""

from __future__ import annotations

import re
from collections.abc import Iterator

from crosswind.errors import ApiError, NotFound
from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, PODS, SECRETS, Resource
from crosswind.settings import EngineSettings

__all__ = ["needed_permissions", "preflight_problems", "server_version"]


async def server_version(client: Client) -> tuple[int, int] | None:
    """Return major and minor version of the API server; None if its answer has none."""
    version = await client.version()
    numbers = [re.match(r"\d+", str(version.get(part, ""))) for part in ("major", "minor")]
    return (int(numbers[0][0]), int(numbers[1][0])) if numbers[0] and numbers[1] else None


def needed_permissions(settings: EngineSettings) -> Iterator[tuple[str, Resource, str]]:
    """Yield verb, resource and subresource of each permission that an executor needs in a namespace."""
    for verb in ("create", "get", "list", "watch", "patch", "delete"):
        yield verb, PODS, ""
    if settings.workload_delivery == "secret":
        for verb in ("create", "list", "patch", "delete"):
            yield verb, SECRETS, ""


async def preflight_problems(client: Client, settings: EngineSettings) -> list[str]:
    """Return each missing namespace and permission as a sentence with the fix."""
    problems: list[str] = []
    for namespace in settings.namespaces:
        if namespace is not None and await _is_missing(client, namespace):
            problems.append(
                f"Namespace {namespace} does not exist. Create it, or correct [kubernetes_executor] namespace "
                "(or [crosswind] queues, if it is of a queue)."
            )
            continue
        where = f"in namespace {namespace}" if namespace else "in all namespaces"
        for verb, resource, subresource in needed_permissions(settings):
            if not await client.allowed(verb, resource, namespace=namespace, subresource=subresource):
                problems.append(
                    f"The scheduler may not {verb} {resource.plural} {where}. Give its service account a role."
                )
    return problems


async def _is_missing(client: Client, namespace: str) -> bool:
    try:
        await client.get(NAMESPACES, namespace)
    except NotFound:
        return True
    except ApiError:
        return False  # a scheduler may lack the right to read namespaces; the first pod shows whether it exists
    return False

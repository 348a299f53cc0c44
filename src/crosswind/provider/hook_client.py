"""Requests of the pod operator with the credentials of its hook.

The hook reads an Airflow connection, which only the task's own thread can do. So callers build the hook's client first,
and the asynchronous client here copies its configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from kubernetes.client import ApiClient, ApiException, Configuration, CoreV1Api
from kubernetes.client.models import V1Pod
from urllib3.exceptions import HTTPError

from crosswind.errors import Unreachable
from crosswind.event_loop import run_in_own_loop
from crosswind.kube.client import Client
from crosswind.kube.requests import create as create_request
from crosswind.kube.resources import PODS
from crosswind.kube.responses import error_of
from crosswind.settings import KubeSettings
from crosswind.types import Json, Manifest

__all__ = ["borrow_client", "post_pod", "run_with_client", "to_plain_json"]

T = TypeVar("T")

_CALL_TIMEOUT_S = 600.0
"""Limit of one ``run_with_client``: the longest call ends the sidecars of a kept pod, and has a limit of its own."""

_REQUEST_TIMEOUT_S = 60.0


async def borrow_client(api: CoreV1Api) -> Client:
    """Return a client of the running event loop that uses the configuration of the hook's client."""
    return await Client.from_configuration(api.api_client.configuration, KubeSettings())


def run_with_client(
    api: CoreV1Api, call: Callable[[Client], Coroutine[Any, Any, T]], timeout: float = _CALL_TIMEOUT_S
) -> T:
    """Run ``call`` with a client of its own in a fresh thread, and return its result.

    A thread, because the caller may be on a running event loop. Raises what ``call`` raises, and ``Unreachable`` after
    ``timeout`` seconds.
    """

    async def connected() -> T:
        async with await borrow_client(api) as client:
            return await call(client)

    try:
        return run_in_own_loop(connected, timeout)
    except TimeoutError as error:
        raise Unreachable(f"the cluster did not answer all requests within {timeout:g} s") from error


def post_pod(api: CoreV1Api, manifest: Manifest, namespace: str) -> V1Pod:
    """Create a pod by the hook's client. Its errors are translated to ``ApiError`` and ``Unreachable``.

    By the hook's client, not by ours: a subclass may have replaced it to change the request.
    """
    try:
        return api.create_namespaced_pod(body=manifest, namespace=namespace, _request_timeout=_REQUEST_TIMEOUT_S)
    except ApiException as error:
        request = create_request(PODS, manifest, namespace=namespace)
        body = error.body.encode() if isinstance(error.body, str) else error.body or b""
        raise error_of(request, error.status or 500, dict(error.headers or {}), body) from error
    except HTTPError as error:
        raise Unreachable(f"the API server did not answer: {error}") from error


def to_plain_json(value: Any) -> Json:
    """Return a model, a dict or JSON text (as connections hold it) as JSON values."""
    return json.loads(value) if isinstance(value, str) else ApiClient(Configuration()).sanitize_for_serialization(value)

"""Reads tasks from Airflow's public REST API, for commands that show them beside their pods.

A command works without Airflow: what cannot be read is a text that says why, never an error.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import click

from crosswind.errors import CrosswindError
from crosswind.pods.pod_summary import PodSummary
from crosswind.types import Json

if TYPE_CHECKING:
    from aiohttp import ClientResponse

__all__ = ["AirflowServer", "AirflowTasks", "airflow_options", "choose_airflow"]

_TIMEOUT_S = 10.0
_NDJSON = "application/x-ndjson"
_MAX_LINE_BYTES = 2**20
"""Bytes of one line of a log; aiohttp refuses a longer one."""
_TOKEN_VARIABLES = ("CROSSWIND_AIRFLOW_TOKEN", "AIRFLOW_CLI_TOKEN")
"""The second is airflowctl's. A token is no option, because every user of the machine sees a process's options."""

F = TypeVar("F", bound=Callable[..., Any])


def airflow_options(command: F) -> F:
    """Add ``--airflow-url``."""
    return click.option(
        "--airflow-url",
        metavar="URL",
        envvar="CROSSWIND_AIRFLOW_URL",
        show_envvar=True,
        help="Airflow's address, to show its tasks too; CROSSWIND_AIRFLOW_TOKEN holds a token for it.",
    )(command)


@dataclass(frozen=True, slots=True)
class AirflowServer:
    """An Airflow API server. ``token``: "" asks the server for one, which a simple auth manager gives to everybody."""

    url: str
    token: str = field(default="", repr=False)


def choose_airflow(url: str | None) -> AirflowServer | None:
    """Return the server that option and environment name, None for none."""
    if not url:
        return None
    if not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"{url!r} does not begin with http:// or https://", param_hint="--airflow-url")
    token = next((value for name in _TOKEN_VARIABLES if (value := os.environ.get(name, "").strip())), "")
    return AirflowServer(url.rstrip("/"), token)


class _Refused(CrosswindError):
    """Airflow did not respond, or its response cannot be used."""


class AirflowTasks:
    """A client of one Airflow, an async context manager."""

    def __init__(self, server: AirflowServer) -> None:
        self._server = server
        self._token = server.token

    async def __aenter__(self) -> AirflowTasks:
        import aiohttp

        # A long log may take longer as a whole, but not until its next bytes.
        timeout = aiohttp.ClientTimeout(total=None, connect=_TIMEOUT_S, sock_read=_TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, read_bufsize=_MAX_LINE_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def report(self, pod: PodSummary) -> dict[str, Any] | None:
        """Return ``state``, ``max_tries``, ``tries`` and ``pods`` of a pod's task, or as ``problem`` why it cannot.

        ``pods``: those of all tries, the newest first, as Crosswind's plug-in records them; [] where Airflow does not
        have it. None for a pod that runs no task.
        """
        if not (pod.dag_id and pod.run_id and pod.task_id):
            return None
        try:
            answer = await self._get(f"{_path(pod)}/tries")
        except _Refused as error:
            return {"state": None, "max_tries": None, "tries": [], "pods": [], "problem": str(error)}
        instances = answer.get("task_instances") if isinstance(answer, dict) else None
        tries = sorted(map(_try, instances or []), key=lambda item: int(item["try_number"] or 0))
        newest: Mapping[str, Any] = tries[-1] if tries else {}
        known = {name: newest.get(name) for name in ("state", "max_tries")}
        return {**known, "tries": tries, "pods": await self._pods(pod), "problem": ""}

    async def log(self, pod: PodSummary) -> AsyncGenerator[str]:
        """Yield the lines of a try's log as Airflow keeps it. Raises ``CrosswindError`` when it cannot be read."""
        number = pod.try_number or await self._newest_try(pod)
        query = {"map_index": str(-1 if pod.map_index is None else pod.map_index), "full_content": "true"}
        async with self._request(f"{_task_path(pod)}/logs/{number}", _NDJSON, **query) as response:
            async for raw in response.content:
                if line := raw.strip():
                    yield _log_line(json.loads(line))

    async def _pods(self, pod: PodSummary) -> list[dict[str, Any]]:
        query = {"dag_id": pod.dag_id, "run_id": pod.run_id, "task_id": pod.task_id}
        index = str(-1 if pod.map_index is None else pod.map_index)
        try:
            answer = await self._get("/crosswind/api/pod", **query, map_index=index)
        except _Refused:
            return []  # an Airflow without Crosswind, or a task of another executor
        pods = answer.get("pods") if isinstance(answer, dict) else None
        return [_recorded_pod(item) for item in pods or [] if isinstance(item, dict)]

    async def _newest_try(self, pod: PodSummary) -> int:
        report = await self.report(pod)
        if report is None or report["problem"]:
            raise _Refused(report["problem"] if report else "name the task by --dag, --run and --task")
        return max((item["try_number"] for item in report["tries"]), default=1)

    async def _get(self, path: str, **query: str) -> Json:
        async with self._request(path, "application/json", **query) as response:
            return await response.json()

    @contextlib.asynccontextmanager
    async def _request(self, path: str, accept: str, **query: str) -> AsyncIterator[ClientResponse]:
        import aiohttp

        server = self._server
        try:
            if not self._token:
                self._token = await self._ask_for_token()
            headers = {"Authorization": f"Bearer {self._token}", "Accept": accept}
            async with self._session.get(server.url + path, params=query, headers=headers) as response:
                if response.status != 200:
                    raise _Refused(await _refusal(response, server))
                yield response
        except TimeoutError:
            raise _Refused(f"{server.url} did not answer within {_TIMEOUT_S:g} s") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise _Refused(f"{server.url} did not respond like an Airflow API server: {error}") from error

    async def _ask_for_token(self) -> str:
        async with self._session.get(f"{self._server.url}/auth/token") as response:
            answer = await response.json() if response.status in (200, 201) else None
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str):
            raise _Refused(f"{self._server.url} requires a token: set {_TOKEN_VARIABLES[0]}")
        return token


async def _refusal(response: ClientResponse, server: AirflowServer) -> str:
    """Return what a status other than 200 means, with Airflow's own word for it."""
    if response.status == 404:
        return f"{server.url} does not know the task (404): is it this cluster's Airflow?"
    try:
        detail = (await response.json()).get("detail")
    except (ValueError, AttributeError):
        detail = None
    word = f"{response.status}, {detail[:80]}" if isinstance(detail, str) else str(response.status)
    if response.status in (401, 403):
        return (
            f"{server.url} denied the request ({word}): check {_TOKEN_VARIABLES[0]}, and that its user may read this"
            " DAG's tasks"
        )
    return f"{server.url} responded with status {word}"


def _task_path(pod: PodSummary) -> str:
    dag, run, task = (quote(text, safe="") for text in (pod.dag_id, pod.run_id, pod.task_id))
    return f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}"


def _path(pod: PodSummary) -> str:
    return _task_path(pod) if pod.map_index is None else f"{_task_path(pod)}/{pod.map_index}"


def _try(instance: Json) -> dict[str, Any]:
    known = instance if isinstance(instance, dict) else {}
    duration = known.get("duration")
    return {
        "try_number": known.get("try_number") or 0,
        "max_tries": known.get("max_tries"),
        "state": known.get("state"),
        "start": _short_time(known.get("start_date")),
        "seconds": f"{duration:.1f}" if isinstance(duration, int | float) else "-",
        "host": known.get("hostname") or "",
        "queue": known.get("queue") or "",
    }


def _recorded_pod(item: Mapping[str, Json]) -> dict[str, Any]:
    """Return a pod of the tab *Pod*, the parts that a table shows."""
    status, memory = item.get("status") or {}, item.get("memory") or {}
    return {
        **{name: item.get(name) for name in ("try_number", "launch", "name", "namespace", "node", "lives")},
        "status": str(status.get("title", "")),
        "cause": str(status.get("text", "")),
        "memory": str(memory.get("text", "")),
        "peak_memory": memory.get("peak"),
    }


def _short_time(stamp: object) -> str:
    try:
        moment = datetime.datetime.fromisoformat(str(stamp))
    except ValueError:
        return ""
    return f"{moment.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%S}"


def _log_line(entry: Json) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    words = [str(entry[name]) for name in ("timestamp", "level") if entry.get(name)]
    return " ".join([*words, str(entry.get("event", ""))])

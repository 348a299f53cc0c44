"""The pod's streams over HTTP and WebSocket: log, exec, attach and port-forward.

What the API server refuses is a Status; what the kubelet refuses (a container that does not run, no stream asked for)
is plain text, as in Kubernetes, and both come as the answer to the handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from crosswind.local import forwarding
from crosswind.local.integers import parse_int
from crosswind.local.seams import LogOptions, Process, Registry, Runtime
from crosswind.local.statuses import Cause, StatusError, bad_request, invalid
from crosswind.local.websocket import (
    CLOSE,
    COMMAND_PROTOCOLS,
    ERROR,
    RESIZE,
    STDERR,
    STDIN,
    STDOUT,
    Channels,
    choose,
    unless_gone,
)
from crosswind.types import Manifest

__all__ = ["Permit", "routes"]

Permit = Callable[[HTTPConnection, str], None]
"""Raises a StatusError unless the caller may also use this verb on the address."""

PIECE = 1 << 16
_PATH = "/api/v1/namespaces/{namespace}/pods/{name}"


def routes(registry: Registry, runtime: Runtime, permit: Permit = lambda connection, verb: None) -> list[BaseRoute]:
    """Return the addresses of a pod's streams; who may come in is decided before, by the app and by ``permit``."""
    streams = _Streams(registry, runtime, permit)
    sockets = {"exec": streams.command, "attach": streams.command, "portforward": streams.forward}
    return [
        Route(f"{_PATH}/log", streams.log, methods=["GET"]),
        *(WebSocketRoute(f"{_PATH}/{name}", endpoint) for name, endpoint in sockets.items()),
        *(Route(f"{_PATH}/{name}", streams.plain, methods=["GET", "POST"]) for name in sockets),
    ]


class Refusal(Exception):
    """The kubelet's no, in plain text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Wanted:
    """The streams that a client asks for; with a tty there is no separate standard error."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def read(cls, query: QueryParams) -> Wanted:
        """Read the query of exec or attach; raises ``Refusal`` when it asks for nothing."""
        tty = flag(query, "tty")
        wanted = cls(flag(query, "stdin"), flag(query, "stdout"), flag(query, "stderr") and not tty, tty)
        if not (wanted.stdin or wanted.stdout or wanted.stderr):
            raise Refusal(400, "you must specify at least 1 of stdin, stdout, stderr")
        return wanted


class _Streams:
    def __init__(self, registry: Registry, runtime: Runtime, permit: Permit) -> None:
        self._registry = registry
        self._runtime = runtime
        self._permit = permit

    # -- log

    async def log(self, request: Request) -> Response:
        try:
            options = log_options(request.query_params)
            pod, container = self._locate(request)
            if not pod["spec"].get("nodeName"):
                return Response(status_code=204)
            if problem := log_problem(pod, container, previous=options.previous):
                raise bad_request(problem)
        except StatusError as refusal:
            return answer(refusal)
        return StreamingResponse(self._log_text(pod, container, options), headers={"Content-Type": "text/plain"})

    async def _log_text(self, pod: Manifest, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        try:
            async for piece in self._runtime.log(pod, container, options):
                yield piece
        except LookupError:
            status = _statuses(pod).get(container, {})
            yield f"unable to retrieve container logs for {status.get('containerID', '')}".encode()

    # -- exec and attach

    async def plain(self, request: Request) -> Response:
        """Answer what asks for a stream without a WebSocket."""
        try:
            self._check(request)
            raise bad_request("Upgrade request required")
        except (StatusError, Refusal) as refusal:
            return answer(refusal)

    async def command(self, websocket: WebSocket) -> None:
        await _answered(websocket, self._command)

    async def _command(self, websocket: WebSocket) -> None:
        self._permit(websocket, "create")
        pod, container = self._check(websocket)
        wanted = Wanted.read(websocket.query_params)
        channels = _channels(websocket, COMMAND_PROTOCOLS)
        try:
            process = await self._start(websocket, pod, container, wanted)
        except LookupError as problem:
            raise Refusal(500, f'container not found ("{container}")') from problem
        except OSError as problem:
            await channels.open()
            command = websocket.query_params.getlist("command")
            await _tell_end(channels, start_failure(command, problem))
            return
        await converse(channels, process, wanted)

    async def _start(self, websocket: WebSocket, pod: Manifest, container: str, wanted: Wanted) -> Process:
        if websocket.url.path.endswith("/attach"):
            return await self._runtime.attach(pod, container, stdin=wanted.stdin)
        command = websocket.query_params.getlist("command")
        return await self._runtime.exec(pod, container, command, stdin=wanted.stdin, tty=wanted.tty)

    # -- port-forward

    async def forward(self, websocket: WebSocket) -> None:
        await _answered(websocket, self._forward)

    async def _forward(self, websocket: WebSocket) -> None:
        self._permit(websocket, "create")
        pod, _ = self._check(websocket)
        if forwarding.ASKED_TUNNEL in websocket.scope["subprotocols"]:
            await forwarding.tunnel(websocket, self._runtime, pod)
            return
        channels = _channels(websocket, forwarding.PROTOCOLS)
        try:
            ports = forwarding.read_ports(websocket.query_params.getlist("ports"))
        except ValueError as problem:
            raise Refusal(400, str(problem)) from problem
        await forwarding.forward(channels, self._runtime, pod, ports)

    # -- which pod

    def _locate(self, connection: HTTPConnection) -> tuple[Manifest, str]:
        """Return the pod and the container that the address and query mean."""
        pod = self._registry.get("Pod", connection.path_params["namespace"], connection.path_params["name"])
        return pod, container_of(pod, connection.query_params.get("container", ""))

    def _check(self, connection: HTTPConnection) -> tuple[Manifest, str]:
        if connection.url.path.endswith("/portforward"):
            pod = self._registry.get("Pod", connection.path_params["namespace"], connection.path_params["name"])
            container = ""
        else:
            pod, container = self._locate(connection)
        if not pod["spec"].get("nodeName"):
            raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
        return pod, container


def _channels(websocket: WebSocket, known: Sequence[str]) -> Channels:
    """Speak the first of the client's protocols that is known; raises ``Refusal`` when none is."""
    offered = websocket.scope["subprotocols"]
    protocol = choose(offered, known)
    if protocol is None:
        raise Refusal(400, f"unable to upgrade: none of {offered} is known")
    return Channels(websocket, protocol)


async def _answered(websocket: WebSocket, endpoint: Callable[[WebSocket], Awaitable[None]]) -> None:
    """Run an endpoint; what it refuses before the handshake is the answer to it."""
    try:
        await endpoint(websocket)
    except (StatusError, Refusal) as refusal:
        await websocket.send_denial_response(answer(refusal))
    except WebSocketDisconnect:
        return


def answer(refusal: StatusError | Refusal) -> Response:
    """Write a refusal as an HTTP answer."""
    if isinstance(refusal, Refusal):
        return Response(f"{refusal}\n", refusal.code, media_type="text/plain")
    return Response(orjson.dumps(refusal.status), refusal.code, {"Content-Type": "application/json"})


# ----------------------------------------------------------------------------------------------- what is asked


def flag(query: Mapping[str, str], name: str) -> bool:
    """Read a boolean as the API server does: there and neither ``0`` nor ``false``."""
    return name in query and query[name].lower() not in ("0", "false")


def log_options(query: Mapping[str, str]) -> LogOptions:
    """Read the query of ``pods/log``. Raises a StatusError: 400 for what is no number or time, 422 for a wrong one."""
    numbers = {name: _number(query[name]) for name in ("tailLines", "sinceSeconds", "limitBytes") if query.get(name)}
    causes = [
        Cause("FieldValueInvalid", f"Invalid value: {numbers[name]}: must be greater than{words} 0", name)
        for name, least, words in (("tailLines", 0, " or equal to"), ("sinceSeconds", 1, ""), ("limitBytes", 1, ""))
        if name in numbers and numbers[name] < least
    ]
    if "sinceSeconds" in numbers and query.get("sinceTime"):
        words = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
        causes.append(Cause("FieldValueForbidden", words, ""))
    if causes:
        raise invalid("PodLogOptions", "", causes)
    return LogOptions(
        follow=flag(query, "follow"),
        previous=flag(query, "previous"),
        timestamps=flag(query, "timestamps"),
        tail_lines=numbers.get("tailLines"),
        since_seconds=numbers.get("sinceSeconds"),
        since_time=_time(query.get("sinceTime")),
        limit_bytes=numbers.get("limitBytes"),
    )


def _number(text: str) -> int:
    try:
        return parse_int(text)
    except ValueError as problem:
        raise bad_request(str(problem)) from None


def _time(text: str | None) -> str | None:
    if not text:
        return None
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise bad_request(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse it') from None
    return text


def container_of(pod: Manifest, name: str) -> str:
    """Return the container that is meant; raises a StatusError 400 when that is none, or one of several."""
    spec, pod_name = pod["spec"], pod["metadata"]["name"]
    regular = [c["name"] for c in spec.get("containers", ())]
    others = {kind: [c["name"] for c in spec.get(kind) or ()] for kind in ("initContainers", "ephemeralContainers")}
    known = [*others["initContainers"], *regular, *others["ephemeralContainers"]]
    if not name and len(regular) == 1:
        return str(regular[0])
    if not name:
        names = " ".join(known)
        raise bad_request(f"a container name must be specified for pod {pod_name}, choose one of: [{names}]")
    if name not in known:
        raise bad_request(f"container {name} is not valid for pod {pod_name}")
    return name


def _statuses(pod: Manifest) -> dict[str, Manifest]:
    kinds = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    return {s["name"]: s for kind in kinds for s in pod.get("status", {}).get(kind) or ()}


def log_problem(pod: Manifest, container: str, *, previous: bool) -> str | None:
    """Say why there is no log to give, in the kubelet's words (``validateContainerLogStatus``), or None."""
    status, words = _statuses(pod).get(container), f'container "{container}" in pod "{pod["metadata"]["name"]}"'
    if status is None:
        return f"{words} is not available"
    state, last = status.get("state", {}), status.get("lastState", {}).get("terminated", {}).get("containerID")
    if previous:
        return None if last else f"previous terminated {words} not found"
    ended = "terminated" in state
    if "running" in state or last or (ended and state["terminated"].get("containerID")):
        return None
    if ended:
        return f"{words} is terminated"
    reason = state.get("waiting", {}).get("reason")
    known = {"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image"}
    return (
        f"{words} is waiting to start: {known.get(reason, reason)}"
        if reason
        else f"{words} is waiting to start - no logs yet"
    )


# ------------------------------------------------------------------------------------------- exec and attach


async def converse(channels: Channels, process: Process, wanted: Wanted) -> None:
    """Carry a process's streams until it has ended and all it wrote is sent, or until the client is gone."""
    try:
        await channels.open()
        await channels.send(STDOUT if wanted.stdout else STDERR if wanted.stderr else ERROR, b"")
        code = await unless_gone(_deliver(channels, process, wanted), _listen(channels, process))
        if code is not None:
            await _tell_end(channels, outcome(code))
    finally:
        process.close()


async def _deliver(channels: Channels, process: Process, wanted: Wanted) -> int:
    streams = ((STDOUT, process.stdout, wanted.stdout), (STDERR, process.stderr, wanted.stderr))
    await asyncio.gather(
        *(_pump(channels, number, reader, asked) for number, reader, asked in streams if reader is not None)
    )
    return await process.wait()


async def _pump(channels: Channels, number: int, reader: asyncio.StreamReader, asked: bool) -> None:
    while piece := await reader.read(PIECE):
        if asked:
            await channels.send(number, piece)


async def _listen(channels: Channels, process: Process) -> None:
    """Pass on what the client sends, until it is gone."""
    while (message := await channels.receive()) is not None:
        channel, content = message
        if channel == STDIN and content and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.write(content)
                await process.stdin.drain()
        elif channel == CLOSE and content == bytes((STDIN,)) and process.stdin is not None:
            process.stdin.close()
        elif channel == RESIZE:
            _resize(process, content)


def _resize(process: Process, content: bytes) -> None:
    with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError):
        size = orjson.loads(content)
        process.resize(int(size["Width"]), int(size["Height"]))


async def _tell_end(channels: Channels, status: Manifest) -> None:
    await channels.send(ERROR, orjson.dumps(status))
    await channels.close()


def outcome(code: int) -> Manifest:
    """Return the Status that ends a command."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def start_failure(command: list[str], problem: OSError) -> Manifest:
    """Return the Status for a command that could not be started: no exit code, as there was no process."""
    name = command[0] if command else ""
    missing = isinstance(problem, FileNotFoundError)
    why = (
        ("no such file or directory" if "/" in name else "executable file not found in $PATH")
        if missing
        else problem.strerror
    )
    message = f'error executing command in container: failed to exec in container: exec: "{name}": {why}'
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }

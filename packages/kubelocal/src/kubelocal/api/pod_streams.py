"""The pod's streams over HTTP and WebSocket: log, exec, attach and port-forward.

A refusal by the API server is a Status, one by the kubelet (a container that does not run, a query without streams) is
plain text, as in Kubernetes; both are sent as the response to the handshake. The server owns the task of a stream. It
ends when the process has ended and its output is sent, or when the client disconnects; then ``Process.close`` runs.
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

from kubelocal.api import port_forward
from kubelocal.api.stream_channels import (
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
from kubelocal.codec.integers import parse_int
from kubelocal.codec.status_errors import Cause, StatusError, bad_request, internal_error, invalid
from kubelocal.interfaces import PodLogOptions, Process, Registry, Runtime
from kubelocal.types import Manifest

__all__ = ["Permit", "routes"]

Permit = Callable[[HTTPConnection, str], None]
"""Raises a StatusError unless the client may also use this verb on the resource."""

CHUNK_BYTES = 1 << 16
_PATH = "/api/v1/namespaces/{namespace}/pods/{name}"


def routes(registry: Registry, runtime: Runtime, permit: Permit = lambda connection, verb: None) -> list[BaseRoute]:
    """Return the routes of a pod's streams; the application and ``permit`` authorize their requests."""
    streams = _Streams(registry, runtime, permit)
    sockets = {"exec": streams.command, "attach": streams.command, "portforward": streams.forward}
    return [
        Route(f"{_PATH}/log", streams.log, methods=["GET"]),
        *(WebSocketRoute(f"{_PATH}/{name}", endpoint) for name, endpoint in sockets.items()),
        *(Route(f"{_PATH}/{name}", streams.plain, methods=["GET", "POST"]) for name in sockets),
    ]


class StreamRefused(Exception):
    """A refusal by the kubelet, in plain text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class RequestedStreams:
    """The streams of a query; a tty has no separate standard error."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def read(cls, query: QueryParams) -> RequestedStreams:
        """Read the query of exec or attach; raises ``StreamRefused`` for one without streams."""
        tty = flag(query, "tty")
        requested = cls(flag(query, "stdin"), flag(query, "stdout"), flag(query, "stderr") and not tty, tty)
        if not (requested.stdin or requested.stdout or requested.stderr):
            raise StreamRefused(400, "you must specify at least 1 of stdin, stdout, stderr")
        return requested


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
            pieces = self._pieces(pod, container, options)
        except StatusError as error:
            return answer(error)
        return StreamingResponse(self._log_text(pod, container, pieces), headers={"Content-Type": "text/plain"})

    def _pieces(self, pod: Manifest, container: str, options: PodLogOptions) -> AsyncIterator[bytes] | None:
        """Return the log's chunks, None where the node has none; raise 500 when it does not answer."""
        try:
            return self._runtime.log(pod, container, options)
        except LookupError:
            return None
        except ConnectionError as problem:
            raise internal_error(str(problem)) from problem

    async def _log_text(
        self, pod: Manifest, container: str, pieces: AsyncIterator[bytes] | None
    ) -> AsyncIterator[bytes]:
        try:
            if pieces is None:
                raise LookupError(container)
            async for piece in pieces:
                yield piece
        except LookupError:
            status = _statuses(pod).get(container, {})
            yield f"unable to retrieve container logs for {status.get('containerID', '')}".encode()

    # -- exec and attach

    async def plain(self, request: Request) -> Response:
        """Refuse a request for a stream that is no WebSocket."""
        try:
            self._check(request)
            raise bad_request("Upgrade request required")
        except (StatusError, StreamRefused) as error:
            return answer(error)

    async def command(self, websocket: WebSocket) -> None:
        await _answered(websocket, self._command)

    async def _command(self, websocket: WebSocket) -> None:
        self._permit(websocket, "create")
        pod, container = self._check(websocket)
        requested = RequestedStreams.read(websocket.query_params)
        channels = _channels(websocket, COMMAND_PROTOCOLS)
        try:
            process = await self._start(websocket, pod, container, requested)
        except LookupError as problem:
            raise StreamRefused(500, f'container not found ("{container}")') from problem
        except ConnectionError as problem:
            raise StreamRefused(500, str(problem)) from problem
        except OSError as problem:
            await channels.open()
            command = websocket.query_params.getlist("command")
            await _send_status(channels, start_failure(command, problem))
            return
        await converse(channels, process, requested)

    async def _start(self, websocket: WebSocket, pod: Manifest, container: str, requested: RequestedStreams) -> Process:
        if websocket.url.path.endswith("/attach"):
            return await self._runtime.attach(pod, container, stdin=requested.stdin)
        command = websocket.query_params.getlist("command")
        return await self._runtime.exec(pod, container, command, stdin=requested.stdin, tty=requested.tty)

    # -- port-forward

    async def forward(self, websocket: WebSocket) -> None:
        await _answered(websocket, self._forward)

    async def _forward(self, websocket: WebSocket) -> None:
        self._permit(websocket, "create")
        pod, _ = self._check(websocket)
        if port_forward.SLASHLESS_TUNNEL in websocket.scope["subprotocols"]:
            await port_forward.tunnel(websocket, self._runtime, pod)
            return
        channels = _channels(websocket, port_forward.PROTOCOLS)
        try:
            ports = port_forward.read_ports(websocket.query_params.getlist("ports"))
        except ValueError as problem:
            raise StreamRefused(400, str(problem)) from problem
        await port_forward.forward(channels, self._runtime, pod, ports)

    # -- pod and container

    def _locate(self, connection: HTTPConnection) -> tuple[Manifest, str]:
        """Return the pod of the path and the container of the query."""
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
    """Use the first of the client's protocols that is supported; raises ``StreamRefused`` when none is."""
    offered = websocket.scope["subprotocols"]
    protocol = choose(offered, known)
    if protocol is None:
        raise StreamRefused(400, f"unable to upgrade: none of {offered} is known")
    return Channels(websocket, protocol)


async def _answered(websocket: WebSocket, endpoint: Callable[[WebSocket], Awaitable[None]]) -> None:
    """Run an endpoint; send its refusal as the response to the handshake."""
    try:
        await endpoint(websocket)
    except (StatusError, StreamRefused) as error:
        await websocket.send_denial_response(answer(error))
    except WebSocketDisconnect:
        return


def answer(error: StatusError | StreamRefused) -> Response:
    """Return the HTTP response for a refusal."""
    if isinstance(error, StreamRefused):
        return Response(f"{error}\n", error.code, media_type="text/plain")
    return Response(orjson.dumps(error.status), error.code, {"Content-Type": "application/json"})


# ----------------------------------------------------------------------------------------------- query


def flag(query: Mapping[str, str], name: str) -> bool:
    """Read a boolean as the API server does: present and neither ``0`` nor ``false``."""
    return name in query and query[name].lower() not in ("0", "false")


def log_options(query: Mapping[str, str]) -> PodLogOptions:
    """Read the query of ``pods/log``. Raises a StatusError: 400 for a malformed value, 422 for one out of range."""
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
    return PodLogOptions(
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
    """Return the container; raises a StatusError 400 for an unknown one, and for no name where there are several."""
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
    """Return the kubelet's message for a container without a log (``validateContainerLogStatus``), else None."""
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


async def converse(channels: Channels, process: Process, requested: RequestedStreams) -> None:
    """Copy a process's streams until it has ended and its output is sent, or until the client disconnects."""
    try:
        await channels.open()
        await channels.send(STDOUT if requested.stdout else STDERR if requested.stderr else ERROR, b"")
        code = await unless_gone(_deliver(channels, process, requested), _listen(channels, process))
        if code is not None:
            await _send_status(channels, outcome(code))
    finally:
        process.close()


async def _deliver(channels: Channels, process: Process, requested: RequestedStreams) -> int:
    streams = ((STDOUT, process.stdout, requested.stdout), (STDERR, process.stderr, requested.stderr))
    await asyncio.gather(
        *(
            _pump(channels, number, reader, is_requested)
            for number, reader, is_requested in streams
            if reader is not None
        )
    )
    return await process.wait()


async def _pump(channels: Channels, number: int, reader: asyncio.StreamReader, is_requested: bool) -> None:
    while piece := await reader.read(CHUNK_BYTES):
        if is_requested:
            await channels.send(number, piece)


async def _listen(channels: Channels, process: Process) -> None:
    """Pass the client's messages to the process until the client disconnects."""
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


async def _send_status(channels: Channels, status: Manifest) -> None:
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

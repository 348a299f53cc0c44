"""The programs inside injected sidecars: real processes that run until their own quit request.

Run as ``python -I -S sidecar_program.py NAME [ARGS...]``: the standard library only and few modules of it, because one
starts with every pod. ``PROGRAMS`` says for each sidecar what it answers and how it ends; ports, paths, methods, exit
codes and defaults are those of the real ones (Istio 1.26+, Linkerd 2.16+, Vault 1.10+, Cloud SQL Auth Proxy 2.7+ ...).

Environment: ``CROSSWIND_READY_AFTER`` seconds until ready, default 0.5. ``POD_IP`` or ``INSTANCE_IP``: an address of
127.0.0.0/8 stands for the pod's own; any other means that the pod has a network of its own.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import NamedTuple

__all__ = ["PROGRAMS", "Program", "ServedEndpoint", "main", "parse_options"]

EVERYWHERE, LOOPBACK = "0.0.0.0", "127.0.0.1"  # noqa: S104  a pod's network namespace, or the pod's own address
LIMIT = 65536
LOOK_S = 5.0
ANSWERED_S = 0.3  # from quit to the exit at least: its own client dies with process 1 and must have the answer
REASONS = {200: "OK", 204: "No Content", 400: "Bad Request", 403: "Forbidden", 404: "Not Found"}
REASONS |= {405: "Method Not Allowed", 503: "Service Unavailable"}


class ServedEndpoint(NamedTuple):
    """A port and path of the program, and its answer."""

    port: str  # a number, or the option that holds it
    path: str  # or the option that holds it
    does: str = "ok"  # ok, ready (503 until then), quit
    methods: str = "GET"  # "" takes any
    address: str = EVERYWHERE  # or the option that holds it
    inside: bool = False  # asked from elsewhere than loopback: 403
    otherwise: int = 405  # the answer to another method
    needs: str = ""  # an option that must be on; else 404, and a port without any enabled endpoint stays closed
    body: str = ""
    code: int = 200


class Program(NamedTuple):
    """One sidecar. Options come from ``--name``, ``-name`` and the environment (prefix + NAME)."""

    endpoints: tuple[ServedEndpoint, ...] = ()
    options: dict[str, str] = {}  # noqa: RUF012  with their defaults; "false" makes a switch
    prefix: str = "CROSSWIND_"
    term_code: int = 0
    term_zero: str = ""  # the switch that makes the code of TERM 0
    term_wait: str = "0"  # seconds between TERM and the exit, or the option that holds them
    quit_wait: str = "0"  # seconds between quit and the exit, or the option that holds them
    carries: tuple[str, ...] = ()  # ports whose open connections are waited for, at most so long
    exit_file: str = ""  # the option with the folder in which a file named exit, looked for every 5 s, ends it with 0


def _envoy(port: str, address: str = LOOPBACK) -> tuple[ServedEndpoint, ...]:
    quit_endpoint = ServedEndpoint(port, "/quitquitquit", "quit", "POST", address, otherwise=400, body="OK\n")
    return (
        ServedEndpoint(port, "/ready", "ready", address=address, body="LIVE\n"),
        quit_endpoint,
        ServedEndpoint(port, "/server_info", address=address, body="{}"),
    )


PROGRAMS: dict[str, Program] = {
    "istio": Program(
        (
            ServedEndpoint("15021", "/healthz/ready", "ready"),
            ServedEndpoint("15090", "/stats/prometheus"),
            ServedEndpoint("status-port", "/healthz/ready", "ready"),
            ServedEndpoint("status-port", "/stats/prometheus"),
            ServedEndpoint("status-port", "/drain", methods="POST", inside=True, body="OK"),
            ServedEndpoint("status-port", "/quitquitquit", "quit", "POST", inside=True, body="OK"),
            *_envoy("15000"),
        ),
        {"status-port": "15020", "drain": "5"},
        term_wait="drain",
    ),
    "linkerd": Program(
        (
            ServedEndpoint("4191", "/ready", "ready", body="ready\n"),
            ServedEndpoint("4191", "/live", body="live\n"),
            ServedEndpoint("4191", "/metrics"),
            ServedEndpoint(
                "4191", "/shutdown", "quit", "POST", inside=True, needs="shutdown-endpoint-enabled", body="shutdown\n"
            ),
        ),
        {"shutdown-endpoint-enabled": "false", "shutdown-grace-period": "120"},
        prefix="LINKERD2_PROXY_",
        term_wait="shutdown-grace-period",
        quit_wait="shutdown-grace-period",
        carries=("4140", "4143"),
    ),
    "vault": Program(
        (ServedEndpoint("port", "/agent/v1/quit", "quit", "POST", LOOPBACK, needs="quit"),),
        {"port": "8200", "quit": "false"},
    ),
    "cloud-sql-proxy": Program(
        (
            ServedEndpoint("admin-port", "/quitquitquit", "quit", "GET POST", LOOPBACK, needs="quitquitquit"),
            *(
                ServedEndpoint("http-port", path, "ready", address="http-address", needs="health-check")
                for path in ("/startup", "/readiness")
            ),
            ServedEndpoint("http-port", "/liveness", address="http-address", needs="health-check"),
        ),
        {"admin-port": "9091", "quitquitquit": "false", "http-port": "9090", "http-address": "localhost"}
        | {"health-check": "false", "exit-zero-on-sigterm": "false"},
        prefix="CSQL_PROXY_",
        term_code=143,
        term_zero="exit-zero-on-sigterm",
    ),
    "alloydb-auth-proxy": Program(
        (ServedEndpoint("admin-port", "/quitquitquit", "quit", "POST", LOOPBACK, needs="quitquitquit"),),
        {"admin-port": "9091", "quitquitquit": "false", "exit-zero-sigterm": "false"},
        prefix="ALLOYDB_PROXY_",
        term_code=143,
        term_zero="exit-zero-sigterm",
    ),
    "cloud-sql-proxy-v1": Program(),
    "gcsfuse": Program(options={"volume-base-path": "/gcsfuse-tmp/.volumes"}, exit_file="volume-base-path"),
    "consul-dataplane": Program(
        (
            ServedEndpoint("graceful-port", "graceful-shutdown-path", "quit", "", LOOPBACK),
            ServedEndpoint("21000", "/ready", "ready"),
        ),
        {
            "graceful-port": "20600",
            "graceful-shutdown-path": "/graceful_shutdown",
            "shutdown-grace-period-seconds": "30",
        },
        quit_wait="shutdown-grace-period-seconds",
    ),
    "kuma-dp": Program((*_envoy("9901"), ServedEndpoint("9902", "/ready", "ready"))),
    "daprd": Program(
        (
            ServedEndpoint("dapr-http-port", "/v1.0/healthz", "ready", address=EVERYWHERE, code=204),
            ServedEndpoint("dapr-http-port", "/v1.0/shutdown", "quit", "POST", inside=True, code=204),
        ),
        {"dapr-http-port": "3500", "dapr-graceful-shutdown-seconds": "5"},
        quit_wait="dapr-graceful-shutdown-seconds",
    ),
    "envoy": Program(_envoy("admin-port", EVERYWHERE), {"admin-port": "9901"}),
    "appmesh-envoy": Program(_envoy("admin-access-port", EVERYWHERE), {"admin-access-port": "9901"}, prefix="ENVOY_"),
    "osm-envoy": Program(_envoy("15000")),
    "fluent-bit": Program((ServedEndpoint("2020", "/api/v1/health", "ready", body="ok\n"),)),
    "fluentd": Program(term_code=143),
    "otel-collector": Program((ServedEndpoint("13133", "/", "ready", body="{}"),)),
    "datadog-agent": Program((ServedEndpoint("5555", "/ready", "ready"), ServedEndpoint("5555", "/live"))),
    "git-sync": Program(),
    "vector": Program((ServedEndpoint("8686", "/health", "ready", body='{"ok":true}\n'),)),
    "sidecar": Program(),
    **{
        name: Program()
        for name in (
            *("tshark", "gcsfuse-prefetch", "containerboot", "azwi-proxy", "pgbouncer"),
            *("filebeat", "xray", "start-amazon-cloudwatch-agent"),
        )
    },
}
"""Every sidecar that can be played, by name."""


def parse_options(program: Program, arguments: list[str], environment: dict[str, str]) -> dict[str, str]:
    """Return the program's options; what it does not know is left alone, as proxies have hundreds of flags."""
    options = dict(program.options)
    for name in options:
        options[name] = environment.get(program.prefix + name.upper().replace("-", "_"), options[name])
    for place, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name in options:
            switch = program.options[name] in ("false", "true")
            options[name] = value if equals else "true" if switch else "".join(arguments[place + 1 : place + 2])
    return options


def seconds(text: str) -> float:
    """Read ``5``, ``5s``, ``100ms`` or ``2m``."""
    for suffix, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0)):
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    return float(text)


class Sidecar:
    """A running sidecar. ``run`` serves until its quit request and returns the exit code."""

    def __init__(self, program: Program, options: dict[str, str], own_address: str, ready_after: float) -> None:
        self.program = program
        self.options = options
        self.own_address = own_address
        self.ready_at = time.monotonic() + ready_after
        self.end: tuple[float, int] | None = None
        self.look_at = time.monotonic() + LOOK_S
        self.carried: set[socket.socket] = set()
        self.selector = selectors.DefaultSelector()
        self.endpoints: dict[tuple[str, int], list[ServedEndpoint]] = {}
        for endpoint in program.endpoints:
            address, port = self.bound(self.value(endpoint.address)), int(self.value(endpoint.port))
            self.endpoints.setdefault((address, port), []).append(endpoint)

    def value(self, text: str) -> str:
        """Return an option's value, or the text itself."""
        return self.options.get(text, text)

    def bound(self, address: str) -> str:
        """Return where to listen."""
        return self.own_address or (LOOPBACK if address == "localhost" else address)

    def is_enabled(self, endpoint: ServedEndpoint) -> bool:
        """Whether the option that an endpoint needs is on."""
        return not endpoint.needs or self.options[endpoint.needs] == "true"

    def listen(self) -> None:
        """Open the ports. ``OSError``: one is taken."""
        for (address, port), endpoints in self.endpoints.items():
            if any(self.is_enabled(endpoint) for endpoint in endpoints):
                self.open(address, port, endpoints)
        for port_text in self.program.carries:
            self.open(self.bound(EVERYWHERE), int(port_text), None)

    def open(self, address: str, port: int, endpoints: list[ServedEndpoint] | None) -> None:
        listener = socket.create_server((address, port), backlog=64)
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, lambda: self.accept(listener, endpoints))

    def accept(self, listener: socket.socket, endpoints: list[ServedEndpoint] | None) -> None:
        try:
            connection, peer = listener.accept()
        except OSError:
            return  # the client disconnected before it was accepted
        if endpoints is None:
            self.carried.add(connection)
            self.selector.register(connection, selectors.EVENT_READ, lambda: self.carry(connection))
        else:
            received = bytearray()
            inside = peer[0].startswith("127.")
            answer = lambda: self.read(connection, received, endpoints, inside)  # noqa: E731
            self.selector.register(connection, selectors.EVENT_READ, answer)

    def carry(self, connection: socket.socket) -> None:
        """Read a proxy client's data and record its disconnection."""
        if not _receive(connection):
            self.carried.discard(connection)
            self.drop(connection)

    def drop(self, connection: socket.socket) -> None:
        self.selector.unregister(connection)
        connection.close()

    def read(
        self, connection: socket.socket, received: bytearray, endpoints: list[ServedEndpoint], inside: bool
    ) -> None:
        """Respond when the whole request head has arrived."""
        received += (data := _receive(connection))
        if b"\r\n\r\n" in received or not data or len(received) > LIMIT:
            words = received.split(b"\r\n", 1)[0].decode("latin-1").split()
            if len(words) == 3:
                code, body = self.answer(words[0], words[1].partition("?")[0], endpoints, inside)
                _send(connection, code, body)
            self.drop(connection)

    def answer(self, method: str, path: str, endpoints: list[ServedEndpoint], inside: bool) -> tuple[int, str]:
        """Decide on one request, and act on a quit."""
        endpoint = next((endpoint for endpoint in endpoints if self.value(endpoint.path) == path), None)
        if endpoint is None:
            return 404, "404 page not found\n"
        if endpoint.methods and method not in endpoint.methods.split():
            return endpoint.otherwise, f"{REASONS[endpoint.otherwise]}\n"
        if endpoint.inside and not inside:
            return 403, "Only requests from localhost are allowed\n"
        if not self.is_enabled(endpoint):
            return 404, "shutdown endpoint is not enabled\n"
        if endpoint.does == "ready" and time.monotonic() < self.ready_at:
            return 503, "not ready\n"
        if endpoint.does == "quit":
            self.leave(0, self.program.quit_wait, ANSWERED_S)
        return endpoint.code, endpoint.body

    def leave(self, code: int, wait: str, least: float = 0.0) -> None:
        """Schedule the exit; the first request counts."""
        if self.end is None:
            self.end = (time.monotonic() + max(least, seconds(self.value(wait))), code)

    def terminate(self) -> None:
        """Handle TERM."""
        zero = self.options.get(self.program.term_zero) == "true"
        self.leave(0 if zero else self.program.term_code, self.program.term_wait)

    def run(self) -> int:
        """Serve until the quit request."""
        while True:
            if self.end and (time.monotonic() >= self.end[0] or (self.program.carries and not self.carried)):
                return self.end[1]
            for key, _ in self.selector.select(self.patience()):
                key.data()
            self.look()

    def patience(self) -> float | None:
        """Return the seconds until something is due, None for never."""
        due = [self.end[0]] if self.end else []
        due += [self.look_at] if self.program.exit_file else []
        return max(0.0, min(due) - time.monotonic()) if due else None

    def look(self) -> None:
        """Check for the exit file when a check is due."""
        if self.program.exit_file and time.monotonic() >= self.look_at:
            self.look_at = time.monotonic() + LOOK_S
            if os.path.exists(f"{self.options[self.program.exit_file]}/exit"):
                self.leave(0, "0")


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(LIMIT)
    except OSError:
        return b""


def _send(connection: socket.socket, code: int, body: str) -> None:
    data = body.encode()
    head = f"HTTP/1.1 {code} {REASONS[code]}\r\nContent-Type: text/plain\r\nContent-Length: {len(data)}\r\n"
    with suppress(OSError):  # the client has disconnected; its request still takes effect
        connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + (b"" if code == 204 else data))


def own_address(environment: dict[str, str]) -> str:
    """Return the loopback address that stands for the pod, or "" in a network of its own."""
    address = environment.get("POD_IP") or environment.get("INSTANCE_IP") or ""
    return address if address.startswith("127.") else ""


def serve(name: str, arguments: list[str], more: dict[str, str]) -> int:
    """Play a sidecar to its end; ``more`` are options that stood elsewhere than in flags and environment."""
    environment = dict(os.environ)
    program = PROGRAMS[name]
    options = parse_options(program, arguments, environment) | more
    sidecar = Sidecar(
        program, options, own_address(environment), seconds(environment.get("CROSSWIND_READY_AFTER", "0.5"))
    )
    _on_term(sidecar)
    sidecar.listen()
    print(f"{name} is up", flush=True)
    code = sidecar.run()
    print(f"{name} ends with {code}", flush=True)
    return code


def _on_term(sidecar: Sidecar) -> None:
    """Let TERM and INT wake the loop; a byte comes through a socket because a handler alone does not end a select."""
    woken, waker = socket.socketpair()
    woken.setblocking(False)
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    sidecar.selector.register(woken, selectors.EVENT_READ, lambda: (woken.recv(64), waker.fileno()))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sidecar.terminate())


def ask(port: str, method: str, path: str) -> tuple[int, str]:
    """Send a request to this pod. ``OSError``: nobody listens."""
    address = own_address(dict(os.environ)) or LOOPBACK
    with socket.create_connection((address, int(port)), timeout=10) as connection:
        connection.sendall(
            f"{method} /{path.lstrip('/')} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        reply = b"".join(iter(lambda: connection.recv(LIMIT), b"")).decode()
    head, _, body = reply.partition("\r\n\r\n")
    return int(head.split()[1]), body


def await_ready(port: str, path: str, patience: float) -> int:
    """Wait until a port says that it is ready; 0, or 1 after ``patience`` seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        with suppress(OSError):  # not listening yet
            if ask(port, "GET", path)[0] < 300:
                return 0
        time.sleep(0.05)
    return 1


def request(port: str, method: str, path: str) -> int:
    """Ask, print the answer, return 0 for success; 404 counts as success, as with the real ``pilot-agent``."""
    try:
        code, body = ask(port, method, path)
    except OSError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(body, end="")
    return 0 if code < 300 or code == 404 else 1


def pilot_agent(arguments: list[str]) -> int:
    """Istio's agent: ``proxy``, ``wait``, ``request``; ``istio-iptables`` has nothing to redirect here."""
    command, *rest = arguments or ["proxy"]
    if command == "proxy":
        return serve("istio", rest, _proxy_config())
    flags = parse_options(Program(options={"debug-port": "15000", "timeoutSeconds": "60"}), rest, {})
    if command == "wait":
        return await_ready("15021", "/healthz/ready", seconds(flags["timeoutSeconds"]))
    if command == "request":
        words = [word for word in rest if not word.startswith("-") and word != flags["debug-port"]]
        return request(flags["debug-port"], words[0], words[1])
    return 0


def _proxy_config() -> dict[str, str]:
    """Read the parts of Istio's ProxyConfig that matter here."""
    import json

    config = json.loads(os.environ.get("PROXY_CONFIG") or "{}")
    names = {"statusPort": "status-port", "terminationDrainDuration": "drain"}
    return {option: str(config[name]) for name, option in names.items() if name in config}


def vault(arguments: list[str]) -> int:
    """Vault's agent: writes the secrets' files of its configuration, then ends (``exit_after_auth``) or stays."""
    import json

    paths = [word.partition("=")[2] for word in arguments if word.startswith("-config=")]
    with open(paths[0]) as file:
        config = json.load(file)
    for template in config.get("template", []):
        os.makedirs(os.path.dirname(template["destination"]), exist_ok=True)
        with open(template["destination"], "w") as secret:
            secret.write(template["contents"])
    if config.get("exit_after_auth"):
        return 0
    port = config["listener"][0]["tcp"]["address"].rpartition(":")[2] if config.get("listener") else "8200"
    return serve("vault", [], {"port": port, "quit": "true" if config.get("listener") else "false"})


def _google_proxy(name: str, arguments: list[str]) -> int:
    """Cloud SQL's or AlloyDB's proxy, with its ``shutdown`` command."""
    if arguments[:1] == ["shutdown"]:
        return request(parse_options(PROGRAMS[name], arguments, {})["admin-port"], "POST", "/quitquitquit")
    return serve(name, arguments, {})


def cloud_sql_proxy(arguments: list[str]) -> int:
    """Cloud SQL's proxy."""
    return _google_proxy("cloud-sql-proxy", arguments)


def alloydb_auth_proxy(arguments: list[str]) -> int:
    """AlloyDB's proxy."""
    return _google_proxy("alloydb-auth-proxy", arguments)


def linkerd_await(arguments: list[str]) -> int:
    """Linkerd's wrapper: waits for the proxy, runs a command, with ``--shutdown`` ends the proxy."""
    place = next((place for place, word in enumerate(arguments) if word == "--" or not word.startswith("-")), None)
    flags, command = (arguments, []) if place is None else (arguments[:place], arguments[place:])
    command = command[1:] if command[:1] == ["--"] else command
    if await_ready("4191", "/ready", 120):
        return 1
    code = subprocess.call(command) if command else 0
    if "--shutdown" in flags:
        request("4191", "POST", "/shutdown")
    return code


COMMANDS = {
    "pilot-agent": pilot_agent,
    "vault": vault,
    "alloydb-auth-proxy": alloydb_auth_proxy,
    "cloud-sql-proxy": cloud_sql_proxy,
    "linkerd-await": linkerd_await,
}


def main(arguments: list[str]) -> int:
    """Run the program of that name; ``done`` ends at once, as init containers without work do."""
    name, *rest = arguments
    if name == "done":
        return 0
    return COMMANDS[name](rest) if name in COMMANDS else serve(name, rest, {})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

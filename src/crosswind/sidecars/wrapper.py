"""Runs a command among sidecars: waits until they are ready, runs it, requests them to quit, exits with its exit code.

The wrapper is made to be process 1 of a Job's container (``crosswind wrap -- CMD``), so it starts fast and imports the
standard library alone. It sends requests to loopback only, and every wait has a deadline. Without sidecars it acts as
an init process: it forwards signals and reaps orphans. It reports its own faults on stderr; they change no exit code.

All signals that it handles are blocked, in the only thread, and fetched by ``sigtimedwait``: none is lost between two
system calls, and no handler interrupts a request.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from crosswind.sidecars.catalog import KNOWN, Endpoint, KnownSidecar, Role

__all__ = [
    "LOOK_S",
    "QUIT_RETRY_S",
    "QuitEndpoint",
    "ReadyEndpoint",
    "WrapSettings",
    "quit_endpoints",
    "ready_endpoints",
    "run",
]

LOOK_S = 5.0
"""Time for which ``auto`` looks for sidecars. The kubelet starts a pod's containers one after the other, so one that is
listed after this one starts a second or more later."""
QUIT_RETRY_S = 5.0
"""Time for which a request to quit is repeated for a sidecar that listens and does not accept it at once."""
_POLL_INTERVAL_S = 0.05
_REQUEST_TIMEOUT_S = 2.0
_SI_KERNEL = 0x80  # si_code of a signal from the terminal: the kernel sent it to the whole foreground group
_TERMINATING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_FORWARDED = (*_TERMINATING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH, signal.SIGALRM)
_BLOCKED = {*_FORWARDED, signal.SIGCHLD}
_LOOPBACK = ("127.0.0.1", "::1")
_NOT_LISTENING = {errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH, errno.EHOSTUNREACH}
"""Nothing accepts connections at the address, or the pod has no such address: ``::1`` where IPv6 is off."""

AnyEndpoint = TypeVar("AnyEndpoint", bound="_SidecarEndpoint")


@dataclass(frozen=True)
class _SidecarEndpoint:
    """An HTTP endpoint of one sidecar, on loopback."""

    sidecar: str
    method: str
    port: int
    path: str
    headers: tuple[tuple[str, str], ...] = ()


class QuitEndpoint(_SidecarEndpoint):
    """A request that ends the sidecar."""


class ReadyEndpoint(_SidecarEndpoint):
    """A request that answers 2xx once the sidecar is ready."""


@dataclass(frozen=True)
class WrapSettings:
    """The settings of ``run``. Times in seconds."""

    meshes: tuple[str, ...] = ("auto",)
    """``auto``: every known sidecar that listens; ``none``: no sidecar; else the names of sidecars to wait for."""
    wait_timeout: float = 60.0
    """Limit for sidecars that listen to become ready; after that the command runs nevertheless."""
    look: float = LOOK_S
    """Time from the wrapper's start for which ``auto`` waits for sidecars that do not listen yet."""
    quit: tuple[QuitEndpoint, ...] = ()
    """Further requests that end sidecars."""
    address: str = "localhost"
    """Address at which the pod's sidecars listen."""


def quit_endpoints(meshes: Collection[str], known: Iterable[KnownSidecar] = KNOWN) -> list[QuitEndpoint]:
    """Return the requests that end the named sidecars or (``auto``) all known ones, helpers before the mesh.

    A sidecar that its owner ends (``KnownSidecar.owner``) gets no request unless it is named.
    """
    products = [product for product in _selected(meshes, known) if not product.owner or product.name in meshes]
    return _unique(QuitEndpoint(*_parts(product, ask)) for product in products for ask in product.asks)


def ready_endpoints(meshes: Collection[str], known: Iterable[KnownSidecar] = KNOWN) -> list[ReadyEndpoint]:
    """Return the readiness requests of the named sidecars or (``auto``) of all known ones, helpers before the mesh."""
    products = _selected(meshes, known)
    return _unique(ReadyEndpoint(*_parts(product, product.ready)) for product in products if product.ready)


def _selected(meshes: Collection[str], known: Iterable[KnownSidecar]) -> list[KnownSidecar]:
    order = list(Role)
    selected = (product for product in known if product.name in meshes or ("auto" in meshes and not product.like))
    return sorted(selected, key=lambda product: order.index(product.role))


def _parts(product: KnownSidecar, endpoint: Endpoint) -> tuple[str, str, int, str, tuple[tuple[str, str], ...]]:
    headers = tuple(endpoint.headers.items())
    return product.name, endpoint.method, int(endpoint.port.default), endpoint.path.default, headers


def _unique(endpoints: Iterable[AnyEndpoint]) -> list[AnyEndpoint]:
    """Drop a request that another product has already: from inside the pod the two look alike."""
    unique: dict[tuple[str, int, str], AnyEndpoint] = {}
    for endpoint in endpoints:
        unique.setdefault((endpoint.method, endpoint.port, endpoint.path), endpoint)
    return list(unique.values())


def run(command: Sequence[str], settings: WrapSettings, *, known: Iterable[KnownSidecar] = KNOWN) -> int:
    """Run the command and return its exit code: 128 + n for signal n, 126 and 127 as a shell has them."""
    # Before anything else, so that no signal is lost and no child ends unnoticed: the kernel reports no children to a
    # process that has inherited SIGCHLD as ignored.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    mesh = _Mesh(settings, known)
    number = mesh.await_ready()
    code = 128 + number if number else _supervise(command)
    # Also after a signal: the pod ends only when the sidecars do, however the command ended.
    mesh.quit_all()
    return code


def _warn(text: str) -> None:
    if sys.stderr is None:  # closed by the parent
        return
    with contextlib.suppress(OSError):  # a full disk, a reader that has gone: no reason not to run the command
        print(f"crosswind wrap: {text}", file=sys.stderr, flush=True)


class _Mesh:
    """The pod's sidecars, as far as they have been found listening."""

    def __init__(self, settings: WrapSettings, known: Iterable[KnownSidecar]) -> None:
        self._settings = settings
        self._began = time.monotonic()
        known = tuple(known)
        self._readies = ready_endpoints(settings.meshes, known)
        self._quits = [*settings.quit, *quit_endpoints(settings.meshes, known)]
        self._named = set(settings.meshes) - {"auto", "none"}
        self._seen: set[str] = set()
        self._window = min(settings.look, settings.wait_timeout) if "auto" in settings.meshes else 0.0

    @property
    def _passed(self) -> float:
        return time.monotonic() - self._began

    def await_ready(self) -> int:
        """Wait until every sidecar is ready that is named, or that listens within the window.

        Return the signal that ended the wait early, else 0.
        """
        number = 0
        # The only wait before the command. A signal ends it, since nothing runs yet that could handle it.
        while self._readies and not number and not self._is_settled(unready := self._unready()):
            if self._passed >= self._settings.wait_timeout:
                self._report_unready(unready)
                break
            # Sleeps and listens in one: signals are blocked, so a plain sleep would keep them waiting.
            number = _next_signal(_POLL_INTERVAL_S, _TERMINATING)
        return number

    def _unready(self) -> list[str]:
        """Probe every sidecar once; return those that are named or listen, and are not ready."""
        states = {endpoint.sidecar: _readiness(self._settings.address, endpoint) for endpoint in self._readies}
        self._seen |= {name for name, ready in states.items() if ready is not None}
        return sorted(name for name in self._seen | (self._named & states.keys()) if not states[name])

    def _is_settled(self, unready: Sequence[str]) -> bool:
        return not unready and self._passed >= self._window

    def _report_unready(self, unready: Sequence[str]) -> None:
        for what, names in (
            ("ready", [name for name in unready if name in self._seen]),
            ("there", [name for name in unready if name not in self._seen]),
        ):
            if names:
                verb = "is" if len(names) == 1 else "are"
                after = f"after {self._passed:.1f} s; running the command anyway"
                _warn(f"{', '.join(names)} {verb} not {what} {after}")

    def quit_all(self) -> None:
        """Request every sidecar to quit, also one that starts to listen only now, while the window is open."""
        answers: dict[str, int] = {}
        own = {endpoint.sidecar for endpoint in self._settings.quit}
        expected = (self._seen | self._named | own) & {endpoint.sidecar for endpoint in self._quits}
        # Only sidecars that are expected or have answered extend the wait: the others may not exist.
        retry_until = self._passed + QUIT_RETRY_S
        while True:
            left = [endpoint for endpoint in self._quits if not _is_answer(answers.get(endpoint.sidecar, -1))]
            answers |= _quit_once(left, self._settings.address)
            pending = [name for name in expected | answers.keys() if not _is_answer(answers.get(name, -1))]
            # At least the window: a sidecar without startup order (before KEP-753) may start after a short command has
            # ended.
            if self._passed >= max(self._window, retry_until if pending else 0.0):
                break
            time.sleep(_POLL_INTERVAL_S)
        for name in sorted(expected | set(pending)):
            if not _is_accepted(answers.get(name, -1)):
                answer = f"answered {answers[name]}" if name in answers else "does not answer"
                _warn(f"{name} could not be asked to quit: it {answer}; see the documentation on sidecars")


def _readiness(address: str, endpoint: _SidecarEndpoint) -> bool | None:
    """Return whether a sidecar is ready; None when nothing listens on its port, or another program does."""
    try:
        code = request(address, endpoint)
    except ConnectionRefusedError:
        return None
    except OSError:
        return False
    return None if code in (401, 403, 404, 405) else 200 <= code < 300


def _next_signal(timeout: float, signals: Iterable[int]) -> int:
    """Wait at most ``timeout`` seconds for one of the signals; return it, else 0. Reaps children that have ended."""
    # Process 1 inherits the orphans of the pod: unless it reaps them, zombies fill the pid table.
    info = signal.sigtimedwait(_BLOCKED, timeout)
    if info is not None and info.si_signo == signal.SIGCHLD:
        _reap(0)
        return 0
    return info.si_signo if info is not None and info.si_signo in signals else 0


def _supervise(command: Sequence[str]) -> int:
    """Start the command, forward signals and reap children until it has ended; return its exit code."""
    ignored = {signal.SIGPIPE, signal.SIGXFSZ}  # Python ignores them; the command must get the defaults
    try:
        # setsigmask=(): the command must not inherit our blocked signals
        child = os.posix_spawnp(command[0], list(command), os.environ, setsigmask=(), setsigdef=ignored)
    except OSError as error:
        _warn(f"cannot run {command[0]}: {error.strerror}")
        return 127 if isinstance(error, FileNotFoundError) else 126
    while True:
        info = signal.sigwaitinfo(_BLOCKED)
        if info.si_signo == signal.SIGCHLD:
            if (status := _reap(child)) is not None:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        # Ctrl-C at a terminal reaches the whole foreground group, the command included: forwarding would deliver it
        # twice.
        elif info.si_code != _SI_KERNEL:
            # the pid is still the command's: only this loop reaps it
            os.kill(child, info.si_signo)


def _reap(child: int) -> int | None:
    """Reap all children that have ended; return the wait status of ``child`` if it is among them."""
    child_status = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return child_status
        if pid == 0:
            return child_status
        if pid == child:
            child_status = status


def _is_accepted(code: int) -> bool:
    """Return whether the sidecar quits. One that exits at once may cut off its answer (0)."""
    return code == 0 or 200 <= code < 300


def _is_answer(code: int) -> bool:
    """Return whether an answer is final. A sidecar that is starting or overloaded answers 429 or 5xx for a while."""
    return code >= 0 and code != 429 and code < 500


def _quit_once(endpoints: Sequence[QuitEndpoint], address: str) -> dict[str, int]:
    """Send each sidecar its requests until it accepts one; return the answers by sidecar."""
    answers: dict[str, int] = {}
    for endpoint in endpoints:
        if not _is_accepted(answers.get(endpoint.sidecar, -1)):
            with contextlib.suppress(OSError):
                answers[endpoint.sidecar] = request(address, endpoint)
    return answers


def request(address: str, endpoint: _SidecarEndpoint) -> int:
    """Send a request and return the status code, 0 when the answer was cut off.

    Raises ``OSError`` when nothing listens or no answer comes in time.
    """
    deadline = time.monotonic() + _REQUEST_TIMEOUT_S
    headers = {"Host": "localhost", "Connection": "close", "Content-Length": "0", **dict(endpoint.headers)}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with _connect(address, endpoint.port) as connection:
        connection.sendall(f"{endpoint.method} {endpoint.path} HTTP/1.1\r\n{head}\r\n".encode())
        words = _first_line(connection, lambda: deadline - time.monotonic()).split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def _connect(address: str, port: int) -> socket.socket:
    """Connect to a sidecar. Raises ``ConnectionRefusedError`` when nothing listens, else ``OSError``.

    ``localhost`` is both loopback addresses, without a resolver: where it knows an address that the pod does not have,
    the error of that address would hide that nothing listens at the other one.
    """
    failures: list[OSError] = []
    for candidate in _LOOPBACK if address == "localhost" else (address,):
        try:
            return socket.create_connection((candidate, port), timeout=_REQUEST_TIMEOUT_S)
        except OSError as error:
            failures.append(error)
    raise next((error for error in failures if error.errno not in _NOT_LISTENING), ConnectionRefusedError(port))


def _first_line(connection: socket.socket, left: Callable[[], float]) -> bytes:
    received = b""
    while b"\r\n" not in received:
        if not select.select([connection], [], [], max(0.0, left()))[0]:
            raise TimeoutError("no answer in time")
        try:
            data = connection.recv(4096)
        except ConnectionResetError:  # a sidecar that exits at once resets the connection: the answer is cut off
            break
        if not data:
            break
        received += data
    return received.split(b"\r\n")[0]

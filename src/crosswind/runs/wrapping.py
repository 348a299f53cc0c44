"""Runs a command among sidecars: waits until they are ready, runs it, tells them to end, ends as the command did.

Made to be process 1 of a Job's container (``crosswind wrap -- CMD``), so it starts fast and needs the standard library
alone. It talks to loopback only, every wait has an end, and where there is no sidecar it is a mere init process:
signals are passed on, orphans are reaped. What goes wrong around the command is told on stderr and changes nothing
else.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from crosswind.pods.known_sidecars import KNOWN, Ask, KnownSidecar, Role

__all__ = ["Door", "WrapSettings", "doors_of", "run"]

LOOK_S = 3.0
"""How long ``auto`` looks for a sidecar: a container that starts beside this one listens within that."""
_AGAIN_S = 0.05
_CALL_S = 2.0
_KERNEL = 0x80  # si_code of a signal that a terminal sent: it went to the command as well
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_PASSED = (*_ENDING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH, signal.SIGALRM)
_WATCHED = {*_PASSED, signal.SIGCHLD}


@dataclass(frozen=True)
class Door:
    """One request to a sidecar: ``quit`` ends it, else it tells whether it is ready."""

    sidecar: str
    method: str
    port: int
    path: str
    quit: bool
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class WrapSettings:
    """How to wrap. Times in seconds."""

    mesh: str = "auto"
    """``auto``: whatever known sidecar is found; ``none``: nothing; else the name of one, which is waited for."""
    wait_timeout: float = 60.0
    """How long sidecars that are there may take to be ready; then the command runs all the same."""
    quit: tuple[Door, ...] = ()
    """Further requests that end sidecars."""
    address: str = "localhost"
    """Where the pod's sidecars listen."""


def doors_of(mesh: str, known: Iterable[KnownSidecar] = KNOWN) -> list[Door]:
    """Return the requests for one sidecar or (``auto``) all, helpers before the mesh; what others end is not told."""
    order = list(Role)
    chosen = sorted((one for one in known if mesh in ("auto", one.name)), key=lambda one: order.index(one.role))
    found: dict[tuple[str, int, str], Door] = {}
    for door in (door for one in chosen for door in _doors(one, mesh)):
        found.setdefault((door.method, door.port, door.path), door)
    return list(found.values())


def _doors(known: KnownSidecar, mesh: str) -> Iterator[Door]:
    asks: list[tuple[Ask, bool]] = [(ask, True) for ask in known.asks if not known.owner or mesh == known.name]
    for ask, ends in asks + ([(known.ready, False)] if known.ready else []):
        headers = tuple(ask.headers.items())
        yield Door(known.name, ask.method, int(ask.port.default), ask.path.default, ends, headers)


def run(command: Sequence[str], settings: WrapSettings, *, known: Iterable[KnownSidecar] = KNOWN) -> int:
    """Run the command and return its exit code: 128 + n for signal n, 126 and 127 as a shell has them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    mesh = _Mesh(settings, known)
    number = mesh.await_ready()
    code = 128 + number if number else _supervise(command)
    mesh.quit_all()
    return code


def _say(text: str) -> None:
    print(f"crosswind wrap: {text}", file=sys.stderr, flush=True)


class _Mesh:
    """The pod's sidecars, as far as they have been met."""

    def __init__(self, settings: WrapSettings, known: Iterable[KnownSidecar]) -> None:
        self._settings = settings
        self._began = time.monotonic()
        doors = [] if settings.mesh == "none" else doors_of(settings.mesh, known)
        self._readies = [door for door in doors if not door.quit]
        self._quits = [*settings.quit, *(door for door in doors if door.quit)]
        self._named = {settings.mesh} - {"auto", "none"}
        self._seen: set[str] = set()
        # how long one that does not listen yet is waited for
        found_by_looking = min(LOOK_S, settings.wait_timeout) if doors else 0.0
        self._patience = settings.wait_timeout if self._named else found_by_looking

    @property
    def _passed(self) -> float:
        return time.monotonic() - self._began

    def await_ready(self) -> int:
        """Wait until all sidecars that are there are ready; return the signal that cut it short, or 0."""
        number = 0
        while self._readies and not number and not self._is_settled(waits := self._unready()):
            if self._passed >= self._settings.wait_timeout:
                _say(f"{', '.join(waits)} is not ready after {self._passed:.0f} s; the command runs all the same")
                break
            number = _next_signal(_AGAIN_S, _ENDING)
        if self._readies and self._named - self._seen and not number:
            _say(f"{self._settings.mesh} is not there after {self._passed:.1f} s; the command runs all the same")
        return number

    def _unready(self) -> list[str]:
        """Look once; return who is there and not ready."""
        states = {door.sidecar: _readiness(self._settings.address, door) for door in self._readies}
        self._seen |= {name for name, ready in states.items() if ready is not None}
        return sorted(name for name in self._seen if not states[name])

    def _is_settled(self, waits: Sequence[str]) -> bool:
        return not waits if self._seen else self._passed >= self._patience

    def quit_all(self) -> None:
        """Tell all sidecars to end; one that has not come up yet, but must or may be there, is waited for a while."""
        answers: dict[str, int] = {}
        expected = (self._seen | self._named) & {door.sidecar for door in self._quits}
        while True:
            left = [door for door in self._quits if door.sidecar not in answers]
            answers |= _quit_once(left, self._settings.address)
            met = bool(self._seen or self._named) and expected <= answers.keys()
            if met or self._passed >= self._patience:
                break
            time.sleep(_AGAIN_S)
        for name in sorted(expected | {door.sidecar for door in self._settings.quit}):
            if not _is_told(answers.get(name, -1)):
                answer = f"answered {answers[name]}" if name in answers else "does not answer"
                _say(f"{name} could not be told to end: it {answer}; see the documentation on sidecars")


def _readiness(address: str, door: Door) -> bool | None:
    """Return whether a sidecar is ready; None when nobody is there, or somebody else."""
    try:
        code = request(address, door)
    except ConnectionRefusedError:
        return None
    except OSError:
        return False
    return None if code in (401, 403, 404, 405) else 200 <= code < 300


def _next_signal(timeout: float, wanted: Iterable[int]) -> int:
    """Wait for a signal, at most so many seconds; children that ended are reaped on the way."""
    info = signal.sigtimedwait(_WATCHED, timeout)
    if info is not None and info.si_signo == signal.SIGCHLD:
        _reap(0)
        return 0
    return info.si_signo if info is not None and info.si_signo in wanted else 0


# The command


def _supervise(command: Sequence[str]) -> int:
    """Start the command, pass signals on and reap until it has ended; return its exit code."""
    ignored = {signal.SIGPIPE, signal.SIGXFSZ}  # by Python, not by the command
    try:
        child = os.posix_spawnp(command[0], list(command), os.environ, setsigmask=(), setsigdef=ignored)
    except OSError as error:
        _say(f"cannot run {command[0]}: {error.strerror}")
        return 127 if isinstance(error, FileNotFoundError) else 126
    while True:
        info = signal.sigwaitinfo(_WATCHED)
        if info.si_signo == signal.SIGCHLD:
            if (status := _reap(child)) is not None:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif info.si_code != _KERNEL:
            os.kill(child, info.si_signo)


def _reap(child: int) -> int | None:
    """Reap all that have ended; return the wait status of ``child`` if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = status


# The end


def _is_told(code: int) -> bool:
    return code == 0 or 200 <= code < 300


def _quit_once(doors: Sequence[Door], address: str) -> dict[str, int]:
    """Tell each sidecar by the first of its requests that works; return the answers by sidecar."""
    answers: dict[str, int] = {}
    for door in doors:
        if not _is_told(answers.get(door.sidecar, -1)):
            with contextlib.suppress(OSError):
                answers[door.sidecar] = request(address, door)
    return answers


def request(address: str, door: Door) -> int:
    """Send a request and return the status code, 0 when the answer was cut off. ``OSError``: nobody listens."""
    deadline = time.monotonic() + _CALL_S
    headers = {"Host": "localhost", "Connection": "close", "Content-Length": "0", **dict(door.headers)}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection((address, door.port), timeout=_CALL_S) as connection:
        connection.sendall(f"{door.method} {door.path} HTTP/1.1\r\n{head}\r\n".encode())
        words = _first_line(connection, lambda: deadline - time.monotonic()).split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def _first_line(connection: socket.socket, left: Callable[[], float]) -> bytes:
    received = b""
    while b"\r\n" not in received:
        if not select.select([connection], [], [], max(0.0, left()))[0]:
            raise TimeoutError("no answer in time")
        try:
            data = connection.recv(4096)
        except ConnectionResetError:
            break
        if not data:
            break
        received += data
    return received.split(b"\r\n")[0]

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
    began = time.monotonic()
    doors = [] if settings.mesh == "none" else doors_of(settings.mesh, known)
    number, seen = _await_ready(doors, settings, began)
    code = 128 + number if number else _supervise(command)
    _quit_all([*settings.quit, *doors], settings, seen, began)
    return code


def _say(text: str) -> None:
    print(f"crosswind wrap: {text}", file=sys.stderr, flush=True)


# Waiting for the mesh


def _await_ready(doors: Sequence[Door], settings: WrapSettings, began: float) -> tuple[int, set[str]]:
    """Wait until all sidecars that are there are ready; return the signal that cut it short, or 0, and who is there."""
    asked = [door for door in doors if not door.quit]
    look = min(LOOK_S, settings.wait_timeout) if settings.mesh == "auto" else settings.wait_timeout
    seen: set[str] = set()
    while asked:
        states = {door.sidecar: _readiness(settings.address, door) for door in asked}
        seen |= {name for name, ready in states.items() if ready is not None}
        waits = [name for name in seen if not states[name]]
        passed = time.monotonic() - began
        if (seen and not waits) or (not seen and passed >= look):
            break
        if passed >= settings.wait_timeout:
            _say(f"{', '.join(sorted(waits))} is not ready after {passed:.0f} s; the command runs all the same")
            break
        if number := _next_signal(_AGAIN_S, _ENDING):
            return number, seen
    if settings.mesh not in ("auto", "none") and not seen and asked:
        _say(f"{settings.mesh} is not there after {settings.wait_timeout:g} s; the command runs all the same")
    return 0, seen


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


def _quit_all(doors: Sequence[Door], settings: WrapSettings, seen: set[str], began: float) -> None:
    """Tell all sidecars to end; one that has not come up yet, but must or may be there, is waited for a while."""
    named = {settings.mesh} - {"auto", "none"}
    patience = settings.wait_timeout if named else LOOK_S
    doors = [door for door in doors if door.quit]
    expected = (seen | named) & {door.sidecar for door in doors}
    answers: dict[str, int] = {}
    while True:
        answers |= _quit_once([door for door in doors if door.sidecar not in answers], settings.address)
        late = time.monotonic() - began >= patience or settings.mesh == "none"
        if late or (seen | named and expected <= answers.keys()):
            break
        time.sleep(_AGAIN_S)
    for name in sorted(expected | {door.sidecar for door in settings.quit}):
        if (code := answers.get(name)) is None or not _is_told(code):
            answer = "does not answer" if code is None else f"answered {code}"
            _say(f"{name} could not be told to end: it {answer}; see the documentation on sidecars")


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

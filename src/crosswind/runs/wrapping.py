"""Runs a command among sidecars: waits until they are ready, runs it, asks them to quit, exits with its exit code.

Made to be process 1 of a Job's container (``crosswind wrap -- CMD``), so it starts fast and needs the standard library
alone. It talks to loopback only, every wait has a deadline, and where there is no sidecar it is a mere init process:
it passes signals on and reaps orphans. A fault around the command is reported on stderr and changes nothing else.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from crosswind.pods.known_sidecars import KNOWN, Ask, KnownSidecar, Role

__all__ = ["LOOK_S", "QUIT_RETRY_S", "Door", "WrapSettings", "doors_of", "run"]

LOOK_S = 5.0
"""How long ``auto`` looks for sidecars: the kubelet starts a pod's containers one after the other, so a container that
is listed behind this one begins a second or more later."""
QUIT_RETRY_S = 5.0
"""How long a sidecar that is there is asked again, when it does not take the request to quit at once."""
_AGAIN_S = 0.05
_CALL_S = 2.0
_KERNEL = 0x80  # si_code of a signal that a terminal sent: it went to the command as well
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_PASSED = (*_ENDING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH, signal.SIGALRM)
_WATCHED = {*_PASSED, signal.SIGCHLD}


@dataclass(frozen=True)
class Door:
    """One request to a sidecar: ``quit`` ends it, else its answer is whether the sidecar is ready."""

    sidecar: str
    method: str
    port: int
    path: str
    quit: bool
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class WrapSettings:
    """How to wrap. Times in seconds."""

    meshes: tuple[str, ...] = ("auto",)
    """``auto``: every known sidecar that is found; ``none``: nothing; else the names of those that are waited for."""
    wait_timeout: float = 60.0
    """How long sidecars that are there may take to be ready; then the command runs all the same."""
    look: float = LOOK_S
    """How long ``auto`` waits for sidecars that do not listen yet, from the wrapper's start."""
    quit: tuple[Door, ...] = ()
    """Further requests that end sidecars."""
    address: str = "localhost"
    """Where the pod's sidecars listen."""


def doors_of(meshes: Collection[str], known: Iterable[KnownSidecar] = KNOWN) -> list[Door]:
    """Return the requests for the named sidecars or (``auto``) all, helpers before the mesh.

    A sidecar that its owner ends (KnownSidecar.owner) gets no request to quit unless it is named.
    """
    order = list(Role)
    chosen = sorted(
        (product for product in known if product.name in meshes or ("auto" in meshes and not product.like)),
        key=lambda product: order.index(product.role),
    )
    doors: dict[tuple[str, int, str], Door] = {}
    for door in (door for product in chosen for door in _doors(product, product.name in meshes)):
        doors.setdefault((door.method, door.port, door.path), door)
    return list(doors.values())


def _doors(known: KnownSidecar, named: bool) -> Iterator[Door]:
    asks: list[tuple[Ask, bool]] = [(ask, True) for ask in known.asks if not known.owner or named]
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
    """The pod's sidecars, as far as they have been seen to listen."""

    def __init__(self, settings: WrapSettings, known: Iterable[KnownSidecar]) -> None:
        self._settings = settings
        self._began = time.monotonic()
        doors = doors_of(settings.meshes, known)
        self._readies = [door for door in doors if not door.quit]
        self._quits = [*settings.quit, *(door for door in doors if door.quit)]
        self._named = set(settings.meshes) - {"auto", "none"}
        self._seen: set[str] = set()
        self._window = min(settings.look, settings.wait_timeout) if "auto" in settings.meshes else 0.0

    @property
    def _passed(self) -> float:
        return time.monotonic() - self._began

    def await_ready(self) -> int:
        """Wait until every sidecar is ready that is named or comes within the window.

        Returns the signal that cut the wait short, else 0.
        """
        number = 0
        while self._readies and not number and not self._is_settled(waits := self._unready()):
            if self._passed >= self._settings.wait_timeout:
                self._say_what_lacks(waits)
                break
            number = _next_signal(_AGAIN_S, _ENDING)
        return number

    def _unready(self) -> list[str]:
        """Ask every sidecar once; return those that are named or there, and not ready."""
        states = {door.sidecar: _readiness(self._settings.address, door) for door in self._readies}
        self._seen |= {name for name, ready in states.items() if ready is not None}
        return sorted(name for name in self._seen | (self._named & states.keys()) if not states[name])

    def _is_settled(self, waits: Sequence[str]) -> bool:
        return not waits and self._passed >= self._window

    def _say_what_lacks(self, waits: Sequence[str]) -> None:
        for what, names in (
            ("ready", [name for name in waits if name in self._seen]),
            ("there", [name for name in waits if name not in self._seen]),
        ):
            if names:
                verb = "is" if len(names) == 1 else "are"
                after = f"after {self._passed:.1f} s; the command runs all the same"
                _say(f"{', '.join(names)} {verb} not {what} {after}")

    def quit_all(self) -> None:
        """Ask every sidecar to quit, also one that begins to listen only now, as long as the window is open."""
        answers: dict[str, int] = {}
        own = {door.sidecar for door in self._settings.quit}
        expected = (self._seen | self._named | own) & {door.sidecar for door in self._quits}
        retry_until = self._passed + QUIT_RETRY_S
        while True:
            left = [door for door in self._quits if not _is_answer(answers.get(door.sidecar, -1))]
            answers |= _quit_once(left, self._settings.address)
            pending = [name for name in expected | answers.keys() if not _is_answer(answers.get(name, -1))]
            if self._passed >= max(self._window, retry_until if pending else 0.0):
                break
            time.sleep(_AGAIN_S)
        for name in sorted(expected | set(pending)):
            if not _is_accepted(answers.get(name, -1)):
                answer = f"answered {answers[name]}" if name in answers else "does not answer"
                _say(f"{name} could not be asked to quit: it {answer}; see the documentation on sidecars")


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


def _is_accepted(code: int) -> bool:
    """Whether the sidecar quits. One that leaves at once may cut off its answer (0)."""
    return code == 0 or 200 <= code < 300


def _is_answer(code: int) -> bool:
    """Whether asking again changes nothing. A sidecar that is starting or overloaded answers 429 or 5xx."""
    return code >= 0 and code != 429 and code < 500


def _quit_once(doors: Sequence[Door], address: str) -> dict[str, int]:
    """Ask each sidecar by the first of its requests that it accepts; return the answers by sidecar."""
    answers: dict[str, int] = {}
    for door in doors:
        if not _is_accepted(answers.get(door.sidecar, -1)):
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

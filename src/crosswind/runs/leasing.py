"""One leader among several processes, by a Lease of Kubernetes, as client-go's leader election does it.

Whoever holds the Lease renews it; the others take it over once it was not renewed for its whole duration, measured by
their own clocks, so that clocks need not agree. Every write carries the resourceVersion that it was decided on.
Source: client-go ``tools/leaderelection/leaderelection.go``.
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

__all__ = ["Lease", "LeaseSettings", "claim", "released"]

log = logging.getLogger(__name__)

_JITTER = 1.2


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Which Lease, and for whom."""

    namespace: str
    name: str
    identity: str
    """Who we are: different for each process that ever runs."""
    duration: float = 15.0
    """Seconds without a renewal after which another may take over. The holder gives up after two thirds of it, and
    everybody looks each two fifteenths, as Kubernetes' own components do."""


def claim(found: Manifest | None, settings: LeaseSettings, now: datetime.datetime, *, expired: bool) -> Manifest | None:
    """Return the Lease to write so that it is ours, None while it is another's. ``expired``: it was not renewed."""
    spec = (found or {}).get("spec") or {}
    holder = spec.get("holderIdentity") or ""
    if holder not in ("", settings.identity) and not expired:
        return None
    changes = 0 if found is None else int(spec.get("leaseTransitions") or 0) + (holder != settings.identity)
    written = {
        "holderIdentity": settings.identity,
        "leaseDurationSeconds": max(1, round(settings.duration)),
        "acquireTime": spec.get("acquireTime") if holder == settings.identity else _micro(now),
        "renewTime": _micro(now),
        "leaseTransitions": changes,
    }
    return _with_spec(found, settings, {**spec, **written})


def released(found: Manifest, settings: LeaseSettings, now: datetime.datetime) -> Manifest | None:
    """Return the Lease to write so that another may take it at once, None when it is not ours."""
    spec = found.get("spec") or {}
    if spec.get("holderIdentity") != settings.identity:
        return None
    return _with_spec(
        found, settings, {**spec, "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro(now)}
    )


def _with_spec(found: Manifest | None, settings: LeaseSettings, spec: Manifest) -> Manifest:
    bare = {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {"name": settings.name, "namespace": settings.namespace},
    }
    return {**(found or bare), "spec": spec}


def _micro(now: datetime.datetime) -> str:
    """MicroTime: always six digits, as the API server wants it."""
    return now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Lease:
    """Our claim on a Lease. ``holder``: who has it as seen last. ``trouble``: why it could not be read or written."""

    def __init__(self, client: Client, settings: LeaseSettings) -> None:
        self._client, self._settings = client, settings
        self.holder = ""
        self.trouble: CrosswindError | None = None
        self._until = float("-inf")
        self._seen: Manifest | None = None
        self._seen_at = float("-inf")

    @property
    def held(self) -> bool:
        """Whether it is surely ours at this moment."""
        return time.monotonic() < self._until

    @property
    def patience(self) -> float:
        """Seconds after which a Lease that nobody renews is surely ours."""
        return 1.5 * self._settings.duration

    async def lead(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Whenever the Lease is ours, do ``work``; it is cancelled when the Lease is lost. Returns when it is done."""
        while True:
            await self.acquire()
            log.info("%s leads", self._settings.identity)
            task = asyncio.create_task(work())
            keeping = asyncio.create_task(self._keep())
            try:
                await asyncio.wait((task, keeping), return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    return task.result()
                log.warning("%s lost its lease: %s", self._settings.identity, self.trouble or f"{self.holder} has it")
            finally:
                for one in (task, keeping):
                    one.cancel()
                await asyncio.gather(task, keeping, return_exceptions=True)

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        while not await self.attempt():  # noqa: ASYNC110  # nothing here could set an event: others write the Lease
            await asyncio.sleep(self._pause())

    async def attempt(self) -> bool:
        """Take or renew the Lease if it can be had; return whether it is ours."""
        began, before = time.monotonic(), self.holder
        patience = self._until - began if self.held else self._settings.duration * 2 / 3
        try:
            async with asyncio.timeout(patience):
                ours = await self._claim()
            self.trouble = None
        except (Conflict, AlreadyExists, TimeoutError):
            ours = False
        except CrosswindError as error:
            if self.trouble is None:
                log.warning("Lease %s/%s cannot be used: %s", self._settings.namespace, self._settings.name, error)
            ours, self.trouble = False, error
        if ours:
            self._until = began + self._settings.duration * 2 / 3
        elif before != self.holder:
            log.info("%s holds the lease", self.holder)
        return ours

    async def release(self) -> None:
        """Let another take it at once; what goes wrong is no matter, it expires."""
        if not self.held:
            return
        self._until = float("-inf")
        with contextlib.suppress(CrosswindError, TimeoutError):
            async with asyncio.timeout(self._settings.duration):
                found = await self._read()
                if found and (lease := released(found, self._settings, _now())):
                    await self._client.replace(LEASES, lease)

    async def _keep(self) -> None:
        """Renew until that failed for too long."""
        while self.held:
            await asyncio.sleep(self._pause())
            if self.held:
                await self.attempt()
            if self.holder != self._settings.identity:
                self._until = float("-inf")

    async def _claim(self) -> bool:
        found = await self._read()
        expired = time.monotonic() >= self._seen_at + self._duration(found)
        lease = claim(found, self._settings, _now(), expired=expired)
        if lease is None:
            return False
        self._note(await (self._client.replace if found else self._client.create)(LEASES, lease))
        return True

    async def _read(self) -> Manifest | None:
        try:
            found = await self._client.get(LEASES, self._settings.name, namespace=self._settings.namespace)
        except NotFound:
            return None
        self._note(found)
        return found

    def _note(self, lease: Manifest) -> None:
        spec = lease.get("spec") or {}
        if self._seen != spec:
            self._seen, self._seen_at = spec, time.monotonic()
        self.holder = spec.get("holderIdentity") or ""

    def _duration(self, found: Manifest | None) -> float:
        return float(((found or {}).get("spec") or {}).get("leaseDurationSeconds") or self._settings.duration)

    def _pause(self) -> float:
        return self._settings.duration * 2 / 15 * random.uniform(1.0, _JITTER)  # noqa: S311  # no secret


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)

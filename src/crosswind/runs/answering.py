"""What a reaper answers over HTTP: whether it lives, whether it is ready, and its figures for Prometheus."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator

from aiohttp import web

from crosswind.errors import ConfigError
from crosswind.runs.leasing import Lease
from crosswind.runs.reaping import Reaper

__all__ = ["answering", "metrics", "readiness"]


def readiness(reaper: Reaper, lease: Lease) -> str:
    """Return what keeps it from working, "" when it is ready: at work it sees all pods, else it sees the Lease."""
    if not reaper.informers:
        seen = lease.held or lease.holder
        return "" if seen and not lease.trouble else f"cannot use the lease: {lease.trouble or 'not read yet'}"
    for namespace, informer in reaper.informers.items():
        if informer.trouble or not informer.listed.is_set():
            return f"cannot see the pods of namespace {namespace}: {informer.trouble or 'not listed yet'}"
    return ""


def metrics(reaper: Reaper, lease: Lease) -> str:
    """Return the figures in Prometheus' text format."""
    names, waits = reaper.informers, reaper.states.values()
    pods = Counter((namespace, "ending" if word == "ending" else "left alone") for namespace, word in waits)
    lines = [
        *_metric("leader", "gauge", "1 while it holds the lease.", [({}, float(lease.held))]),
        *_metric("pods", "gauge", "Pods in sight.", _labelled(pods, "state")),
        *_metric("endings_total", "counter", "Pods dealt with.", _labelled(reaper.outcomes, "outcome")),
        *_metric(
            "watch_silence_seconds",
            "gauge",
            "Since the API server last told of pods.",
            [({"namespace": name}, round(one.lag, 3)) for name, one in names.items() if one.listed.is_set()],
        ),
    ]
    return "\n".join(lines) + "\n"


def _labelled(counts: Counter[tuple[str, str]], label: str) -> Iterator[tuple[dict[str, str], float]]:
    for (namespace, word), count in sorted(counts.items()):
        yield {"namespace": namespace, label: word.replace(" ", "_")}, float(count)


def _metric(name: str, kind: str, told: str, values: Iterable[tuple[dict[str, str], float]]) -> Iterator[str]:
    full = f"crosswind_reaper_{name}"
    yield f"# HELP {full} {told}"
    yield f"# TYPE {full} {kind}"
    for labels, value in values:
        listed = ",".join(f'{key}="{word}"' for key, word in labels.items())
        yield f"{full}{{{listed}}} {value:g}" if listed else f"{full} {value:g}"


@contextlib.asynccontextmanager
async def answering(reaper: Reaper, lease: Lease, host: str, port: int) -> AsyncIterator[int]:
    """Answer ``/healthz``, ``/readyz`` and ``/metrics`` within the block; gives the port. Raises ``ConfigError``."""

    async def ready(_: web.Request) -> web.Response:
        trouble = readiness(reaper, lease)
        return web.Response(text=trouble or "ok", status=503 if trouble else 200)

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def figures(_: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(text=metrics(reaper, lease), headers=headers)

    app = web.Application()
    app.add_routes([web.get("/healthz", alive), web.get("/readyz", ready), web.get("/metrics", figures)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another by --listen") from error
    finally:
        await runner.cleanup()

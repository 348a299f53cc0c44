"""The HTTP endpoints of a reaper: liveness, readiness, and metrics for Prometheus.

The block of ``serve_http`` owns the server: it stops with the block, also when the block is cancelled.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator

from aiohttp import web

from crosswind.errors import ConfigError
from crosswind.kube.leader_election import LeaderElector
from crosswind.sidecars.reaper import Reaper

__all__ = ["metrics", "readiness", "serve_http"]


def readiness(reaper: Reaper, lease: LeaderElector) -> str:
    """Return why a reaper is not ready, "" when it is: a leader has listed all pods, another one can read the Lease."""
    if not reaper.informers:
        known = lease.held or lease.holder
        # A replica that waits for the lease is ready: if not, a rolling update would never go on.
        return "" if known and not lease.trouble else f"cannot use the lease: {lease.trouble or 'not read yet'}"
    for namespace, informer in reaper.informers.items():
        if informer.trouble or not informer.listed.is_set():
            return f"cannot see the pods of namespace {namespace}: {informer.trouble or 'not listed yet'}"
    return ""


def metrics(reaper: Reaper, lease: LeaderElector) -> str:
    """Return the metrics in Prometheus' text format."""
    pods = Counter(
        (namespace, "ending" if state == "ending" else "left alone") for namespace, state in reaper.states.values()
    )
    lines = [
        *_metric("leader", "gauge", "1 while it holds the lease.", [({}, float(lease.held))]),
        *_metric("pods", "gauge", "Pods in scope.", _labelled(pods, "state")),
        *_metric(
            "endings_total",
            "counter",
            "Finished attempts to end a pod's sidecars.",
            _labelled(reaper.outcomes, "outcome"),
        ),
        *_metric(
            "watch_silence_seconds",
            "gauge",
            "Seconds since the API server last sent anything about pods.",
            [
                ({"namespace": name}, round(informer.lag, 3))
                for name, informer in reaper.informers.items()
                if informer.listed.is_set()
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def _labelled(counts: Counter[tuple[str, str]], label: str) -> Iterator[tuple[dict[str, str], float]]:
    for (namespace, value), count in sorted(counts.items()):
        yield {"namespace": namespace, label: value.replace(" ", "_")}, float(count)


def _metric(name: str, kind: str, description: str, values: Iterable[tuple[dict[str, str], float]]) -> Iterator[str]:
    full = f"crosswind_reaper_{name}"
    yield f"# HELP {full} {description}"
    yield f"# TYPE {full} {kind}"
    for labels, value in values:
        listed = ",".join(f'{key}="{text}"' for key, text in labels.items())
        yield f"{full}{{{listed}}} {value:g}" if listed else f"{full} {value:g}"


@contextlib.asynccontextmanager
async def serve_http(reaper: Reaper, lease: LeaderElector, host: str, port: int) -> AsyncIterator[int]:
    """Serve ``/healthz``, ``/readyz`` and ``/metrics`` within the block, and yield the port.

    Raises ``ConfigError`` when the address cannot be listened on.
    """

    async def ready(_: web.Request) -> web.Response:
        trouble = readiness(reaper, lease)
        return web.Response(text=trouble or "ok", status=503 if trouble else 200)

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def prometheus(_: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(text=metrics(reaper, lease), headers=headers)

    app = web.Application()
    app.add_routes([web.get("/healthz", alive), web.get("/readyz", ready), web.get("/metrics", prometheus)])
    runner = web.AppRunner(app, access_log=None)
    # No thread and no task of ours: aiohttp serves in the running loop. Cancelling the block leads to the cleanup
    # below.
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another by --listen") from error
    finally:
        await runner.cleanup()

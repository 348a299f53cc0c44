"""Credentials that are unavailable for some time, and an API server that restarts with another identity."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.chaos.api import pause, some, stepwise
from benchmarks.chaos.driving import ChaosDrive, drive
from benchmarks.chaos.proxying import Proxy, ProxyRefusal
from benchmarks.chaos.scenario import Row, Scenario, ScenarioSize, at_least, at_most

__all__ = ["SCENARIOS"]

_FAMILY = "credentials"
_EXPIRED = ProxyRefusal(401, "the token has expired")


class _Plugin:
    """An exec plug-in that fails at its first run, and while it is ``broken``; it counts its runs."""

    def __init__(self, proxy: Proxy) -> None:
        folder = proxy.kubeconfig.parent
        self._runs, self._broken, answer = (folder / name for name in ("plugin-runs", "plugin-broken", "plugin-answer"))
        status = {"status": {"token": proxy.token, "expirationTimestamp": "2100-01-01T00:00:00Z"}}
        answer.write_text(json.dumps(status))
        script: Path = folder / "plugin"
        script.write_text(
            f"#!/bin/sh\necho >> {self._runs}\n"
            f"if [ -e {self._broken} ] || [ $(wc -l < {self._runs}) = 1 ]; then\n"
            "  echo 'Throttling: rate exceeded' >&2; exit 255\nfi\n"
            f"cat {answer}\n"
        )
        script.chmod(0o755)
        proxy.sign_in_by(script)

    @property
    def runs(self) -> int:
        return len(self._runs.read_text().splitlines())

    def fail(self) -> None:
        self._broken.touch()

    def heal(self) -> None:
        self._broken.unlink(missing_ok=True)


def _plugin(size: ScenarioSize) -> list[Row]:
    plugins: list[_Plugin] = []
    with drive(
        size.of(400, 40), parallelism=size.of(64, 16), before=lambda proxy: plugins.append(_Plugin(proxy))
    ) as tasks:
        (plugin,) = plugins
        tasks.disturb = _expiry(tasks, plugin, size.of(20.0, 1.5), size.of(3, 1))
        tasks.live()
        return [
            *tasks.rows(faults=size.of(60, 3)),
            at_least("runs of the plug-in", plugin.runs, size.of(3, 2)),
            at_most("runs of the plug-in", plugin.runs, size.of(25, 6)),
        ]


@stepwise
def _expiry(tasks: ChaosDrive, plugin: _Plugin, seconds: float, times: int) -> Iterator[None]:
    """Refuse every second request, and let the plug-in fail, for some seconds, several ``times``."""
    for _ in range(times):
        yield from pause(0.5)
        plugin.fail()
        tasks.proxy.fault = some((_EXPIRED,), share=0.5, times=10**6)
        yield from pause(seconds)
        plugin.heal()
        tasks.proxy.fault = lambda method, path: None


def _rotated(size: ScenarioSize) -> list[Row]:
    with drive(size.of(400, 40), parallelism=size.of(64, 6)) as tasks:
        tasks.disturb = _rotations(tasks, size.of(3.0, 0.5))
        tasks.live()
        return tasks.rows(faults=3)


@stepwise
def _rotations(tasks: ChaosDrive, seconds: float) -> Iterator[None]:
    """Replace the server's CA, then also its address; the kubeconfig changes some seconds after each."""
    for elsewhere in (False, False, True):
        yield from pause(0.5)
        tasks.proxy.rotate(elsewhere=elsewhere)
        yield from pause(seconds)
        tasks.proxy.write_kubeconfig()


SCENARIOS = (
    Scenario(
        "exec-plugin-fails", _FAMILY, "The exec plug-in fails at the start, and while tokens are refused.", _plugin
    ),
    Scenario("authority-rotated", _FAMILY, "The API server comes back with another CA, then elsewhere.", _rotated),
)

"""StatsD to Prometheus for one picture: the mappings of ``crosswind render`` applied to what a scheduler sends."""

from __future__ import annotations

import re
import socketserver
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Exporter", "serve"]

_QUANTILES = (0.5, 0.9, 0.99)
_REMEMBERED = 500
"""Observations of a timer over which quantiles are taken."""

Series = tuple[str, tuple[tuple[str, str], ...]]


class Exporter:
    """The newest value of every series."""

    def __init__(self, mappings: Sequence[Mapping[str, Any]]) -> None:
        self._mappings = [(_pattern(mapping["match"]), mapping) for mapping in mappings]
        self._values: dict[Series, float] = {}
        self._timers: dict[Series, deque[float]] = {}
        self._lock = threading.Lock()

    def receive(self, packet: str) -> None:
        """Take a packet of StatsD, one metric a line."""
        with self._lock:
            for line in packet.splitlines():
                if match := re.fullmatch(r"([^:]+):([+-]?[\d.eE+-]+)\|(\w+)(\|.*)?", line):
                    self._take(self._series(match[1]), match[2], match[3])

    def _take(self, series: Series, value: str, kind: str) -> None:
        if kind == "ms":
            self._timers.setdefault(series, deque(maxlen=_REMEMBERED)).append(float(value) / 1000)
        elif kind == "c" or value[0] in "+-":
            self._values[series] = self._values.get(series, 0.0) + float(value)
        else:
            self._values[series] = float(value)

    def _series(self, name: str) -> Series:
        for pattern, mapping in self._mappings:
            if match := pattern.fullmatch(name):
                labels = {key: match[int(value[1:])] for key, value in mapping["labels"].items()}
                return mapping["name"], tuple(sorted(labels.items()))
        return re.sub(r"\W", "_", name), ()

    def text(self) -> str:
        """Return all series as Prometheus reads them."""
        with self._lock:
            return "".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for (name, labels), value in self._values.items():
            yield _line(name, dict(labels), value)
        for (name, labels), observed in self._timers.items():
            ordered = sorted(observed)
            for quantile in _QUANTILES:
                value = ordered[min(int(quantile * len(ordered)), len(ordered) - 1)]
                yield _line(name, {**dict(labels), "quantile": str(quantile)}, value)


def _pattern(match: str) -> re.Pattern[str]:
    """Return a mapping's match as a pattern: each asterisk stands for one part between dots."""
    return re.compile(re.escape(match).replace(r"\*", r"([^.]*)"))


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inner = ",".join(f'{key}="{text}"' for key, text in labels.items())
    return f"{name}{{{inner}}} {value}\n" if inner else f"{name} {value}\n"


@contextmanager
def serve(exporter: Exporter) -> Iterator[tuple[int, int]]:
    """Receive StatsD and serve ``/metrics`` on loopback while the block lasts; gives both ports."""

    class Packet(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            exporter.receive(self.request[0].decode(errors="replace"))

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exporter.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay silent: a request a second."""

    with (
        socketserver.UDPServer(("127.0.0.1", 0), Packet) as packets,
        ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as metrics,
    ):
        threads = [threading.Thread(target=server.serve_forever) for server in (packets, metrics)]
        for thread in threads:
            thread.start()
        try:
            yield packets.server_address[1], metrics.server_address[1]
        finally:
            packets.shutdown()
            metrics.shutdown()
            for thread in threads:
                thread.join()

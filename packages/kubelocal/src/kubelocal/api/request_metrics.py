"""The counters of answered requests and of their bytes, as the API server's ``/metrics`` has them."""

from __future__ import annotations

from collections import Counter

from starlette.types import Message, Scope, Send

__all__ = ["RequestCounter"]


class RequestCounter:
    """Counts responses by verb, resource, subresource and code, and renders them for ``/metrics``.

    Bytes are counted without the codes, and those of a watch under the verb WATCH as they are sent.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str, int]] = Counter()
        self._bytes: Counter[tuple[str, str, str]] = Counter()

    def name(self, scope: Scope, verb: str, resource: str, subresource: str) -> None:
        """Label a request; an unlabelled one is counted as a document."""
        scope["crosswind.request"] = (verb.upper(), resource, subresource)

    def watch(self, scope: Scope, send: Send) -> Send:
        """Return a ``send`` that counts the response when it starts."""

        async def counting(message: Message) -> None:
            about = scope.get("crosswind.request", (scope.get("method", "GET"), "", ""))
            if message["type"] == "http.response.start":
                self._counts[(*about, message["status"])] += 1
            elif message["type"] == "http.response.body":
                self._bytes[about] += len(message.get("body", b""))
            await send(message)

        return counting

    def text(self) -> str:
        """Render the counts in Prometheus' text format, under the API server's metric name."""
        name = "apiserver_request_total"
        lines = [f"# HELP {name} Counter of apiserver requests.", f"# TYPE {name} counter"]
        for (verb, resource, subresource, code), count in sorted(self._counts.items()):
            labels = f'code="{code}",resource="{resource}",subresource="{subresource}",verb="{verb}"'
            lines.append(f"{name}{{{labels}}} {count}")
        name = "apiserver_response_sizes_sum"
        lines += [f"# HELP {name} Bytes of responses.", f"# TYPE {name} counter"]
        for (verb, resource, subresource), size in sorted(self._bytes.items()):
            lines.append(f'{name}{{resource="{resource}",subresource="{subresource}",verb="{verb}"}} {size}')
        return "\n".join(lines) + "\n"

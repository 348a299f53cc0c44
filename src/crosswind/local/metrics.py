"""How many requests the API has answered, as Kubernetes counts them."""

from __future__ import annotations

from collections import Counter

from starlette.types import Message, Scope, Send

__all__ = ["RequestCounter"]


class RequestCounter:
    """Counts answers by verb, resource, subresource and code, and writes them as ``/metrics`` has them."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str, int]] = Counter()

    def name(self, scope: Scope, verb: str, resource: str, subresource: str) -> None:
        """Say what a request is about; one without is counted as a document."""
        scope["crosswind.request"] = (verb.upper(), resource, subresource)

    def watch(self, scope: Scope, send: Send) -> Send:
        """Return a ``send`` that counts the answer when it begins."""

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                about = scope.get("crosswind.request", (scope.get("method", "GET"), "", ""))
                self._counts[(*about, message["status"])] += 1
            await send(message)

        return counting

    def text(self) -> str:
        """Write the counts in Prometheus' text format, under the name that Kubernetes' API server uses."""
        name = "apiserver_request_total"
        lines = [f"# HELP {name} Counter of apiserver requests.", f"# TYPE {name} counter"]
        for (verb, resource, subresource, code), count in sorted(self._counts.items()):
            labels = f'code="{code}",resource="{resource}",subresource="{subresource}",verb="{verb}"'
            lines.append(f"{name}{{{labels}}} {count}")
        return "\n".join(lines) + "\n"

"""A client of the API over HTTP for these tests: paths, plain objects, and channels over WebSockets."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml

CORE = "/api/v1"
MERGE = "application/merge-patch+json"


def pods(namespace: str, name: str = "", part: str = "") -> str:
    """Return the path of a namespace's pods, of one of them, or of a part of that one."""
    return "/".join(filter(None, (CORE, "namespaces", namespace, "pods", name, part)))


class Refused(Exception):
    """The API answered with an error; ``code`` is its HTTP status, the text its message."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class RestClient:
    """Sends requests with the credentials of a kubeconfig's only context."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._session = aiohttp.ClientSession(
            cluster["server"],
            connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=authority)),
            headers={"authorization": f"Bearer {user['token']}"},
        )

    async def __aenter__(self) -> RestClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(
        self, method: str, path: str, body: Any = None, media: str = "application/json", **query: str
    ) -> bytes:
        content = None if body is None else json.dumps(body)
        async with self._session.request(
            method, path, data=content, params=query, headers={"content-type": media}
        ) as answer:
            text = await answer.read()
            if answer.status >= 400:
                raise Refused(answer.status, json.loads(text)["message"])
            return text

    async def get(self, path: str, **query: str) -> Any:
        return json.loads(await self.call("GET", path, **query))

    async def create(self, path: str, manifest: dict[str, Any]) -> Any:
        return json.loads(await self.call("POST", path, manifest))

    async def patch(self, path: str, change: dict[str, Any]) -> Any:
        return json.loads(await self.call("PATCH", path, change, MERGE))

    async def watch(self, path: str, version: str) -> AsyncIterator[dict[str, Any]]:
        query = {"watch": "1", "resourceVersion": version}
        async with self._session.get(path, params=query) as answer:
            async for line in answer.content:
                yield json.loads(line)

    async def exec(self, path: str, container: str, command: list[str]) -> tuple[str, bytes]:
        """Run a command; return the status and the standard output."""
        query = [("container", container), ("stdout", "1"), *(("command", word) for word in command)]
        output, status = b"", {}
        async with self._session.ws_connect(path, params=query, protocols=("v5.channel.k8s.io",)) as channels:
            async for message in channels:
                if message.data[0] == 1:
                    output += message.data[1:]
                elif message.data[0] == 3:
                    status = json.loads(message.data[1:])
        return status.get("status", ""), output

    async def request_in_pod(self, path: str, port: int, request: str) -> bytes:
        """Send an HTTP request to a port of a pod through port-forward; return the first part of the answer."""
        query = {"ports": str(port)}
        async with self._session.ws_connect(path, params=query, protocols=("v4.channel.k8s.io",)) as channels:
            await channels.send_bytes(b"\0" + request.encode())
            async for message in channels:
                if message.data[0] == 0 and len(message.data) > 3:  # the first message holds the port's number
                    return bytes(message.data[1:])
        raise AssertionError("the pod closed the connection without an answer")

"""The least work of any executor in Python: create pods, watch them, delete those that have ended. Prints JSON.

    python -m benchmarks.bare_loop --kubeconfig FILE --pod FILE --tasks N

A process of its own, as the executor has; plain aiohttp on uvloop, orjson, raw dicts, 64 creations and 64 deletions at
a time, one watch of the same selection. The pods are those that our executor made (``--pod``: one of them), with names
and indexes of their own, and every 64 of them need a Secret, created before and deleted after, as with ours. It knows
no Airflow, no database, no queue, no failure and no retry.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import secrets
import ssl
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvloop
import yaml

NAMESPACE = "bench"
PODS, SECRETS = f"/api/v1/namespaces/{NAMESPACE}/pods", f"/api/v1/namespaces/{NAMESPACE}/secrets"
AT_ONCE, PER_SECRET = 64, 64
WORKLOAD_BYTES = 1800
"""About the size of a task's workload with its token."""


class Loop:
    """All pods of a run."""

    def __init__(self, session: aiohttp.ClientSession, pod: dict[str, Any], tasks: int) -> None:
        self._session, self._pod, self._tasks = session, pod, tasks
        self._creating, self._deleting = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE)
        self._secret_of: dict[str, str] = {}
        self._users: dict[str, int] = {}
        self._over: set[str] = set()
        self._left = tasks
        self._all_gone = asyncio.Event()

    async def run(self, watch: aiohttp.ClientResponse) -> None:
        """Create all pods, and return when all are deleted."""
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(watch, group))
            for first in range(0, self._tasks, PER_SECRET):
                names = {f"bench-work-{uuid.uuid4()}": index for index in self._part(first)}
                secret = await self._create_secret(list(names))
                for name, index in names.items():
                    await self._creating.acquire()
                    group.create_task(self._create(name, index, secret))
            await self._all_gone.wait()
            watching.cancel()

    def _part(self, first: int) -> range:
        return range(first, min(first + PER_SECRET, self._tasks))

    async def _send(self, method: str, path: str, body: Any = None) -> None:
        data = None if body is None else orjson.dumps(body)
        async with self._session.request(method, path, data=data) as reply:
            await reply.read()
            reply.raise_for_status()

    async def _create_secret(self, names: list[str]) -> str:
        name = f"bench-{secrets.token_hex(8)}"
        workload = base64.b64encode(b"x" * WORKLOAD_BYTES).decode()
        data = {key.removeprefix("bench-work-"): workload for key in names}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": data}
        await self._send("POST", SECRETS, body)
        self._users[name] = len(names)
        return name

    async def _create(self, name: str, index: int, secret: str) -> None:
        self._secret_of[name] = secret
        metadata, spec = self._pod["metadata"], self._pod["spec"]
        unique = name.removeprefix("bench-work-")
        mount = {"secretName": secret, "items": [{"key": unique, "path": "workload.json"}], "defaultMode": 0o444}
        volumes = [
            {"name": volume["name"], "secret": mount} if "secret" in volume else volume for volume in spec["volumes"]
        ]
        labels, annotations = ({**metadata[part], "map_index": str(index)} for part in ("labels", "annotations"))
        pod_metadata = {**metadata, "name": name, "labels": labels, "annotations": annotations}
        try:
            await self._send(
                "POST", PODS, {**self._pod, "metadata": pod_metadata, "spec": {**spec, "volumes": volumes}}
            )
        finally:
            self._creating.release()

    async def _watch(self, response: aiohttp.ClientResponse, group: asyncio.TaskGroup) -> None:
        rest = b""
        async for chunk in response.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                event = orjson.loads(line)
                pod = event["object"]
                name = pod["metadata"]["name"]
                if event["type"] == "DELETED":
                    self._left -= 1
                    if not self._left:
                        self._all_gone.set()
                elif name not in self._over and _is_over(pod):
                    self._over.add(name)
                    group.create_task(self._delete(name))

    async def _delete(self, name: str) -> None:
        secret = self._secret_of.pop(name)
        self._users[secret] -= 1
        async with self._deleting:
            await self._send("DELETE", f"{PODS}/{name}")
            if not self._users[secret]:
                self._users[secret] = -1
                await self._send("DELETE", f"{SECRETS}/{secret}")


def _is_over(pod: dict[str, Any]) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return any(status["name"] == "base" and "terminated" in status.get("state", {}) for status in statuses)


async def measure(kubeconfig: Path, pod: dict[str, Any], tasks: int) -> dict[str, float]:
    """Run the loop; return its seconds and CPU."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    tls = ssl.create_default_context(cadata=authority)
    headers = {"Authorization": f"Bearer {user['token']}", "Content-Type": "application/json"}
    labels = pod["metadata"]["labels"]
    query = {"watch": "1", "labelSelector": f"kubernetes_executor=True,airflow-worker={labels['airflow-worker']}"}
    async with (
        aiohttp.ClientSession(
            cluster["server"],
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0, ssl=tls),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=2**18,
        ) as session,
        session.get(PODS, params=query) as watch,
    ):
        begun, worked = time.perf_counter(), time.process_time()
        await Loop(session, pod, tasks).run(watch)
        return {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - worked}


def main() -> None:
    """Measure the loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--pod", type=Path, required=True)
    parser.add_argument("--tasks", type=int, required=True)
    options = parser.parse_args()
    pod = json.loads(options.pod.read_text())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        measured = runner.run(measure(options.kubeconfig, pod, options.tasks))
    print(f"RESULT {json.dumps(measured)}", flush=True)


if __name__ == "__main__":
    main()

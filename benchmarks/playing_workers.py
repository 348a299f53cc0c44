"""Plays the workers of simulated pods: sends a worker's requests to Airflow, and runs no task.

    async with await Client.connect(settings) as client, aiohttp.ClientSession() as session:
        players = Players(client, session, namespace, duration=2.0)
        playing = asyncio.create_task(players.run())
        ...
        players.starts  # every start of a worker: task, pod, moment, and what Airflow answered

Each running pod is played once. The player reads the workload where a worker would read it: from the file that the base
container mounts (a key of a Secret), else from the arguments. It asks the Execution API to run the task, with the
workload's token; waits for ``duration`` with a worker's heartbeats; reports success; and then sets the status that the
kubelet would set: the base container has terminated with exit code 0. A worker whose task may not run (409, 404: it
runs elsewhere, or has ended) ends with exit code 1, as Airflow's worker does.

The cluster must not end its simulated pods itself: ``simulated_run: null``.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from crosswind.errors import ApiError, NotFound, Unreachable
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS, SECRETS
from crosswind.types import Manifest

__all__ = ["Players", "Start"]

API_VERSION = "2026-06-30"
"""The version of the Execution API that the workers of Airflow 3.3 use."""

_HEARTBEAT_S = 5.0
_PATIENCE_S = 60.0
"""Seconds for which a player retries while the server does not answer, as a worker does."""


@dataclass(slots=True)
class Start:
    """A worker that began. ``at``: seconds of ``time.monotonic``, which all processes of a machine share."""

    task_id: str
    map_index: int
    try_number: int
    ti_id: str
    pod: str
    uid: str
    at: float
    answer: int = 0
    """The status of Airflow's answer to the request to run the task; 0 before the answer."""
    ended_at: float = 0.0
    """When Airflow had accepted the success; 0 before."""

    @property
    def ran(self) -> bool:
        """Whether Airflow let it run its task."""
        return self.answer == 200


class Players:
    """Plays the workers of a namespace's pods.

    ``api``: URL of the Execution API (``http://host:port/execution``). ``duration``: seconds that a task takes; when it
    is changed, those that run learn it with their next heartbeat, within 5 s. ``labels``: selector of the pods.
    ``heartbeat``: seconds between two heartbeats of a worker.
    """

    def __init__(
        self,
        client: Client,
        session: aiohttp.ClientSession,
        namespace: str,
        *,
        api: str,
        duration: float = 0.0,
        labels: str = "kubernetes_executor=True",
        heartbeat: float = _HEARTBEAT_S,
    ) -> None:
        self.duration, self._heartbeat = duration, heartbeat
        self.starts: list[Start] = []
        self.problems: list[str] = []
        """Errors of players. The result of a benchmark or test with an error is invalid."""
        self._client, self._session = client, session
        self._namespace, self._labels, self._api = namespace, labels, api.rstrip("/")
        self._playing: dict[str, asyncio.Task[None]] = {}
        self._seen: set[str] = set()

    @property
    def at_work(self) -> int:
        """Tasks that Airflow let run and that have not ended."""
        return sum(start.ran and not start.ended_at for start in self.starts)

    async def run(self) -> None:
        """Play until cancelled."""
        async with asyncio.TaskGroup() as group:
            async for kind, pod in self._changes():
                uid = pod["metadata"]["uid"]
                if kind == "DELETED":
                    if (task := self._playing.pop(uid, None)) is not None:
                        task.cancel()
                    continue
                self.saw(pod)
                if uid not in self._seen and (pod.get("status") or {}).get("phase") == "Running":
                    self._seen.add(uid)
                    self._playing[uid] = group.create_task(self._play(pod))

    def saw(self, pod: Manifest) -> None:
        """Take note of a pod's state; a subclass may end the pod's player."""

    async def _changes(self) -> AsyncIterator[tuple[str, Manifest]]:
        """Yield the pods and their changes; open the watch again whenever it ends."""
        while True:
            try:
                listed = await self._client.list(PODS, namespace=self._namespace, labels=self._labels)
                for pod in listed.items:
                    yield "ADDED", pod
                version = listed.version
                while True:
                    async for event in self._client.watch(
                        PODS, namespace=self._namespace, labels=self._labels, version=version, timeout=300
                    ):
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            yield event["type"], event["object"]
            except (ApiError, Unreachable):
                await asyncio.sleep(0.2)

    async def _play(self, pod: Manifest) -> None:
        uid = pod["metadata"]["uid"]
        try:
            workload = await self._workload(pod)
            start = _start(pod, workload)
            self.starts.append(start)
            await self._end(pod, 0 if await self._work(start, workload["token"]) else 1)
        except NotFound:
            pass  # the pod, or its Secret with it, was deleted meanwhile
        except Exception as error:
            self.problems.append(f"{pod['metadata']['name']}: {type(error).__name__}: {error}")
        finally:
            self._playing.pop(uid, None)

    async def _workload(self, pod: Manifest) -> Any:
        base = next(container for container in pod["spec"]["containers"] if container["name"] == "base")
        arguments = base["args"]
        if "--json-string" in arguments:
            return json.loads(arguments[arguments.index("--json-string") + 1])
        for volume in pod["spec"].get("volumes") or ():
            if items := (volume.get("secret") or {}).get("items"):
                secret = await self._client.get(SECRETS, volume["secret"]["secretName"], namespace=self._namespace)
                return json.loads(base64.b64decode(secret["data"][items[0]["key"]]))
        raise ValueError("its base container mounts no workload and has none in its arguments")

    async def _work(self, start: Start, token: str) -> bool:
        """Run as the worker; return whether its process would end with exit code 0."""
        host = {"hostname": start.pod, "pid": 1}
        body = {"state": "running", "unixname": "airflow", "start_date": _now(), **host}
        start.answer, fresh = await self._say("PATCH", f"{start.ti_id}/run", token, body)
        if not start.ran:
            return False
        token = fresh or token
        while (left := start.at + self.duration - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self._heartbeat))
            if left > self._heartbeat:
                answer, fresh = await self._say("PUT", f"{start.ti_id}/heartbeat", token, host)
                if answer >= 400:  # the task is over, or another's: the worker ends it and itself
                    return True
                token = fresh or token
        over = {"state": "success", "end_date": _now(), "task_outlets": [], "outlet_events": []}
        answer, _ = await self._say("PATCH", f"{start.ti_id}/state", token, over)
        if answer >= 300:
            self.problems.append(f"{start.pod}: Airflow answered {answer} to the success of {start.task_id}")
        start.ended_at = time.monotonic()
        return True

    async def _say(self, method: str, path: str, token: str, body: dict[str, Any]) -> tuple[int, str]:
        """Return Airflow's answer and the token that it may have renewed."""
        headers = {"Authorization": f"Bearer {token}", "airflow-api-version": API_VERSION}
        give_up = time.monotonic() + _PATIENCE_S
        while True:
            try:
                url = f"{self._api}/task-instances/{path}"
                async with self._session.request(method, url, json=body, headers=headers) as reply:
                    await reply.read()
                    if reply.status < 500:
                        return reply.status, reply.headers.get("Refreshed-API-Token", "")
                    problem = f"{reply.status}"
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = str(error) or type(error).__name__
            if time.monotonic() > give_up:
                raise Unreachable(f"Airflow does not take {method} {path}: {problem}")
            await asyncio.sleep(0.5)

    async def _end(self, pod: Manifest, code: int) -> None:
        """Report, as the kubelet, that all containers of the pod have terminated."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "startedAt": now, "finishedAt": now}
        statuses = [
            {**status, "ready": False, "started": False, "state": {"terminated": ended}}
            for status in pod["status"].get("containerStatuses") or ()
        ]
        status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": statuses}
        name = pod["metadata"]["name"]
        await self._client.patch(PODS, name, {"status": status}, namespace=self._namespace, subresource="status")


def _start(pod: Manifest, workload: Any) -> Start:
    ti, metadata = workload["ti"], pod["metadata"]
    index = ti.get("map_index")
    return Start(
        task_id=ti["task_id"],
        map_index=-1 if index is None else index,
        try_number=ti["try_number"],
        ti_id=ti["id"],
        pod=metadata["name"],
        uid=metadata["uid"],
        at=time.monotonic(),
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()

"""Fetching a task's XCom from the native sidecar that holds it (``pods.xcoms``)."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from crosswind.errors import CrosswindError, NotFound, XComError
from crosswind.kube.client import Client
from crosswind.kube.loglines import LogCursor, moment
from crosswind.kube.resources import PODS
from crosswind.pods.states import held_by, mapping
from crosswind.pods.xcoms import CONTAINER, Delivery, delivered, printed, standing
from crosswind.runs.attending import pod_states
from crosswind.runs.ending import Ender, EndSettings
from crosswind.runs.retrying import retried
from crosswind.types import Manifest

__all__ = ["collect_xcom"]

log = logging.getLogger(__name__)

_LOOK_S = 0.5
_LOOKS_S = 25.0
"""How long a file is waited for that changes although base has ended."""
_QUIET_S = 8.0
"""How long the sidecar must be silent after base's end. It looks each half second, on a busy node seldom: it asks for
a thousandth of a CPU."""
_POLITE_S = 10.0
"""How long sidecars of a pod that may be deleted are asked to end, before it is."""
_BEGUN_S = 15.0
_PATIENCE_S = 60.0
"""How long the API server may be out of reach while a value is read that is nowhere else."""
_END_S = 15.0
"""Beyond the pod's grace period, for the kubelet to report the sidecar's end."""


async def collect_xcom(
    client: Client, pod: Manifest, base: str, settings: EndSettings, *, may_delete: bool
) -> bytes | None:
    """Return the content of the file, b"" when there is none, None when somebody removed the pod before it was read.

    ``pod`` is as last seen, its base container has ended.
    ``may_delete``: the pod will be deleted anyway, so that doing so may bring the value out. Raises ``XComError``.
    """
    found = delivered(pod)
    if found is None and not held_by(pod, base):
        found = await _until_delivered(client, pod)
    if found is None:
        found = await _beside_others(client, pod, base, settings, may_delete=may_delete)
    if found is None and await _is_gone(client, pod):
        return None
    return await _content(client, pod, found)


async def _is_gone(client: Client, pod: Manifest) -> bool:
    metadata = pod["metadata"]
    try:
        found = await retried(lambda: client.get(PODS, metadata["name"], namespace=metadata["namespace"]), _PATIENCE_S)
    except NotFound:
        return True
    return bool(found["metadata"]["uid"] != metadata["uid"])


async def _content(client: Client, pod: Manifest, found: Delivery | None) -> bytes:
    where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    if found is None or found.problem:
        raise XComError(f"The XCom of pod {where} is lost: {found.problem if found else 'its sidecar said nothing'}")
    if found.value is not None:
        return found.value
    try:
        text = await retried(
            lambda: client.log(pod["metadata"]["name"], namespace=pod["metadata"]["namespace"], container=CONTAINER),
            _PATIENCE_S,
        )
    except CrosswindError as error:
        raise XComError(
            f"The XCom of pod {where} is in the log of {CONTAINER}, which cannot be read: {error}"
        ) from error
    value = printed(text, found.frame)
    if value is None:
        raise XComError(
            f"The XCom of pod {where} is not whole in the log of {CONTAINER}; is the node's log limit small?"
        )
    return value


async def _beside_others(
    client: Client, pod: Manifest, base: str, settings: EndSettings, *, may_delete: bool
) -> Delivery | None:
    """Get the value while another sidecar keeps ours running: end that one, and meanwhile read what ours prints."""
    ending = asyncio.create_task(_by_end(client, pod, base, settings, may_delete=may_delete))
    looking = asyncio.create_task(_by_looks(client, pod, base))
    found: Delivery | None = None
    try:
        for first in asyncio.as_completed((ending, looking)):
            found = await first or found
            if found is not None and not found.problem:
                return found
        return (await _by_deletion(client, pod) if may_delete else None) or found
    finally:
        for task in (ending, looking):
            task.cancel()
        await asyncio.gather(ending, looking, return_exceptions=True)


async def _by_looks(client: Client, pod: Manifest, base: str) -> Delivery | None:
    """Read from the log how the file stands."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    finished, loop = _finished(pod, base), asyncio.get_running_loop()
    last, since = b"", loop.time()
    with contextlib.suppress(TimeoutError, CrosswindError):
        async with asyncio.timeout(_LOOKS_S):
            while finished:
                tail = await client.log(name, namespace=namespace, container=CONTAINER, tail_lines=8, timestamps=True)
                if tail != last:
                    last, since = tail, loop.time()
                lines = [(".".join(time), line.text) for line in LogCursor().feed(tail) if (time := moment(line.stamp))]
                if found := standing(lines, finished, loop.time() - since > _QUIET_S):
                    return found
                await asyncio.sleep(_LOOK_S)
    return None


def _finished(pod: Manifest, base: str) -> str:
    for status in mapping(pod.get("status")).get("containerStatuses") or ():
        if status.get("name") == base:
            return str(mapping(mapping(status.get("state")).get("terminated")).get("finishedAt") or "")
    return ""


async def _until_delivered(client: Client, pod: Manifest) -> Delivery | None:
    """Wait for the sidecar's end; None when nobody saw it, or an ordinary sidecar came to hold the pod."""
    metadata, found = pod["metadata"], None
    with contextlib.suppress(TimeoutError):
        async with (
            asyncio.timeout(float(pod["spec"].get("terminationGracePeriodSeconds") or 30) + _END_S),
            contextlib.aclosing(pod_states(client, metadata["name"], metadata["namespace"])) as states,
        ):
            async for state, gone in states:
                found = delivered(state)
                if found is not None or gone:
                    break
    return found


async def _by_end(
    client: Client, pod: Manifest, base: str, settings: EndSettings, *, may_delete: bool
) -> Delivery | None:
    """Bring the pod, and with it our sidecar, to its end, as far as that goes without deleting it."""
    finished = False
    try:
        async with asyncio.timeout(_POLITE_S if may_delete else None):
            finished = await Ender(client, base=base, settings=settings).end(pod)
    except TimeoutError:
        pass
    except CrosswindError as error:
        log.info("The sidecars of pod %s cannot be ended: %s", pod["metadata"]["name"], error)
    return await _until_delivered(client, pod) if finished else None


async def _by_deletion(client: Client, pod: Manifest) -> Delivery | None:
    """Delete the pod while its sidecar's log is read: the pod is hardly there any more when that has spoken."""
    metadata, log, begun = pod["metadata"], bytearray(), asyncio.Event()

    async def read() -> None:
        chunks = client.follow_log(metadata["name"], namespace=metadata["namespace"], container=CONTAINER)
        with contextlib.suppress(CrosswindError):
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    log.extend(chunk)
                    begun.set()
        begun.set()

    reader = asyncio.create_task(read())
    try:
        async with asyncio.timeout(_BEGUN_S):
            await begun.wait()
        await client.delete(PODS, metadata["name"], namespace=metadata["namespace"], uid=metadata["uid"])
        found = await _until_delivered(client, pod)
        await asyncio.wait([reader], timeout=_BEGUN_S)
    finally:
        reader.cancel()
    if found is not None and (found.value is not None or found.problem):
        return found
    value = printed(bytes(log), found.frame if found else None)
    return None if value is None else Delivery(value)

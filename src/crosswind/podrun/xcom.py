"""Collects a task's XCom from the native sidecar that holds it (see ``xcom_delivery``).

``collect_xcom`` owns the tasks that it starts: one that ends the pod's other sidecars and one that reads the log. Both
are cancelled before it returns, also when it is cancelled itself. A pod may then be left with some sidecars ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from crosswind.errors import Conflict, CrosswindError, Forbidden, NotFound, XComError
from crosswind.kube.client import Client
from crosswind.kube.log_lines import LogCursor, moment
from crosswind.kube.resources import PODS
from crosswind.kube.retry import retry_transient
from crosswind.podrun.cleanup import SIDECAR_TIMEOUT_S
from crosswind.podrun.follow import pod_states
from crosswind.podrun.xcom_delivery import CONTAINER, XComDelivery, delivered, early_delivery, printed_value
from crosswind.pods.fields import spec_of, time_of_state
from crosswind.pods.states import holding_containers
from crosswind.sidecars.shutdown import ShutdownSettings, SidecarShutdown
from crosswind.types import Pod

__all__ = ["collect_xcom"]

log = logging.getLogger(__name__)

_POLL_INTERVAL_S = 0.5
_POLL_TIMEOUT_S = 25.0
"""Limit for a file that changes although base has ended."""
_QUIET_S = 8.0
"""Time without output of the sidecar, after base's end, after which the file is complete. The sidecar checks the file
each half second, on a busy node less often: it requests a thousandth of a CPU."""
_SHUTDOWN_TIMEOUT_S = 10.0
"""Limit for ending the sidecars of a pod that may be deleted; after that it is deleted."""
_LOG_TIMEOUT_S = 15.0
"""Limit for the kubelet to open the sidecar's log, and to end it."""
_API_PATIENCE_S = 60.0
"""Limit for an API server that is down while the only copy of a value is read, or its pod deleted."""
_REPORT_MARGIN_S = 15.0
"""Time that the kubelet may take, after the grace period, to report the sidecar's end."""

_UNDELETED = f"the pod cannot be deleted, which would make its sidecar {CONTAINER} deliver"
_UNDELIVERED = (
    f"neither the status nor the log of its sidecar {CONTAINER} had the value when the pod was deleted; check that the"
    " node's kubelet answers requests for logs, and run the task again"
)


async def collect_xcom(
    client: Client, pod: Pod, base: str, settings: ShutdownSettings, *, may_delete: bool
) -> bytes | None:
    """Return the content of the file, b"" when there is none, None when the pod was deleted before it was read.

    ``pod``: as last read; its base container has ended. ``may_delete``: the pod will be deleted anyway, so it may be
    deleted to make the sidecar deliver. Raises ``XComError`` when the value is lost.
    """
    delivery = delivered(pod)
    if delivery is None and not holding_containers(pod, base):
        delivery = await _until_delivered(client, pod)
    if delivery is None:
        delivery = await _beside_others(client, pod, base, settings, may_delete=may_delete)
    # only a pod that still exists can have lost its value: one that a user deleted is reported as such by the caller
    if delivery is None and await _is_gone(client, pod):
        return None
    return await _content(client, pod, delivery)


async def _is_gone(client: Client, pod: Pod) -> bool:
    metadata = pod["metadata"]
    try:
        current = await retry_transient(
            lambda: client.get(PODS, metadata["name"], namespace=metadata["namespace"]), _API_PATIENCE_S
        )
    except NotFound:
        return True
    except CrosswindError as error:
        fix = _fix(error, "get pods")
        raise XComError(f"The XCom of pod {_where(pod)} is lost: the pod cannot be read: {error}; {fix}") from error
    return bool(current["metadata"]["uid"] != metadata["uid"])


def _where(pod: Pod) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _fix(error: CrosswindError, permission: str) -> str:
    """Return what the user does about a request that failed for good."""
    if isinstance(error, Forbidden):
        return f"allow the task to {permission}"
    return "run the task again when the API server answers such requests"


async def _content(client: Client, pod: Pod, delivery: XComDelivery | None) -> bytes | None:
    """Return the value that was delivered, None when the pod was deleted with the log that holds it."""
    where = _where(pod)
    if delivery is None or delivery.problem:
        problem = delivery.problem if delivery else "its sidecar delivered nothing"
        raise XComError(f"The XCom of pod {where} is lost: {problem}")
    if delivery.value is not None:
        return delivery.value
    try:
        log_text = await retry_transient(
            lambda: client.log(pod["metadata"]["name"], namespace=pod["metadata"]["namespace"], container=CONTAINER),
            _API_PATIENCE_S,
        )
    except CrosswindError as error:
        if isinstance(error, NotFound) and await _is_gone(client, pod):
            return None
        raise XComError(
            f"The XCom of pod {where} is in the log of {CONTAINER}, which cannot be read: {error}"
        ) from error
    value = printed_value(log_text, delivery.frame)
    if value is None:
        raise XComError(
            f"The XCom of pod {where} is incomplete in the log of {CONTAINER}; is the node's log limit small?"
        )
    return value


async def _beside_others(
    client: Client, pod: Pod, base: str, settings: ShutdownSettings, *, may_delete: bool
) -> XComDelivery | None:
    """Get the value while another sidecar keeps ours running: end that one and, meanwhile, read what ours prints."""
    ending = asyncio.create_task(_by_shutdown(client, pod, base, settings, may_delete=may_delete))
    polling = asyncio.create_task(_by_log(client, pod, base))
    delivery: XComDelivery | None = None
    try:
        # whichever delivers first; a problem of one does not end the other, which may still bring the value
        for first in asyncio.as_completed((ending, polling)):
            delivery = await first or delivery
            if delivery is not None and not delivery.problem:
                return delivery
        return (await _by_deletion(client, pod) if may_delete else None) or delivery
    finally:
        # A shutdown that is cut off leaves the pod with some sidecars ended, which does no harm: the caller deletes or
        # keeps the pod next.
        for task in (ending, polling):
            task.cancel()
        await asyncio.gather(ending, polling, return_exceptions=True)


async def _by_log(client: Client, pod: Pod, base: str) -> XComDelivery | None:
    """Poll the log of the sidecar for the state of the file."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    finished, loop = time_of_state(pod, base, "terminated", "finishedAt"), asyncio.get_running_loop()
    last, since = b"", loop.time()
    # This way is an attempt: without the permission to read logs, or in time, the other ways remain.
    with contextlib.suppress(TimeoutError, CrosswindError):
        async with asyncio.timeout(_POLL_TIMEOUT_S):
            while finished:  # without base's end no line of the log can be placed after it
                tail = await client.log(name, namespace=namespace, container=CONTAINER, tail_lines=8, timestamps=True)
                # our clock measures the silence only; the log's times are compared with base's end, on the node's clock
                if tail != last:
                    last, since = tail, loop.time()
                cursor = LogCursor(longest_line=None)  # a value is one line
                lines = [(".".join(time), line.text) for line in cursor.feed(tail) if (time := moment(line.stamp))]
                if delivery := early_delivery(lines, finished, loop.time() - since > _QUIET_S):
                    return delivery
                await asyncio.sleep(_POLL_INTERVAL_S)
    return None


async def _until_delivered(client: Client, pod: Pod) -> XComDelivery | None:
    """Wait for the sidecar's end; None when it was not observed: in time, at all, or in the pod of this uid."""
    metadata, delivery = pod["metadata"], None
    # The kubelet ends native sidecars after the others, each with up to the whole grace period (KEP-753).
    grace = float(spec_of(pod).get("terminationGracePeriodSeconds") or 30)
    try:
        async with (
            asyncio.timeout(grace + _REPORT_MARGIN_S),
            contextlib.aclosing(pod_states(client, metadata["name"], metadata["namespace"], metadata["uid"])) as states,
        ):
            async for state, gone in states:
                delivery = delivered(state)
                if delivery is not None or gone:
                    break
    except TimeoutError:
        pass
    except CrosswindError as error:  # the other ways remain, and _is_gone has the last word
        log.info("The end of the XCom sidecar of pod %s cannot be observed: %s", metadata["name"], error)
    return delivery


async def _by_shutdown(
    client: Client, pod: Pod, base: str, settings: ShutdownSettings, *, may_delete: bool
) -> XComDelivery | None:
    """End the pod's other sidecars, and so ours, without deleting the pod."""
    finished = False
    try:
        # A pod that may be deleted need not be ended gently: the deletion below ends it for certain.
        async with asyncio.timeout(_SHUTDOWN_TIMEOUT_S if may_delete else SIDECAR_TIMEOUT_S):
            finished = await SidecarShutdown(client, base=base, settings=settings).end(pod)
    except TimeoutError:
        pass
    except CrosswindError as error:
        log.info("The sidecars of pod %s cannot be ended: %s", pod["metadata"]["name"], error)
    return await _until_delivered(client, pod) if finished else None


async def _by_deletion(client: Client, pod: Pod) -> XComDelivery | None:
    """Delete the pod while its sidecar's log is read; None when another client had deleted it.

    The log stream must be open before the deletion: the pod is gone soon after the sidecar has printed the value.
    """
    log_text, is_open = bytearray(), asyncio.Event()
    reader = asyncio.create_task(_read_to_end(client, pod, log_text, is_open))
    try:
        # A kubelet that does not answer costs only the value in the log: the termination message has a short one too.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOG_TIMEOUT_S):
                await is_open.wait()
        # SIGTERM makes the sidecar print the value (see xcom_delivery), into the stream that is open by now.
        is_ours = await _delete(client, pod)
        delivery = await _until_delivered(client, pod)
        if delivery is not None and (delivery.value is not None or delivery.problem):
            return delivery
        # The stream ends with the container. A node that is lost leaves it open, hence the limit.
        await asyncio.wait([reader], timeout=_LOG_TIMEOUT_S)
    except Conflict:  # the name belongs to another pod by now, and the log that was read may be that pod's
        return None
    except CrosswindError as error:
        return XComDelivery(problem=f"{_UNDELETED}: {error}; {_fix(error, 'delete pods')}")
    finally:
        reader.cancel()
    value = printed_value(bytes(log_text), delivery.frame if delivery else None)
    if value is not None:
        return XComDelivery(value)
    # After our own deletion the pod's absence is expected: without this problem the loss would pass for no value.
    return XComDelivery(problem=_UNDELIVERED) if is_ours else None


async def _read_to_end(client: Client, pod: Pod, log_text: bytearray, is_open: asyncio.Event) -> None:
    """Append the sidecar's log to ``log_text`` until the sidecar has ended; set ``is_open`` at the first output.

    A stream that breaks is read again from the log's start. What it brought before is kept, because the pod may be gone
    by then: ``printed_value`` finds the last whole frame in any case.
    """
    metadata = pod["metadata"]

    async def read() -> None:
        chunks = client.follow_log(metadata["name"], namespace=metadata["namespace"], container=CONTAINER)
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                log_text.extend(chunk)
                is_open.set()

    try:
        await retry_transient(read, _LOG_TIMEOUT_S)
    except CrosswindError as error:
        log.info("The log of %s in pod %s cannot be read: %s", CONTAINER, metadata["name"], error)
    is_open.set()


async def _delete(client: Client, pod: Pod) -> bool:
    """Delete the pod; return False when it was gone. Raises ``Conflict`` when its name belongs to another pod."""
    metadata = pod["metadata"]
    try:
        await retry_transient(
            lambda: client.delete(PODS, metadata["name"], namespace=metadata["namespace"], uid=metadata["uid"]),
            _API_PATIENCE_S,
        )
    except NotFound:  # also when the answer to an earlier attempt was lost: then the log has the value
        return False
    return True

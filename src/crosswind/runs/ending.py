"""Ends the sidecars of a pod whose base container is over, step by step as ``pods.stop_plans`` has it.

Before each step the pod is read again and checked; a step ends as soon as its container does. What is done is told by
an Event on the pod and a line in the log. A permission that is missing is told once; from then on plans do without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from crosswind.errors import Conflict, CrosswindError, Forbidden, NotFound, Unreachable
from crosswind.kube.client import Client, Patch
from crosswind.kube.resources import EVENTS, PODS
from crosswind.kube.retry import is_transient, pause_after
from crosswind.pods.known_sidecars import KNOWN, KnownSidecar
from crosswind.pods.sidecars import is_native
from crosswind.pods.states import State, containers, mapping, mappings, number
from crosswind.pods.stop_checks import moment
from crosswind.pods.stop_plans import NEEDS, Abilities, HttpRequest, Step, StopPlan, Target, Way, plan_stop
from crosswind.runs.sighting import Sight, watching
from crosswind.types import Manifest

__all__ = ["EndSettings", "Ender", "abilities", "ask"]

log = logging.getLogger(__name__)

_START_S = 60.0
"""How long a sidecar that has not started yet is waited for: its image may still be pulled."""
_LISTEN_S = 10.0
"""How long after its start a sidecar may take to listen."""
_AGAIN_S = 0.5
_CALL_S = 15.0
_KILL_S = 5.0
"""How long after its grace period a native sidecar may take to be killed."""
_REPORT_S = 1.5
"""How late the kubelet may report an end."""
_LONGEST_PAUSE_S = 5.0
_DELETE_S = 60.0
"""How long the API server may refuse to delete a pod for now."""
_NO_SUCH_COMMAND = (126, 127)


@dataclass(frozen=True, slots=True)
class EndSettings:
    """What a deployment says about the end of sidecars."""

    known: tuple[KnownSidecar, ...] = KNOWN
    """The sidecars that are known: the deployment's own, then ours."""
    swap_image: str = ""
    """An image that ends with 0 at once and may be swapped in; "" for none, as a pod then shows a foreign image."""


def _is_of_the_api(error: CrosswindError) -> bool:
    """Whether an error passes and is the API server's, or of our credentials.

    Of a command or a port inside a pod, ``Unreachable`` and 500 are the pod's own: nobody listens there, or the
    container has ended. Those are answers.
    """
    return is_transient(error) and not isinstance(error, Unreachable) and getattr(error, "status", 0) != 500


class _NotTaken(Exception):
    """A step did not work; the message says why. ``code``: with which exit code."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


async def abilities(client: Client, namespace: str) -> Abilities:
    """Return what the cluster says that we may do to the pods of a namespace."""
    found = Abilities.NONE
    for ability, verbs, subresource in (
        (Abilities.FORWARD, ("get", "create"), "portforward"),
        (Abilities.EXEC, ("get", "create"), "exec"),
        (Abilities.PATCH, ("patch",), ""),
        (Abilities.DELETE, ("delete",), ""),
    ):
        asked = [await client.allowed(verb, PODS, namespace=namespace, subresource=subresource) for verb in verbs]
        found |= ability if all(asked) else Abilities.NONE
    return found


async def ask(client: Client, pod: str, request: HttpRequest, *, namespace: str) -> int:
    """Send a request to a port inside a pod and return the status code, 0 when the answer was cut off.

    ``Unreachable``: nobody listens there, or the pod cannot be reached.
    """
    headers = {"Host": "localhost", "Connection": "close", "Content-Length": "0", **dict(request.headers)}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    async with client.port_forward(pod, request.port, namespace=namespace) as stream:
        await stream.send(f"{request.method} {request.path} HTTP/1.1\r\n{head}\r\n".encode())
        received = b""
        while b"\r\n" not in received and (data := await stream.receive()):
            received += data
    words = received.split(b"\r\n")[0].split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


class Ender:
    """Ends sidecars.

    ``allowed``: what may be done at all, missing permissions aside. ``may_touch``: from a pod and the name of its main
    container to what speaks against touching it, asked before each step.
    """

    def __init__(
        self,
        client: Client,
        *,
        base: str = "base",
        settings: EndSettings | None = None,
        allowed: Abilities = Abilities.C,
        may_touch: Callable[[Manifest, str], object] | None = None,
    ) -> None:
        self._client = client
        self._base, self._settings = base, settings or EndSettings()
        self._abilities: defaultdict[str, Abilities] = defaultdict(lambda: allowed)
        self._may_touch = may_touch or (lambda pod, base: ", ".join(moment(pod, base, own=True)))
        self._mute: set[str] = set()

    async def end(self, pod: Manifest, *, delete: bool = False) -> bool:
        """End what runs beside base; return whether the pod is finished or gone.

        ``pod``: as read last. ``delete``: whether it may be deleted when nothing else helps. Raises errors of
        ``crosswind.errors`` when the pod cannot be read.
        """
        async with watching(self._client, pod) as sight:
            return await self.carry_out(sight, self._plan(sight, delete))

    async def carry_out(self, sight: Sight, plan: StopPlan) -> bool:
        """Do what a plan says to the pod in sight; as ``end``."""
        for group in plan.groups:
            ends = await asyncio.gather(*(self._end_one(sight, target) for target in group), return_exceptions=True)
            for problem in filter(None, ends):
                raise problem
        if not await sight.until(_is_finished, _grace(sight.pod)) and not plan.last.skip:
            await self._delete(sight, plan.last)
        return sight.pod is None or _is_finished(sight.pod)

    def _plan(self, sight: Sight, delete: bool) -> StopPlan:
        return plan_stop(
            sight.pod,
            base=self._base,
            abilities=self._abilities[sight.namespace],
            known=self._settings.known,
            swap_image=self._settings.swap_image,
            delete=delete,
        )

    async def _end_one(self, sight: Sight, target: Target) -> None:
        """Take a container's steps one after the other until it has ended."""
        name = target.container
        if not await sight.until(lambda pod: _state(pod, name) is not State.WAITING, _START_S):
            log.warning("Sidecar %s of pod %s does not start", name, sight.where)
        for step in target.taken:
            if NEEDS[step.way] not in self._abilities[sight.namespace]:
                continue
            if not await self._may(sight, name):
                return
            if await self._take(sight, target, step):
                await self._tell(sight, name, "SidecarEnded", f"{name} ended: {step}{_code(sight.pod, name)}")
                return
        await self._tell(sight, name, "SidecarStays", f"{name} still runs: nothing that may be done ended it", bad=True)

    async def _may(self, sight: Sight, name: str) -> bool:
        """Read the pod again; return whether it is the same, its moment is right and the container still runs."""
        pod = await sight.look()
        if pod is None or _is_finished(pod) or _is_over(pod, name):
            return False
        if objection := self._may_touch(pod, self._base):
            log.info("Pod %s is left alone: %s", sight.where, objection)
            return False
        return True

    async def _take(self, sight: Sight, target: Target, step: Step) -> bool:
        """Take one step; return whether the container ended by it, or while it was tried."""
        name, ends = target.container, asyncio.get_running_loop().time() + step.deadline
        over = lambda pod: _is_finished(pod) or _is_over(pod, name)  # noqa: E731
        log.info("Pod %s, sidecar %s: %s", sight.where, name, step)
        try:
            async with asyncio.timeout(step.deadline):
                await self._insist(lambda: self._do(sight, name, step))
        except (_NotTaken, CrosswindError, TimeoutError) as error:
            self._learn(sight, step, error)
            # a command that ends its container is often cut off before it can answer: the effect counts
            if await sight.until(over, _REPORT_S if step.way in (Way.CLIENT, Way.SIGNAL) else 0.0):
                return True
            log.info("Pod %s, sidecar %s: %s did not work: %s", sight.where, name, step, error or "no answer in time")
            return False
        if step.way is not Way.WAIT:
            await self._tell(sight, name, "EndingSidecar", step.note(name))
        if step.way is Way.SIGNAL:
            await self._signal_again(sight, name, step, ends)
        return await sight.until(over, ends - asyncio.get_running_loop().time())

    async def _insist(
        self, act: Callable[[], Awaitable[object]], passes: Callable[[CrosswindError], bool] = _is_of_the_api
    ) -> None:
        """Act again for as long as the API server pushes back: that is no reason for a harsher step.

        Its caller sets the deadline. ``passes``: which errors are waited out.
        """
        failures = 0
        while True:
            try:
                await act()
                return
            except CrosswindError as error:
                if not passes(error):
                    raise
                failures += 1
                await asyncio.sleep(pause_after(failures, error, first=_AGAIN_S, ceiling=_LONGEST_PAUSE_S))

    async def _do(self, sight: Sight, name: str, step: Step) -> None:
        if step.request is not None:
            await self._ask(sight, name, step.request, patient=not step.doubtful)
        elif step.command:
            await self._exec_patiently(sight, name, step)
        elif step.way is Way.SWAP:
            await self._swap(sight, name, step)

    async def _exec_patiently(self, sight: Sight, name: str, step: Step) -> None:
        """Run a command; the sidecar's own client is run again for one that has just started, as in ``_ask``."""
        while True:
            try:
                return await self._exec(sight, name, step)
            except _NotTaken as error:
                may_come = step.way is Way.CLIENT and error.code not in _NO_SUCH_COMMAND
                if not may_come or _age(sight, name, self._base) > _LISTEN_S or _is_over(sight.pod, name):
                    raise
                await asyncio.sleep(_AGAIN_S)

    async def _exec(self, sight: Sight, name: str, step: Step) -> None:
        where = sight.namespace
        result = await self._client.exec(sight.name, step.command, namespace=where, container=name, timeout=_CALL_S)
        if result.exit_code:
            said = (result.stderr or result.stdout).decode(errors="replace").strip()[:200]
            raise _NotTaken(f"exit code {result.exit_code} {said}".strip(), result.exit_code)

    async def _signal_again(self, sight: Sight, name: str, step: Step, ends: float) -> None:
        """Signal one that has just started again: without a handler yet, process 1 loses the signal."""
        now = asyncio.get_running_loop().time
        while _age(sight, name, self._base) < _LISTEN_S and now() + _REPORT_S < ends:
            if await sight.until(lambda pod: _is_over(pod, name), _REPORT_S):
                return
            with contextlib.suppress(_NotTaken, CrosswindError):
                await self._exec(sight, name, step)

    async def _ask(self, sight: Sight, name: str, request: HttpRequest, *, patient: bool) -> None:
        """Ask; one that has just started may not listen yet, which is waited for if it is to listen at all."""
        while True:
            try:
                code = await ask(self._client, sight.name, request, namespace=sight.namespace)
                if code or await sight.until(lambda pod: _is_over(pod, name), _REPORT_S):
                    break
                raise Unreachable("the connection closed without an answer")
            except Unreachable:
                if not patient or _age(sight, name, self._base) > _LISTEN_S or _is_over(sight.pod, name):
                    raise
                await asyncio.sleep(_AGAIN_S)
        if code and not 200 <= code < 300:
            raise _NotTaken(f"answered {code}")

    async def _swap(self, sight: Sight, name: str, step: Step) -> None:
        names = [one.get("name") for one in mappings(mapping(mapping(sight.pod).get("spec")).get("containers"))]
        place = f"/spec/containers/{names.index(name)}"
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": sight.uid},
            {"op": "test", "path": f"{place}/name", "value": name},
            {"op": "replace", "path": f"{place}/image", "value": step.image},
        ]
        await self._client.patch(PODS, sight.name, patch, namespace=sight.namespace, how=Patch.JSON)

    async def _delete(self, sight: Sight, step: Step) -> None:
        pod = await sight.look()
        if pod is None or self._may_touch(pod, self._base):
            return
        await self._tell(sight, "", "DeletingPod", f"deleting the pod: {step.reason}")
        try:
            async with asyncio.timeout(_DELETE_S):
                await self._insist(lambda: self._delete_once(sight), is_transient)
        except (NotFound, Conflict):
            sight.saw(None)
        except (CrosswindError, TimeoutError) as error:
            self._learn(sight, step, error)
            log.warning("Pod %s could not be deleted: %s", sight.where, error or f"not within {_DELETE_S:g} s")
        await sight.until(_is_finished, step.deadline)

    async def _delete_once(self, sight: Sight) -> None:
        """Delete the pod; where that is forbidden, ask for its eviction, which is a permission of its own."""
        try:
            await self._client.delete(PODS, sight.name, namespace=sight.namespace, uid=sight.uid)
        except Forbidden as refused:
            try:
                await self._client.evict(sight.name, namespace=sight.namespace, uid=sight.uid)
            except Forbidden:
                raise refused from None

    def _learn(self, sight: Sight, step: Step, error: Exception) -> None:
        """Remember a permission that is missing, and say so once."""
        if isinstance(error, Forbidden) and NEEDS[step.way] in self._abilities[sight.namespace]:
            self._abilities[sight.namespace] &= ~NEEDS[step.way]
            log.warning(
                "Sidecars in namespace %s end without %s from now on: %s. Grant it, or see the permission sets in the"
                " documentation on sidecars.",
                sight.namespace,
                str(NEEDS[step.way].name).lower(),
                error,
            )

    async def _tell(self, sight: Sight, name: str, reason: str, message: str, *, bad: bool = False) -> None:
        """Say in the log and on the pod what was done; an Event that cannot be written is no reason to stop."""
        log.log(logging.WARNING if bad else logging.INFO, "Pod %s: %s", sight.where, message)
        if sight.namespace in self._mute:
            return
        try:
            await self._client.create(EVENTS, _event(sight, name, reason, message, bad), namespace=sight.namespace)
        except Forbidden as error:
            self._mute.add(sight.namespace)
            log.warning("No Events are written on pods of namespace %s: %s", sight.namespace, error)
        except CrosswindError as error:
            log.debug("An Event on pod %s could not be written: %s", sight.where, error)


def _event(sight: Sight, container: str, reason: str, message: str, bad: bool) -> Manifest:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": sight.namespace, "name": sight.name, "uid": sight.uid}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{sight.name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": sight.namespace},
        "involvedObject": about | ({"fieldPath": f"spec.containers{{{container}}}"} if container else {}),
        "reason": reason,
        "message": message[:1024],
        "type": "Warning" if bad else "Normal",
        "source": {"component": "crosswind"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _grace(pod: Manifest | None) -> float:
    """Seconds until a pod whose ordinary containers ended is reported as finished: native sidecars have their grace."""
    spec = mapping(mapping(pod).get("spec"))
    native = any(is_native(one) for one in mappings(spec.get("initContainers")))
    return _REPORT_S + (_KILL_S + (number(spec.get("terminationGracePeriodSeconds")) or 30)) * native


def _is_finished(pod: Manifest) -> bool:
    return mapping(pod.get("status")).get("phase") in ("Succeeded", "Failed")


def _state(pod: Manifest | None, name: str) -> State:
    return next((one.state for one in containers(pod, "") if one.name == name), State.UNKNOWN)


def _is_over(pod: Manifest | None, name: str) -> bool:
    return _state(pod, name) is State.TERMINATED


def _code(pod: Manifest | None, name: str) -> str:
    code = next((one.exit_code for one in containers(pod, "") if one.name == name), None)
    return "" if code is None else f", exit code {code}"


def _age(sight: Sight, name: str, base: str) -> float:
    """Seconds since a container's start, at least; a long time when it is not known.

    Base's end and the container's start are read from one clock, the node's. Ours may be minutes apart from it, and
    counts only the seconds since the pod came into sight.
    """
    started, ended = _time(sight.pod, name, "running", "startedAt"), _time(sight.pod, base, "terminated", "finishedAt")
    if started is None:
        return float("inf")
    before = (ended - started).total_seconds() if ended is not None else 0.0
    return max(0.0, before) + time.monotonic() - sight.since


def _time(pod: Manifest | None, name: str, state: str, field: str) -> datetime.datetime | None:
    """Return a time in a container's status, None if it is not there."""
    for status in mappings(mapping(mapping(pod).get("status")).get("containerStatuses")):
        if status.get("name") == name:
            at = mapping(mapping(status.get("state")).get(state)).get(field)
            with contextlib.suppress(ValueError):
                return datetime.datetime.fromisoformat(at) if isinstance(at, str) else None
    return None

"""Ends the sidecars of a pod whose base container is over, by the steps of a ``ShutdownPlan``.

Before each step the pod is read again and checked. A step ends as soon as its container does. Each step is reported by
an Event on the pod and a line in the log. A missing permission is logged once; later plans do without it.

``SidecarShutdown.end`` starts no task that outlives it: the steps of one group run side by side inside the call, each
with a deadline. Cancelling the call stops the steps. Nothing is undone then, and a later call continues from the pod's
state.
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
from crosswind.pods.fields import (
    containers_of,
    init_containers_of,
    is_native,
    number,
    spec_of,
    status_of,
    time_of_state,
)
from crosswind.pods.states import RuntimeState, container_reports
from crosswind.sidecars.catalog import KNOWN, KnownSidecar
from crosswind.sidecars.pod_watch import PodWatch, watch_pod
from crosswind.sidecars.safety_checks import timing_objections
from crosswind.sidecars.shutdown_plan import (
    REQUIRED_PERMISSIONS,
    HttpRequest,
    Permissions,
    ShutdownPlan,
    ShutdownStep,
    ShutdownTarget,
    StepKind,
    plan_shutdown,
)
from crosswind.types import AnyPod, Manifest, Pod

__all__ = ["ShutdownSettings", "SidecarShutdown", "granted_permissions", "send_request"]

log = logging.getLogger(__name__)

_START_TIMEOUT_S = 60.0
"""Limit for a sidecar that has not started yet: its image may still be pulled."""
_LISTEN_TIMEOUT_S = 10.0
"""Limit from a sidecar's start until it listens."""
_RETRY_INTERVAL_S = 0.5
_EXEC_TIMEOUT_S = 15.0
_KILL_MARGIN_S = 5.0
"""Time that the kubelet may take, after the grace period, to kill a native sidecar."""
_REPORT_DELAY_S = 1.5
"""Time that the kubelet may take to report a container's end."""
_MAX_PAUSE_S = 5.0
_DELETE_TIMEOUT_S = 60.0
"""Limit for a deletion that the API server refuses with transient errors."""
_COMMAND_NOT_FOUND = (126, 127)


@dataclass(frozen=True, slots=True)
class ShutdownSettings:
    """A deployment's settings for ending sidecars."""

    known: tuple[KnownSidecar, ...] = KNOWN
    """The known products: the deployment's own, then the built-in ones."""
    swap_image: str = ""
    """An image that ends with 0 at once, to be swapped in. "" for none, because the pod then shows a foreign image."""


def _is_api_trouble(error: CrosswindError) -> bool:
    """Return whether an error is transient and comes from the API server or our credentials.

    For a command or a port inside a pod, ``Unreachable`` and 500 come from the pod: nothing listens there, or the
    container has ended. Those are answers, not trouble.
    """
    return is_transient(error) and not isinstance(error, Unreachable) and getattr(error, "status", 0) != 500


class _StepFailed(Exception):
    """A step did not work; the message says why. ``code``: its command's exit code, 0 if there is none."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


async def granted_permissions(client: Client, namespace: str) -> Permissions:
    """Return the permissions that we have on the pods of a namespace, by SelfSubjectAccessReview."""
    granted = Permissions.NONE
    for permission, verbs, subresource in (
        (Permissions.FORWARD, ("get", "create"), "portforward"),
        (Permissions.EXEC, ("get", "create"), "exec"),
        (Permissions.PATCH, ("patch",), ""),
        (Permissions.DELETE, ("delete",), ""),
    ):
        # Both verbs: a WebSocket's upgrade is a GET, and newer API servers ask for create as well.
        answers = [await client.allowed(verb, PODS, namespace=namespace, subresource=subresource) for verb in verbs]
        granted |= permission if all(answers) else Permissions.NONE
    return granted


async def send_request(client: Client, pod: str, request: HttpRequest, *, namespace: str) -> int:
    """Send a request to a port inside a pod and return the status code, 0 when the answer was cut off.

    Raises ``Unreachable`` when nothing listens there or the pod cannot be reached.
    """
    # Written by hand: port-forward gives a stream of bytes, where an HTTP client wants a socket. Without Content-Length
    # a server may answer a POST with 411 (RFC 9110, 15.5.12).
    headers = {"Host": "localhost", "Connection": "close", "Content-Length": "0", **dict(request.headers)}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    async with client.port_forward(pod, request.port, namespace=namespace) as stream:
        await stream.send(f"{request.method} {request.path} HTTP/1.1\r\n{head}\r\n".encode())
        received = b""
        # the status line is enough: some sidecars exit before they have sent the rest
        while b"\r\n" not in received and (data := await stream.receive()):
            received += data
    words = received.split(b"\r\n")[0].split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


class SidecarShutdown:
    """Ends the sidecars of pods, any number of them concurrently.

    ``allowed``: the most that may be done, whatever the permissions. ``may_touch``: returns the objection to touching a
    pod, given the pod and the name of its main container; called before each step.
    """

    def __init__(
        self,
        client: Client,
        *,
        base: str = "base",
        settings: ShutdownSettings | None = None,
        allowed: Permissions = Permissions.C,
        may_touch: Callable[[Pod, str], object] | None = None,
    ) -> None:
        self._client = client
        self._base, self._settings = base, settings or ShutdownSettings()
        self._permissions: defaultdict[str, Permissions] = defaultdict(lambda: allowed)
        self._may_touch = may_touch or (lambda pod, base: ", ".join(timing_objections(pod, base, own=True)))
        self._without_events: set[str] = set()

    async def end(self, pod: AnyPod, *, delete: bool = False) -> bool:
        """End the containers beside base; return whether the pod is finished or gone.

        ``pod``: as last read. ``delete``: whether it may be deleted when no step helps. Raises errors of
        ``crosswind.errors`` when the pod cannot be read.
        """
        async with watch_pod(self._client, pod) as watch:
            return await self.carry_out(watch, self._plan(watch, delete))

    async def carry_out(self, watch: PodWatch, plan: ShutdownPlan) -> bool:
        """Take the steps of a plan on a pod that the caller watches; otherwise as ``end``."""
        for group in plan.groups:
            # all of a group end before an error is raised, so that no step is left half done
            outcomes = await asyncio.gather(
                *(self._end_container(watch, target) for target in group), return_exceptions=True
            )
            # The first one is enough: the others have the same cause, an API server that cannot be reached, more often
            # than not.
            for error in filter(None, outcomes):
                raise error
        # The phase follows the last container's end by a sync of the kubelet; a deletion before that would turn a
        # success into a failure.
        if not await watch.wait_until(_is_finished, _grace(watch.pod or {})) and not plan.last.skip:
            await self._delete(watch, plan.last)
        return watch.pod is None or _is_finished(watch.pod)

    def _plan(self, watch: PodWatch, delete: bool) -> ShutdownPlan:
        return plan_shutdown(
            watch.pod,
            base=self._base,
            permissions=self._permissions[watch.namespace],
            known=self._settings.known,
            swap_image=self._settings.swap_image,
            delete=delete,
        )

    async def _end_container(self, watch: PodWatch, target: ShutdownTarget) -> None:
        """Take a container's steps, one after the other, until it has ended."""
        name = target.container
        # A container that has not started accepts no request and no signal, and the steps are the harsher the later.
        if not await watch.wait_until(lambda pod: _state(pod, name) is not RuntimeState.WAITING, _START_TIMEOUT_S):
            log.warning("Sidecar %s of pod %s does not start", name, watch.where)
        for step in target.taken:
            # Not in the plan: the permission was found missing while the plan was carried out.
            if REQUIRED_PERMISSIONS[step.way] not in self._permissions[watch.namespace]:
                continue  # missing, as an earlier step has shown: do not ask the API server again
            if not await self._may_continue(watch, name):
                return
            if await self._take_step(watch, target, step):
                await self._report(watch, name, "SidecarEnded", f"{name} ended: {step}{_code(watch.pod, name)}")
                return
        await self._report(watch, name, "SidecarStays", f"{name} still runs: no permitted step ended it", bad=True)

    async def _may_continue(self, watch: PodWatch, name: str) -> bool:
        """Read the pod again; return whether it is the same pod, may be touched now, and the container still runs."""
        # from the API server, since the watch may lag behind and a step cannot be undone
        pod = await watch.refresh()
        if pod is None or _is_finished(pod) or _is_over(pod, name):
            return False
        if objection := self._may_touch(pod, self._base):
            log.info("Pod %s is not changed: %s", watch.where, objection)
            return False
        return True

    async def _take_step(self, watch: PodWatch, target: ShutdownTarget, step: ShutdownStep) -> bool:
        """Take one step; return whether the container ended by it, or during it."""
        name, deadline = target.container, asyncio.get_running_loop().time() + step.deadline

        def is_over(pod: Pod) -> bool:
            return _is_finished(pod) or _is_over(pod, name)

        log.info("Pod %s, sidecar %s: %s", watch.where, name, step)
        try:
            # the deadline covers the retries too: a control plane that is down for long must not hold up the next step
            async with asyncio.timeout(step.deadline):
                await self._retry(lambda: self._act(watch, name, step))
        except (_StepFailed, CrosswindError, TimeoutError) as error:
            self._note_missing_permission(watch, step, error)
            # A command that ends its container is often cut off before its answer arrives: the effect counts.
            if await watch.wait_until(
                is_over, _REPORT_DELAY_S if step.way in (StepKind.CLIENT, StepKind.SIGNAL) else 0.0
            ):
                return True
            log.info("Pod %s, sidecar %s: %s failed: %s", watch.where, name, step, error or "no answer in time")
            return False
        if step.way is not StepKind.WAIT:
            await self._report(watch, name, "EndingSidecar", step.note(name))
        if step.way is StepKind.SIGNAL:
            await self._signal_again(watch, name, step, deadline)
        return await watch.wait_until(is_over, deadline - asyncio.get_running_loop().time())

    async def _retry(
        self, act: Callable[[], Awaitable[object]], passes: Callable[[CrosswindError], bool] = _is_api_trouble
    ) -> None:
        """Act again for as long as the API server has trouble, which does not justify a harsher step.

        The caller sets the deadline. ``passes``: returns whether an error is retried.
        """
        failures = 0
        # Ends by success, by an error that is not trouble, or by the caller's deadline, which cancels the sleep.
        while True:
            try:
                await act()
                return
            except CrosswindError as error:
                if not passes(error):
                    raise
                failures += 1
                await asyncio.sleep(pause_after(failures, error, first=_RETRY_INTERVAL_S, ceiling=_MAX_PAUSE_S))

    async def _act(self, watch: PodWatch, name: str, step: ShutdownStep) -> None:
        if step.request is not None:
            await self._send(watch, name, step.request, patient=not step.doubtful)
        elif step.command:
            await self._exec_patiently(watch, name, step)
        elif step.way is StepKind.SWAP:
            await self._swap(watch, name, step)

    async def _exec_patiently(self, watch: PodWatch, name: str, step: ShutdownStep) -> None:
        """Run a command. The sidecar's own client is retried while the sidecar has just started, as in ``_send``."""
        while True:
            try:
                return await self._exec(watch, name, step)
            except _StepFailed as error:
                # A client that reaches nobody yet may do so in a moment; one that does not exist (126, 127) will not.
                may_work_later = step.way is StepKind.CLIENT and error.code not in _COMMAND_NOT_FOUND
                if not may_work_later or not self._is_starting(watch, name):
                    raise
                await asyncio.sleep(_RETRY_INTERVAL_S)

    async def _exec(self, watch: PodWatch, name: str, step: ShutdownStep) -> None:
        result = await self._client.exec(
            watch.name, step.command, namespace=watch.namespace, container=name, timeout=_EXEC_TIMEOUT_S
        )
        if result.exit_code:
            output = (result.stderr or result.stdout).decode(errors="replace").strip()[:200]
            raise _StepFailed(f"exit code {result.exit_code} {output}".strip(), result.exit_code)

    async def _signal_again(self, watch: PodWatch, name: str, step: ShutdownStep, deadline: float) -> None:
        """Repeat the signal while the sidecar has just started.

        The kernel drops a signal to a process 1 that has not installed its handler yet (pid_namespaces(7)).
        """
        now = asyncio.get_running_loop().time
        # Until the sidecar is old enough to have its handler, or so late that the next step is due.
        while _age(watch, name, self._base) < _LISTEN_TIMEOUT_S and now() + _REPORT_DELAY_S < deadline:
            if await watch.wait_until(lambda pod: _is_over(pod, name), _REPORT_DELAY_S):
                return
            with contextlib.suppress(_StepFailed, CrosswindError):
                await self._exec(watch, name, step)

    def _is_starting(self, watch: PodWatch, name: str) -> bool:
        """Return whether a sidecar runs and started so recently that it may not listen yet."""
        return _age(watch, name, self._base) <= _LISTEN_TIMEOUT_S and not _is_over(watch.pod, name)

    async def _send(self, watch: PodWatch, name: str, request: HttpRequest, *, patient: bool) -> None:
        """Send a request. ``patient``: retry while the sidecar has just started and does not listen yet."""
        while True:
            try:
                code = await send_request(self._client, watch.name, request, namespace=watch.namespace)
                # Cut off without an answer: a success if the container ends, else as if nothing listened.
                if code or await watch.wait_until(lambda pod: _is_over(pod, name), _REPORT_DELAY_S):
                    break
                raise Unreachable("the connection closed without an answer")
            except Unreachable:
                if not patient or not self._is_starting(watch, name):
                    raise
                await asyncio.sleep(_RETRY_INTERVAL_S)
        if code and not 200 <= code < 300:
            raise _StepFailed(f"answered {code}")

    async def _swap(self, watch: PodWatch, name: str, step: ShutdownStep) -> None:
        names = [container.get("name") for container in containers_of(watch.pod or {})]
        place = f"/spec/containers/{names.index(name)}"
        # The kubelet replaces a container whose image changes, whatever the restartPolicy (kuberuntime_manager.go,
        # computePodActions). The tests make the API server refuse the patch if another pod has taken the name.
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": watch.uid},
            {"op": "test", "path": f"{place}/name", "value": name},
            {"op": "replace", "path": f"{place}/image", "value": step.image},
        ]
        await self._client.patch(PODS, watch.name, patch, namespace=watch.namespace, how=Patch.JSON)

    async def _delete(self, watch: PodWatch, step: ShutdownStep) -> None:
        pod = await watch.refresh()
        # The last check before something that cannot be undone, on a pod that was read this moment.
        if pod is None or self._may_touch(pod, self._base):
            return
        await self._report(watch, "", "DeletingPod", f"deleting the pod: {step.reason}")
        try:
            async with asyncio.timeout(_DELETE_TIMEOUT_S):
                await self._retry(lambda: self._delete_once(watch), is_transient)
        except (NotFound, Conflict):  # 409: the name belongs to a pod of another uid
            watch.update(None)
        except (CrosswindError, TimeoutError) as error:
            self._note_missing_permission(watch, step, error)
            log.warning("Pod %s could not be deleted: %s", watch.where, error or f"not within {_DELETE_TIMEOUT_S:g} s")
        await watch.wait_until(_is_finished, step.deadline)

    async def _delete_once(self, watch: PodWatch) -> None:
        """Delete the pod; where that is forbidden, request its eviction, which is a permission of its own."""
        try:
            await self._client.delete(PODS, watch.name, namespace=watch.namespace, uid=watch.uid)
        except Forbidden as refused:
            try:
                # create on pods/eviction is granted where delete is not, and asks the disruption budgets first.
                await self._client.evict(watch.name, namespace=watch.namespace, uid=watch.uid)
            except Forbidden:
                raise refused from None

    def _note_missing_permission(self, watch: PodWatch, step: ShutdownStep, error: Exception) -> None:
        """Remember a missing permission for later plans, and log it once."""
        if isinstance(error, Forbidden) and REQUIRED_PERMISSIONS[step.way] in self._permissions[watch.namespace]:
            # Grants may change while we run, but a plan without the step is safe, and a restart asks again.
            self._permissions[watch.namespace] &= ~REQUIRED_PERMISSIONS[step.way]
            log.warning(
                "From now on, sidecars in namespace %s are ended without %s: %s. Grant it, or see the permission sets"
                " in the documentation on sidecars.",
                watch.namespace,
                str(REQUIRED_PERMISSIONS[step.way].name).lower(),
                error,
            )

    async def _report(self, watch: PodWatch, name: str, reason: str, message: str, *, bad: bool = False) -> None:
        """Report a step in the log and by an Event on the pod; an Event that cannot be written stops nothing."""
        log.log(logging.WARNING if bad else logging.INFO, "Pod %s: %s", watch.where, message)
        if watch.namespace in self._without_events:
            return
        try:
            await self._client.create(EVENTS, _event(watch, name, reason, message, bad), namespace=watch.namespace)
        except Forbidden as error:  # logged once: each step would be refused again
            self._without_events.add(watch.namespace)
            log.warning("No Events are written on pods of namespace %s: %s", watch.namespace, error)
        except CrosswindError as error:
            log.debug("An Event on pod %s could not be written: %s", watch.where, error)


def _event(watch: PodWatch, container: str, reason: str, message: str, bad: bool) -> Manifest:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": watch.namespace, "name": watch.name, "uid": watch.uid}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{watch.name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": watch.namespace},
        "involvedObject": about | ({"fieldPath": f"spec.containers{{{container}}}"} if container else {}),
        "reason": reason,
        "message": message[:1024],
        "type": "Warning" if bad else "Normal",
        "source": {"component": "crosswind"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _grace(pod: Pod) -> float:
    """Return the seconds until the kubelet reports a pod as finished whose ordinary containers have ended.

    Native sidecars end after them, and get the pod's grace period.
    """
    native = any(is_native(container) for container in init_containers_of(pod))
    grace = number(spec_of(pod).get("terminationGracePeriodSeconds")) or 30
    return _REPORT_DELAY_S + (_KILL_MARGIN_S + grace) * native


def _is_finished(pod: Pod) -> bool:
    return status_of(pod).get("phase") in ("Succeeded", "Failed")


def _state(pod: Pod | None, name: str) -> RuntimeState:
    return next((report.state for report in container_reports(pod, "") if report.name == name), RuntimeState.UNKNOWN)


def _is_over(pod: Pod | None, name: str) -> bool:
    return _state(pod, name) is RuntimeState.TERMINATED


def _code(pod: Pod | None, name: str) -> str:
    code = next((report.exit_code for report in container_reports(pod, "") if report.name == name), None)
    return "" if code is None else f", exit code {code}"


def _age(watch: PodWatch, name: str, base: str) -> float:
    """Return the least number of seconds since a container's start; infinity when its start is unknown.

    Base's end and the container's start come from one clock, the node's. Our clock may differ by minutes, so it counts
    only the seconds since the watch began.
    """
    started, ended = _time(watch.pod, name, "running", "startedAt"), _time(watch.pod, base, "terminated", "finishedAt")
    if started is None:
        return float("inf")
    before = (ended - started).total_seconds() if ended is not None else 0.0
    return max(0.0, before) + time.monotonic() - watch.since


def _time(pod: Pod | None, name: str, state: str, field: str) -> datetime.datetime | None:
    """Return a time of a container's status, None if it is missing."""
    with contextlib.suppress(ValueError):
        return datetime.datetime.fromisoformat(time_of_state(pod or {}, name, state, field))
    return None

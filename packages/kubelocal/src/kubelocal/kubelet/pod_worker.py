"""One pod on this node from arrival to end: ``pod_actions.next_actions`` decides, ``pod_status`` makes the report.

``PodWorker.run`` owns all tasks of the pod, in one task group: one that waits for each container's end, one per probe,
and the monitor of the disk. It returns when the pod is gone from the API. When it is cancelled, because the kubelet
ends, all containers are killed at once and the folders removed; the pod's status stays as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from kubelocal.controllers.disruptions import (
    SHUTDOWN_MESSAGE,
    SHUTDOWN_REASON,
    UNSEEN_END_CODE,
    UNSEEN_END_REASON,
)
from kubelocal.injection.start_delays import START_DELAY, delay_of
from kubelocal.kubelet.container_config import host_files, process_spec, write_hosts
from kubelocal.kubelet.container_run import ContainerRun
from kubelocal.kubelet.containers import StartError
from kubelocal.kubelet.environment import ContainerConfigError
from kubelocal.kubelet.eviction import MONITOR_S, evict_when_full
from kubelocal.kubelet.image_table import ImageProblem, find_image, problem_of
from kubelocal.kubelet.node_context import NodeContext
from kubelocal.kubelet.pod_actions import (
    ContainerEnd,
    ContainerRecord,
    ContainerStop,
    PodActions,
    Waiting,
    all_containers,
    next_actions,
    stop_after,
)
from kubelocal.kubelet.pod_network import PodAddress
from kubelocal.kubelet.pod_status import Outlook
from kubelocal.kubelet.pod_volumes import ContainerMount, PodVolumes, Sources, VolumeError
from kubelocal.kubelet.probes import probe_until_cancelled
from kubelocal.kubelet.security_context import identity_of, not_applied, ownership_of
from kubelocal.kubelet.status_reporter import StatusReporter
from kubelocal.settings import LocalImage
from kubelocal.types import Manifest

__all__ = ["Ending", "PodWorker"]

MAX_BACKOFF_S = 300.0
RETRY_S, NEXT_STEP_S, INSTANT_PULL_S = 10.0, 1.0, 0.001
LOST_NODE_WAIT_S = 3600.0  # until ``find`` wakes the worker
QUIET_PERIOD_S = 1.0
REFRESH_S = {True: (0.03, 0.17), False: (0.05, 1.0)}
"""Seconds from a change of a pod until its volumes follow, by whether it was quiet for ``QUIET_PERIOD_S`` before: as
measured on a kubelet 1.36.2, whose reconciler remounts every 100 ms."""
DEADLINE = "Pod was active on the node longer than the specified deadline"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a pod is ended: phase, reason and message of the final status, "" where the containers decide.

    ``grace``: seconds; None is the pod's own.
    """

    phase: str = ""
    reason: str = ""
    message: str = ""
    disruption: str = ""
    grace: float | None = None


class PodWorker:
    """Owns one pod; ``run`` is its life.

    The kubelet calls ``update``, ``gone``, ``retry_waiting_containers`` and ``end``.
    """

    def __init__(self, context: NodeContext, pod: Manifest) -> None:
        self._reporter = StatusReporter(context.registry, pod)
        self.place: PodAddress | None = None
        self.runs: dict[str, ContainerRun] = {}
        self.removed = False
        self._context = context
        metadata = pod["metadata"]
        self.folder: Path = context.folder / "pods" / metadata["uid"]
        self._seen: dict[str, ContainerRecord] = {}
        self._counts: dict[str, int] = {}
        self._delays: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._ending: Ending | None = None
        self._start_time = time.time()
        self._ending_begun = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._monitor: asyncio.Task[None] | None = None  # of the disk; ended with the containers
        self._end_by = 0.0
        self._refresh_at = self._disturbed_at = 0.0
        self._synced: list[object] = []
        self._sandbox = self._busy = self._lost = self._dead = self._over = False
        self._cut_off: set[ContainerRun] = set()
        self._shared: list[ContainerMount] = []
        self._wanted: set[str] = set()  # ended by us, so that no back-off is due
        self._group: asyncio.TaskGroup
        find = functools.partial(context.find, metadata["namespace"])
        token = functools.partial(context.token, pod)
        self._volumes = PodVolumes(
            self.folder / "volumes",
            context.claims,
            Sources(find, token, context.allocatable()),
            ownership_of(pod, context.powers),
        )

    @property
    def pod(self) -> Manifest:
        """The newest version that is known."""
        return self._reporter.pod

    # status and events

    def update(self, pod: Manifest) -> None:
        """Take in a new version of the pod."""
        # The watch may bring a version that our own status has already replaced.
        if not self._reporter.take(pod):
            return
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata:
            self.end(Ending())
            self._hurry(metadata.get("deletionGracePeriodSeconds") or 0)
        elif pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            self.end(Ending())
        self._arm_deadline()
        self._changed.set()

    def gone(self, pod: Manifest) -> None:
        """Handle the pod's removal from the API: end its containers soon."""
        self._reporter.pod, self.removed = pod, True
        self.end(Ending(grace=0))
        self._hurry(0)
        self._changed.set()

    def end(self, ending: Ending) -> None:
        """End the pod, unless that has begun."""
        if self._ending is None:
            self._ending = ending
            grace = ending.grace
            if grace is None:
                # That of the DELETE, which may differ from the pod's own (kubectl delete --grace-period).
                grace = self.pod["metadata"].get("deletionGracePeriodSeconds")
            if grace is None:
                grace = self._spec_grace()
            self._end_by = asyncio.get_running_loop().time() + grace
            self._ending_begun.set()
        self._changed.set()

    def evict(self, message: str) -> None:
        """End the pod as under node pressure."""
        self._reporter.warn("Evicted", message)
        self.end(Ending("Failed", "Evicted", message, disruption=message, grace=0))

    def shut_down(self, grace: float) -> None:
        """End the pod because the machine is about to stop, with its own grace or that of the shutdown."""
        grace = min(grace, self._spec_grace())
        self.end(Ending("Failed", SHUTDOWN_REASON, SHUTDOWN_MESSAGE, disruption=SHUTDOWN_MESSAGE, grace=grace))

    def reject(self, reason: str, message: str) -> None:
        """Fail a pod that has been bound to this node, before any of its containers starts."""
        self._reporter.warn(reason, message)
        self.end(Ending("Failed", reason, f"Pod was rejected: {message}", grace=0))

    def give_up(self, why: str) -> None:
        """Fail a pod whose work has ended by an error of the kubelet, and whose containers are killed.

        A real kubelet syncs the pod again. Here the tasks that know its containers have ended, so that the pod would
        stay Running for ever.
        """
        message = f"error syncing pod, giving up: {why}"
        self._reporter.warn("FailedSync", message)
        self._ending = Ending("Failed", "FailedSync", message)
        self._publish(over=True)

    def lose(self, *, dead: bool) -> None:
        """The node no longer reports. ``dead``: its processes end as well, and none starts."""
        self._lost, self._dead = True, dead
        for run in self.runs.values() if dead else ():
            if not run.exited.is_set():
                self._cut_off.add(run)
                run.container.signal(signal.SIGKILL)

    def find(self) -> None:
        """The node is back: report again."""
        self._lost = self._dead = False
        self._publish(over=self._over)
        self._changed.set()

    def log_of(self, container: str, *, previous: bool) -> tuple[Path, ContainerRun | None]:
        """Return where a container's log is, and the run that may still write it. ``LookupError``: there is none."""
        number = self._counts.get(container, 0) - (2 if previous else 1)
        if number < 0:
            raise LookupError("the container has no log")
        run = None if previous else self.runs.get(container)
        return self.folder / "containers" / container / str(number) / "log", run

    def retry_waiting_containers(self) -> None:
        """Handle a changed Secret or ConfigMap: retry the containers that wait for one."""
        for sight in self._seen.values():
            if sight.waiting and sight.waiting.reason == "CreateContainerConfigError":
                sight.not_before = 0
        self._changed.set()

    def names_changed(self) -> None:
        """Handle added, removed or changed Services."""
        if self._sandbox and self.place is not None:
            write_hosts(self.pod, self.folder, self.place, self._services())

    def _services(self) -> list[str]:
        return self._context.names(self.pod["metadata"]["namespace"])

    def _hurry(self, grace: float) -> None:
        # Grace is only ever shortened: plan_deletion ignores a longer one, as the API server does.
        self._end_by = min(self._end_by, asyncio.get_running_loop().time() + grace)
        # Wakes the stops that are under way, so that they see the new deadline.
        for run in self.runs.values():
            run.grace_shortened.set()

    def _spec_grace(self) -> float:
        grace = self.pod["spec"].get("terminationGracePeriodSeconds")
        return 30.0 if grace is None else float(grace)

    # its life

    async def run(self) -> None:
        """Run the pod until it is removed from the API and all its resources are released."""
        try:
            async with asyncio.TaskGroup() as self._group:
                await self._live()
        finally:
            for run in self.runs.values():
                # Also when cancelled: no process may outlive the kubelet. Closing twice does no harm.
                await run.container.close()
            self._leave_network()
            # A cancelled kubelet does not wait for it to end; the sweep of the next start removes the rest.
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def _live(self) -> None:
        phase = self.pod.get("status", {}).get("phase")
        if phase in ("Succeeded", "Failed"):
            self._end_sights()
        else:
            self._take_over()
            self.update(self.pod)
            if self._ending is None:
                await self._until_ended()
            # The containers end before the last status is written, so that a phase is final only when nothing runs.
            await self._terminate()
            self._publish(over=True)
        # From here on only the watch matters: the pod stays in the API until a client deletes it, or its finalizers go.
        while not self.removed:
            if "deletionTimestamp" in self.pod["metadata"] and not self._lost:
                self._reporter.remove()
            self._changed.clear()
            if not self.removed:
                await self._changed.wait()

    def _take_over(self) -> None:
        """Begin; containers that an earlier kubelet started are lost."""
        for name in all_containers(self.pod):
            self._seen[name] = ContainerRecord()
        status = self.pod.get("status", {})
        for kind in ("initContainerStatuses", "containerStatuses"):
            for container_status in status.get(kind) or ():
                if container_status["name"] in self._seen and container_status.get("containerID"):
                    self._seen[container_status["name"]] = lost(container_status)

    def _end_sights(self) -> None:
        self._seen = {name: ContainerRecord() for name in all_containers(self.pod)}

    async def _until_ended(self) -> None:
        """Reconcile until something ends the pod."""
        self._publish()
        ending = asyncio.ensure_future(self._ending_begun.wait())
        try:
            while self._ending is None:
                self._changed.clear()
                # A task, so that the pod's end can interrupt a step that pulls an image or waits for a hook.
                step = asyncio.ensure_future(self._step())
                await asyncio.wait({step, ending}, return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    step.cancel()
                    # Until it has ended: it may be in the middle of a start, whose container _terminate must see.
                    await asyncio.wait({step})
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(step.result()):
                        # Cleared before the step, so that a change during the step makes the next one follow at once.
                        await self._changed.wait()
        finally:
            ending.cancel()

    def _arm_deadline(self) -> None:
        """Have the pod ended when its activeDeadlineSeconds are over."""
        if self._timer:
            self._timer.cancel()
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        if seconds is not None and self._ending is None:
            # From the pod's start on this node, as the kubelet counts activeDeadlineSeconds, not from its creation.
            left = self._start_time + seconds - time.time()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, left), self._deadline_passed)

    def _deadline_passed(self) -> None:
        if self._ending is None:
            self._reporter.event("DeadlineExceeded", DEADLINE)
            self.end(Ending("Failed", "DeadlineExceeded", DEADLINE))

    async def _step(self) -> float:
        """Carry out the actions that are due; return the seconds until the next look, if nothing changes."""
        if self._dead:
            return LOST_NODE_WAIT_S
        if not self._sandbox and not await self._make_sandbox():
            return RETRY_S
        for name in all_containers(self.pod):
            self._seen.setdefault(name, ContainerRecord())
        plan = next_actions(self.pod, self._seen)
        if plan.finish:
            self.end(Ending())
            return 0
        self._refresh_volumes(due=bool(plan.start or plan.kill))
        return min(await self._carry_out(plan), self._refresh_at - time.time())

    def _refresh_volumes(self, *, due: bool = False) -> None:
        """Bring the volumes up to date when the kubelet does it: when it syncs the pod.

        It does so soon after the pod itself has changed, when a container starts or is killed, and each
        ``sync_frequency`` or up to half as much later. A change of a Secret or ConfigMap alone does not call it, and
        may take a minute.
        """
        now, asked = time.time(), _asked_for(self.pod)
        changed = asked != self._synced  # with the last sync's, because our own report may bring the change first
        if changed:
            quiet = now - self._disturbed_at > QUIET_PERIOD_S
            self._refresh_at = min(self._refresh_at, now + random.uniform(*REFRESH_S[quiet]))  # noqa: S311 - no secret
        if changed or due:
            self._synced, self._disturbed_at = asked, now
        if not due and now < self._refresh_at:
            return
        self._refresh_at = now + self._context.settings.sync_frequency * random.uniform(1, 1.5)  # noqa: S311 - no secret
        try:
            self._volumes.set_up(self.pod)
        except VolumeError as problem:
            self._reporter.warn("FailedMount", str(problem))

    async def _make_sandbox(self) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._volumes.set_up(self.pod)
        except VolumeError as problem:
            self._reporter.warn("FailedMount", str(problem))
            self._publish()
            return False
        self._reporter.claims_bound()
        if self.place is None:
            network = self._context.network
            try:
                alone = not self.pod["spec"].get("hostNetwork")
                self.place = await network.join() if alone else PodAddress(network.host_address, "127.0.0.1")
            except OSError as problem:
                self._reporter.warn("FailedCreatePodSandBox", f"Failed to create pod sandbox: {problem}")
                return False
        self._synced = _asked_for(self.pod)
        self._disturbed_at = time.time()
        self._refresh_at = self._disturbed_at + self._context.settings.sync_frequency
        self._shared = host_files(self.pod, self.folder, self.place, self._services())
        self._sandbox = True
        self._monitor = self._group.create_task(
            evict_when_full(
                self.pod,
                self.folder / "volumes",
                self.evict,
                min(MONITOR_S, self._context.settings.sync_frequency),
            )
        )
        self._publish()
        return True

    async def _carry_out(self, plan: PodActions) -> float:
        """Carry out the planned actions, then write the status, as the kubelet does."""
        # No status while containers are killed and started: the kubelet writes one status per sync, with the outcome.
        self._busy = True
        try:
            return await self._kill_and_start(plan)
        finally:
            self._busy = False
            self._publish()

    async def _kill_and_start(self, plan: PodActions) -> float:
        if plan.kill:
            await asyncio.gather(*(self._kill(kill) for kill in plan.kill))
        again = 3600.0
        for name in plan.start:
            sight = self._seen[name]
            left = sight.not_before - time.time()
            if left > 0:
                self._back_off(name, sight)
                again = min(again, left)
            elif not await self._start(name, sight):
                again = min(again, NEXT_STEP_S)
        return again

    def _back_off(self, name: str, sight: ContainerRecord) -> None:
        """Report that a container waits for its next start."""
        if sight.waiting and sight.waiting.reason != "ErrImagePull":
            return
        if sight.waiting:
            sight.waiting = self._reporter.pull_backs_off(all_containers(self.pod)[name], sight.waiting.message)
        else:
            ended = sight.ended.finished_at if sight.ended else sight.not_before
            # What it waits now: ``_delays`` has the next delay already.
            sight.waiting = self._reporter.restart_backs_off(name, sight.not_before - ended)

    # starting

    async def _start(self, name: str, sight: ContainerRecord) -> bool:
        """Start a container and run its postStart; False when it has to wait."""
        spec = all_containers(self.pod)[name]
        if problem := problem_of(spec, self._context.images):
            self._refuse_image(name, sight, spec, problem)
            return False
        number = self._counts.get(name, 0)
        if not await self._pull(sight, spec, first=number == 0):
            return False
        assert self.place is not None
        run = ContainerRun(self._context, spec, self.folder / "containers" / name / str(number), self.place)
        run.folder.mkdir(parents=True, exist_ok=True)
        try:
            process = process_spec(self._context, self.pod, spec, self._volumes, self._shared, run.folder)
        except ContainerConfigError as problem:
            self._refuse_config(sight, name, str(problem))
            return False
        if number == 0:
            self._report_security(spec)
        return await self._launch(name, sight, run, process)

    def _report_security(self, spec: Manifest) -> None:
        """Write an event where a security setting cannot be applied on this machine: never drop one in silence."""
        image = find_image(spec["image"], self._context.images) or LocalImage()
        identity = identity_of(self.pod, spec, image)
        if ignored := not_applied(self.pod, spec, identity, self._context.powers):
            self._reporter.warn("SecurityContextNotApplied", ignored, spec["name"])

    async def _pull(self, sight: ContainerRecord, spec: Manifest, *, first: bool) -> bool:
        """Pull a container's image; False for an annotation that asks for a delay which is no number.

        Nothing is loaded here. A container that is to start late takes its delay as the time of the pull, in which the
        containers after it wait and the pod's status stays as it is, as in a kubelet that pulls an image.
        """
        name = spec["name"]
        try:
            seconds = (delay_of(self.pod, START_DELAY, name) if first else None) or 0.0
        except ValueError as problem:
            self._refuse_config(sight, name, str(problem))
            return False
        if spec.get("imagePullPolicy") == "Always":
            seconds = max(seconds, INSTANT_PULL_S)
        if seconds:
            self._reporter.pulling(spec)
        if seconds > INSTANT_PULL_S:
            await asyncio.sleep(seconds)
        self._reporter.pulled(spec, seconds)
        return True

    def _refuse_config(self, sight: ContainerRecord, name: str, why: str) -> None:
        """Keep a container waiting until its invalid configuration changes."""
        self._hold(sight, Waiting("CreateContainerConfigError", why), RETRY_S)
        self._reporter.warn("Failed", f"Error: {why}", name)

    async def _launch(self, name: str, sight: ContainerRecord, run: ContainerRun, process: dict[str, object]) -> bool:
        self._reporter.event("Created", "Container created", name)
        self._counts[name] = self._counts.get(name, 0) + 1
        self.runs[name] = run
        started = asyncio.get_running_loop().create_future()
        # a task of its own: when this one is cancelled, because the pod ends, the container is known all the same
        ending = self._group.create_task(self._live_run(name, sight, run, process, started))
        if await asyncio.shield(started):
            if (run.spec.get("lifecycle") or {}).get("postStart"):
                await self._post_start(name, run, ending)
            sight.starting = False
            if sight.state == "running":
                self._begin_probes(name, sight, run)
            self._publish()
        return True

    async def _live_run(
        self,
        name: str,
        sight: ContainerRecord,
        run: ContainerRun,
        process: dict[str, object],
        started: asyncio.Future[bool],
    ) -> None:
        """Start a container and record its end; ``started`` becomes whether it started."""
        identity = uuid4().hex + uuid4().hex
        try:
            await run.start(process)
        except StartError as problem:
            message = (
                f"failed to create containerd task: failed to create shim task: OCI runtime create failed: {problem}"
            )
            self._reporter.warn("Failed", f"Error: {message}", name)
            self._note_begun(sight, run, identity)
            ended = ContainerEnd(128, "StartError", message, 0.0, time.time(), identity)
            self._note_ended(name, sight, ended)
            started.set_result(False)
            await run.finish(ended)
            return
        if self._dead:  # the node was lost while the container started
            run.container.signal(signal.SIGKILL)
        self._reporter.event("Started", "Container started", name)
        self._note_begun(sight, run, identity)
        started.set_result(True)
        ended = await run.wait(identity)
        if (
            self._dead or run in self._cut_off
        ):  # nobody saw the end: so containerd reports a container that ran when its machine stopped
            ended = replace(ended, code=UNSEEN_END_CODE, reason=UNSEEN_END_REASON, message="")
        self._note_ended(name, sight, ended)
        await run.finish(ended)

    async def _post_start(self, name: str, run: ContainerRun, ending: asyncio.Task[None]) -> None:
        hook = asyncio.ensure_future(run.hook("postStart"))
        try:
            await asyncio.wait({hook, ending}, return_when=asyncio.FIRST_COMPLETED)
            if hook.done() and (why := hook.result()):
                self._reporter.warn("FailedPostStartHook", f"PostStartHook failed: {why}", name)
                await self._kill(ContainerStop(name, "FailedPostStartHook"))
        finally:
            hook.cancel()

    def _note_begun(self, sight: ContainerRecord, run: ContainerRun, identity: str) -> None:
        again = sight.state != "none"
        sight.restarts += 1 if again else 0
        sight.last = sight.ended if again else None
        sight.state, sight.image, sight.container_id = "running", run.spec["image"], identity
        sight.ended, sight.waiting, sight.healthy = None, None, True
        sight.startup = None if run.spec.get("startupProbe") else True
        sight.ready = sight.startup is True and not run.spec.get("readinessProbe")
        sight.started_at = run.started_at
        sight.starting = bool((run.spec.get("lifecycle") or {}).get("postStart"))

    def _note_ended(self, name: str, sight: ContainerRecord, ended: ContainerEnd) -> None:
        sight.state, sight.ended, sight.ready, sight.starting = "ended", ended, False, False
        if ended.started_at and ended.finished_at - ended.started_at > 2 * MAX_BACKOFF_S:
            self._delays.pop(name, None)
        # the first restart is immediate, the second follows the first delay, which then doubles each time
        delay = self._delays.get(name)
        if delay is not None and name not in self._wanted:
            sight.not_before = ended.finished_at + delay
        self._delays[name] = min(delay * 2, MAX_BACKOFF_S) if delay else self._context.settings.crash_backoff
        self._publish()
        self._changed.set()

    def _refuse_image(self, name: str, sight: ContainerRecord, spec: Manifest, problem: ImageProblem) -> None:
        self._reporter.refused(spec, problem)
        delay = min(self._delays.get(name, self._context.settings.crash_backoff / 2) * 2, MAX_BACKOFF_S)
        self._delays[name] = delay
        self._hold(sight, Waiting(problem.reason, problem.message), delay)

    def _hold(self, sight: ContainerRecord, waiting: Waiting, seconds: float) -> None:
        sight.waiting = waiting
        sight.not_before = time.time() + seconds

    # probing

    def _begin_probes(self, name: str, sight: ContainerRecord, run: ContainerRun) -> None:
        kinds = ["startup"] if run.spec.get("startupProbe") else ["readiness", "liveness"]
        for kind in kinds:
            if probe := run.spec.get(f"{kind}Probe"):
                report = functools.partial(self._probed, name, sight, run, kind)
                warn = functools.partial(self._warn_of_probe, name, kind)
                probing = probe_until_cancelled(probe, run, run.started_at, report, warn)
                run.background.append(self._group.create_task(probing))

    def _probed(self, name: str, sight: ContainerRecord, run: ContainerRun, kind: str, good: bool) -> None:
        # A probe's answer may arrive after its container has ended, or after the next run began.
        if run.exited.is_set() or self.runs.get(name) is not run:
            return
        if kind == "startup":
            sight.startup = good
            # The startup probe itself, which calls this: it ends at its next await.
            run.background.pop().cancel()
            if good:
                sight.ready = not run.spec.get("readinessProbe")
                spec = {key: value for key, value in run.spec.items() if key != "startupProbe"}
                run.spec = spec
                self._begin_probes(name, sight, run)
        elif kind == "readiness":
            sight.ready = good
        else:
            sight.healthy = good
        self._publish()
        self._changed.set()

    def _warn_of_probe(self, name: str, kind: str, reason: str, message: str) -> None:
        word = "failed" if reason == "Unhealthy" else "warning"
        self._reporter.warn(reason, f"{kind.capitalize()} probe {word}: {message}", name)

    # ending

    async def _kill(self, kill: ContainerStop) -> None:
        run, loop = self.runs[kill.name], asyncio.get_running_loop()
        probe = run.spec.get(f"{kill.probe}Probe") or {}
        grace = probe.get("terminationGracePeriodSeconds")
        end_by = loop.time() + (self._spec_grace() if grace is None else grace)
        self._reporter.event("Killing", kill.message, kill.name)
        # Read by _note_ended, which runs while stop waits: a container that we killed restarts without back-off.
        self._wanted.add(kill.name)
        try:
            await run.stop(lambda: end_by, lambda reason, message: self._reporter.warn(reason, message, kill.name))
        finally:
            self._wanted.discard(kill.name)

    async def _terminate(self) -> None:
        """End all containers, native sidecars last and in reverse order."""
        if self._ending is not None and self._ending.disruption:
            self._publish()  # the condition DisruptionTarget is there before the first container has ended
        if self._monitor is not None:
            self._monitor.cancel()
        running = [name for name, run in self.runs.items() if not run.exited.is_set()]
        for run in self.runs.values():
            for task in run.background:
                task.cancel()
        # All at once; _terminate_one makes a native sidecar wait for its turn.
        await asyncio.gather(*(self._terminate_one(name) for name in running))
        self._sandbox = False
        self._leave_network()

    def _leave_network(self) -> None:
        if self.place is not None and self.place.namespace is not None:
            self._context.network.leave(self.place)
            self.place = replace(self.place, namespace=None)

    async def _terminate_one(self, name: str) -> None:
        self._reporter.event("Killing", f"Stopping container {name}", name)
        before = [self.runs[other].exited for other in stop_after(self.pod, name) if other in self.runs]
        turn = _all_set(before) if before else None
        await self.runs[name].stop(
            lambda: self._end_by, lambda reason, message: self._reporter.warn(reason, message, name), turn
        )

    def _publish(self, *, over: bool = False) -> None:
        self._over = over
        if self.removed or self._busy or self._lost:
            return
        ending = self._ending if over and self._ending is not None else Ending()
        outlook = Outlook(
            now=time.time(),
            start_time=self._start_time,
            host_ip=self._context.network.host_address,
            pod_ip=self.place.address if self.place else "",
            sandbox=self._sandbox,
            over=over,
            phase=ending.phase,
            reason=ending.reason,
            message=ending.message,
            disruption=self._ending.disruption if self._ending is not None else "",
        )
        self._reporter.publish(self._seen, outlook)


def _asked_for(pod: Manifest) -> list[object]:
    """Return the parts of a pod whose change makes the kubelet sync it; its own reports of the status do not."""
    return [pod["spec"], *(pod["metadata"].get(key) for key in ("labels", "annotations", "deletionTimestamp"))]


async def _all_set(events: list[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


def lost(status: Manifest) -> ContainerRecord:
    """Return the state of a container that an earlier kubelet started."""
    identity = str(status["containerID"]).rsplit("/", 1)[-1]
    done = status.get("state", {}).get("terminated") or {}
    code = int(done.get("exitCode", 137))
    reason = done.get("reason") or "ContainerStatusUnknown"
    message = done.get("message") or ("" if done else "The container could not be located when the pod was taken over")
    ended = ContainerEnd(code, reason, message, time.time(), time.time(), identity)
    return ContainerRecord(
        state="ended", image=status["image"], container_id=identity, ended=ended, restarts=status.get("restartCount", 0)
    )

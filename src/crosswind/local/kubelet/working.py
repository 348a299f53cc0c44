"""One pod on this node from arrival to end: decisions are ``pods.next_actions``, the report is ``pod_status``."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from crosswind.local.injection.delays import START_DELAY, delay_of
from crosswind.local.kubelet.containers import StartError
from crosswind.local.kubelet.environment import ConfigError
from crosswind.local.kubelet.eviction import MONITOR_S, evict_when_full
from crosswind.local.kubelet.images import ImageProblem, find_image, problem_of
from crosswind.local.kubelet.machine import Machine
from crosswind.local.kubelet.network import Place
from crosswind.local.kubelet.pods import Ended, Kill, Plan, Sight, Waiting, all_containers, next_actions, stop_after
from crosswind.local.kubelet.probing import probe_for_ever
from crosswind.local.kubelet.running import Run
from crosswind.local.kubelet.security import identity_of, not_applied, ownership_of
from crosswind.local.kubelet.starting import host_files, process_spec, write_hosts
from crosswind.local.kubelet.status import Outlook
from crosswind.local.kubelet.telling import Reporter
from crosswind.local.kubelet.volumes import Mount, Sources, VolumeError, Volumes
from crosswind.settings import LocalImage
from crosswind.types import Manifest

__all__ = ["Ending", "PodWorker"]

LONGEST_BACKOFF = 300.0
RETRY_S, SOON_S, INSTANT_PULL_S = 10.0, 1.0, 0.001
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
    """Owns one pod; ``run`` is its life. The kubelet calls ``update``, ``gone``, ``nudge`` and ``end``."""

    def __init__(self, machine: Machine, pod: Manifest) -> None:
        self._tell = Reporter(machine.registry, pod)
        self.place: Place | None = None
        self.runs: dict[str, Run] = {}
        self.removed = False
        self._machine = machine
        metadata = pod["metadata"]
        self.folder: Path = machine.folder / "pods" / metadata["uid"]
        self._seen: dict[str, Sight] = {}
        self._counts: dict[str, int] = {}
        self._delays: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._ending: Ending | None = None
        self._start_time = time.time()
        self._ending_begun = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._monitor: asyncio.Task[None] | None = None  # of the disk; ended with the containers
        self._end_by = 0.0
        self._refresh_at = 0.0
        self._synced: list[object] = []
        self._sandbox = self._busy = self._lost = self._over = False
        self._shared: list[Mount] = []
        self._wanted: set[str] = set()  # ended by us, so that no back-off is due
        self._group: asyncio.TaskGroup
        find = functools.partial(machine.find, metadata["namespace"])
        token = functools.partial(machine.token, pod)
        self._volumes = Volumes(
            self.folder / "volumes",
            machine.folder / "claims",
            Sources(find, token, machine.allocatable()),
            ownership_of(pod, machine.powers),
        )

    @property
    def pod(self) -> Manifest:
        """The newest version that is known."""
        return self._tell.pod

    # what the kubelet tells

    def update(self, pod: Manifest) -> None:
        """Take in a new version of the pod."""
        if not self._tell.take(pod):
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
        """The pod is no longer in the API: end what runs, soon."""
        self._tell.pod, self.removed = pod, True
        self.end(Ending(grace=0))
        self._hurry(0)
        self._changed.set()

    def end(self, ending: Ending) -> None:
        """End the pod, unless that has begun."""
        if self._ending is None:
            self._ending = ending
            grace = ending.grace
            if grace is None:
                grace = self.pod["metadata"].get("deletionGracePeriodSeconds")
            if grace is None:
                grace = self._spec_grace()
            self._end_by = asyncio.get_running_loop().time() + grace
            self._ending_begun.set()
        self._changed.set()

    def evict(self, message: str) -> None:
        """End the pod as under node pressure."""
        self._tell.warn("Evicted", message)
        self.end(Ending("Failed", "Evicted", message, disruption=message, grace=0))

    def lose(self) -> None:
        """The node is lost: report nothing more, and have the pod shown as not ready."""
        self._lost = True
        self._tell.not_ready()

    def find(self) -> None:
        """The node is back: report again."""
        self._lost = False
        self._publish(over=self._over)
        self._changed.set()

    def log_of(self, container: str, *, previous: bool) -> tuple[Path, Run | None]:
        """Return where a container's log is, and the run that may still write it. ``LookupError``: there is none."""
        number = self._counts.get(container, 0) - (2 if previous else 1)
        if number < 0:
            raise LookupError("the container has no log")
        run = None if previous else self.runs.get(container)
        return self.folder / "containers" / container / str(number) / "log", run

    def nudge(self) -> None:
        """A Secret or ConfigMap has changed: try again what waits for one."""
        for sight in self._seen.values():
            if sight.waiting and sight.waiting.reason == "CreateContainerConfigError":
                sight.not_before = 0
        self._changed.set()

    def names_changed(self) -> None:
        """Services have come, gone or moved."""
        if self._sandbox and self.place is not None:
            write_hosts(self.pod, self.folder, self.place, self._services())

    def _services(self) -> list[str]:
        return self._machine.names(self.pod["metadata"]["namespace"])

    def _hurry(self, grace: float) -> None:
        self._end_by = min(self._end_by, asyncio.get_running_loop().time() + grace)
        for run in self.runs.values():
            run.hurry.set()

    def _spec_grace(self) -> float:
        grace = self.pod["spec"].get("terminationGracePeriodSeconds")
        return 30.0 if grace is None else float(grace)

    # its life

    async def run(self) -> None:
        """Live the pod's life: until it is gone from the API, and nothing of it is left."""
        try:
            async with asyncio.TaskGroup() as self._group:
                await self._live()
        finally:
            for run in self.runs.values():
                await run.container.close()
            self._leave_network()
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
            await self._terminate()
            self._publish(over=True)
        while not self.removed:
            if "deletionTimestamp" in self.pod["metadata"] and not self._lost:
                self._tell.remove()
            self._changed.clear()
            if not self.removed:
                await self._changed.wait()

    def _take_over(self) -> None:
        """Begin; containers that an earlier kubelet started are lost."""
        for name in all_containers(self.pod):
            self._seen[name] = Sight()
        status = self.pod.get("status", {})
        for kind in ("initContainerStatuses", "containerStatuses"):
            for one in status.get(kind) or ():
                if one["name"] in self._seen and one.get("containerID"):
                    self._seen[one["name"]] = lost(one)

    def _end_sights(self) -> None:
        self._seen = {name: Sight() for name in all_containers(self.pod)}

    async def _until_ended(self) -> None:
        """Do what is to be done until something ends the pod."""
        self._publish()
        ending = asyncio.ensure_future(self._ending_begun.wait())
        try:
            while self._ending is None:
                self._changed.clear()
                step = asyncio.ensure_future(self._step())
                await asyncio.wait({step, ending}, return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    step.cancel()
                    await asyncio.wait({step})
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(step.result()):
                        await self._changed.wait()
        finally:
            ending.cancel()

    def _arm_deadline(self) -> None:
        """Have the pod ended when its activeDeadlineSeconds are over."""
        if self._timer:
            self._timer.cancel()
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        if seconds is not None and self._ending is None:
            left = self._start_time + seconds - time.time()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, left), self._deadline_passed)

    def _deadline_passed(self) -> None:
        if self._ending is None:
            self._tell.event("DeadlineExceeded", DEADLINE)
            self.end(Ending("Failed", "DeadlineExceeded", DEADLINE))

    async def _step(self) -> float:
        """Do what is due now; return seconds until it should be looked at again, if nothing changes."""
        if not self._sandbox and not await self._make_sandbox():
            return RETRY_S
        for name in all_containers(self.pod):
            self._seen.setdefault(name, Sight())
        plan = next_actions(self.pod, self._seen)
        if plan.finish:
            self.end(Ending())
            return 0
        self._refresh_volumes(due=bool(plan.start or plan.kill))
        return min(await self._carry_out(plan), self._refresh_at - time.time())

    def _refresh_volumes(self, *, due: bool = False) -> None:
        """Bring the volumes up to date when the kubelet does it: when it syncs the pod.

        It does so when the pod itself has changed, when a container starts or is killed, and each ``sync_frequency`` or
        up to half as much later. A change of a Secret or ConfigMap alone does not call it, and may take a minute.
        """
        asked = _asked_for(self.pod)  # compared with the last sync, because our own report may bring the change first
        if not due and asked == self._synced and time.time() < self._refresh_at:
            return
        self._synced = asked
        self._refresh_at = time.time() + self._machine.settings.sync_frequency * random.uniform(1, 1.5)  # noqa: S311 - no secret
        try:
            self._volumes.set_up(self.pod)
        except VolumeError as problem:
            self._tell.warn("FailedMount", str(problem))

    async def _make_sandbox(self) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._volumes.set_up(self.pod)
        except VolumeError as problem:
            self._tell.warn("FailedMount", str(problem))
            self._publish()
            return False
        self._tell.claims_bound()
        if self.place is None:
            network = self._machine.network
            try:
                alone = not self.pod["spec"].get("hostNetwork")
                self.place = await network.join() if alone else Place(network.host_address, "127.0.0.1")
            except OSError as problem:
                self._tell.warn("FailedCreatePodSandBox", f"Failed to create pod sandbox: {problem}")
                return False
        self._synced = _asked_for(self.pod)
        self._refresh_at = time.time() + self._machine.settings.sync_frequency
        self._shared = host_files(self.pod, self.folder, self.place, self._services())
        self._sandbox = True
        self._monitor = self._group.create_task(
            evict_when_full(
                self.pod, self.folder / "volumes", self.evict, min(MONITOR_S, self._machine.settings.sync_frequency)
            )
        )
        self._publish()
        return True

    async def _carry_out(self, plan: Plan) -> float:
        """Do what is planned; the status is told when all of it is done, as the kubelet does."""
        self._busy = True
        try:
            return await self._kill_and_start(plan)
        finally:
            self._busy = False
            self._publish()

    async def _kill_and_start(self, plan: Plan) -> float:
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
                again = min(again, SOON_S)
        return again

    def _back_off(self, name: str, sight: Sight) -> None:
        """Say that a container waits for its next start."""
        if sight.waiting and sight.waiting.reason != "ErrImagePull":
            return
        if sight.waiting:
            sight.waiting = self._tell.pull_backs_off(all_containers(self.pod)[name], sight.waiting.message)
        else:
            sight.waiting = self._tell.restart_backs_off(name, self._delays.get(name, 0))

    # starting

    async def _start(self, name: str, sight: Sight) -> bool:
        """Start a container and run its postStart; False when it has to wait."""
        spec = all_containers(self.pod)[name]
        if problem := problem_of(spec, self._machine.images):
            self._refuse_image(name, sight, spec, problem)
            return False
        number = self._counts.get(name, 0)
        if not await self._pull(sight, spec, first=number == 0):
            return False
        assert self.place is not None
        run = Run(self._machine, spec, self.folder / "containers" / name / str(number), self.place)
        run.folder.mkdir(parents=True, exist_ok=True)
        try:
            process = process_spec(self._machine, self.pod, spec, self._volumes, self._shared, run.folder)
        except ConfigError as problem:
            self._refuse_config(sight, name, str(problem))
            return False
        if number == 0:
            self._report_security(spec)
        return await self._launch(name, sight, run, process)

    def _report_security(self, spec: Manifest) -> None:
        """Write an event where a security setting cannot be applied on this machine: never drop one in silence."""
        image = find_image(spec["image"], self._machine.images) or LocalImage()
        identity = identity_of(self.pod, spec, image)
        if told := not_applied(self.pod, spec, identity, self._machine.powers):
            self._tell.warn("SecurityContextNotApplied", told, spec["name"])

    async def _pull(self, sight: Sight, spec: Manifest, *, first: bool) -> bool:
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
            self._tell.pulling(spec)
        if seconds > INSTANT_PULL_S:
            await asyncio.sleep(seconds)
        self._tell.pulled(spec, seconds)
        return True

    def _refuse_config(self, sight: Sight, name: str, why: str) -> None:
        """Leave a container waiting until what is wrong with its configuration has changed."""
        self._hold(sight, Waiting("CreateContainerConfigError", why), RETRY_S)
        self._tell.warn("Failed", f"Error: {why}", name)

    async def _launch(self, name: str, sight: Sight, run: Run, process: dict[str, object]) -> bool:
        self._tell.event("Created", "Container created", name)
        self._counts[name] = self._counts.get(name, 0) + 1
        self.runs[name] = run
        begun = asyncio.get_running_loop().create_future()
        # a task of its own: when this one is cancelled, because the pod ends, the container is known all the same
        ending = self._group.create_task(self._live_run(name, sight, run, process, begun))
        if await asyncio.shield(begun):
            if (run.spec.get("lifecycle") or {}).get("postStart"):
                await self._post_start(name, run, ending)
            sight.starting = False
            if sight.state == "running":
                self._begin_probes(name, sight, run)
            self._publish()
        return True

    async def _live_run(
        self, name: str, sight: Sight, run: Run, process: dict[str, object], begun: asyncio.Future[bool]
    ) -> None:
        """Start a container and note its end; ``begun`` tells whether it started."""
        identity = uuid4().hex + uuid4().hex
        try:
            await run.start(process)
        except StartError as problem:
            told = f"failed to create containerd task: failed to create shim task: OCI runtime create failed: {problem}"
            self._tell.warn("Failed", f"Error: {told}", name)
            self._note_begun(sight, run, identity)
            ended = Ended(128, "StartError", told, 0.0, time.time(), identity)
            self._note_ended(name, sight, ended)
            begun.set_result(False)
            await run.finish(ended)
            return
        self._tell.event("Started", "Container started", name)
        self._note_begun(sight, run, identity)
        begun.set_result(True)
        ended = await run.wait(identity)
        self._note_ended(name, sight, ended)
        await run.finish(ended)

    async def _post_start(self, name: str, run: Run, ending: asyncio.Task[None]) -> None:
        hook = asyncio.ensure_future(run.hook("postStart"))
        try:
            await asyncio.wait({hook, ending}, return_when=asyncio.FIRST_COMPLETED)
            if hook.done() and (why := hook.result()):
                self._tell.warn("FailedPostStartHook", f"PostStartHook failed: {why}", name)
                await self._kill(Kill(name, "FailedPostStartHook"))
        finally:
            hook.cancel()

    def _note_begun(self, sight: Sight, run: Run, identity: str) -> None:
        again = sight.state != "none"
        sight.restarts += 1 if again else 0
        sight.last = sight.ended if again else None
        sight.state, sight.image, sight.container_id = "running", run.spec["image"], identity
        sight.ended, sight.waiting, sight.healthy = None, None, True
        sight.startup = None if run.spec.get("startupProbe") else True
        sight.ready = sight.startup is True and not run.spec.get("readinessProbe")
        sight.started_at = run.started_at
        sight.starting = bool((run.spec.get("lifecycle") or {}).get("postStart"))

    def _note_ended(self, name: str, sight: Sight, ended: Ended) -> None:
        sight.state, sight.ended, sight.ready, sight.starting = "ended", ended, False, False
        if ended.started_at and ended.finished_at - ended.started_at > 2 * LONGEST_BACKOFF:
            self._delays.pop(name, None)
        # the first restart comes at once, the second after the first delay, then twice as late each time
        delay = self._delays.get(name)
        if delay is not None and name not in self._wanted:
            sight.not_before = ended.finished_at + delay
        self._delays[name] = min(delay * 2, LONGEST_BACKOFF) if delay else self._machine.settings.crash_backoff
        self._publish()
        self._changed.set()

    def _refuse_image(self, name: str, sight: Sight, spec: Manifest, problem: ImageProblem) -> None:
        self._tell.refused(spec, problem)
        delay = min(self._delays.get(name, self._machine.settings.crash_backoff / 2) * 2, LONGEST_BACKOFF)
        self._delays[name] = delay
        self._hold(sight, Waiting(problem.reason, problem.message), delay)

    def _hold(self, sight: Sight, waiting: Waiting, seconds: float) -> None:
        sight.waiting = waiting
        sight.not_before = time.time() + seconds

    # probing

    def _begin_probes(self, name: str, sight: Sight, run: Run) -> None:
        kinds = ["startup"] if run.spec.get("startupProbe") else ["readiness", "liveness"]
        for kind in kinds:
            if probe := run.spec.get(f"{kind}Probe"):
                report = functools.partial(self._probed, name, sight, run, kind)
                tell = functools.partial(self._unhealthy, name, kind)
                run.background.append(self._group.create_task(probe_for_ever(probe, run, report, tell)))

    def _probed(self, name: str, sight: Sight, run: Run, kind: str, good: bool) -> None:
        if run.exited.is_set() or self.runs.get(name) is not run:
            return
        if kind == "startup":
            sight.startup = good
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

    def _unhealthy(self, name: str, kind: str, message: str) -> None:
        self._tell.warn("Unhealthy", f"{kind.capitalize()} probe failed: {message}", name)

    # ending

    async def _kill(self, kill: Kill) -> None:
        run, loop = self.runs[kill.name], asyncio.get_running_loop()
        probe = run.spec.get(f"{kill.probe}Probe") or {}
        grace = probe.get("terminationGracePeriodSeconds")
        end_by = loop.time() + (self._spec_grace() if grace is None else grace)
        self._tell.event("Killing", kill.message, kill.name)
        self._wanted.add(kill.name)
        try:
            await run.stop(lambda: end_by, lambda reason, message: self._tell.warn(reason, message, kill.name))
        finally:
            self._wanted.discard(kill.name)

    async def _terminate(self) -> None:
        """End all containers, native sidecars last and in reverse order."""
        if self._monitor is not None:
            self._monitor.cancel()
        running = [name for name, run in self.runs.items() if not run.exited.is_set()]
        for run in self.runs.values():
            for task in run.background:
                task.cancel()
        await asyncio.gather(*(self._terminate_one(name) for name in running))
        self._sandbox = False
        self._leave_network()

    def _leave_network(self) -> None:
        if self.place is not None and self.place.namespace is not None:
            self._machine.network.leave(self.place)
            self.place = replace(self.place, namespace=None)

    async def _terminate_one(self, name: str) -> None:
        self._tell.event("Killing", f"Stopping container {name}", name)
        before = [self.runs[other].exited for other in stop_after(self.pod, name) if other in self.runs]
        turn = _all_set(before) if before else None
        await self.runs[name].stop(
            lambda: self._end_by, lambda reason, message: self._tell.warn(reason, message, name), turn
        )

    def _publish(self, *, over: bool = False) -> None:
        self._over = over
        if self.removed or self._busy or self._lost:
            return
        ending = self._ending if over and self._ending is not None else Ending()
        outlook = Outlook(
            now=time.time(),
            start_time=self._start_time,
            host_ip=self._machine.network.host_address,
            pod_ip=self.place.address if self.place else "",
            sandbox=self._sandbox,
            over=over,
            phase=ending.phase,
            reason=ending.reason,
            message=ending.message,
            disruption=ending.disruption,
        )
        self._tell.publish(self._seen, outlook)


def _asked_for(pod: Manifest) -> list[object]:
    """Return the parts of a pod whose change makes the kubelet sync it; its own reports of the status do not."""
    return [pod["spec"], *(pod["metadata"].get(key) for key in ("labels", "annotations", "deletionTimestamp"))]


async def _all_set(events: list[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


def lost(status: Manifest) -> Sight:
    """Return what is to be thought of a container that an earlier kubelet started."""
    identity = str(status["containerID"]).rsplit("/", 1)[-1]
    done = status.get("state", {}).get("terminated") or {}
    code = int(done.get("exitCode", 137))
    reason = done.get("reason") or "ContainerStatusUnknown"
    message = done.get("message") or ("" if done else "The container could not be located when the pod was taken over")
    ended = Ended(code, reason, message, time.time(), time.time(), identity)
    return Sight(
        state="ended", image=status["image"], container_id=identity, ended=ended, restarts=status.get("restartCount", 0)
    )

"""Plans the ordered steps that end the sidecars of a pod whose base container is over.

Each ordinary container gets its own steps, mildest first: wait for its owner, send a request over port-forward, run its
own client, send a signal, swap the image. The pod's deletion comes last. A step is taken only if the container still
runs after the one before. Containers end in the order of ``Role``: shippers, helpers, mesh, those that leave last.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from crosswind.pods.fields import annotations_of, as_pod, containers_of, owners_of, spec_of, text, texts
from crosswind.pods.states import ContainerKind, RuntimeState, container_reports
from crosswind.sidecars.catalog import KNOWN, Endpoint, KnownSidecar, Role, Setting
from crosswind.sidecars.detection import any_match, identify, is_on, seconds, setting_value
from crosswind.sidecars.native import NATIVE_SINCE
from crosswind.types import AnyPod, Container

__all__ = [
    "HANDLED_SIGNAL_SCRIPT",
    "SIGNAL_SCRIPT",
    "HttpRequest",
    "Permissions",
    "ShutdownPlan",
    "ShutdownStep",
    "ShutdownTarget",
    "StepKind",
    "plan_shutdown",
]

_REPORT_MARGIN_S = 3.0
"""Time added to a step's deadline, for the request itself and the kubelet's report of the end."""

_EXEC_MARGIN_S = 5.0
"""Time added for a command: an exec starts a process, which takes long on a busy node."""

_DEFAULT_GRACE_S = 30.0
"""Kubernetes' default of terminationGracePeriodSeconds."""

_PORTS = range(1, 65536)

SIGNAL_SCRIPT = """\
read -r name </proc/sys/kernel/hostname; [ "${HOSTNAME:-$name}" = "$name" ] || exit 3
read -r first </proc/1/comm
case $first in
pause) for one in /proc/[0-9]*; do
  id=${one#/proc/}
  [ "$id" = $$ ] || [ "$id" = 1 ] || ! [ "$one/root" -ef /proc/self/root ] || kill -s "$1" "$id"
done ;;
sh|ash|dash|bash|busybox) kill "-$1" -1 2>/dev/null; kill -s "$1" 1 ;;
*) kill -s "$1" 1 ;;
esac"""
"""Signals the program of a container: process 1; under a shell, which may not pass signals on, all of its processes;
where the pod shares one process namespace (process 1 is ``pause``), those with this container's root. ``$1``: the
signal. Exits with 3 and signals nothing where it runs among the processes of a whole machine. BusyBox' ``kill`` accepts
no ``--``, and dash's no ``-s TERM -1``."""


_HANDLED = """\
while read -r key mask; do [ "$key" = SigCgt: ] && break; done </proc/1/status
[ $((0x${mask#????????} >> ($2 - 1) & 1)) = 1 ] || { echo "process 1 has no handler for $1" >&2; exit 4; }
"""
HANDLED_SIGNAL_SCRIPT = _HANDLED + SIGNAL_SCRIPT
"""The same, but exits with 4 where process 1 has no handler for the signal. The kernel would drop it: from inside its
container, a process 1 receives only signals that it handles (pid_namespaces(7)). ``$2``: the signal's number."""

_FURTHER_SIGNALS = {"INT": 2, "QUIT": 3}
"""Signals that end programs which ignore TERM: INT ends Python, QUIT ends nginx and Go programs."""
_FURTHER_SIGNAL_S = 10.0


class Permissions(enum.Flag):
    """The RBAC permissions by which sidecars are ended. A, B and C are the sets of the documentation on sidecars."""

    NONE = 0
    FORWARD = enum.auto()
    """get and create on pods/portforward."""
    EXEC = enum.auto()
    """get and create on pods/exec."""
    PATCH = enum.auto()
    """patch on pods."""
    DELETE = enum.auto()
    """delete on pods."""
    A = FORWARD
    B = FORWARD | EXEC
    C = FORWARD | EXEC | PATCH | DELETE


class StepKind(enum.StrEnum):
    """The method of a step."""

    WAIT = "wait"
    ASK = "ask"
    CLIENT = "client"
    SIGNAL = "signal"
    SWAP = "swap"
    DELETE = "delete"


REQUIRED_PERMISSIONS = {
    StepKind.WAIT: Permissions.NONE,
    StepKind.ASK: Permissions.FORWARD,
    StepKind.CLIENT: Permissions.EXEC,
    StepKind.SIGNAL: Permissions.EXEC,
    StepKind.SWAP: Permissions.PATCH,
    StepKind.DELETE: Permissions.DELETE,
}
_MISSING = {
    Permissions.FORWARD: "needs get and create on pods/portforward",
    Permissions.EXEC: "needs get and create on pods/exec",
    Permissions.PATCH: "needs patch on pods",
    Permissions.DELETE: "needs delete on pods",
}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request to a port of the pod, from inside."""

    method: str
    port: int
    path: str
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.method} :{self.port}{self.path}"


@dataclass(frozen=True, slots=True)
class ShutdownStep:
    """One step. ``deadline``: seconds from its start until the next step is due."""

    way: StepKind
    deadline: float
    reason: str
    request: HttpRequest | None = None
    command: tuple[str, ...] = ()
    image: str = ""
    exit_code: int | None = None
    """The exit code that the container should end with; None is unknown."""
    doubtful: bool = False
    """The endpoint is off, or off by default and the pod does not say that it is on."""
    skip: str = ""
    """Why the step is not taken, "" when it is."""

    def __str__(self) -> str:
        if self.way is StepKind.SIGNAL:
            return f"send {self.command[4]} by a shell"  # it follows sh -c SCRIPT sh
        what = self.request or " ".join(self.command) or self.image
        return f"{self.way} {what}".strip()

    def note(self, container: str) -> str:
        """Return the message of the Event for a taken step: always the same text, so that a reaper finds it again."""
        return f"{container}: {self}; {self.reason}"


@dataclass(frozen=True, slots=True)
class ShutdownTarget:
    """One container to end. ``product``: its short name, "" for an unknown one."""

    container: str
    product: str
    role: Role
    steps: tuple[ShutdownStep, ...]
    hints: tuple[str, ...] = ()
    """Changes by which the container would end more easily."""

    @property
    def taken(self) -> tuple[ShutdownStep, ...]:
        """The steps that can be taken."""
        return tuple(step for step in self.steps if not step.skip)


@dataclass(frozen=True, slots=True)
class ShutdownPlan:
    """The steps for one pod, in order."""

    groups: tuple[tuple[ShutdownTarget, ...], ...]
    """Targets of one group end concurrently, the groups one after the other."""
    last: ShutdownStep
    """The pod's deletion."""
    untouched: tuple[tuple[str, str], ...] = ()
    """Containers that need nothing, and why."""

    @property
    def targets(self) -> tuple[ShutdownTarget, ...]:
        """All targets, in order."""
        return tuple(itertools.chain(*self.groups))


def plan_shutdown(
    pod: AnyPod,
    *,
    base: str = "base",
    permissions: Permissions = Permissions.C,
    version: tuple[int, int] | None = None,
    known: Sequence[KnownSidecar] = KNOWN,
    swap_image: str = "",
    delete: bool = False,
) -> ShutdownPlan:
    """Return the plan that ends the containers beside ``base``.

    ``permissions``: those that we have. ``version``: the API server's, for the hints; None is a recent one.
    ``swap_image``: an image that ends with 0 at once, "" for none. ``delete``: whether the pod may be deleted.
    """
    planner = _Planner(pod, permissions, version or (1, 34), known, swap_image)
    targets, untouched = [], []
    for report in container_reports(pod, base):
        if report.kind is ContainerKind.ORDINARY and report.state is not RuntimeState.TERMINATED:
            targets.append(planner.target(report.name))
        elif report.kind is ContainerKind.NATIVE:
            untouched.append((report.name, "native sidecar: the kubelet ends it after the last regular container"))
        elif report.kind is ContainerKind.ORDINARY:
            untouched.append((report.name, f"has ended with exit code {report.exit_code}"))
    return ShutdownPlan(tuple(_in_order(targets)), planner.deletion(delete), tuple(untouched))


def _in_order(targets: list[ShutdownTarget]) -> Iterator[tuple[ShutdownTarget, ...]]:
    """Group the targets by role.

    Two containers that leave when all others have would wait for each other, so at most one may wait for its owner.
    """
    order = list(Role)
    targets.sort(key=lambda target: order.index(target.role))
    for role, members in itertools.groupby(targets, key=lambda target: target.role):
        group = tuple(members)
        if role is Role.LAST and len(group) > 1:
            *others, last = sorted(group, key=lambda target: len(target.taken), reverse=True)
            yield tuple(_unowned(target, last.container) for target in others)
            group = (last,)
        yield group


def _unowned(target: ShutdownTarget, last: str) -> ShutdownTarget:
    """Drop the wait for the owner, if the target has another step."""
    if all(step.way is StepKind.WAIT for step in target.taken):
        return target
    why = f"{last} waits as well, and each for the other"
    steps = (_skipped(step, why) if step.way is StepKind.WAIT else step for step in target.steps)
    return replace(target, steps=tuple(steps))


class _Planner:
    """Builds the steps of one pod's containers."""

    def __init__(
        self,
        pod: AnyPod,
        permissions: Permissions,
        version: tuple[int, int],
        known: Sequence[KnownSidecar],
        swap_image: str,
    ) -> None:
        self._pod = as_pod(pod)
        self._permissions, self._version, self._known, self._swap_image = permissions, version, known, swap_image
        grace: object = spec_of(self._pod).get("terminationGracePeriodSeconds")
        self._grace = float(grace) if isinstance(grace, int) else _DEFAULT_GRACE_S
        self._in_job = any(owner.get("kind") == "Job" for owner in owners_of(self._pod))

    def target(self, name: str) -> ShutdownTarget:
        """Return a container with its steps."""
        container = next((item for item in containers_of(self._pod) if item.get("name") == name), Container(name=name))
        product = identify(self._pod, container, self._known) or KnownSidecar("", (), ())
        owned = self._is_owned(product)
        steps = tuple(self._allowed(step) for step in self._steps(product, container))
        role = Role.LAST if owned else Role.HELPER if product.role is Role.LAST else product.role
        return ShutdownTarget(name, product.name, role, steps, tuple(self._hints(product, container)))

    def deletion(self, allowed: bool) -> ShutdownStep:
        """Return the last step of the plan."""
        step = ShutdownStep(
            StepKind.DELETE, self._grace + _REPORT_MARGIN_S, "ends every container that still runs, and removes the pod"
        )
        return self._allowed(step) if allowed else _skipped(step, "the pod is to be kept")

    def _is_owned(self, product: KnownSidecar) -> bool:
        return bool(product.owner) and (self._in_job or not product.owner_in_jobs)

    def _allowed(self, step: ShutdownStep) -> ShutdownStep:
        needed = REQUIRED_PERMISSIONS[step.way]
        return step if step.skip or needed in self._permissions else _skipped(step, _MISSING[needed])

    def _steps(self, product: KnownSidecar, container: Container) -> Iterator[ShutdownStep]:
        wait = seconds(setting_value(product.wait, self._pod, container), self._grace) + _REPORT_MARGIN_S
        if self._is_owned(product):
            yield ShutdownStep(StepKind.WAIT, product.owner_wait, f"ended by {product.owner}", exit_code=0)
        requests = [self._request(ask, container, product) for ask in product.asks]
        for ask, request in zip(product.asks, requests, strict=True):
            doubt = self._doubt(ask, container)
            off = bool(doubt) and is_on(ask.enabled or Setting(), self._pod, container) is False
            reason = f"{product.name} ends by it{doubt}"
            yield ShutdownStep(StepKind.ASK, wait, reason, request=request, exit_code=product.asked_code, doubtful=off)
        if product.client:
            port = str(requests[0].port) if requests else ""
            command = tuple(word.replace("{port}", port) for word in product.client)
            yield ShutdownStep(
                StepKind.CLIENT,
                wait + _EXEC_MARGIN_S,
                "its own client, without a shell",
                command=command,
                exit_code=product.asked_code,
            )
        yield self._signal(product, container, wait)
        if not product.name:
            yield from _further_signals()
        yield self._swap(container)

    def _request(self, ask: Endpoint, container: Container, product: KnownSidecar) -> HttpRequest:
        port = self._port(ask, container)
        if ask.numbered:
            same = [item for item in containers_of(self._pod) if identify(self._pod, item, (product,))]
            port += next((place for place, item in enumerate(same) if item is container), 0)
        path = setting_value(ask.path, self._pod, container)
        return HttpRequest(ask.method, port, path if path.startswith("/") else f"/{path}", tuple(ask.headers.items()))

    def _port(self, ask: Endpoint, container: Container) -> int:
        """Return an endpoint's port, also from ``0.0.0.0:4191``; the default where the pod names none that is valid."""
        port = setting_value(ask.port, self._pod, container).rpartition(":")[2]
        return int(port) if port.isdigit() and int(port) in _PORTS else int(ask.port.default)

    def _doubt(self, ask: Endpoint, container: Container) -> str:
        if ask.enabled is None or is_on(ask.enabled, self._pod, container):
            return ""
        switches = [*ask.enabled.annotations, *(f"--{flag}" for flag in ask.enabled.flags), *ask.enabled.env]
        return f", if enabled; the pod does not say so ({' or '.join(switches)})"

    def _signal(self, product: KnownSidecar, container: Container, wait: float) -> ShutdownStep:
        zero = product.signal_zero is not None and is_on(product.signal_zero, self._pod, container)
        code = 0 if zero else product.signal_code
        reason = f"exit code {'unknown' if code is None else code}" + _verdict(code)
        command = ("/bin/sh", "-c", SIGNAL_SCRIPT, "sh", product.signal)
        step = ShutdownStep(StepKind.SIGNAL, wait + _EXEC_MARGIN_S, reason, command=command, exit_code=code)
        if not product.signal:
            return _skipped(step, "must not be signalled")
        if not any_match(text(container.get("image")), product.shells):
            return _skipped(step, "its image has no shell")
        return step

    def _swap(self, container: Container) -> ShutdownStep:
        command = texts(container.get("command"))
        code, reason = 0, "the image ends with 0 at once"
        if command:
            code, reason = 128, f"the container starts {command[0]}: unless the image has that, it fails with 128"
        step = ShutdownStep(
            StepKind.SWAP, self._grace + _REPORT_MARGIN_S, reason, image=self._swap_image, exit_code=code
        )
        return step if self._swap_image else _skipped(step, "no image to swap in is set")

    def _hints(self, product: KnownSidecar, container: Container) -> Iterator[str]:
        annotations = annotations_of(self._pod)
        native = self._version >= NATIVE_SINCE
        if native and product.native and not any(name in annotations for name in product.native):
            name, value = next(iter(product.native.items()))
            yield f'annotation {name}: "{value}" makes it a native sidecar, which the kubelet ends'
        for name, value in product.helps.items():
            if annotations.get(name) != value:
                yield f'annotation {name}: "{value}" excludes it or enables its quit endpoint'
        if native and not product.native and not product.marks and product.role is not Role.LAST:
            yield f"declare {container['name']} as an init container with restartPolicy: Always"


def _further_signals() -> Iterator[ShutdownStep]:
    """Yield the signals for unknown sidecars that ignore TERM; the script notices a missing handler at once."""
    for signal, number in _FURTHER_SIGNALS.items():
        command = ("/bin/sh", "-c", HANDLED_SIGNAL_SCRIPT, "sh", signal, str(number))
        reason = "if it handles that signal; exit code unknown" + _verdict(None)
        yield ShutdownStep(StepKind.SIGNAL, _FURTHER_SIGNAL_S + _EXEC_MARGIN_S, reason, command=command)


def _skipped(step: ShutdownStep, why: str) -> ShutdownStep:
    return replace(step, skip=why)


def _verdict(code: int | None) -> str:
    return "; other than 0 makes the pod Failed, whatever base ended with" if code != 0 else ""

"""From a pod whose base container is over to the ordered steps that end what else runs in it. Pure.

Each ordinary container gets its own steps, mildest first: leave it to its owner, ask over port-forward, run its own
client, signal, swap the image; the pod's deletion is the last of all. A step is taken only if the container still runs
after the one before. Among containers the order is that of ``Role``: shippers, helpers, mesh, those that leave last.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from crosswind.pods.known_sidecars import KNOWN, Ask, KnownSidecar, Role, Setting
from crosswind.pods.recognising import any_match, is_on, recognise, said, seconds
from crosswind.pods.sidecars import NATIVE_SINCE
from crosswind.pods.states import Kind, State, containers, mapping, mappings, text
from crosswind.types import Json

__all__ = [
    "HANDLED_SIGNAL_SCRIPT",
    "SIGNAL_SCRIPT",
    "Abilities",
    "HttpRequest",
    "Step",
    "StopPlan",
    "Target",
    "Way",
    "plan_stop",
]

_MARGIN = 3.0
"""Seconds added to a step's deadline: for the request itself and the kubelet's report of the end."""

_CLIENT_WAIT = 5.0
_GRACE = 30.0
"""Kubernetes' own terminationGracePeriodSeconds."""

_OK = range(1, 65536)

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
"""Signals what a container runs: its process 1; under a shell, which may not pass signals on, all of its processes;
where the pod shares one process namespace (process 1 is ``pause``), those that have this container's root. ``$1``: the
signal. Does nothing (exit code 3) where it finds itself among the processes of a whole machine. BusyBox takes
no ``--`` and dash no ``-s TERM -1``."""


_HANDLED = """\
while read -r key mask; do [ "$key" = SigCgt: ] && break; done </proc/1/status
[ $((0x${mask#????????} >> ($2 - 1) & 1)) = 1 ] || { echo "process 1 has no handler for $1" >&2; exit 4; }
"""
HANDLED_SIGNAL_SCRIPT = _HANDLED + SIGNAL_SCRIPT
"""The same, and nothing (exit code 4) where process 1 has no handler for the signal, which the kernel then drops: a
process 1 gets from inside its container only signals that it handles (pid_namespaces(7)). ``$2``: its number."""

_FURTHER_SIGNALS = {"INT": 2, "QUIT": 3}
"""What programs that ignore TERM may still end by: Python by INT, nginx and Go programs by QUIT."""
_FURTHER_WAIT = 10.0


class Abilities(enum.Flag):
    """What may be done to pods, by permission."""

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


class Way(enum.StrEnum):
    """How a step works."""

    WAIT = "wait"
    ASK = "ask"
    CLIENT = "client"
    SIGNAL = "signal"
    SWAP = "swap"
    DELETE = "delete"


NEEDS = {
    Way.WAIT: Abilities.NONE,
    Way.ASK: Abilities.FORWARD,
    Way.CLIENT: Abilities.EXEC,
    Way.SIGNAL: Abilities.EXEC,
    Way.SWAP: Abilities.PATCH,
    Way.DELETE: Abilities.DELETE,
}
_MISSING = {
    Abilities.FORWARD: "needs get and create on pods/portforward",
    Abilities.EXEC: "needs get and create on pods/exec",
    Abilities.PATCH: "needs patch on pods",
    Abilities.DELETE: "needs delete on pods",
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
class Step:
    """One step. ``deadline``: seconds from its begin until the next one's turn."""

    way: Way
    deadline: float
    reason: str
    request: HttpRequest | None = None
    command: tuple[str, ...] = ()
    image: str = ""
    exit_code: int | None = None
    """What the container is expected to end with; None is unknown."""
    doubtful: bool = False
    """The pod says that it is turned off, or does not say that it is on where it is off by default."""
    skip: str = ""
    """Why it is not taken, "" when it is."""

    def __str__(self) -> str:
        if self.way is Way.SIGNAL:
            return f"send {self.command[4]} by a shell"  # behind sh -c SCRIPT sh
        what = self.request or " ".join(self.command) or self.image
        return f"{self.way} {what}".strip()

    def note(self, container: str) -> str:
        """What an Event says when the step was taken: the same words for the same step, so that it can be found."""
        return f"{container}: {self}; {self.reason}"


@dataclass(frozen=True, slots=True)
class Target:
    """One container to end. ``product``: its short name, "" for an unknown one."""

    container: str
    product: str
    role: Role
    steps: tuple[Step, ...]
    hints: tuple[str, ...] = ()
    """What to change so that it ends more easily next time."""

    @property
    def taken(self) -> tuple[Step, ...]:
        """The steps that can be taken."""
        return tuple(step for step in self.steps if not step.skip)


@dataclass(frozen=True, slots=True)
class StopPlan:
    """What will be done to a pod, in order."""

    groups: tuple[tuple[Target, ...], ...]
    """Targets of one group end side by side, groups one after the other."""
    last: Step
    """The pod's deletion."""
    untouched: tuple[tuple[str, str], ...] = ()
    """Containers that need nothing, and why."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """All targets, in order."""
        return tuple(itertools.chain(*self.groups))


def plan_stop(
    pod: Json,
    *,
    base: str = "base",
    abilities: Abilities = Abilities.C,
    version: tuple[int, int] | None = None,
    known: Sequence[KnownSidecar] = KNOWN,
    swap_image: str = "",
    delete: bool = False,
) -> StopPlan:
    """Return how the containers beside ``base`` end.

    ``abilities``: what the permissions allow. ``version``: the API server's, for the hints; None is a recent one.
    ``swap_image``: an image that ends with 0 at once, "" for none. ``delete``: whether the pod may be deleted.
    """
    planner = _Planner(pod, abilities, version or (1, 34), known, swap_image)
    targets, untouched = [], []
    for report in containers(pod, base):
        if report.kind is Kind.ORDINARY and report.state is not State.TERMINATED:
            targets.append(planner.target(report.name))
        elif report.kind is Kind.NATIVE:
            untouched.append((report.name, "native sidecar: the kubelet ends it when the last regular container ended"))
        elif report.kind is Kind.ORDINARY:
            untouched.append((report.name, f"has ended with exit code {report.exit_code}"))
    return StopPlan(tuple(_in_order(targets)), planner.deletion(delete), tuple(untouched))


def _in_order(targets: list[Target]) -> Iterator[tuple[Target, ...]]:
    """Group by role. Of those that leave when all others have, two would wait for each other: one alone is left."""
    order = list(Role)
    targets.sort(key=lambda target: order.index(target.role))
    for role, members in itertools.groupby(targets, key=lambda target: target.role):
        group = tuple(members)
        if role is Role.LAST and len(group) > 1:
            *told, last = sorted(group, key=lambda target: len(target.taken), reverse=True)
            yield tuple(_unowned(target, last.container) for target in told)
            group = (last,)
        yield group


def _unowned(target: Target, last: str) -> Target:
    """Take away the wait for its owner, if there is another way."""
    if all(step.way is Way.WAIT for step in target.taken):
        return target
    why = f"{last} waits as well, and each for the other"
    steps = (_skipped(step, why) if step.way is Way.WAIT else step for step in target.steps)
    return replace(target, steps=tuple(steps))


class _Planner:
    """The steps of one pod's containers."""

    def __init__(
        self,
        pod: Json,
        abilities: Abilities,
        version: tuple[int, int],
        known: Sequence[KnownSidecar],
        swap_image: str,
    ) -> None:
        self._pod = mapping(pod)
        self._spec = mapping(self._pod.get("spec"))
        self._abilities, self._version, self._known, self._swap_image = abilities, version, known, swap_image
        grace = self._spec.get("terminationGracePeriodSeconds")
        self._grace = float(grace) if isinstance(grace, int) else _GRACE
        owners = mappings(mapping(self._pod.get("metadata")).get("ownerReferences"))
        self._in_job = any(owner.get("kind") == "Job" for owner in owners)

    def target(self, name: str) -> Target:
        """Return a container with its steps."""
        container = next((one for one in mappings(self._spec.get("containers")) if one.get("name") == name), {})
        container = container or {"name": name}
        product = recognise(self._pod, container, self._known) or KnownSidecar("", (), ())
        owned = self._is_owned(product)
        steps = tuple(self._allowed(step) for step in self._steps(product, container))
        role = Role.LAST if owned else Role.HELPER if product.role is Role.LAST else product.role
        return Target(name, product.name, role, steps, tuple(self._hints(product, container)))

    def deletion(self, wanted: bool) -> Step:
        """Return the last step."""
        step = Step(Way.DELETE, self._grace + _MARGIN, "ends whatever still runs; the pod is gone afterwards")
        return self._allowed(step) if wanted else _skipped(step, "the pod is to be kept")

    def _is_owned(self, product: KnownSidecar) -> bool:
        return bool(product.owner) and (self._in_job or not product.owner_in_jobs)

    def _allowed(self, step: Step) -> Step:
        needed = NEEDS[step.way]
        return step if step.skip or needed in self._abilities else _skipped(step, _MISSING[needed])

    def _steps(self, product: KnownSidecar, container: Json) -> Iterator[Step]:
        wait = seconds(said(product.wait, self._pod, container), self._grace) + _MARGIN
        if self._is_owned(product):
            yield Step(Way.WAIT, product.owner_wait, f"ended by {product.owner}", exit_code=0)
        requests = [self._request(ask, container, product) for ask in product.asks]
        for ask, request in zip(product.asks, requests, strict=True):
            doubt = self._doubt(ask, container)
            off = bool(doubt) and is_on(ask.enabled or Setting(), self._pod, container) is False
            reason = f"{product.name} ends by it{doubt}"
            yield Step(Way.ASK, wait, reason, request=request, exit_code=product.asked_code, doubtful=off)
        if product.client:
            port = str(requests[0].port) if requests else ""
            command = tuple(word.replace("{port}", port) for word in product.client)
            yield Step(
                Way.CLIENT,
                wait + _CLIENT_WAIT,
                "its own client, without a shell",
                command=command,
                exit_code=product.asked_code,
            )
        yield self._signal(product, container, wait)
        if not product.name:
            yield from _further_signals()
        yield self._swap(container)

    def _request(self, ask: Ask, container: Json, product: KnownSidecar) -> HttpRequest:
        port = self._port(ask, container)
        if ask.numbered:
            same = [one for one in mappings(self._spec.get("containers")) if recognise(self._pod, one, (product,))]
            port += next((place for place, one in enumerate(same) if one is container), 0)
        path = said(ask.path, self._pod, container)
        return HttpRequest(ask.method, port, path if path.startswith("/") else f"/{path}", tuple(ask.headers.items()))

    def _port(self, ask: Ask, container: Json) -> int:
        """Read a port, also from ``0.0.0.0:4191``; what is no port leaves the default."""
        found = said(ask.port, self._pod, container).rpartition(":")[2]
        return int(found) if found.isdigit() and int(found) in _OK else int(ask.port.default)

    def _doubt(self, ask: Ask, container: Json) -> str:
        if ask.enabled is None or is_on(ask.enabled, self._pod, container):
            return ""
        switches = [*ask.enabled.annotations, *(f"--{flag}" for flag in ask.enabled.flags), *ask.enabled.env]
        return f", if enabled; the pod does not say so ({' or '.join(switches)})"

    def _signal(self, product: KnownSidecar, container: Json, wait: float) -> Step:
        zero = product.signal_zero is not None and is_on(product.signal_zero, self._pod, container)
        code = 0 if zero else product.signal_code
        reason = f"exit code {'unknown' if code is None else code}" + _verdict(code)
        command = ("/bin/sh", "-c", SIGNAL_SCRIPT, "sh", product.signal)
        step = Step(Way.SIGNAL, wait + _CLIENT_WAIT, reason, command=command, exit_code=code)
        if not product.signal:
            return _skipped(step, "must not be signalled")
        if not any_match(text(container.get("image")), product.shells):
            return _skipped(step, "its image has no shell")
        return step

    def _swap(self, container: Json) -> Step:
        command = container.get("command") or ()
        code, told = 0, "the image ends with 0 at once"
        if command:
            code, told = 128, f"the container starts {command[0]}: unless the image has that, it fails with 128"
        step = Step(Way.SWAP, self._grace + _MARGIN, told, image=self._swap_image, exit_code=code)
        return step if self._swap_image else _skipped(step, "no image to swap in is set")

    def _hints(self, product: KnownSidecar, container: Json) -> Iterator[str]:
        annotations = mapping(mapping(self._pod.get("metadata")).get("annotations"))
        native = self._version >= NATIVE_SINCE
        if native and product.native and not any(name in annotations for name in product.native):
            name, value = next(iter(product.native.items()))
            yield f'annotation {name}: "{value}" makes it a native sidecar, which needs no ending'
        for name, value in product.helps.items():
            if annotations.get(name) != value:
                yield f'annotation {name}: "{value}" leaves it out or lets it be asked'
        if native and not product.native and not product.marks and product.role is not Role.LAST:
            yield f"declare {container['name']} as an init container with restartPolicy: Always"


def _further_signals() -> Iterator[Step]:
    """Yield the signals for an unknown sidecar that ignores TERM; a missing handler is found without a wait."""
    for signal, number in _FURTHER_SIGNALS.items():
        command = ("/bin/sh", "-c", HANDLED_SIGNAL_SCRIPT, "sh", signal, str(number))
        reason = "if it handles that; exit code unknown" + _verdict(None)
        yield Step(Way.SIGNAL, _FURTHER_WAIT + _CLIENT_WAIT, reason, command=command)


def _skipped(step: Step, why: str) -> Step:
    return replace(step, skip=why)


def _verdict(code: int | None) -> str:
    return "; other than 0 makes the pod Failed, whatever base ended with" if code != 0 else ""

"""XCom without exec: a native sidecar that delivers the file which the task's own container wrote.

The task writes ``/airflow/xcom/return.json``, as with stock. After the last ordinary container the kubelet sends TERM
to the native sidecar. The sidecar then prints the value to its log, and writes a short value also to its termination
message, which outlives the pod. The kubelet cuts messages: all containers of a pod, injected ones too, share 12 KiB.

While another ordinary sidecar keeps the pod running, ours gets no TERM. For that case it prints a short value as soon
as the file stays unchanged, and one word whenever the state of the file changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from crosswind.pods.fields import as_pod, init_containers_of, is_native, mapping, mappings, status_of, text
from crosswind.pods.states import RuntimeState, container_reports, holding_containers
from crosswind.types import AnyPod, ContainerStatus, Json, Manifest

__all__ = [
    "CONTAINER",
    "IMAGE",
    "MAX_VALUE_BYTES",
    "NO_VALUE",
    "XComDelivery",
    "add_sidecar",
    "delivered",
    "early_delivery",
    "is_delivery_due",
    "printed_value",
]

CONTAINER = "crosswind-xcom"
"""Name of the sidecar."""

IMAGE = "alpine:3.24.2"
"""The default image, as stock's. An image needs ``sh``, ``cat``, ``wc``, ``sleep`` and one of ``cksum``, ``md5sum``,
``sha1sum``."""

MAX_VALUE_BYTES = 10 * 1024 * 1024
"""The largest value."""

_MAX_MESSAGE_BYTES = 4000
"""The largest value in a termination message: the kubelet allows 4096 bytes, for up to three containers, and our own
first line needs some."""

_MAX_EARLY_BYTES = 65536
"""The largest value that is printed while the task may still run: the kubelet would rotate a longer log."""

_VOLUME, _FOLDER = "xcom", "/airflow/xcom"

_SCRIPT = f"""\
d={_FOLDER} f={_FOLDER}/return.json n=0 s=0 now= last= shown= said= sum= tick=0.5
broken() {{ echo "broken $*" >/dev/termination-log; echo "broken $*"; exit 1; }}
size() {{ s=$(wc -c <"$f" 2>/dev/null) && [ "$s" -gt 0 ] && s=$((s)); }}
frame() {{ n=$((n+1)); echo; echo "begin $n $s"; cat "$f" && echo && echo "end $n"; }}
check() {{ for c in cat wc sleep; do command -v $c >/dev/null || broken "its image has no $c"; done; }}
finish() {{
  check
  [ -x "$d" ] || broken "$d cannot be entered: its mode or owner was changed"
  if [ -L "$f" ] && [ ! -e "$f" ]; then broken "$f is a link to a file that is not in $d"; fi
  if [ ! -s "$f" ]; then echo "value 0 0" >/dev/termination-log; exit 0; fi
  size || broken "wc cannot read $f"
  if [ "$s" -gt {MAX_VALUE_BYTES} ]; then echo "large $s" >/dev/termination-log; exit 0; fi
  now=; [ -n "$sum" ] && now=$($sum <"$f" 2>/dev/null)
  if [ -z "$now" ] || [ "$now" != "$shown" ]; then frame || broken "cat cannot read $f"; fi
  if [ "$s" -gt {_MAX_MESSAGE_BYTES} ]; then echo "log $n $s" >/dev/termination-log
  else {{ echo "value $s $n"; cat "$f"; }} >/dev/termination-log; fi || exit 1
  exit 0
}}
look() {{
  now=; [ -s "$f" ] || return 0
  now=$($sum <"$f" 2>/dev/null) && [ -n "$now" ] && size || now=unreadable
}}
state() {{
  if [ "$now" != "$last" ]; then word=busy
  elif [ -z "$now" ]; then word=none
  elif [ "$now" = unreadable ]; then word=unreadable
  elif [ "$now" = "$shown" ]; then word="same $n"
  elif [ "$s" -gt {_MAX_EARLY_BYTES} ]; then word=large
  elif frame; then shown=$now word="same $n"
  else word=unreadable; fi
}}
trap finish TERM INT
check
for c in cksum md5sum sha1sum; do command -v $c >/dev/null && sum=$c && break; done
while :; do
  if [ -n "$sum" ]; then look; state; else word=blind; fi
  [ "$word" = "$said" ] || echo "$word"
  said=$word last=$now
  sleep $tick 2>/dev/null & if ! wait $!; then [ $tick = 1 ] && broken "sleep does not work in its image"; tick=1; fi
done
"""


@dataclass(frozen=True, slots=True)
class XComDelivery:
    """A delivery of the sidecar. ``value``: the file's bytes, b"" for none, None when they are in the log's ``frame``.

    ``problem``: why there is no value, "" when there is one.
    """

    value: bytes | None = None
    frame: int = 0
    problem: str = ""


NO_VALUE = XComDelivery(b"")


def add_sidecar(
    pod: Manifest, *, base: str, image: str, resources: Json = None, security_context: Json = None
) -> Manifest:
    """Return ``pod`` with the sidecar and the volume that it shares with ``base``.

    ``security_context``: None takes that of ``base``, so that the two can read each other's files and the same Pod
    Security level admits both.
    """
    spec = pod["spec"]
    base_container = next(container for container in spec["containers"] if container["name"] == base)
    mount = {"name": _VOLUME, "mountPath": _FOLDER}
    sidecar: Manifest = {
        "name": CONTAINER,
        "image": image,
        "restartPolicy": "Always",
        "command": ["/bin/sh", "-c", _SCRIPT],
        "volumeMounts": [mount],
        "resources": resources or {"requests": {"cpu": "1m", "memory": "10Mi"}},
    }
    context = base_container.get("securityContext") if security_context is None else security_context
    if context:
        sidecar["securityContext"] = context
    mounted = base_container | {"volumeMounts": [mount, *(base_container.get("volumeMounts") or [])]}
    return pod | {
        "spec": spec
        | {
            "volumes": [{"name": _VOLUME, "emptyDir": {}}, *(spec.get("volumes") or [])],
            "containers": [mounted if item is base_container else item for item in spec["containers"]],
            # Native sidecars end in reverse order: as the last one, ours does not wait until a proxy has drained.
            "initContainers": [*(spec.get("initContainers") or []), sidecar],
        }
    }


def delivered(pod: AnyPod) -> XComDelivery | None:
    """Return the delivery of a sidecar that has ended; None while it runs."""
    status = _status(pod)
    ended = mapping(mapping(status.get("state")).get("terminated"))
    if not ended:
        before = text(mapping(mapping(status.get("lastState")).get("terminated")).get("message"))
        return XComDelivery(problem=_first_line(before)) if before.startswith("broken ") else None
    message = text(ended.get("message"))
    head, _, content = message.partition("\n")
    match head.split():
        case ["value", size]:  # a sidecar of an older version, which had no frames
            return _from_message(content, int(size), 0)
        case ["value", size, frame]:
            return _from_message(content, int(size), int(frame))
        case ["log", frame, _]:
            return XComDelivery(frame=int(frame))
        case ["large", size]:
            return XComDelivery(
                problem=f"the file has {size} bytes, {MAX_VALUE_BYTES} are possible; write it to a store instead"
            )
        case ["broken", *_]:
            return XComDelivery(problem=_first_line(message))
    reason, code = text(ended.get("reason")), ended.get("exitCode")
    return XComDelivery(problem=f"its sidecar {CONTAINER} ended with exit code {code} ({reason}) and left no value")


def _from_message(content: str, size: int, frame: int) -> XComDelivery:
    """Return the value, or the frame that holds it: the kubelet cuts messages and replaces bytes that are not UTF-8."""
    value = content.encode()
    if len(value) == size and "\ufffd" not in content:
        return XComDelivery(value)
    if frame:
        return XComDelivery(frame=frame)
    return (
        XComDelivery(problem=f"only {len(value)} of {size} bytes arrived") if len(value) < size else XComDelivery(value)
    )


def _first_line(message: str) -> str:
    return f"the sidecar {CONTAINER} cannot read it: " + message.removeprefix("broken ").partition("\n")[0]


def is_blocking(pod: AnyPod) -> bool:
    """Return whether a webhook made the sidecar a plain init container: the pod then waits for its end before base."""
    inits = init_containers_of(as_pod(pod))
    return any(container.get("name") == CONTAINER and not is_native(container) for container in inits)


def is_delivery_due(pod: AnyPod, base: str) -> bool:
    """Return whether the sidecar is about to end and deliver: no ordinary container holds the pod."""
    runs = any(
        report.name == CONTAINER and report.state is not RuntimeState.TERMINATED
        for report in container_reports(pod, base)
    )
    return runs and not holding_containers(pod, base)


def early_delivery(lines: Sequence[tuple[str, str]], finished: str, quiet: bool) -> XComDelivery | None:
    """Return the delivery of a sidecar that still runs, by the last lines of its log; None when it is not known yet.

    ``lines``: each with its time, in UTC as text, with fractions of a second. ``finished``: when base ended, in whole
    seconds. A word printed after that time may stem from a check of the file that began before it. It counts if another
    word after that time precedes it. ``quiet``: nothing was printed for so long after base's end that the sidecar has
    checked the file since, however busy the node is.
    """
    printed = [(time, line.split()) for time, line in lines if line.strip()]
    if not printed or printed[-1][1][0] not in _WORDS:  # in the middle of a frame
        return None
    later = finished.removesuffix("Z").partition(".")[0] + "~"  # sorts after every time of that second
    checks = [words for time, words in printed if time > later and words[0] in _WORDS]
    match printed[-1][1] if quiet or len(checks) > 1 else ["busy"]:
        case ["same", "0"] | ["none"]:
            return NO_VALUE
        case ["same", frame]:
            return XComDelivery(frame=int(frame))
        case ["large"]:
            return XComDelivery(
                problem=f"the value has more than {_MAX_EARLY_BYTES} bytes and another sidecar keeps the pod running"
            )
        case ["unreadable"]:
            return XComDelivery(problem=f"the sidecar {CONTAINER} may not read the file; let both run as the same user")
    return None


_WORDS = ("same", "busy", "large", "none", "unreadable", "blind")


def printed_value(log: bytes, frame: int | None) -> bytes | None:
    """Return the content of a frame (None: the last) of a log without time stamps; None when it is not whole."""
    number = rb"%d" % frame if frame else rb"\d+"
    for begin in reversed(list(re.finditer(rb"\nbegin (%s) (\d+)\n" % number, log))):
        size = int(begin[2])
        if log[begin.end() + size :].startswith(b"\nend %s\n" % begin[1]):
            return log[begin.end() : begin.end() + size]
    return None


def _status(pod: AnyPod) -> ContainerStatus:
    statuses: list[ContainerStatus] = mappings(status_of(as_pod(pod)).get("initContainerStatuses"))
    return next((status for status in statuses if status.get("name") == CONTAINER), ContainerStatus())

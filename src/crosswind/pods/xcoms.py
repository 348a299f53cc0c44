"""XCom without exec: a native sidecar that hands over the file which the task's own container wrote. Pure.

The task writes ``/airflow/xcom/return.json``, as with stock. When the last ordinary container has ended, the kubelet
sends the native sidecar TERM. The sidecar then prints the value, and also writes a short one to its termination
message, which outlives the pod. The kubelet cuts messages: all containers of a pod, injected ones too, share 12 KiB.

While another ordinary sidecar keeps the pod running, ours gets no TERM. For that case it prints a value that is not too
long as soon as the file stays unchanged, and one word whenever the file's state changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crosswind.pods.sidecars import is_native
from crosswind.pods.states import State, containers, held_by, mapping, mappings, text
from crosswind.types import Json, Manifest

__all__ = [
    "CONTAINER",
    "IMAGE",
    "LARGEST",
    "NOTHING",
    "Delivery",
    "add_sidecar",
    "awaited",
    "delivered",
    "printed",
    "standing",
]

CONTAINER = "crosswind-xcom"
"""Name of the sidecar."""

IMAGE = "alpine:3.24.2"
"""As stock's; one with ``sh``, ``cat``, ``wc``, ``sleep`` and one of ``cksum``, ``md5sum``, ``sha1sum`` will do."""

LARGEST = 10 * 1024 * 1024
"""Bytes of a value, at most."""

_IN_MESSAGE = 4000
"""Bytes that fit into a termination message (4096), with our line before them, of a pod of up to three containers."""

_EARLY = 65536
"""Bytes that are printed while the task may still run; a longer log would be rotated away by the kubelet."""

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
  if [ "$s" -gt {LARGEST} ]; then echo "large $s" >/dev/termination-log; exit 0; fi
  now=; [ -n "$sum" ] && now=$($sum <"$f" 2>/dev/null)
  if [ -z "$now" ] || [ "$now" != "$shown" ]; then frame || broken "cat cannot read $f"; fi
  if [ "$s" -gt {_IN_MESSAGE} ]; then echo "log $n $s" >/dev/termination-log
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
  elif [ "$s" -gt {_EARLY} ]; then word=large
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
class Delivery:
    """What the sidecar says. ``value``: the file's bytes, b"" for none, None when they are in the log's ``frame``.

    ``problem``: why there is no value to be had.
    """

    value: bytes | None = None
    frame: int = 0
    problem: str = ""


NOTHING = Delivery(b"")


def add_sidecar(
    pod: Manifest, *, base: str, image: str, resources: Json = None, security_context: Json = None
) -> Manifest:
    """Return ``pod`` with the sidecar and the volume that it shares with ``base``.

    ``security_context``: None takes that of ``base``, so that the two can read each other's files and the same Pod
    Security level lets both in.
    """
    spec = pod["spec"]
    chief = next(one for one in spec["containers"] if one["name"] == base)
    mount = {"name": _VOLUME, "mountPath": _FOLDER}
    sidecar: dict[str, Any] = {
        "name": CONTAINER,
        "image": image,
        "restartPolicy": "Always",
        "command": ["/bin/sh", "-c", _SCRIPT],
        "volumeMounts": [mount],
        "resources": resources or {"requests": {"cpu": "1m", "memory": "10Mi"}},
    }
    context = chief.get("securityContext") if security_context is None else security_context
    if context:
        sidecar["securityContext"] = context
    mounted = chief | {"volumeMounts": [mount, *(chief.get("volumeMounts") or [])]}
    return pod | {
        "spec": spec
        | {
            "volumes": [{"name": _VOLUME, "emptyDir": {}}, *(spec.get("volumes") or [])],
            "containers": [mounted if one is chief else one for one in spec["containers"]],
            # native sidecars end in reverse order: the last one need not wait for a proxy's drain
            "initContainers": [*(spec.get("initContainers") or []), sidecar],
        }
    }


def delivered(pod: Json) -> Delivery | None:
    """Return what the sidecar left when it ended; None while it runs."""
    status = _status(pod)
    ended = mapping(mapping(status.get("state")).get("terminated"))
    if not ended:
        before = text(mapping(mapping(status.get("lastState")).get("terminated")).get("message"))
        return Delivery(problem=_first_line(before)) if before.startswith("broken ") else None
    message = text(ended.get("message"))
    head, _, content = message.partition("\n")
    match head.split():
        case ["value", size]:  # of a sidecar before there was a frame for each value
            return _from_message(content, int(size), 0)
        case ["value", size, frame]:
            return _from_message(content, int(size), int(frame))
        case ["log", frame, _]:
            return Delivery(frame=int(frame))
        case ["large", size]:
            return Delivery(problem=f"the file has {size} bytes, {LARGEST} are possible; write it to a store instead")
        case ["broken", *_]:
            return Delivery(problem=_first_line(message))
    reason, code = text(ended.get("reason")), ended.get("exitCode")
    return Delivery(problem=f"its sidecar {CONTAINER} ended with exit code {code} ({reason}) and left no word")


def _from_message(content: str, size: int, frame: int) -> Delivery:
    """Return the value, or where it is in whole: messages are cut, and bytes that are not UTF-8 replaced."""
    value = content.encode()
    if len(value) == size and "\ufffd" not in content:
        return Delivery(value)
    if frame:
        return Delivery(frame=frame)
    return Delivery(problem=f"only {len(value)} of {size} bytes arrived") if len(value) < size else Delivery(value)


def _first_line(message: str) -> str:
    return f"the sidecar {CONTAINER} cannot read it: " + message.removeprefix("broken ").partition("\n")[0]


def is_blocking(pod: Json) -> bool:
    """Whether the sidecar has lost what makes it one: the pod then waits for its end before base starts."""
    inits = mappings(mapping(mapping(pod).get("spec")).get("initContainers"))
    return any(one.get("name") == CONTAINER and not is_native(one) for one in inits)


def awaited(pod: Json, base: str) -> bool:
    """Whether the sidecar is about to end, so that its word comes soon: no ordinary container holds the pod."""
    ours = any(one.name == CONTAINER and one.state is not State.TERMINATED for one in containers(pod, base))
    return ours and not held_by(pod, base)


def standing(lines: Sequence[tuple[str, str]], finished: str, quiet: bool) -> Delivery | None:
    """Return how the file stands by the log's last lines, each with its time; None: not known yet.

    ``lines``: times in UTC as text, with fractions of a second. ``finished``: when base ended, in whole seconds. A word
    after that comes of a look at the file that began after base's end if another word after that precedes it.
    ``quiet``: nothing new was printed for so long after base's end that the sidecar has looked meanwhile, however busy
    the node.
    """
    spoken = [(time, line.split()) for time, line in lines if line.strip()]
    if not spoken or spoken[-1][1][0] not in _WORDS:  # in the middle of a frame
        return None
    later = finished.removesuffix("Z").partition(".")[0] + "~"  # sorts behind all times of that second
    looks = [words for time, words in spoken if time > later and words[0] in _WORDS]
    match spoken[-1][1] if quiet or len(looks) > 1 else ["busy"]:
        case ["same", "0"] | ["none"]:
            return NOTHING
        case ["same", frame]:
            return Delivery(frame=int(frame))
        case ["large"]:
            return Delivery(problem=f"the value has more than {_EARLY} bytes and another sidecar keeps the pod running")
        case ["unreadable"]:
            return Delivery(problem=f"the sidecar {CONTAINER} may not read the file; let both run as the same user")
    return None


_WORDS = ("same", "busy", "large", "none", "unreadable", "blind")


def printed(log: bytes, frame: int | None) -> bytes | None:
    """Return the content of a frame (None: the last) of the log, read without time stamps; None: it is not there."""
    number = rb"%d" % frame if frame else rb"\d+"
    for begin in reversed(list(re.finditer(rb"\nbegin (%s) (\d+)\n" % number, log))):
        size = int(begin[2])
        if log[begin.end() + size :].startswith(b"\nend %s\n" % begin[1]):
            return log[begin.end() : begin.end() + size]
    return None


def _status(pod: Json) -> Json:
    statuses = mappings(mapping(mapping(pod).get("status")).get("initContainerStatuses"))
    return next((one for one in statuses if one.get("name") == CONTAINER), {})

"""XCom without exec: a native sidecar that hands over the file which the task's own container wrote.

The task writes ``/airflow/xcom/return.json``, as with stock. When the last ordinary container has ended, the kubelet
tells the native sidecar to end, and it leaves the value in its termination message, a longer one in its log. While
another ordinary sidecar keeps the pod running nobody tells it to; for that case it also prints, as soon as the file
stays as it is, a value that is not too long, and then again and again whether the file is still the same. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
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
"""As stock's; anything with ``sh``, ``cat``, ``wc``, ``cksum`` and ``sleep`` will do."""

LARGEST = 10 * 1024 * 1024
"""Bytes of a value, at most."""

_IN_MESSAGE = 4000
"""Bytes that fit into a termination message (4096) with our line before them."""

_EARLY = 65536
"""Bytes that are printed while the task may still run; a longer log would be rotated away by the kubelet."""

_VOLUME, _FOLDER = "xcom", "/airflow/xcom"

_SCRIPT = f"""\
f={_FOLDER}/return.json n=0 shown= last=
frame() {{ n=$((n+1)); echo; echo "begin $n $1"; [ "$1" -gt 0 ] && cat "$f"; echo; echo "end $n"; shown=$now; }}
finish() {{
  now= s=0; [ -s "$f" ] && s=$(($(wc -c <"$f")))
  if [ "$s" -gt {LARGEST} ]; then m="large $s"
  elif [ "$s" -gt {_IN_MESSAGE} ]; then frame "$s"; m="log $n $s"
  else m="value $s"; fi
  {{ echo "$m"; [ "${{m%% *}}" = value ] && [ "$s" -gt 0 ] && cat "$f"; }} >/dev/termination-log
  exit 0
}}
trap finish TERM INT
while :; do
  now=; [ -s "$f" ] && now=$(cksum <"$f"); s=${{now#* }}
  if [ "$now" != "$shown" ] && [ "$now" = "$last" ] && [ "${{s:-0}}" -le {_EARLY} ]; then frame "${{s:-0}}"; fi
  if [ "$now" = "$shown" ]; then echo "same $n"; elif [ "${{s:-0}}" -gt {_EARLY} ]; then echo large; else echo busy; fi
  last=$now
  sleep 0.5 & wait $!
done
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the sidecar says. ``value``: the file's bytes, b"" for none, None when they are in the log's ``frame``."""

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
    ended = mapping(mapping(_status(pod).get("state")).get("terminated"))
    if not ended:
        return None
    head, _, content = text(ended.get("message")).partition("\n")
    words = head.split()
    match words:
        case ["value", size]:
            value = content.encode()
            short = len(value) < int(size)  # a byte that is not UTF-8 makes it longer, never shorter
            return Delivery(problem=f"only {len(value)} of {size} bytes arrived") if short else Delivery(value)
        case ["log", frame, _]:
            return Delivery(frame=int(frame))
        case ["large", size]:
            return Delivery(problem=f"the file has {size} bytes, {LARGEST} are possible; write it to a store instead")
    reason, code = text(ended.get("reason")), ended.get("exitCode")
    return Delivery(problem=f"its sidecar {CONTAINER} ended with exit code {code} ({reason}) and left no word")


def is_blocking(pod: Json) -> bool:
    """Whether the sidecar has lost what makes it one: the pod then waits for its end before base starts."""
    inits = mappings(mapping(mapping(pod).get("spec")).get("initContainers"))
    return any(one.get("name") == CONTAINER and not is_native(one) for one in inits)


def awaited(pod: Json, base: str) -> bool:
    """Whether the sidecar is about to end, so that its word comes soon: no ordinary container holds the pod."""
    ours = any(one.name == CONTAINER and one.state is not State.TERMINATED for one in containers(pod, base))
    return ours and not held_by(pod, base)


def standing(lines: Iterable[tuple[str, str]], finished: str) -> Delivery | None:
    """Return how the file stands by the log's last lines, each with its time; None: not known yet.

    ``lines``: times in UTC as text, with fractions of a second. ``finished``: when base ended, in whole seconds. The
    second line after that was printed by a look at the file that began after base's end.
    """
    later = finished.removesuffix("Z").partition(".")[0] + "~"  # sorts behind all times of that second
    looks = [words for time, line in lines if time > later and (words := line.split()) and words[0] in _LOOKS]
    if len(looks) < 2 or looks[-1][0] == "busy":
        return None
    if looks[-1][0] == "large":
        return Delivery(problem=f"the value has more than {_EARLY} bytes and another sidecar keeps the pod running")
    frame = int(looks[-1][1])
    return Delivery(frame=frame) if frame else NOTHING


_LOOKS = ("same", "busy", "large")


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

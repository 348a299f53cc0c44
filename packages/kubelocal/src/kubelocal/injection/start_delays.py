"""Sidecars that start late or are not ready for a while: annotations that an injector leaves and the kubelet follows.

``start-delay.local.crosswind/CONTAINER`` holds the seconds by which a container begins after the one before it;
``ready-delay.local.crosswind/CONTAINER`` the seconds for which a played sidecar answers that it is not ready. Users
may write them too, for any container; what the user wrote wins over the settings.
"""

from __future__ import annotations

from math import isfinite

from kubelocal.injection.injector import Injector, annotations_of
from kubelocal.types import Manifest

__all__ = ["READY_DELAY", "START_DELAY", "delay_of", "delayed"]

START_DELAY = "start-delay.local.crosswind/"
READY_DELAY = "ready-delay.local.crosswind/"


def delay_of(pod: Manifest, prefix: str, container: str) -> float | None:
    """Return the seconds of a container's annotation, None where there is none.

    Raises ``ValueError`` for anything but a number of seconds from 0.
    """
    value = annotations_of(pod).get(prefix + container)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not isfinite(seconds) or seconds < 0:
        raise ValueError(f"annotation {prefix}{container}: {value!r} is not a number of seconds, such as 2.5")
    return seconds


def delayed(injector: Injector, start: float, ready: float | None) -> Injector:
    """Return an injector that also leaves these delays, for the containers that go on running."""
    if not start and ready is None:
        return injector

    def inject(pod: Manifest, namespace: Manifest) -> Manifest:
        made = injector(pod, namespace)
        names = _long_running(made) - _long_running(pod)
        annotations = {START_DELAY + name: f"{start:g}" for name in names if start}
        if ready is not None:
            annotations |= {READY_DELAY + name: f"{ready:g}" for name in names}
        if not annotations:
            return made
        metadata = made["metadata"] | {"annotations": annotations | dict(annotations_of(made))}
        return {**made, "metadata": metadata}

    return inject


def _long_running(pod: Manifest) -> set[str]:
    """Names of the regular containers and the native sidecars; an init container that ends is no sidecar."""
    native = (
        container for container in pod["spec"].get("initContainers") or () if container.get("restartPolicy") == "Always"
    )
    return {container["name"] for container in (*pod["spec"]["containers"], *native)}

"""Whether what a worker writes into its log folder outlives its pod."""

from __future__ import annotations

from pathlib import PurePosixPath

from crosswind.pods.states import mapping, mappings, text
from crosswind.types import Json

__all__ = ["keeps_its_log"]

_VARIABLE = "AIRFLOW__LOGGING__BASE_LOG_FOLDER"
_PASSING = frozenset({"emptyDir", "configMap", "secret", "downwardAPI", "projected", "ephemeral", "image"})
"""Kinds of volumes that go with the pod, or that nothing is written to."""


def keeps_its_log(pod: Json, folder: str, base: str = "base") -> bool:
    """Tell whether base's log folder is on a volume that lasts.

    ``folder``: ``[logging] base_log_folder`` of this Airflow, for workers that set none of their own.
    """
    spec = mapping(mapping(pod).get("spec"))
    container = next((one for one in mappings(spec.get("containers")) if one.get("name") == base), {})
    for variable in mappings(container.get("env")):
        if variable.get("name") == _VARIABLE:
            folder = text(variable.get("value")) or folder
    path = PurePosixPath(folder)
    mounts = [one for one in mappings(container.get("volumeMounts")) if path.is_relative_to(text(one.get("mountPath")))]
    if not mounts:
        return False
    nearest = max(mounts, key=lambda mount: len(text(mount.get("mountPath"))))
    volume = next((one for one in mappings(spec.get("volumes")) if one.get("name") == nearest.get("name")), {})
    return bool(volume.keys() - {"name"} - _PASSING)

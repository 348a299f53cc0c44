"""The volumes for DAG files and logs: claims, and for EFS the volumes or the storage class behind them."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import Rendered, labels, named, new
from crosswind.deploy.values import Efs, Values, Volume, VolumeDags, VolumeLogs
from crosswind.types import Manifest

__all__ = ["claim_name", "volumes"]

_DRIVER = "efs.csi.aws.com"
_USER, _GROUP = "50000", "0"


def claim_name(values: Values, part: str, volume: Volume) -> str:
    """Return the name of the claim that pods mount."""
    return volume.claim or named(values, part)


def volumes(values: Values) -> Iterator[Rendered]:
    """Yield what is to be made; nothing for claims that exist."""
    parts = [(part, volume) for part, volume in _wanted(values) if volume.claim is None]
    systems: set[str] = set()
    for _, volume in parts:
        if volume.efs and volume.efs.dynamic and volume.efs.file_system not in systems:
            systems.add(volume.efs.file_system)
            yield _storage_class(values, volume.efs)
    for part, volume in parts:
        for namespace in values.namespaces:
            if volume.efs and not volume.efs.dynamic:
                yield _efs_volume(values, part, volume, volume.efs, namespace)
            yield _claim(values, part, volume, namespace)


def _wanted(values: Values) -> Iterator[tuple[str, Volume]]:
    if isinstance(values.dags, VolumeDags):
        yield "dags", values.dags.volume
    if isinstance(values.logs, VolumeLogs):
        yield "logs", values.logs.volume


def _class_name(values: Values, efs: Efs) -> str:
    return named(values, f"efs-{efs.file_system.removeprefix('fs-')}")


def _storage_class(values: Values, efs: Efs) -> Rendered:
    parameters = {
        "provisioningMode": "efs-ap",
        "fileSystemId": efs.file_system,
        "directoryPerms": "770",
        "uid": _USER,
        "gid": _GROUP,
    }
    name = _class_name(values, efs)
    return Rendered(
        f"volumes/{name}.yaml",
        "Makes an access point of the EFS file system for each claim, owned by Airflow's user.",
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": name, "labels": labels(values, "volumes")},
            "provisioner": _DRIVER,
            "parameters": parameters,
            "reclaimPolicy": "Retain",
        },
    )


def _volume_name(values: Values, part: str, namespace: str) -> str:
    return f"{namespace}-{named(values, part)}"


def _efs_volume(values: Values, part: str, volume: Volume, efs: Efs, namespace: str) -> Rendered:
    handle = f"{efs.file_system}::{efs.access_point}" if efs.access_point else efs.file_system
    spec: Manifest = {
        "capacity": {"storage": volume.size},
        "accessModes": ["ReadWriteMany"],
        "persistentVolumeReclaimPolicy": "Retain",
        "csi": {"driver": _DRIVER, "volumeHandle": handle},
        "claimRef": {"namespace": namespace, "name": named(values, part)},
    }
    name = _volume_name(values, part, namespace)
    return Rendered(
        f"volumes/{name}-volume.yaml",
        f"The EFS file system with the {part}, reserved for the claim of namespace {namespace}; kept when that goes.",
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "labels": labels(values, "volumes")},
            "spec": spec,
        },
    )


def _claim(values: Values, part: str, volume: Volume, namespace: str) -> Rendered:
    spec: Manifest = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": volume.size}}}
    if volume.efs and volume.efs.dynamic:
        spec["storageClassName"] = _class_name(values, volume.efs)
    elif volume.efs:
        # "" keeps a default class from making another volume
        spec |= {"storageClassName": "", "volumeName": _volume_name(values, part, namespace)}
    elif volume.storage_class:
        spec["storageClassName"] = volume.storage_class
    users = "the DAG processor and the workers read" if part == "dags" else "workers write and API servers read"
    return Rendered(
        f"volumes/{namespace}-{part}-claim.yaml",
        f"The volume with the {part}, which {users} from many nodes at once.",
        new(values, "v1/PersistentVolumeClaim", named(values, part), "volumes", namespace=namespace, spec=spec),
    )

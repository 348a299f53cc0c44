"""The claims for DAG files and logs, and for EFS their volumes or storage class."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import RenderedObject, labels, named, new
from crosswind.deploy.value_sections import EfsValues, VolumeDags, VolumeLogs, VolumeValues
from crosswind.deploy.values import Values
from crosswind.types import Manifest

__all__ = ["claim_name", "volumes"]

_DRIVER = "efs.csi.aws.com"
_USER, _GROUP = "50000", "0"


def claim_name(values: Values, part: str, volume: VolumeValues) -> str:
    """Return the name of the claim that pods mount."""
    return volume.claim or named(values, part)


def volumes(values: Values) -> Iterator[RenderedObject]:
    """Yield the claims, volumes and storage classes, except for claims that exist already."""
    volumes_by_part = _new_volumes(values)
    dynamic = {efs.file_system: efs for volume in volumes_by_part.values() if (efs := volume.efs) and efs.dynamic}
    yield from (_storage_class(values, efs) for efs in dynamic.values())
    for part, volume in volumes_by_part.items():
        for namespace in values.namespaces:
            if volume.efs and not volume.efs.dynamic:
                yield _efs_volume(values, part, volume, volume.efs, namespace)
            yield _claim(values, part, volume, namespace)


def _new_volumes(values: Values) -> dict[str, VolumeValues]:
    volumes_by_part = {}
    if isinstance(values.dags, VolumeDags):
        volumes_by_part["dags"] = values.dags.volume
    if isinstance(values.logs, VolumeLogs):
        volumes_by_part["logs"] = values.logs.volume
    return {part: volume for part, volume in volumes_by_part.items() if volume.claim is None}


def _class_name(values: Values, efs: EfsValues) -> str:
    return named(values, f"efs-{efs.file_system.removeprefix('fs-')}")


def _storage_class(values: Values, efs: EfsValues) -> RenderedObject:
    parameters = {
        "provisioningMode": "efs-ap",
        "fileSystemId": efs.file_system,
        "directoryPerms": "770",
        "uid": _USER,
        "gid": _GROUP,
    }
    name = _class_name(values, efs)
    return RenderedObject(
        f"volumes/{name}.yaml",
        "Creates an access point of the EFS file system for each claim, owned by Airflow's user.",
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


def _efs_volume(values: Values, part: str, volume: VolumeValues, efs: EfsValues, namespace: str) -> RenderedObject:
    handle = f"{efs.file_system}::{efs.access_point}" if efs.access_point else efs.file_system
    spec: Manifest = {
        "capacity": {"storage": volume.size},
        "accessModes": ["ReadWriteMany"],
        "persistentVolumeReclaimPolicy": "Retain",
        "csi": {"driver": _DRIVER, "volumeHandle": handle},
        "claimRef": {"namespace": namespace, "name": named(values, part)},
    }
    name = _volume_name(values, part, namespace)
    return RenderedObject(
        f"volumes/{name}-volume.yaml",
        f"The EFS file system with the {part}, reserved for the claim of namespace {namespace} and kept without it.",
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "labels": labels(values, "volumes")},
            "spec": spec,
        },
    )


def _claim(values: Values, part: str, volume: VolumeValues, namespace: str) -> RenderedObject:
    spec: Manifest = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": volume.size}}}
    if volume.efs and volume.efs.dynamic:
        spec["storageClassName"] = _class_name(values, volume.efs)
    elif volume.efs:
        # With "", the default storage class does not provision another volume.
        spec |= {"storageClassName": "", "volumeName": _volume_name(values, part, namespace)}
    elif volume.storage_class:
        spec["storageClassName"] = volume.storage_class
    users = "the DAG processor and the workers read" if part == "dags" else "workers write and API servers read"
    return RenderedObject(
        f"volumes/{namespace}-{part}-claim.yaml",
        f"The volume with the {part}, which {users} from many nodes at once.",
        new(values, "v1/PersistentVolumeClaim", named(values, part), "volumes", namespace=namespace, spec=spec),
    )

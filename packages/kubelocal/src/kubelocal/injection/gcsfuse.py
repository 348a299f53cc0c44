"""GKE's injection of the GCS FUSE sidecar, by the rules of its webhook (``gcs-fuse-csi-driver`` pkg/webhook)."""

from __future__ import annotations

from dataclasses import dataclass

from kubelocal.injection.injector import add, annotations_of, template
from kubelocal.types import Manifest

__all__ = ["ANNOTATION", "SIDECAR", "TEMPORARY", "GcsFuse"]

ANNOTATION = "gke-gcsfuse/volumes"
SIDECAR = "gke-gcsfuse-sidecar"
TEMPORARY = "gke-gcsfuse-tmp"
"""The volume in which the driver leaves its exit file."""


@dataclass(frozen=True)
class GcsFuse:
    """The injector. ``native``: as a native sidecar, as since GKE 1.29."""

    native: bool = False

    def __call__(self, pod: Manifest, namespace: Manifest) -> Manifest:
        """Inject where the pod's annotation asks for it; first, because the others' mounts need it."""
        names = {
            container["name"] for container in (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ()))
        }
        if annotations_of(pod).get(ANNOTATION, "").lower() != "true" or SIDECAR in names:
            return pod
        made = template("gcsfuse")({})
        if self.native:
            native = {"restartPolicy": "Always", "env": [{"name": "NATIVE_SIDECAR", "value": "TRUE"}]}
            return add(pod, volumes=made["volumes"], init_first=[made["sidecar"] | native])
        return add(pod, volumes=made["volumes"], first=[made["sidecar"]])

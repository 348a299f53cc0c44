"""Annotations for Argo CD and Flux, which apply the manifests again at every sync."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from crosswind.deploy.objects import RenderedObject
from crosswind.deploy.values import Values
from crosswind.types import Manifest

__all__ = ["annotate_for_delivery"]

_FIRST_WAVE = {
    "AuthorizationPolicy",
    "ConfigMap",
    "ExternalSecret",
    "Namespace",
    "NetworkPolicy",
    "PeerAuthentication",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Role",
    "RoleBinding",
    "ServiceAccount",
    "ServiceEntry",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


def annotate_for_delivery(values: Values, objects: Iterable[RenderedObject]) -> Iterator[RenderedObject]:
    """Yield the objects with the annotations of ``values.delivery``; kubectl needs none."""
    for rendered in objects:
        match values.delivery:
            case "argocd":
                yield _with_annotations(rendered, _argocd(rendered))
            case "flux":
                yield _for_flux(rendered)
            case _:
                yield rendered


def _argocd(rendered: RenderedObject) -> dict[str, str]:
    """Return the sync wave: base objects, PgBouncer, migrations, programs, then the Jobs that need the programs.

    Jobs are hooks of the sync. Argo CD deletes and creates them at each sync, because a Job's spec is immutable.
    """
    folder, kind = rendered.path.partition("/")[0], rendered.manifest["kind"]
    if kind == "Job":
        wave = "0" if folder == "migrations" else "2"
        hook = {"argocd.argoproj.io/hook": "Sync", "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation"}
        return {**hook, "argocd.argoproj.io/sync-wave": wave}
    if kind in _FIRST_WAVE:
        return {"argocd.argoproj.io/sync-wave": "-2"}
    return {"argocd.argoproj.io/sync-wave": "-1" if folder == "pgbouncer" else "1"}


def _for_flux(rendered: RenderedObject) -> RenderedObject:
    """Keep finished Jobs: Flux would create, and so run, a Job again once its TTL had deleted it."""
    if rendered.manifest["kind"] != "Job":
        return rendered
    manifest = dict(rendered.manifest)
    manifest["spec"] = {key: value for key, value in manifest["spec"].items() if key != "ttlSecondsAfterFinished"}
    annotations = {"kustomize.toolkit.fluxcd.io/force": "enabled"}
    return _with_annotations(RenderedObject(rendered.path, rendered.reason, manifest), annotations)


def _with_annotations(rendered: RenderedObject, annotations: dict[str, str]) -> RenderedObject:
    manifest: Manifest = dict(rendered.manifest)
    metadata = manifest["metadata"]
    manifest["metadata"] = {**metadata, "annotations": {**metadata.get("annotations", {}), **annotations}}
    return RenderedObject(rendered.path, rendered.reason, manifest)

"""What Argo CD and Flux need to know of the manifests, which they apply again and again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from crosswind.deploy.objects import Rendered
from crosswind.deploy.values import Values
from crosswind.types import Manifest

__all__ = ["delivered"]

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


def delivered(values: Values, objects: Iterable[Rendered]) -> Iterator[Rendered]:
    """Yield the objects, annotated for what applies them; with kubectl as they are."""
    for rendered in objects:
        match values.delivery:
            case "argocd":
                yield _with_annotations(rendered, _argocd(rendered))
            case "flux":
                yield _for_flux(rendered)
            case _:
                yield rendered


def _argocd(rendered: Rendered) -> dict[str, str]:
    """Ground first, then PgBouncer and the migrations, then the programs, at last what needs these.

    The migration Job is a hook of the sync: it runs at each sync, before the programs, and Argo CD makes it anew, since
    a Job cannot be changed.
    """
    folder, kind = rendered.path.partition("/")[0], rendered.manifest["kind"]
    if kind == "Job":
        wave = "0" if folder == "migrations" else "2"
        hook = {"argocd.argoproj.io/hook": "Sync", "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation"}
        return {**hook, "argocd.argoproj.io/sync-wave": wave}
    if kind in _FIRST_WAVE:
        return {"argocd.argoproj.io/sync-wave": "-2"}
    return {"argocd.argoproj.io/sync-wave": "-1" if folder == "pgbouncer" else "1"}


def _for_flux(rendered: Rendered) -> Rendered:
    """Let Jobs stay: one that vanished after a day would be made, and run, again."""
    if rendered.manifest["kind"] != "Job":
        return rendered
    manifest = dict(rendered.manifest)
    manifest["spec"] = {key: value for key, value in manifest["spec"].items() if key != "ttlSecondsAfterFinished"}
    annotations = {"kustomize.toolkit.fluxcd.io/force": "enabled"}
    return _with_annotations(Rendered(rendered.path, rendered.reason, manifest), annotations)


def _with_annotations(rendered: Rendered, annotations: dict[str, str]) -> Rendered:
    manifest: Manifest = dict(rendered.manifest)
    metadata = manifest["metadata"]
    manifest["metadata"] = {**metadata, "annotations": {**metadata.get("annotations", {}), **annotations}}
    return Rendered(rendered.path, rendered.reason, manifest)

"""The objects and keys that a manifest refers to by name, for explanations and for checks of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crosswind.types import Json, Manifest

__all__ = ["VOLUME_SECRETS", "Reference", "pod_spec", "references", "secret_keys"]

Reference = tuple[str, str, str]
"""Kind, namespace ("" for cluster-scoped objects), name."""

_InPod = tuple[str, str, bool]
"""Kind and name of an object in the pod's namespace, and whether the pod starts without it."""

_KINDS_WITH_TEMPLATE = ("Deployment", "StatefulSet", "Job", "DaemonSet")


def pod_spec(manifest: Manifest) -> Manifest | None:
    """Return the spec of a Pod, or of the pods that an object creates; None for other kinds."""
    if manifest["kind"] == "Pod":
        return dict(manifest["spec"])
    return dict(manifest["spec"]["template"]["spec"]) if manifest["kind"] in _KINDS_WITH_TEMPLATE else None


VOLUME_SECRETS: Mapping[str, tuple[str, ...]] = {
    "secret": ("secretName",),
    "azureFile": ("secretName",),
    "cephfs": ("secretRef", "name"),
    "csi": ("nodePublishSecretRef", "name"),
    "flexVolume": ("secretRef", "name"),
    "iscsi": ("secretRef", "name"),
    "rbd": ("secretRef", "name"),
    "scaleIO": ("secretRef", "name"),
    "storageos": ("secretRef", "name"),
}
"""The kinds of volumes that name a Secret, and the path to its name. Projected volumes have a list of sources."""


def references(manifest: Manifest, *, required: bool = False) -> Iterator[Reference]:
    """Yield the objects that ``manifest`` refers to, each once. ``required``: without optional ones."""
    yield from dict.fromkeys(
        reference for reference, is_optional in _references(manifest) if not (required and is_optional)
    )


def secret_keys(manifest: Manifest) -> Iterator[tuple[Reference, str]]:
    """Yield the Secrets that ``manifest`` reads by key, with the key, except optional ones.

    The type of a Secret determines the keys of image pull secrets and of certificates.
    """
    namespace = manifest["metadata"].get("namespace", "")
    pairs: list[tuple[str, str]] = []
    if (pod := pod_spec(manifest)) is not None:
        pairs += [(secret["name"], ".dockerconfigjson") for secret in pod.get("imagePullSecrets", [])]
        pairs += [*_volume_keys(pod), *_variable_keys(pod)]
    if manifest["kind"] == "Ingress":
        certificates = [tls["secretName"] for tls in manifest["spec"].get("tls", [])]
        pairs += [(name, key) for name in certificates for key in ("tls.crt", "tls.key")]
    yield from ((("Secret", namespace, name), key) for name, key in pairs)


def _volume_keys(pod: Manifest) -> Iterator[tuple[str, str]]:
    for volume in pod.get("volumes", []):
        sources = [volume, *volume.get("projected", {}).get("sources", [])]
        for secret in (source["secret"] for source in sources if "secret" in source):
            name = secret.get("secretName") or secret.get("name")
            if name and not secret.get("optional"):
                yield from ((name, item["key"]) for item in secret.get("items", []))


def _variable_keys(pod: Manifest) -> Iterator[tuple[str, str]]:
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference and not reference.get("optional"):
                yield reference["name"], reference["key"]


def _references(manifest: Manifest) -> Iterator[tuple[Reference, bool]]:
    """Yield each reference, and whether it is optional."""
    namespace = manifest["metadata"].get("namespace", "")
    if (pod := pod_spec(manifest)) is not None:
        yield from (((kind, namespace, name), optional) for kind, name, optional in _of_pod(pod))
    yield from ((reference, False) for reference in _of_object(manifest, namespace))


def _of_object(manifest: Manifest, namespace: str) -> Iterator[Reference]:
    if namespace:
        yield "Namespace", "", namespace
    match manifest["kind"]:
        case "RoleBinding":
            yield manifest["roleRef"]["kind"], namespace, manifest["roleRef"]["name"]
            for subject in manifest["subjects"]:
                yield subject["kind"], subject["namespace"], subject["name"]
        case "Ingress":
            yield from _of_ingress(manifest["spec"], namespace)
        case "PersistentVolumeClaim":
            yield from (
                (kind, "", name)
                for kind, field in (("PersistentVolume", "volumeName"), ("StorageClass", "storageClassName"))
                if (name := manifest["spec"].get(field))
            )
        case "StatefulSet":
            yield "Service", namespace, manifest["spec"]["serviceName"]


def _of_pod(spec: Manifest) -> Iterator[_InPod]:
    yield "ServiceAccount", spec.get("serviceAccountName", "default"), False
    for secret in spec.get("imagePullSecrets", []):
        yield "Secret", secret["name"], False
    for volume in spec.get("volumes", []):
        yield from _of_volume(volume)
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        yield from _of_container(container)


def _of_volume(volume: Manifest) -> Iterator[_InPod]:
    for field, path in VOLUME_SECRETS.items():
        name: Json = volume.get(field) or {}
        for part in path:
            name = name.get(part) or {}
        if name:
            yield "Secret", name, _is_optional(volume[field])
    if config_map := volume.get("configMap"):
        yield "ConfigMap", config_map["name"], _is_optional(config_map)
    if claim := volume.get("persistentVolumeClaim"):
        yield "PersistentVolumeClaim", claim["claimName"], False
    for source in volume.get("projected", {}).get("sources", []):
        yield from _named_in(source, ("Secret", "secret"), ("ConfigMap", "configMap"))


def _of_container(container: Manifest) -> Iterator[_InPod]:
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        yield from _named_in(source, ("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef"))
    for source in container.get("envFrom", []):
        yield from _named_in(source, ("Secret", "secretRef"), ("ConfigMap", "configMapRef"))


def _named_in(source: Manifest, *kinds: tuple[str, str]) -> Iterator[_InPod]:
    """Yield the objects that the fields of ``source`` name, each a pair of kind and field."""
    for kind, field in kinds:
        if name := source.get(field, {}).get("name"):
            yield kind, name, _is_optional(source[field])


def _is_optional(reference: Manifest) -> bool:
    return bool(reference.get("optional"))


def _of_ingress(spec: Manifest, namespace: str) -> Iterator[Reference]:
    for rule in spec["rules"]:
        for path in rule["http"]["paths"]:
            yield "Service", namespace, path["backend"]["service"]["name"]
    for tls in spec.get("tls", []):
        yield "Secret", namespace, tls["secretName"]

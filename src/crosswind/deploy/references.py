"""The objects and keys that a manifest refers to by name, for explanations and for checks of a cluster."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.types import Json, Manifest

__all__ = ["Reference", "pod_spec", "references", "secret_keys"]

Reference = tuple[str, str, str]
"""Kind, namespace ("" for cluster-scoped objects), name."""

_KINDS_WITH_TEMPLATE = ("Deployment", "StatefulSet", "Job", "DaemonSet")


def pod_spec(manifest: Manifest) -> Manifest | None:
    """Return the spec of a Pod, or of the pods that an object creates; None for other kinds."""
    if manifest["kind"] == "Pod":
        return dict(manifest["spec"])
    return dict(manifest["spec"]["template"]["spec"]) if manifest["kind"] in _KINDS_WITH_TEMPLATE else None


def references(manifest: Manifest) -> Iterator[Reference]:
    """Yield the objects that ``manifest`` refers to, each once."""
    yield from dict.fromkeys(_references(manifest))


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
        secret = volume.get("secret", {})
        if not secret.get("optional"):
            yield from ((secret["secretName"], item["key"]) for item in secret.get("items", []))


def _variable_keys(pod: Manifest) -> Iterator[tuple[str, str]]:
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference and not reference.get("optional"):
                yield reference["name"], reference["key"]


def _references(manifest: Manifest) -> Iterator[Reference]:
    namespace = manifest["metadata"].get("namespace", "")
    if namespace:
        yield "Namespace", "", namespace
    if (pod := pod_spec(manifest)) is not None:
        yield from _of_pod(pod, namespace)
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


def _of_pod(spec: Manifest, namespace: str) -> Iterator[Reference]:
    yield "ServiceAccount", namespace, spec.get("serviceAccountName", "default")
    for secret in spec.get("imagePullSecrets", []):
        yield "Secret", namespace, secret["name"]
    for volume in spec.get("volumes", []):
        yield from _of_volume(volume, namespace)
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        yield from _of_container(container, namespace)


def _of_volume(volume: Manifest, namespace: str) -> Iterator[Reference]:
    for kind, field, name in (
        ("ConfigMap", "configMap", "name"),
        ("Secret", "secret", "secretName"),
        ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
    ):
        if source := volume.get(field):
            yield kind, namespace, source[name]


def _of_container(container: Manifest, namespace: str) -> Iterator[Reference]:
    sources: list[Json] = [variable.get("valueFrom", {}) for variable in container.get("env", [])]
    for source in sources:
        for kind, field in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
            if field in source:
                yield kind, namespace, source[field]["name"]
    for source in container.get("envFrom", []):
        for kind, field in (("Secret", "secretRef"), ("ConfigMap", "configMapRef")):
            if field in source:
                yield kind, namespace, source[field]["name"]


def _of_ingress(spec: Manifest, namespace: str) -> Iterator[Reference]:
    for rule in spec["rules"]:
        for path in rule["http"]["paths"]:
            yield "Service", namespace, path["backend"]["service"]["name"]
    for tls in spec.get("tls", []):
        yield "Secret", namespace, tls["secretName"]

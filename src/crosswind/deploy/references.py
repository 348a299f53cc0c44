"""What an object refers to by name, so that it can be said, and checked that it is there."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.types import Json, Manifest

__all__ = ["Reference", "pod_spec", "references", "secret_keys"]

Reference = tuple[str, str, str]
"""Kind, namespace ("" for objects of the cluster), name."""

_TEMPLATED = ("Deployment", "StatefulSet", "Job", "DaemonSet")


def pod_spec(manifest: Manifest) -> Manifest | None:
    """Return the spec of the pods that an object makes or is; None if it makes none."""
    if manifest["kind"] == "Pod":
        return dict(manifest["spec"])
    return dict(manifest["spec"]["template"]["spec"]) if manifest["kind"] in _TEMPLATED else None


def references(manifest: Manifest) -> Iterator[Reference]:
    """Yield what ``manifest`` refers to, each thing once."""
    yield from dict.fromkeys(_references(manifest))


def secret_keys(manifest: Manifest) -> Iterator[tuple[Reference, str]]:
    """Yield the Secrets that ``manifest`` reads by key, with the key; optional ones are left out.

    A Secret's type says the keys of those that pull images or hold a certificate.
    """
    namespace = manifest["metadata"].get("namespace", "")
    if (pod := pod_spec(manifest)) is not None:
        for secret in pod.get("imagePullSecrets", []):
            yield ("Secret", namespace, secret["name"]), ".dockerconfigjson"
        for volume in pod.get("volumes", []):
            secret = volume.get("secret", {})
            for item in secret.get("items", []) if not secret.get("optional") else []:
                yield ("Secret", namespace, secret["secretName"]), item["key"]
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            for variable in container.get("env", []):
                found = variable.get("valueFrom", {}).get("secretKeyRef", {})
                if found and not found.get("optional"):
                    yield ("Secret", namespace, found["name"]), found["key"]
    if manifest["kind"] == "Ingress":
        for tls in manifest["spec"].get("tls", []):
            for key in ("tls.crt", "tls.key"):
                yield ("Secret", namespace, tls["secretName"]), key


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
    if found := volume.get("configMap"):
        yield "ConfigMap", namespace, found["name"]
    if found := volume.get("secret"):
        yield "Secret", namespace, found["secretName"]
    if found := volume.get("persistentVolumeClaim"):
        yield "PersistentVolumeClaim", namespace, found["claimName"]


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

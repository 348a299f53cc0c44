"""Delivers DAG files to the pods that parse them: by image, volume, git-sync, or a bundle that Airflow fetches."""

from __future__ import annotations

from crosswind.deploy import meshes
from crosswind.deploy.airflow_config import BUNDLES_FOLDER, GIT_FOLDER
from crosswind.deploy.objects import secret_env
from crosswind.deploy.value_sections import BundleDags, GitSyncDags, SecretKey, VolumeDags, resources
from crosswind.deploy.values import Values
from crosswind.deploy.volume_claims import claim_name
from crosswind.types import Manifest

__all__ = ["environment", "init_containers", "mounts", "sidecars", "volumes"]

_SSH_FOLDER = "/etc/git-secret"


def volumes(values: Values) -> list[Manifest]:
    """Return the volumes of a pod that parses DAG files."""
    match values.dags:
        case VolumeDags(volume=volume):
            claim = {"claimName": claim_name(values, "dags", volume), "readOnly": True}
            return [{"name": "dags", "persistentVolumeClaim": claim}]
        case GitSyncDags() as dags:
            checkout: Manifest = {"name": "dags", "emptyDir": {}}
            if not (dags.ssh and dags.secret):
                return [checkout]
            # With items, the kubelet reports a missing key by its name.
            items = [{"key": key, "path": key} for key in ("ssh", "known_hosts")]
            secret = {"secretName": dags.secret, "defaultMode": 0o440, "items": items}
            return [checkout, {"name": "git-secret", "secret": secret}]
        case BundleDags():
            return [{"name": "bundles", "emptyDir": {}}]
    return []


def mounts(values: Values) -> list[Manifest]:
    """Return the mounts of a container that parses DAG files."""
    match values.dags:
        case VolumeDags(path=path):
            return [{"name": "dags", "mountPath": path, "readOnly": True}]
        case GitSyncDags():
            return [{"name": "dags", "mountPath": GIT_FOLDER, "readOnly": True}]
        case BundleDags():
            return [{"name": "bundles", "mountPath": BUNDLES_FOLDER}]
    return []


def environment(values: Values) -> list[Manifest]:
    """Return the environment variables of a container that parses DAG files."""
    if isinstance(values.dags, BundleDags) and values.dags.secret:
        return [secret_env("AIRFLOW_CONN_GIT_DEFAULT", SecretKey(name=values.dags.secret, key="connection"))]
    return []


def init_containers(values: Values) -> list[Manifest]:
    """Return the init container that fetches the DAG files before the main container parses them."""
    if not isinstance(values.dags, GitSyncDags):
        return []
    container = _git_sync(values, values.dags, "git-sync-init", {"GITSYNC_ONE_TIME": "true"})
    if values.in_main_wait:
        # Init containers run before an ordinary sidecar, but iptables redirects their traffic to it already, except
        # that of the proxy's own user.
        container["securityContext"]["runAsUser"] = meshes.PROXY_USERS[values.mesh.kind]
        if values.dags.ssh:
            # ssh fails unless /etc/passwd has an entry for its user; git-sync adds one if it can write.
            container["securityContext"]["readOnlyRootFilesystem"] = False
            container["env"].append({"name": "GITSYNC_ADD_USER", "value": "true"})
    return [container]


def sidecars(values: Values) -> list[Manifest]:
    """Return the sidecar that keeps the DAG files of a long-running pod up to date."""
    if not isinstance(values.dags, GitSyncDags):
        return []
    return [_git_sync(values, values.dags, "git-sync", {"GITSYNC_PERIOD": values.dags.period})]


def _git_sync(values: Values, dags: GitSyncDags, name: str, mode: dict[str, str]) -> Manifest:
    settings = {
        "GITSYNC_REPO": dags.repo,
        "GITSYNC_REF": dags.ref,
        "GITSYNC_DEPTH": str(dags.depth),
        "GITSYNC_ROOT": GIT_FOLDER,
        "GITSYNC_LINK": "repo",
        "HOME": "/tmp",  # noqa: S108 - a folder in the pod, for git's own settings
        **mode,
    }
    volume_mounts: list[Manifest] = [
        {"name": "dags", "mountPath": GIT_FOLDER},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
    ]
    env: list[Manifest] = []
    if dags.ssh and dags.secret:
        settings |= {
            "GITSYNC_SSH_KEY_FILE": f"{_SSH_FOLDER}/ssh",
            "GITSYNC_SSH_KNOWN_HOSTS_FILE": f"{_SSH_FOLDER}/known_hosts",
        }
        volume_mounts.append({"name": "git-secret", "mountPath": _SSH_FOLDER, "readOnly": True})
    elif dags.secret:
        env = [
            secret_env("GITSYNC_USERNAME", SecretKey(name=dags.secret, key="username")),
            secret_env("GITSYNC_PASSWORD", SecretKey(name=dags.secret, key="password")),
        ]
    return {
        "name": name,
        "image": dags.image,
        "env": [*({"name": variable, "value": value} for variable, value in settings.items()), *env],
        "resources": resources("50m", "256Mi"),
        "securityContext": {
            **({} if values.platform == "openshift" else {"runAsUser": 65533}),
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": volume_mounts,
    }

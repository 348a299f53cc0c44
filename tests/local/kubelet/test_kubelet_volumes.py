"""Volumes as folders: content, modes, updates, refusals."""

from __future__ import annotations

import base64
import stat
from pathlib import Path
from typing import Any

import pytest

from crosswind.local.kubelet.environment import ConfigError
from crosswind.local.kubelet.volumes import Sources, VolumeError, Volumes

POD_META = {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "b"}}


class Cluster:
    """Objects that may change."""

    def __init__(self, folder: Path) -> None:
        secret = {
            "kind": "Secret",
            "data": {"a": base64.b64encode(b"one").decode(), "b": base64.b64encode(b"two").decode()},
        }
        self.objects: dict[tuple[str, str], dict[str, Any]] = {
            ("Secret", "s"): secret,
            ("ConfigMap", "c"): {"kind": "ConfigMap", "data": {"x": "first", "y": "gone soon"}},
            ("PersistentVolumeClaim", "claim"): {"kind": "PersistentVolumeClaim"},
        }
        sources = Sources(lambda kind, name: self.objects.get((kind, name)), lambda who, s: f"token {who} {s}", {})
        self.folder = folder / "volumes"
        self.volumes = Volumes(self.folder, folder / "claims", sources)

    def set_up(self, **volume: Any) -> Path:
        self.pod = {"metadata": POD_META, "spec": {"volumes": [{"name": "v", **volume}], "containers": []}}
        self.volumes.set_up(self.pod)
        return self.folder / "v"

    def mounts(self, **mount: Any) -> list[Any]:
        return self.volumes.mounts(
            self.pod, {"volumeMounts": [{"name": "v", "mountPath": "/m", **mount}]}, {"X": "sub"}
        )


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def listing(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_a_secret_has_a_file_per_key_of_mode_0644(cluster: Cluster) -> None:
    folder = cluster.set_up(secret={"secretName": "s"})
    assert listing(folder) == {"a": "one", "b": "two"}
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o644


def test_items_choose_keys_paths_and_modes(cluster: Cluster) -> None:
    items = [{"key": "b", "path": "sub/b.txt", "mode": 0o400}]
    folder = cluster.set_up(secret={"secretName": "s", "items": items, "defaultMode": 0o600})
    assert (folder / "sub/b.txt").read_text() == "two"
    assert stat.S_IMODE((folder / "sub/b.txt").stat().st_mode) == 0o400
    assert not (folder / "a").exists()


def test_content_follows_the_object(cluster: Cluster) -> None:
    folder = cluster.set_up(configMap={"name": "c"})
    before = (folder / "..data").resolve()
    cluster.objects["ConfigMap", "c"] = {"kind": "ConfigMap", "data": {"x": "second", "z": "new"}}
    cluster.volumes.set_up(cluster.pod)
    assert listing(folder) == {"x": "second", "z": "new"}
    assert not before.exists()
    assert not (folder / "y").is_symlink()


def test_nothing_is_written_when_nothing_has_changed(cluster: Cluster) -> None:
    folder = cluster.set_up(configMap={"name": "c"})
    before = (folder / "..data").readlink()
    cluster.volumes.set_up(cluster.pod)
    assert (folder / "..data").readlink() == before


def test_projected_sources_share_a_folder(cluster: Cluster) -> None:
    sources = [
        {"secret": {"name": "s", "items": [{"key": "a", "path": "of/secret"}]}},
        {"configMap": {"name": "c"}},
        {"configMap": {"name": "no", "optional": True}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        {"serviceAccountToken": {"path": "token", "audience": "me", "expirationSeconds": 600}},
    ]
    folder = cluster.set_up(projected={"sources": sources})
    assert (folder / "of/secret").read_text() == "one"
    assert listing(folder) == {"x": "first", "y": "gone soon", "namespace": "n", "token": "token me 600"}


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
        (
            {"secret": {"secretName": "s", "items": [{"key": "q", "path": "q"}]}},
            "references non-existent secret key: q",
        ),
        ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
        ({"persistentVolumeClaim": {"claimName": "no"}}, 'persistentvolumeclaim "no" not found'),
        (
            {"hostPath": {"path": "/nosuch/folder", "type": "Directory"}},
            "hostPath type check failed: /nosuch/folder is not a directory",
        ),
        ({"nfs": {"server": "x", "path": "/"}}, "volumes of type nfs are not known to this kubelet"),
    ],
)
def test_what_cannot_be_mounted_is_refused_by_name(cluster: Cluster, volume: dict[str, Any], message: str) -> None:
    with pytest.raises(VolumeError) as refusal:
        cluster.set_up(**volume)
    assert str(refusal.value) == f'MountVolume.SetUp failed for volume "v" : {message}'


def test_optional_secrets_may_be_missing(cluster: Cluster) -> None:
    assert listing(cluster.set_up(secret={"secretName": "no", "optional": True})) == {}


def test_a_claim_is_a_folder_that_outlives_the_pod(cluster: Cluster, tmp_path: Path) -> None:
    cluster.set_up(persistentVolumeClaim={"claimName": "claim"})
    (tmp_path / "claims/n/claim/file").write_text("kept")
    cluster.volumes.clear()
    assert cluster.mounts()[0].source == str(tmp_path / "claims/n/claim")
    assert (tmp_path / "claims/n/claim/file").read_text() == "kept"


def test_sub_paths_are_made_in_folders_and_resolved_in_objects(cluster: Cluster) -> None:
    folder = cluster.set_up(emptyDir={})
    assert cluster.mounts(subPathExpr="deep/$(X)")[0].source == str(folder / "deep/sub")
    assert (folder / "deep/sub").is_dir()
    cluster.set_up(configMap={"name": "c"})
    mount = cluster.mounts(subPath="x")[0]
    assert Path(mount.source).read_text() == "first"
    assert mount.read_only


@pytest.mark.parametrize("path", ["../../etc", "nosuch"])
def test_sub_paths_that_lead_out_or_nowhere_are_refused(cluster: Cluster, path: str) -> None:
    cluster.set_up(configMap={"name": "c"})
    with pytest.raises(ConfigError, match="failed to prepare subPath"):
        cluster.mounts(subPath=path)


def test_outer_mounts_come_first(cluster: Cluster) -> None:
    cluster.set_up(emptyDir={})
    mounts = [{"name": "v", "mountPath": path} for path in ("/a/b/c", "/a")]
    found = cluster.volumes.mounts(cluster.pod, {"volumeMounts": mounts}, {})
    assert [mount.target for mount in found] == ["/a", "/a/b/c"]

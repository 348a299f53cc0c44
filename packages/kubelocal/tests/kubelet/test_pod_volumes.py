"""Volumes as folders: content, modes, updates, refusals."""

from __future__ import annotations

import base64
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from kubelocal.kubelet.environment import ContainerConfigError
from kubelocal.kubelet.pod_volumes import Ownership, PodVolumes, Sources, VolumeError

TWO: dict[str, Any] = {"secret": {"secretName": "s"}, "configMap": {"name": "c"}}
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
        self.volumes = PodVolumes(self.folder, folder / "claims", sources, Ownership())

    def set_up(self, **volume: Any) -> Path:
        mounting = {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/m"}]}
        self.pod = {"metadata": POD_META, "spec": {"volumes": [{"name": "v", **volume}], "containers": [mounting]}}
        self.volumes.set_up(self.pod)
        return self.folder / "v"

    def mounts(self, **mount: Any) -> list[Any]:
        return self.volumes.mounts(
            self.pod,
            {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/m", **mount}]},
            {"X": "sub", "UP": ".."},
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


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"subPath": "../../etc"}, "it leads out of the volume"),
        ({"subPathExpr": "$(UP)/etc"}, "must not contain '..'"),
        ({"subPathExpr": "/$(X)"}, "must not be an absolute path"),
        ({"subPathExpr": "$(X)/$(NOSUCH)"}, 'missing value for "NOSUCH"'),
    ],
)
def test_sub_paths_that_lead_out_or_nowhere_are_refused(cluster: Cluster, mount: dict[str, str], message: str) -> None:
    cluster.set_up(configMap={"name": "c"})
    with pytest.raises(ContainerConfigError, match=message):
        cluster.mounts(**mount)


def test_a_sub_path_that_is_not_there_becomes_a_folder_even_in_content(cluster: Cluster) -> None:
    cluster.set_up(configMap={"name": "no", "optional": True})
    assert Path(cluster.mounts(subPath="deep/file")[0].source).is_dir()


def test_a_sub_path_of_content_keeps_what_it_held_until_the_container_starts_anew(cluster: Cluster) -> None:
    cluster.set_up(configMap={"name": "c"})
    source = Path(cluster.mounts(subPath="x")[0].source)
    held = source.open()
    cluster.objects["ConfigMap", "c"] = {"kind": "ConfigMap", "data": {"x": "second"}}
    cluster.volumes.set_up(cluster.pod)
    assert source.read_text() == "first"
    assert Path(cluster.mounts(subPath="x")[0].source).read_text() == "second"
    with held:
        assert held.read() == "first"


def test_a_volume_that_no_container_mounts_is_not_made(cluster: Cluster) -> None:
    folder = cluster.set_up(emptyDir={})
    volumes = [*cluster.pod["spec"]["volumes"], {"name": "w", "secret": {"secretName": "no"}}]
    cluster.volumes.set_up({**cluster.pod, "spec": {**cluster.pod["spec"], "volumes": volumes}})
    assert not (folder.parent / "w").exists()


def test_one_volume_that_cannot_be_renewed_keeps_its_content_and_leaves_the_others_to_be_renewed(
    cluster: Cluster,
) -> None:
    volumes = [{"name": kind, kind: source} for kind, source in TWO.items()]
    mounts = [{"name": kind, "mountPath": f"/{kind}"} for kind in TWO]
    pod = {
        "metadata": POD_META,
        "spec": {"volumes": volumes, "containers": [{"name": "c", "volumeMounts": mounts}]},
    }
    cluster.volumes.set_up(pod)
    del cluster.objects["Secret", "s"]
    cluster.objects["ConfigMap", "c"] = {"kind": "ConfigMap", "data": {"x": "second"}}
    with pytest.raises(VolumeError, match='secret "s" not found'):
        cluster.volumes.set_up(pod)
    assert listing(cluster.folder / "secret") == {"a": "one", "b": "two"}
    assert listing(cluster.folder / "configMap") == {"x": "second"}


@pytest.mark.parametrize("path", ["../up", "a/../../up", "/etc/up", "..data", "..hidden"])
def test_content_cannot_be_written_out_of_its_volume(cluster: Cluster, path: str) -> None:
    with pytest.raises(VolumeError, match="invalid path"):
        cluster.set_up(configMap={"name": "c", "items": [{"key": "x", "path": path}]})


def test_a_token_stays_the_same_until_most_of_its_life_is_over(cluster: Cluster, monkeypatch: Any) -> None:
    minted: list[int] = []
    sources = Sources(lambda *_: None, lambda _, seconds: f"token {minted.append(seconds) or len(minted)}", {})
    volumes = PodVolumes(cluster.folder, cluster.folder, sources, Ownership())
    cluster.set_up(projected={"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 1000}}]})
    clock = iter((5000.0, 5799.0, 5801.0))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    tokens = []
    for _ in range(3):
        volumes.set_up(cluster.pod)
        tokens.append((cluster.folder / "v/token").read_text())
    assert tokens == ["token 1", "token 1", "token 2"]


def test_outer_mounts_come_first(cluster: Cluster) -> None:
    cluster.set_up(emptyDir={})
    mounts = [{"name": "v", "mountPath": path} for path in ("/a/b/c", "/a")]
    found = cluster.volumes.mounts(cluster.pod, {"name": "c", "volumeMounts": mounts}, {})
    assert [mount.target for mount in found] == ["/a", "/a/b/c"]

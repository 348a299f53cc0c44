"""What security contexts come to, by tables."""

from __future__ import annotations

from typing import Any

import pytest

from kubelocal.kubelet.environment import ContainerConfigError
from kubelocal.kubelet.pod_volumes import Ownership
from kubelocal.kubelet.security_context import CAPABILITIES, DEFAULT, Powers, identity_of, not_applied, ownership_of
from kubelocal.settings import LocalImage

ROOT = Powers("any", mounts=True)
MAPPED = Powers("one", mounts=True, why="one user")
OWN = Powers("own", mounts=False, uid=501, gid=20, groups=frozenset({20, 80}), why="no namespaces")


def pod(common: dict[str, Any], *owns: dict[str, Any]) -> dict[str, Any]:
    containers = [{"name": f"c{number}", "securityContext": own} for number, own in enumerate(owns or ({},))]
    metadata = {"name": "p", "namespace": "n", "uid": "u"}
    return {"metadata": metadata, "spec": {"securityContext": common, "containers": containers}}


def first(made: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = made["spec"]["containers"][0]
    return container


@pytest.mark.parametrize(
    ("common", "own", "uid", "gid", "groups"),
    [
        ({}, {}, 0, 0, (0,)),
        ({"runAsUser": 1000}, {}, 1000, 0, (0,)),
        ({"runAsUser": 1000, "runAsGroup": 3000}, {}, 1000, 3000, (3000,)),
        ({"runAsUser": 1000, "runAsGroup": 3000}, {"runAsUser": 7, "runAsGroup": 0}, 7, 0, (0,)),
        ({"runAsUser": 1000}, {"runAsUser": 0}, 0, 0, (0,)),
        ({"supplementalGroups": [9, 8], "fsGroup": 2000, "runAsGroup": 8}, {}, 0, 8, (8, 9, 2000)),
        ({"runAsNonRoot": True, "runAsUser": 1000}, {}, 1000, 0, (0,)),
        ({"runAsNonRoot": True}, {"runAsNonRoot": False}, 0, 0, (0,)),
    ],
)
def test_users_and_groups_come_from_the_container_then_from_the_pod(
    common: Any, own: Any, uid: int, gid: int, groups: Any
) -> None:
    made = pod(common, own)
    identity = identity_of(made, first(made), LocalImage())
    assert (identity.uid, identity.gid, identity.groups) == (uid, gid, groups)


@pytest.mark.parametrize(
    ("common", "own", "message"),
    [
        ({"runAsNonRoot": True}, {}, "container has runAsNonRoot and image will run as root"),
        ({}, {"runAsNonRoot": True}, "container has runAsNonRoot and image will run as root"),
        ({"runAsNonRoot": True, "runAsUser": 0}, {}, "container's runAsUser breaks non-root policy"),
        ({"runAsNonRoot": True, "runAsUser": 5}, {"runAsUser": 0}, "container's runAsUser breaks non-root policy"),
    ],
)
def test_root_is_refused_where_it_is_ruled_out(common: Any, own: Any, message: str) -> None:
    made = pod(common, own)
    with pytest.raises(ContainerConfigError) as refusal:
        identity_of(made, first(made), LocalImage())
    assert str(refusal.value) == f'{message} (pod: "p_n(u)", container: c0)'


def test_an_image_with_a_user_of_its_own_is_no_root() -> None:
    made = pod({"runAsNonRoot": True})
    assert identity_of(made, first(made), LocalImage(user=50000)).uid == 50000


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        ({}, DEFAULT),
        ({"capabilities": {"drop": ["ALL"]}}, set()),
        ({"capabilities": {"drop": ["all"], "add": ["NET_ADMIN", "CAP_CHOWN"]}}, {"NET_ADMIN", "CHOWN"}),
        ({"capabilities": {"drop": ["KILL"], "add": ["SYS_TIME"]}}, (DEFAULT - {"KILL"}) | {"SYS_TIME"}),
        ({"capabilities": {"add": ["ALL"], "drop": ["SYS_ADMIN"]}}, set(CAPABILITIES) - {"SYS_ADMIN"}),
        ({"privileged": True}, set(CAPABILITIES)),
    ],
)
def test_capabilities_are_the_runtimes_own_with_what_is_added_and_dropped(own: Any, kept: Any) -> None:
    made = pod({}, own)
    assert {CAPABILITIES[number] for number in identity_of(made, first(made), LocalImage()).capabilities} == kept


def test_an_unknown_capability_is_refused_by_name() -> None:
    made = pod({}, {"capabilities": {"add": ["NET_ADMINS"]}})
    with pytest.raises(ContainerConfigError, match="CAP_NET_ADMINS"):
        identity_of(made, first(made), LocalImage())


@pytest.mark.parametrize(
    ("powers", "common", "owns", "ownership"),
    [
        (ROOT, {}, [{}], Ownership()),
        (ROOT, {"fsGroup": 0}, [{}], Ownership(group=0)),
        (ROOT, {"fsGroup": 5, "fsGroupChangePolicy": "OnRootMismatch"}, [{}], Ownership(5, on_root_mismatch=True)),
        (ROOT, {"runAsUser": 7}, [{}, {}], Ownership(user=7)),
        (ROOT, {"runAsUser": 7}, [{}, {"runAsUser": 8}], Ownership()),
        (ROOT, {}, [{"runAsUser": 7}, {}], Ownership()),
        (MAPPED, {"fsGroup": 5, "runAsUser": 7}, [{}], Ownership()),
    ],
)
def test_volumes_belong_to_the_group_and_tokens_to_the_one_user(
    powers: Powers, common: Any, owns: Any, ownership: Ownership
) -> None:
    assert ownership_of(pod(common, *owns), powers) == ownership


@pytest.mark.parametrize(
    ("powers", "common", "own", "named"),
    [
        (ROOT, {"runAsUser": 1, "fsGroup": 2, "supplementalGroups": [3]}, {"readOnlyRootFilesystem": True}, []),
        (MAPPED, {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 2}, {"readOnlyRootFilesystem": True}, []),
        (
            MAPPED,
            {"runAsUser": 1, "fsGroup": 2, "supplementalGroups": [3, 0]},
            {},
            ["fsGroup 2", "supplementalGroups 3"],
        ),
        (OWN, {}, {}, []),
        (OWN, {"runAsUser": 501, "runAsGroup": 20, "fsGroup": 80}, {}, []),
        (OWN, {"runAsUser": 1, "runAsGroup": 2}, {}, ["runAsUser 1", "runAsGroup 2"]),
        (OWN, {}, {"runAsUser": 0, "readOnlyRootFilesystem": True}, ["runAsUser 0", "readOnlyRootFilesystem"]),
        (ROOT, {"seccompProfile": {"type": "RuntimeDefault"}}, {"privileged": True}, []),
        (MAPPED, {}, {"privileged": True}, ["privileged"]),
        (ROOT, {"seccompProfile": {"type": "Localhost"}}, {"seLinuxOptions": {"level": "x"}}, ["seccomp", "seLinux"]),
    ],
)
def test_what_cannot_be_applied_is_named_with_the_reason(powers: Powers, common: Any, own: Any, named: Any) -> None:
    made = pod(common, own)
    message = not_applied(made, first(made), identity_of(made, first(made), LocalImage()), powers)
    assert bool(message) == bool(named)
    for name in named:
        assert name in message
    assert message.count(";") == max(0, len(named) - 1)
    if message and powers.why:
        assert message.endswith(f"({powers.why})")


def test_process_ids_that_cannot_be_shared_are_named() -> None:
    made = pod({})
    made["spec"] |= {"shareProcessNamespace": True, "hostPID": True, "hostUsers": False}
    message = not_applied(made, first(made), identity_of(made, first(made), LocalImage()), ROOT)
    assert message.endswith("asks for: shareProcessNamespace; hostPID; hostUsers false")

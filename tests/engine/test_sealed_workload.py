"""What is sealed for one waiting pod is of use to that pod alone."""

from __future__ import annotations

import pytest

from crosswind.engine.sealed_workload import deployment_scope, new_nonce, open_sealed, pod_key, seal

SECRET, NONCE, UID = b"a secret of all schedulers", "00" * 16, "6d1e2f5c-0000-4000-8000-000000000001"
PAYLOAD = b'{"token": "t"}'


def test_a_workload_is_opened_with_the_key_of_its_pod() -> None:
    key = pod_key(SECRET, NONCE)
    assert open_sealed(seal(PAYLOAD, key, UID), key, UID) == PAYLOAD


def test_every_scheduler_derives_the_same_key_of_32_bytes() -> None:
    assert pod_key(SECRET, NONCE) == pod_key(SECRET, NONCE)
    # HKDF-SHA256 (RFC 5869) with salt = the nonce and info = "crosswind warm pod v1"; workers rely on it
    assert pod_key(SECRET, NONCE).hex() == "bb527c2d758ac0f8f8b0beca0f2a093f13563e96edc2a87498c9781172b4f80a"


@pytest.mark.parametrize(
    ("key", "uid"),
    [
        (pod_key(SECRET, "01" * 16), UID),
        (pod_key(b"another deployment's secret", NONCE), UID),
        (pod_key(SECRET, NONCE), UID.replace("1", "2")),
    ],
    ids=["another pod's key", "another deployment's key", "another pod"],
)
def test_another_pod_cannot_open_it(key: bytes, uid: str) -> None:
    with pytest.raises(ValueError, match="was not sealed for pod"):
        open_sealed(seal(PAYLOAD, pod_key(SECRET, NONCE), UID), key, uid)


def test_a_changed_workload_is_refused() -> None:
    key = pod_key(SECRET, NONCE)
    sealed = seal(PAYLOAD, key, UID)
    changed = sealed[:-8] + ("AAAA" if sealed[-8:-4] != "AAAA" else "BBBB") + sealed[-4:]
    with pytest.raises(ValueError, match="was not sealed"):
        open_sealed(changed, key, UID)


def test_the_same_workload_is_sealed_differently_each_time() -> None:
    key = pod_key(SECRET, NONCE)
    assert seal(PAYLOAD, key, UID) != seal(PAYLOAD, key, UID)
    assert len({new_nonce() for _ in range(100)}) == 100


def test_deployments_and_teams_have_scopes_of_their_own() -> None:
    scopes = {deployment_scope(SECRET), deployment_scope(SECRET, "blue"), deployment_scope(b"another")}
    assert len(scopes) == 3
    assert all(len(scope) == 16 for scope in scopes)

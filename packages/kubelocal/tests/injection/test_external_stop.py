"""The owners of GCS FUSE's and Kuma's sidecars end them when they are the last, and then alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deadlines import scaled
from kubelocal.injection.external_stop import sidecar_to_end
from kubelocal.injection.gcsfuse import GcsFuse
from kubelocal.injection.kuma import Kuma
from rest_client import RestClient, pods

FUSE = {"annotations": {"gke-gcsfuse/volumes": "true"}}
KUMA = {"labels": {"kuma.io/sidecar-injection": "enabled"}}
NOWHERE: dict[str, Any] = {"metadata": {}}


def injected(*asked: dict[str, Any], script: str = "true", policy: str = "Never") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "p", "annotations": {}, "labels": {}}
    for one in asked:
        for field, said in one.items():
            metadata[field] = metadata[field] | said
    base = {"name": "base", "image": "busybox", "command": ["sh", "-c", script]}
    return {"metadata": metadata, "spec": {"containers": [base], "restartPolicy": policy}}


def seen(pod: dict[str, Any], **codes: int | None) -> dict[str, Any]:
    """Return the pod with states: an exit code, or None while it runs."""
    states: dict[str, Any] = {
        name: {"running": {}} if code is None else {"terminated": {"exitCode": code}} for name, code in codes.items()
    }
    statuses = [{"name": name.replace("_", "-"), "state": state} for name, state in states.items()]
    return pod | {"status": {"phase": "Running", "containerStatuses": statuses}}


FUSED, MESHED = GcsFuse()(injected(FUSE), NOWHERE), Kuma()(injected(KUMA), NOWHERE)
BOTH = Kuma()(GcsFuse()(injected(FUSE, KUMA), NOWHERE), NOWHERE)
AGAIN = Kuma()(injected(KUMA, policy="OnFailure"), NOWHERE)
BARE = injected()
BARE["spec"]["containers"].append({"name": "kuma-sidecar", "image": "kumahq/kuma-dp:2.9.0"})


@pytest.mark.parametrize(
    ("pod", "turn"),
    [
        (seen(FUSED, base=0, gke_gcsfuse_sidecar=None), "gke-gcsfuse-sidecar"),
        (seen(FUSED, base=3, gke_gcsfuse_sidecar=None), "gke-gcsfuse-sidecar"),
        (seen(FUSED, base=None, gke_gcsfuse_sidecar=None), ""),
        (seen(MESHED, base=0, kuma_sidecar=None), "kuma-sidecar"),
        (seen(MESHED, base=0, kuma_sidecar=0), ""),
        (seen(BOTH, base=0, kuma_sidecar=None, gke_gcsfuse_sidecar=None), ""),
        (seen(BOTH, base=0, kuma_sidecar=0, gke_gcsfuse_sidecar=None), "gke-gcsfuse-sidecar"),
        (seen(AGAIN, base=0, kuma_sidecar=None), "kuma-sidecar"),
        (seen(AGAIN, base=1, kuma_sidecar=None), ""),
        (seen(BARE, base=0, kuma_sidecar=None), ""),
    ],
)
def test_an_owner_acts_when_its_sidecar_is_the_last_that_runs(pod: dict[str, Any], turn: str) -> None:
    assert sidecar_to_end(pod) == turn


def test_native_sidecars_are_left_to_the_kubelet() -> None:
    pod = Kuma(native=True)(GcsFuse(native=True)(injected(FUSE, KUMA), NOWHERE), NOWHERE)
    assert [one["name"] for one in pod["spec"]["containers"]] == ["base"]
    assert sidecar_to_end(seen(pod, base=0)) == ""


@pytest.mark.parametrize("asked", [FUSE, KUMA], ids=["gcs-fuse", "kuma"])
async def test_a_pod_with_an_owned_sidecar_finishes_by_itself(
    client: RestClient, namespace: str, asked: dict[str, Any]
) -> None:
    await client.create(pods(namespace), injected(asked))
    label = {"metadata": {"labels": {"as-injected": "it-is-valid"}}}
    made = await client.patch(pods(namespace, "p"), label)
    version = made["metadata"]["resourceVersion"]
    async with asyncio.timeout(scaled(25)):
        async for event in client.watch(pods(namespace), version):
            if event["object"].get("status", {}).get("phase") in ("Succeeded", "Failed"):
                break
    codes = {
        one["name"]: one["state"]["terminated"]["exitCode"] for one in event["object"]["status"]["containerStatuses"]
    }
    assert set(codes.values()) == {0}
    assert len(codes) == 2

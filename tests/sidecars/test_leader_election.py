from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from crosswind.kube.client import Client
from crosswind.kube.leader_election import LeaderElector, LeaseSettings, claim, released
from crosswind.kube.resources import LEASES
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster
from crosswind.types import Manifest
from deadlines import scaled

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
OURS = LeaseSettings("jobs", "reaper", "me", 15.0)


def lease(**spec: object) -> Manifest:
    return {"metadata": {"name": "reaper", "namespace": "jobs", "resourceVersion": "7"}, "spec": spec}


def test_a_lease_that_is_not_there_is_made() -> None:
    made = claim(None, OURS, NOW, expired=True)
    assert made == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "reaper", "namespace": "jobs"},
        "spec": {
            "holderIdentity": "me",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-01-01T12:00:00.000000Z",
            "renewTime": "2026-01-01T12:00:00.000000Z",
            "leaseTransitions": 0,
        },
    }


@pytest.mark.parametrize(
    ("spec", "expired", "outcome"),
    [
        ({"holderIdentity": "me", "acquireTime": "then", "leaseTransitions": 3}, False, ("then", 3)),
        ({"holderIdentity": "other", "acquireTime": "then", "leaseTransitions": 3}, False, None),
        ({"holderIdentity": "other", "acquireTime": "then", "leaseTransitions": 3}, True, ("now", 4)),
        ({"holderIdentity": "", "leaseTransitions": 3}, False, ("now", 4)),
        ({}, False, ("now", 1)),
    ],
)
def test_a_lease_is_claimed_when_it_is_free_or_expired(
    spec: Manifest, expired: bool, outcome: tuple[str, int] | None
) -> None:
    written = claim(lease(**spec), OURS, NOW, expired=expired)
    if outcome is None:
        assert written is None
        return
    assert written is not None
    assert written["metadata"]["resourceVersion"] == "7"
    acquired = "2026-01-01T12:00:00.000000Z" if outcome[0] == "now" else outcome[0]
    assert (written["spec"]["acquireTime"], written["spec"]["leaseTransitions"]) == (acquired, outcome[1])


def test_only_the_holder_releases_it() -> None:
    assert released(lease(holderIdentity="other"), OURS, NOW) is None
    given = released(lease(holderIdentity="me", leaseTransitions=3), OURS, NOW)
    assert given is not None
    assert (given["spec"]["holderIdentity"], given["spec"]["leaseTransitions"]) == ("", 3)


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as made:
        yield made


@pytest.mark.cluster
class TestOnACluster:
    def lease(self, client: Client, namespace: str, who: str, duration: float = 1.5) -> LeaderElector:
        return LeaderElector(client, LeaseSettings(namespace, "reaper", who, duration))

    async def test_the_second_waits_until_the_first_releases(self, client: Client, namespace: str) -> None:
        first, second = (self.lease(client, namespace, who, 15.0) for who in ("first", "second"))
        assert await first.attempt()
        assert not await second.attempt()
        assert (second.held, second.holder) == (False, "first")
        await first.release()
        assert await second.attempt()
        stored = await client.get(LEASES, "reaper", namespace=namespace)
        assert stored["spec"]["leaseTransitions"] == 1
        assert re.fullmatch(r"[-0-9]+T[0-9:]+\.[0-9]{6}Z", stored["spec"]["renewTime"])

    async def test_a_lease_is_taken_over_when_it_stood_still_for_its_duration(
        self, client: Client, namespace: str
    ) -> None:
        first, second = (self.lease(client, namespace, who) for who in ("first", "second"))
        assert await first.attempt()
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(scaled(20)):
            await second.acquire()
        assert asyncio.get_running_loop().time() - began >= 1.5
        assert not first.held

    async def test_one_of_two_concurrent_attempts_gets_the_lease(self, client: Client, namespace: str) -> None:
        leases = [self.lease(client, namespace, f"{number}", 15.0) for number in range(5)]
        for _ in range(2):
            got = await asyncio.gather(*(lease.attempt() for lease in leases))
            assert sum(lease.held for lease in leases) == 1
            assert sum(got) <= 1

    async def test_work_ends_when_the_lease_is_lost(self, client: Client, namespace: str) -> None:
        lease, began, ended = self.lease(client, namespace, "first"), asyncio.Event(), asyncio.Event()

        async def work() -> None:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        task = asyncio.create_task(lease.lead(work))
        async with asyncio.timeout(scaled(20)):
            await began.wait()
            thief = {"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 3600}}
            await client.patch(LEASES, "reaper", thief, namespace=namespace)
            await ended.wait()
        assert (lease.held, lease.holder) == (False, "thief")
        task.cancel()
        await asyncio.wait([task])

    async def test_work_continues_while_the_lease_is_renewed(self, client: Client, namespace: str) -> None:
        lease = self.lease(client, namespace, "first")

        async def work() -> None:
            version = (await client.list(LEASES, namespace=namespace)).version
            renewals = 0
            async for event in client.watch(LEASES, namespace=namespace, version=version, timeout=scaled(20)):
                renewals += event["type"] == "MODIFIED"
                if renewals == 12:  # more than its duration
                    return

        async with asyncio.timeout(scaled(20)):
            await lease.lead(work)
        assert lease.held

from __future__ import annotations

from crosswind.runs.batches import Batch, Batches


def two_users() -> Batches:
    batches = Batches()
    batches.add(Batch("s", "ns", minted_at=10.0, users={"a": lambda: b"1", "b": lambda: b"2"}))
    return batches


def test_a_secret_is_spent_when_its_last_pod_is_over() -> None:
    batches = two_users()
    assert batches.over("ns", "s", "a") is None
    spent = batches.over("ns", "s", "b")
    assert spent is not None
    assert spent.name == "s"
    assert ("ns", "s") not in batches
    assert batches.over("ns", "s", "b") is None


def test_only_secrets_that_some_pod_has_not_read_need_a_new_token() -> None:
    batches = two_users()
    batches.begun("ns", "s", "a")
    assert [batch.unread for batch in batches.stale(minted_before=11.0)] == [{"b"}]
    assert not list(batches.stale(minted_before=10.0))
    batches.begun("ns", "s", "b")
    assert not list(batches.stale(minted_before=11.0))


def test_a_secret_that_is_being_created_is_spent_only_when_that_is_decided() -> None:
    batches = Batches()
    batch = Batch("s", "ns", minted_at=0.0, users={"a": lambda: b"1"}, pending=True)
    batches.add(batch)
    assert not batches.has_secret("ns", "s")
    assert not list(batches.stale(minted_before=1.0))
    assert batches.over("ns", "s", "a") is None
    assert batches.pending() == [batch]
    assert batches.decided(batch) is batch
    assert ("ns", "s") not in batches


def test_a_secret_with_users_stays_when_it_is_there() -> None:
    batches = Batches()
    batch = Batch("s", "ns", minted_at=0.0, users={"a": lambda: b"1"}, pending=True)
    batches.add(batch)
    assert batches.decided(batch) is None
    assert batches.has_secret("ns", "s")

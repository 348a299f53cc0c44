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

from __future__ import annotations

import pytest

from crosswind.errors import (
    ApiError,
    BadRequest,
    Conflict,
    CredentialsError,
    Forbidden,
    Invalid,
    NotFound,
    OverrideError,
    QuotaExceeded,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from crosswind.podrun.refusals import GiveUp, Retry, decide_retry


def decide(error: Exception, waited: float = 0.0, denied: float = 0.0) -> Retry | GiveUp:
    return decide_retry(error, what="Pod team/etl", waited=waited, patience=300.0, denied=denied)


@pytest.mark.parametrize(
    "error",
    [
        TooManyRequests("slow down", status=429),
        ServerError("etcd", status=500),
        Conflict("object has been modified", status=409),
        Unauthorized("expired", status=401),
        Unreachable("refused"),
        CredentialsError("the exec plug-in failed"),
    ],
)
def test_transient_errors_are_retried_until_patience_ends(error: Exception) -> None:
    assert isinstance(decide(error, waited=299.0), Retry)
    given_up = decide(error, waited=300.0)
    assert isinstance(given_up, GiveUp)
    assert "300 seconds" in given_up.message
    assert str(error) in given_up.message


def test_a_quota_is_waited_for_without_end() -> None:
    assert isinstance(decide(QuotaExceeded("exceeded quota: pods", status=403), waited=1e6), Retry)


@pytest.mark.parametrize("kind", [Forbidden, BadRequest])
def test_a_webhook_that_denies_a_pod_is_asked_again_for_some_seconds(kind: type[ApiError]) -> None:
    denied = kind('admission webhook "p.example.com" denied the request: no such label yet', status=403)
    assert isinstance(decide(denied, waited=60.0, denied=4.0), Retry)
    given_up = decide(denied, waited=60.0, denied=5.0)
    assert isinstance(given_up, GiveUp)
    assert "no such label yet" in given_up.message
    assert "role" not in given_up.message


def test_the_servers_wish_is_the_least_delay() -> None:
    assert decide(TooManyRequests("slow down", status=429, retry_after=40.0)) == Retry(40.0)


def test_the_pause_grows_with_the_time_waited() -> None:
    delays = [decide(Unreachable("refused"), waited).delay for waited in (0.0, 4.0, 200.0)]  # type: ignore[union-attr]
    assert delays == [0.2, 2.0, 15.0]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Forbidden("pods is forbidden: no", status=403), "role"),
        (NotFound('namespaces "team" not found', status=404), "namespace"),
        (Invalid("spec.containers[0].image: Required value", status=422), "spec.containers[0].image"),
        (OverrideError("pod_override must be a V1Pod, not dict"), "not dict"),
        (KeyError("x"), "because of a bug in Crosswind: KeyError"),
    ],
)
def test_a_lasting_error_fails_the_workload_with_the_reason(error: Exception, reason: str) -> None:
    decision = decide(error)
    assert isinstance(decision, GiveUp)
    assert reason in decision.message

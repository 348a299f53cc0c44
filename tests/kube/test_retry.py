from __future__ import annotations

import pytest

from crosswind import errors
from crosswind.kube.retry import MAX_RETRY_AFTER_S, Retries, is_overload, is_transient, pause_after, retry_after


@pytest.mark.parametrize(
    "error",
    [
        errors.TooManyRequests("", status=429),
        errors.ServerError("", status=500),
        errors.ServerError("", status=503),
        errors.Unauthorized("", status=401),
        errors.Unreachable("refused"),
        errors.CredentialsError("the exec plug-in failed"),
        ExceptionGroup("", [errors.Unreachable(""), errors.CredentialsError("")]),
    ],
)
def test_an_error_that_may_pass_by_itself_is_transient(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        errors.BadRequest("", status=400),
        errors.Forbidden("", status=403),
        errors.QuotaExceeded("", status=403),
        errors.NotFound("", status=404),
        errors.AlreadyExists("", status=409),
        errors.Conflict("", status=409),
        errors.Gone("", status=410),
        errors.Invalid("", status=422),
        errors.ServerError("", status=501),
        errors.KubeconfigError("no such context"),
        errors.TemplateError("no containers"),
        KeyError("a bug"),
        ExceptionGroup("", [errors.Unreachable(""), KeyError("a bug")]),
    ],
)
def test_an_error_that_needs_a_person_is_not_transient(error: Exception) -> None:
    assert not is_transient(error)


def test_credentials_that_fail_are_no_mistake_in_a_file_and_no_load_of_the_server() -> None:
    error = errors.CredentialsError("the exec plug-in failed")
    assert not isinstance(error, errors.ConfigError)
    assert not is_overload(error)
    assert is_overload(errors.Unreachable(""))


@pytest.mark.parametrize(
    ("asked", "believed"), [(None, 0.0), (0.0, 0.0), (7.0, 7.0), (3600.0, MAX_RETRY_AFTER_S), (86_399.0, 60.0)]
)
def test_a_retry_after_is_believed_up_to_a_minute(asked: float | None, believed: float) -> None:
    error = errors.ServerError("maintenance", status=503, retry_after=asked)
    assert retry_after(error) == believed
    assert believed < pause_after(1, error) <= believed + 0.2
    assert pause_after(50, error) <= believed + 30.0


async def test_failures_in_a_row_end_at_the_deadline() -> None:
    error = errors.Unreachable("refused")
    retries = Retries(patience=1.0, first=0.2)
    assert 0.1 <= retries.after(error) <= 0.2
    assert 0.2 <= retries.after(error) <= 0.4
    assert 0.4 <= retries.after(error) <= 0.8
    retries = Retries(patience=1.0, first=4.0)
    with pytest.raises(errors.Unreachable, match="refused"):  # the pause would pass the deadline
        retries.after(error)


async def test_a_success_resets_the_count_and_a_lasting_error_is_raised_at_once() -> None:
    retries = Retries(patience=1.0, first=0.4)
    retries.after(errors.Unreachable("refused"))
    retries.succeeded()
    assert retries.after(errors.Unreachable("refused")) <= 0.4
    with pytest.raises(errors.Forbidden):
        Retries().after(errors.Forbidden("no", status=403))

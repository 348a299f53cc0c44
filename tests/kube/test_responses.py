from __future__ import annotations

from typing import Any

import orjson
import pytest
from kube_answers import status

from crosswind import errors
from crosswind.kube import requests, responses
from crosswind.kube.resources import PODS, ROLES

CREATE = requests.create(PODS, {"metadata": {"name": "p", "namespace": "n"}})


def refused(code: int, body: dict[str, Any] | bytes, headers: dict[str, str] | None = None) -> errors.ApiError:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return responses.error_of(CREATE, code, headers or {}, raw)


@pytest.mark.parametrize(
    ("code", "reason", "message", "kind"),
    [
        (400, "BadRequest", "", errors.BadRequest),
        (401, "Unauthorized", "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", "no", errors.Forbidden),
        (403, "Forbidden", 'pods "p" is forbidden: exceeded quota: q, requested: pods=1', errors.QuotaExceeded),
        (404, "NotFound", "", errors.NotFound),
        (405, "MethodNotAllowed", "", errors.BadRequest),
        (408, "Timeout", "", errors.ServerError),
        (409, "AlreadyExists", "", errors.AlreadyExists),
        (409, "Conflict", "", errors.Conflict),
        (410, "Expired", "", errors.Gone),
        (413, "RequestEntityTooLarge", "", errors.BadRequest),
        (415, "UnsupportedMediaType", "", errors.BadRequest),
        (422, "Invalid", "", errors.Invalid),
        (429, "TooManyRequests", "", errors.TooManyRequests),
        (500, "InternalError", "", errors.ServerError),
        (503, "ServiceUnavailable", "", errors.ServerError),
        (504, "Timeout", "", errors.ServerError),
        (504, "Timeout", "Timeout: Too large resource version: 9, current: 5", errors.Gone),
    ],
)
def test_each_answer_has_its_error(code: int, reason: str, message: str, kind: type[errors.ApiError]) -> None:
    error = refused(code, status(code, reason, message))
    assert (type(error), error.status, error.reason) == (kind, code, reason)


def test_the_message_names_the_request_and_the_servers_reason() -> None:
    error = refused(409, status(409, "AlreadyExists", 'pods "p" already exists'))
    assert str(error) == 'POST /api/v1/namespaces/n/pods: pods "p" already exists'


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [
        ({"Retry-After": "3"}, {}, 3.0),
        ({"Retry-After": "0"}, {}, 0.0),
        ({}, {"retryAfterSeconds": 7}, 7.0),
        ({"Retry-After": "2"}, {"retryAfterSeconds": 7}, 2.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}, None),
        ({"Retry-After": "-5"}, {}, None),
        ({"Retry-After": "nan"}, {}, None),
        ({}, {}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], details: dict[str, Any], seconds: float | None) -> None:
    assert refused(429, status(429, details=details), headers).retry_after == seconds


@pytest.mark.parametrize(
    "body",
    [b"<html>secret token abc</html>", b"", b'{"secret": 1}', b'["secret"]', b"\xff\x00"],
)
def test_of_a_body_that_is_no_status_nothing_is_repeated(body: bytes) -> None:
    error = refused(502, body, {"Content-Type": "text/html; charset=utf-8"})
    assert isinstance(error, errors.ServerError)
    assert error.message == "status 502 without a Status body (text/html)"


def test_a_redirect_means_a_wrong_address() -> None:
    assert "not that of a Kubernetes API server" in refused(302, b"").message


def test_long_messages_are_cut() -> None:
    assert len(refused(422, status(422, "Invalid", "x" * 50_000)).message) < 1100


@pytest.mark.parametrize("body", [{"details": "words"}, {"code": "words"}, {"message": None}, {"details": None}])
def test_an_odd_status_is_still_an_error(body: dict[str, Any]) -> None:
    assert isinstance(refused(404, {"kind": "Status", **body}), errors.NotFound)


@pytest.mark.parametrize(
    ("request_", "message", "fix"),
    [
        (
            CREATE,
            'pods is forbidden: User "u" cannot create resource "pods" in API group "" in the namespace "n"',
            '(allow "create" on "pods" in namespace "n" by a Role and its binding)',
        ),
        (
            requests.list_page(ROLES),
            'roles is forbidden: User "u" cannot list resource "roles"',
            '(allow "list" on "roles" of API group "rbac.authorization.k8s.io" by a ClusterRole and its binding)',
        ),
        (
            requests.exec_in("p", ["true"], namespace="n", container=None, stdin=False),
            'pods "p" is forbidden: ',
            '(allow "get" and "create" on "pods/exec" in namespace "n" by a Role and its binding)',
        ),
    ],
)
def test_forbidden_names_the_permission_to_give(request_: requests.Request, message: str, fix: str) -> None:
    error = responses.error_of(request_, 403, {}, orjson.dumps(status(403, "Forbidden", message)))
    assert error.message.endswith(fix)


def test_a_policy_that_forbids_is_not_taken_for_a_missing_permission() -> None:
    error = refused(403, status(403, "Forbidden", 'pods "p" is forbidden: violates PodSecurity "restricted:latest"'))
    assert error.message.endswith('"restricted:latest"')


def test_a_missing_namespace_says_how_to_make_it() -> None:
    error = refused(404, status(404, "NotFound", 'namespaces "n" not found'))
    assert "kubectl create namespace n" in error.message


def test_an_answer_that_is_no_json_comes_from_something_else() -> None:
    with pytest.raises(errors.Unreachable, match="does not come from a Kubernetes API server"):
        responses.decode(b"<html>", CREATE)

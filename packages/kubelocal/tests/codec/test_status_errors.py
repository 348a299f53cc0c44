from __future__ import annotations

from typing import Any

import pytest

from kubelocal.codec import status_errors
from kubelocal.codec.status_errors import Cause, StatusError

WRONG = Cause("FieldValueInvalid", 'Invalid value: "x": no', "spec.a")


@pytest.mark.parametrize(
    ("refusal", "code", "reason", "message", "details"),
    [
        (status_errors.not_found("Pod", "p"), 404, "NotFound", 'pods "p" not found', {"name": "p", "kind": "pods"}),
        (
            status_errors.not_found("Job", "j"),
            404,
            "NotFound",
            'jobs.batch "j" not found',
            {"name": "j", "group": "batch", "kind": "jobs"},
        ),
        (
            status_errors.already_exists("Pod", "p"),
            409,
            "AlreadyExists",
            'pods "p" already exists',
            {"name": "p", "kind": "pods"},
        ),
        (
            status_errors.conflict("Pod", "p"),
            409,
            "Conflict",
            'Operation cannot be fulfilled on pods "p": the object has been modified; please apply your changes to the'
            " latest version and try again",
            {"name": "p", "kind": "pods"},
        ),
        (
            status_errors.invalid("Job", "j", [WRONG]),
            422,
            "Invalid",
            'Job.batch "j" is invalid: spec.a: Invalid value: "x": no',
            {
                "name": "j",
                "group": "batch",
                "kind": "Job",
                "causes": [{"reason": WRONG.reason, "message": WRONG.message, "field": "spec.a"}],
            },
        ),
        (
            status_errors.forbidden("Pod", "", "no"),
            403,
            "Forbidden",
            "pods is forbidden: no",
            {"kind": "pods"},
        ),
        (
            status_errors.too_many_requests("later", 5),
            429,
            "TooManyRequests",
            "later",
            {"retryAfterSeconds": 5},
        ),
        (
            status_errors.internal_error("oh"),
            500,
            "InternalError",
            "Internal error occurred: oh",
            {"causes": [{"message": "oh"}]},
        ),
    ],
)
def test_refusals_read_as_kubernetes_writes_them(
    refusal: StatusError, code: int, reason: str, message: str, details: dict[str, Any]
) -> None:
    assert refusal.code == code
    assert refusal.status == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "details": details,
        "code": code,
    }


def test_several_causes_are_listed_and_repeats_told_once() -> None:
    other = Cause("FieldValueRequired", "Required value", "spec.b")
    refusal = status_errors.invalid("Pod", "p", [WRONG, other, WRONG])
    message = 'Pod "p" is invalid: [spec.a: Invalid value: "x": no, spec.b: Required value]'
    assert refusal.status["message"] == message
    assert len(refusal.status["details"]["causes"]) == 3


def test_only_a_refusal_that_says_so_is_to_be_retried() -> None:
    assert status_errors.too_many_requests("later", 5).retry_after == 5
    assert status_errors.not_found("Pod", "p").retry_after is None

from __future__ import annotations

from typing import Any

import pytest

from crosswind.errors import Conflict, CrosswindError, Forbidden, NotFound, ServerError, Unreachable
from crosswind.podrun.cleanup import delete_pod, mark_pod
from crosswind.podrun.xcom import collect_xcom
from crosswind.podrun.xcom_delivery import CONTAINER
from crosswind.sidecars.shutdown import ShutdownSettings

POD = {"metadata": {"name": "pod", "namespace": "ns", "uid": "1"}}
AWAY = [ServerError("etcd", status=500), Unreachable("refused")]


class Edge:
    """Plays the API server: returns answers in turn, and raises an error among them."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), 0

    async def answer(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    delete = patch = log = answer


def leaving(seconds: int, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "pod", "deletionGracePeriodSeconds": seconds} | metadata}


@pytest.mark.parametrize(
    ("answers", "left"),
    [
        ([leaving(30)], True),
        ([leaving(0)], False),
        ([leaving(0, finalizers=["a/b"])], True),
        ([NotFound("gone", status=404)], False),
        ([Conflict("another uid", status=409)], False),
        ([*AWAY, leaving(30)], True),
        ([*AWAY, NotFound("gone", status=404)], False),
    ],
)
async def test_a_pod_is_deleted_although_the_api_server_was_away(answers: list[Any], left: bool) -> None:
    edge: Any = Edge(*answers)
    assert await delete_pod(edge, POD) is left
    assert edge.asked == len(answers)


async def test_a_pod_that_may_not_be_deleted_is_said_at_once() -> None:
    edge: Any = Edge(Forbidden("no", status=403))
    with pytest.raises(Forbidden):
        await delete_pod(edge, POD)


@pytest.mark.parametrize("answers", [[*AWAY, {}], [NotFound("gone", status=404)], [Forbidden("no", status=403)]])
async def test_marking_a_pod_fails_nothing(answers: list[Any]) -> None:
    edge: Any = Edge(*answers)
    await mark_pod(edge, POD)
    assert not edge.answers


async def test_a_value_in_the_log_arrives_although_the_api_server_was_away() -> None:
    ended = {"terminated": {"exitCode": 0, "message": "log 1 3\n"}}
    pod = POD | {"spec": {}, "status": {"initContainerStatuses": [{"name": CONTAINER, "state": ended}]}}
    errors: list[CrosswindError] = AWAY
    edge: Any = Edge(*errors, b"\nbegin 1 3\n[1]\nend 1\n")
    assert await collect_xcom(edge, pod, "base", ShutdownSettings(), may_delete=True) == b"[1]"

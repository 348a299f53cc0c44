from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from kube_answers import Serve, pod, refusal, status

from crosswind import errors
from crosswind.kube.client import Client
from crosswind.kube.informer import Informer, InformerEvent, ObjectIndex
from crosswind.kube.resources import PODS
from crosswind.kube.retry import pause_after
from crosswind.types import WatchEvent
from deadlines import scaled

Objects = dict[str, int]  # name -> version


def listing(objects: Objects) -> list[Any]:
    return [pod(name, version) for name, version in objects.items()]


def compare(index: ObjectIndex, pods: list[Any]) -> list[InformerEvent]:
    return list(index.replace([index.index_item(pod) for pod in pods]))


some_objects = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 3))


@given(before=some_objects, after=some_objects, packed=st.booleans())
def test_replacing_by_a_list_yields_exactly_the_differences(before: Objects, after: Objects, packed: bool) -> None:
    index = ObjectIndex(trim=(lambda item: item) if packed else None)
    compare(index, listing(before))
    news = [(event.type, event.object["metadata"]["name"]) for event in compare(index, listing(after))]
    assert sorted(news) == sorted(
        [("DELETED", name) for name in before.keys() - after.keys()]
        + [("ADDED", name) for name in after.keys() - before.keys()]
        + [("MODIFIED", name) for name in before.keys() & after.keys() if before[name] != after[name]]
    )
    assert {o["metadata"]["name"]: int(o["metadata"]["resourceVersion"]) for o in index.objects.values()} == after


def test_a_new_object_of_an_old_name_comes_after_the_end_of_the_old() -> None:
    index = ObjectIndex()
    compare(index, [pod("a", 1, uid="old")])
    news = [(event.type, event.object["metadata"]["uid"]) for event in compare(index, [pod("a", 5, uid="new")])]
    assert news == [("DELETED", "old"), ("ADDED", "new")]


@pytest.mark.parametrize(
    ("event", "news"),
    [
        ({"type": "ADDED", "object": pod("a", 1)}, None),
        ({"type": "ADDED", "object": pod("a", 2)}, "MODIFIED"),
        ({"type": "MODIFIED", "object": pod("b", 2)}, "ADDED"),
        ({"type": "DELETED", "object": pod("a", 3)}, "DELETED"),
        ({"type": "DELETED", "object": pod("b", 3)}, "DELETED"),
        ({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}, None),
    ],
)
def test_an_event_is_relative_to_the_index(event: WatchEvent, news: str | None) -> None:
    index = ObjectIndex()
    compare(index, [pod("a", 1)])
    change = index.apply_event(event)
    assert (change and change.type) == news


def test_managed_fields_are_not_kept() -> None:
    index = ObjectIndex()
    full = pod("a")
    full["metadata"]["managedFields"] = [{}]
    compare(index, [full])
    assert "managedFields" not in index.objects["uid-a"]["metadata"]


def test_a_thousand_objects_take_no_more_memory_than_their_text() -> None:
    index, pods = ObjectIndex(trim=lambda item: item), [pod(f"pod-{number}") for number in range(1000)]
    tracemalloc.start()
    try:
        compare(index, pods)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept / 1000 < len(orjson.dumps(pods[-1])) + 500  # and the entries in two tables


@pytest.mark.parametrize(
    ("failures", "error", "least", "most"),
    [
        (0, None, 0, 0),
        (1, None, 0.1, 0.2),
        (4, None, 0.8, 1.6),
        (1000, None, 15, 30),
        (1, errors.TooManyRequests("", status=429, retry_after=7), 7.1, 7.2),
        (1, errors.TooManyRequests("", status=429, retry_after=9999), 60, 61),
    ],
)
def test_pauses_grow_and_are_bounded(failures: int, error: errors.ApiError | None, least: float, most: float) -> None:
    assert least <= pause_after(failures, error) <= most


def line(kind: str, manifest: Any) -> bytes:
    return orjson.dumps({"type": kind, "object": manifest}) + b"\n"


class Script:
    """Plays an API server: one scripted answer after the other, then open watches and unchanged lists."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.played = asyncio.Event()
        self.released = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        watch = "watch" in request.query
        self.asked.append(f"watch {request.query['resourceVersion']}" if watch else "list")
        if not self.answers:
            self.played.set()
            await self.released.wait()
            return refusal(503)
        answer = self.answers.pop(0)
        if isinstance(answer, web.Response):
            return answer
        kind, *parts = answer
        assert kind == self.asked[-1].split()[0], f"{self.asked} but the script says {kind}"
        if kind == "list":
            version, objects = parts
            return web.json_response({"metadata": {"resourceVersion": str(version)}, "items": listing(objects)})
        response = web.StreamResponse()
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        return response


@contextlib.asynccontextmanager
async def informed(
    client: Client, script: Script, version: str | None = None, **options: Any
) -> AsyncIterator[tuple[Informer, list[str]]]:
    """Run an informer until the script has ended."""
    reported: list[str] = []

    def on_change(event: InformerEvent) -> None:
        reported.append(f"{event.type} {event.object['metadata']['name']} {event.reason}")

    informer = Informer(client, PODS, **options)
    running = asyncio.create_task(informer.run(on_change, version=version))
    try:
        async with asyncio.timeout(scaled(20)):
            await script.played.wait()
        yield informer, reported
    finally:
        script.released.set()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_it_lists_then_watches_from_that_version(serve: Serve) -> None:
    script = Script(("list", 5, {"a": 1}), ("watch", line("ADDED", pod("b", 6)), line("DELETED", pod("a", 7))))
    async with informed(await serve(script), script) as (informer, reported):
        assert reported == ["ADDED a list", "ADDED b watch", "DELETED a watch"]
        assert script.asked == ["list", "watch 5", "watch 7"]
        assert [*informer.objects] == ["uid-b"]
        assert (informer.version, informer.trouble, informer.listed.is_set()) == ("7", None, True)
        assert informer.lag < 20


async def test_a_bookmark_moves_the_version_on(serve: Serve) -> None:
    bookmark = {"metadata": {"resourceVersion": "50"}}
    script = Script(("list", 5, {}), ("watch", line("BOOKMARK", bookmark)))
    async with informed(await serve(script), script) as (_, reported):
        assert (reported, script.asked[-1]) == ([], "watch 50")


@pytest.mark.parametrize(
    "gone",
    [refusal(410, "Expired", "too old"), ("watch", line("ERROR", status(410, "Expired", "too old")))],
    ids=["as an answer", "as an event"],
)
async def test_after_410_it_lists_again_and_reports_missed_changes(serve: Serve, gone: Any) -> None:
    script = Script(("list", 5, {"a": 1, "b": 2, "c": 3}), gone, ("list", 90, {"b": 2, "c": 80, "d": 85}))
    async with informed(await serve(script), script) as (informer, reported):
        assert reported[3:] == ["DELETED a list", "MODIFIED c list", "ADDED d list"]
        assert script.asked == ["list", "watch 5", "list", "watch 90"]
        assert sorted(informer.objects) == ["uid-b", "uid-c", "uid-d"]


async def test_a_server_whose_versions_begin_again_is_asked_for_all(serve: Serve) -> None:
    script = Script(
        ("list", 50, {"a": 40, "b": 41}), ("watch", line("ADDED", pod("d", 9))), ("list", 9, {"b": 5, "d": 9})
    )
    async with informed(await serve(script), script) as (informer, reported):
        assert reported[2:] == ["DELETED a list", "MODIFIED b list", "ADDED d list"]
        assert (script.asked[2:], informer.version) == (["list", "watch 9"], "9")


async def test_a_line_cut_in_the_middle_is_asked_for_again(serve: Serve) -> None:
    event = line("ADDED", pod("a", 6))
    script = Script(("list", 5, {}), ("watch", event[:30]), ("watch", event))
    async with informed(await serve(script), script) as (_, reported):
        assert reported == ["ADDED a watch"]
        assert script.asked == ["list", "watch 5", "watch 5", "watch 6"]


@pytest.mark.parametrize(
    "end",
    [
        line("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}),
        line("ADDED", pod("c", 3)),  # the versions begin again
    ],
)
async def test_what_came_together_with_the_end_of_a_watch_is_reported_first(serve: Serve, end: bytes) -> None:
    together = line("ADDED", pod("a", 6)) + line("ADDED", pod("b", 7)) + end + line("ADDED", pod("d", 9))
    script = Script(("list", 5, {}), ("watch", together), ("list", 8, {"b": 7}))
    async with informed(await serve(script), script) as (_, reported):
        assert reported == ["ADDED a watch", "ADDED b watch", "DELETED a list"]
        assert script.asked == ["list", "watch 5", "list", "watch 8"]


async def test_it_watches_from_a_given_version_without_listing(serve: Serve) -> None:
    script = Script(("watch", line("DELETED", pod("a", 43))))
    async with informed(await serve(script), script, version="42") as (informer, reported):
        assert (script.asked, reported) == (["watch 42", "watch 43"], ["DELETED a watch"])
        assert not informer.listed.is_set()


async def test_a_given_version_that_is_too_old_falls_back_to_a_list(serve: Serve) -> None:
    script = Script(refusal(410, "Expired", "too old"), ("list", 90, {"a": 1}))
    async with informed(await serve(script), script, version="42") as (_, reported):
        assert (script.asked, reported) == (["watch 42", "list", "watch 90"], ["ADDED a list"])


async def test_after_a_start_from_a_version_the_rest_is_listed_soon(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crosswind.kube.informer._FIRST_LIST_DELAY_S", 0.01)
    script = Script(("watch",), ("list", 50, {"a": 1}))
    async with informed(await serve(script), script, version="42") as (informer, reported):
        assert (script.asked, reported) == (["watch 42", "list", "watch 50"], ["ADDED a list"])
        assert informer.listed.is_set()


async def test_now_and_then_it_lists_again(serve: Serve) -> None:
    script = Script(("list", 5, {"a": 1}), ("watch",), ("list", 9, {}))
    async with informed(await serve(script), script, relist_every=0.0) as (_, reported):
        assert reported == ["ADDED a list", "DELETED a list"]


@pytest.mark.parametrize(
    "failure",
    [
        refusal(403, "Forbidden", "no"),
        refusal(500, "InternalError", "etcd"),
        refusal(429, "TooManyRequests", "later", {"Retry-After": "0"}),
        web.Response(status=502, text="<html>"),
        web.Response(text="<html>"),
    ],
)
async def test_failures_do_not_end_it(serve: Serve, failure: web.Response) -> None:
    script = Script(failure, ("list", 5, {"a": 1}))
    async with informed(await serve(script), script) as (_, reported):
        assert (script.asked, reported) == (["list", "list", "watch 5"], ["ADDED a list"])


async def test_while_it_fails_the_trouble_can_be_read(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    script = Script(*(refusal(403, "Forbidden", "not yours") for _ in range(3)))
    async with informed(await serve(script), script) as (informer, _):
        assert isinstance(informer.trouble, errors.Forbidden)
        assert informer.lag == float("inf")
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "Following pods was interrupted, retrying: GET /api/v1/pods: not yours"
    ]


async def test_an_error_of_the_listener_ends_it(serve: Serve) -> None:
    def on_change(event: InformerEvent) -> None:
        raise errors.ConfigError("a bug of the listener")

    client = await serve(Script(("list", 5, {"a": 1})))
    async with asyncio.timeout(scaled(5)):
        with pytest.raises(errors.ConfigError, match="a bug of the listener"):
            await Informer(client, PODS).run(on_change)


async def test_a_server_that_forgets_at_once_is_not_asked_in_a_tight_loop(serve: Serve) -> None:
    answers: list[Any] = []
    for version in range(3):
        answers += [("list", version, {}), refusal(410, "Expired", "too old")]
    script = Script(*answers)
    began = asyncio.get_running_loop().time()
    async with informed(await serve(script), script):
        assert asyncio.get_running_loop().time() - began > 0.1 + 0.2 + 0.4

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest
from aiohttp import web
from kube_answers import Handler, Serve, pod, refusal, status

from crosswind import errors
from crosswind.kube.client import Client, Patch
from crosswind.kube.requests import Request
from crosswind.kube.resources import JOBS, PODS
from crosswind.types import WatchEvent
from deadlines import scaled


class Echo:
    """Echoes and records requests."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer if answer is not None else pod("a")
        self.requests: list[tuple[str, str, Any]] = []

    async def __call__(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append((request.method, request.raw_path, orjson.loads(body) if body else None))
        return web.json_response(self.answer)


async def test_each_call_is_one_request(serve: Serve) -> None:
    echo = Echo()
    client = await serve(echo)
    await client.get(PODS, "a", namespace="n")
    await client.patch(PODS, "a", [{"op": "test"}], namespace="n", how=Patch.JSON)
    await client.replace(PODS, pod("a"))
    await client.delete(PODS, "a", namespace="n", grace_period=0)
    await client.delete_collection(PODS, namespace="n", labels="a=b", grace_period=1)
    assert [(method, path) for method, path, _ in echo.requests] == [
        ("GET", "/api/v1/namespaces/n/pods/a"),
        ("PATCH", "/api/v1/namespaces/n/pods/a"),
        ("PUT", "/api/v1/namespaces/work/pods/a"),
        ("DELETE", "/api/v1/namespaces/n/pods/a"),
        ("DELETE", "/api/v1/namespaces/n/pods?labelSelector=a%3Db"),
    ]
    assert echo.requests[1][2] == [{"op": "test"}]


async def test_a_refusal_is_raised_with_its_retry_after(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        return refusal(429, "TooManyRequests", "slow down", {"Retry-After": "2"})

    client = await serve(handler)
    with pytest.raises(errors.TooManyRequests, match="POST /api/v1/namespaces/work/pods: slow down") as caught:
        await client.create(PODS, pod("a"))
    assert caught.value.retry_after == 2.0


async def test_a_redirect_is_not_followed_with_our_token(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})

    client = await serve(handler)
    with pytest.raises(errors.BadRequest, match="a redirect"):
        await client.version()


class Renewing:
    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)

    async def current(self) -> str | None:
        return self.tokens[0]

    async def renew(self, used: str | None) -> bool:
        if len(self.tokens) > 1:
            del self.tokens[0]
            return True
        return False


@pytest.mark.parametrize(("tokens", "tried"), [(["bad", "good"], 2), (["good"], 1)])
async def test_a_refused_token_is_renewed_once(serve: Serve, tokens: list[str], tried: int) -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response(pod("a")) if seen[-1] == "good" else refusal(401, "Unauthorized", "Unauthorized")

    client = await serve(handler, credentials=Renewing(*tokens))
    await client.create(PODS, pod("a"))
    assert len(seen) == tried


@pytest.mark.parametrize(("tokens", "tried"), [(["bad"], 1), (["bad", "worse", "good"], 2)])
async def test_credentials_that_stay_bad_are_unauthorized(serve: Serve, tokens: list[str], tried: int) -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return refusal(401, "Unauthorized", "Unauthorized")

    client = await serve(handler, credentials=Renewing(*tokens))
    with pytest.raises(errors.Unauthorized, match="log in again, or renew the token"):
        await client.version()
    assert len(seen) == tried


def pages_of(items: list[Any], expire_at: str = "") -> Any:
    async def handler(request: web.Request) -> web.Response:
        query = request.query
        if expire_at and query.get("continue") == expire_at:
            return refusal(410, "Expired", "The provided continue parameter is too old")
        start, size = int(query.get("continue", 0)), int(query.get("limit", len(items)))
        rest = str(start + size) if start + size < len(items) else ""
        metadata = {"resourceVersion": "77", "continue": rest}
        return web.json_response({"kind": "PodList", "metadata": metadata, "items": items[start : start + size]})

    return handler


@pytest.mark.parametrize(
    ("limit", "expire_at", "count"), [(None, "", 1200), (None, "1000", 1200), (600, "", 600), (3, "", 3)]
)
async def test_list_reads_all_pages_and_survives_an_expired_one(
    serve: Serve, limit: int | None, expire_at: str, count: int
) -> None:
    items = [{"metadata": {"name": f"p{n}"}} for n in range(1200)]
    client = await serve(pages_of(items, expire_at))
    listing = await client.list(PODS, limit=limit)
    assert [item["metadata"]["name"] for item in listing.items] == [f"p{n}" for n in range(count)]
    assert listing.version == "77"
    assert listing.items[0]["kind"] == "Pod", "the items of a list come without it"


async def test_an_empty_list_may_have_null_items(serve: Serve) -> None:
    client = await serve(Echo({"kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": None}))
    assert (await client.list(PODS)).items == []


def streams(*chunks: bytes, cut: bool = False, hold: asyncio.Event | None = None) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if hold:
            await hold.wait()
        if cut and request.transport:
            request.transport.abort()
        return response

    return handler


def line(kind: str, manifest: Any) -> bytes:
    return orjson.dumps({"type": kind, "object": manifest}) + b"\n"


async def watched(client: Client, **options: Any) -> tuple[list[str], Exception | None]:
    seen: list[str] = []
    try:
        async for event in client.watch(PODS, version="1", timeout=60, **options):
            seen.append(event["type"])  # noqa: PERF401  # what came before an error counts
    except errors.CrosswindError as error:
        return seen, error
    return seen, None


@pytest.mark.parametrize(
    ("chunks", "cut", "seen", "error"),
    [
        ([line("ADDED", pod("a"))[:20], line("ADDED", pod("a"))[20:]], False, ["ADDED"], None),
        ([line("ADDED", pod("a")) + line("BOOKMARK", pod(""))], False, ["ADDED", "BOOKMARK"], None),
        ([line("ADDED", pod("a")), line("DELETED", pod("a"))[:30]], False, ["ADDED"], None),
        ([line("ADDED", pod("a"))], True, ["ADDED"], errors.Unreachable),
        ([line("ADDED", pod("a")), line("ERROR", status(410, "Expired", "too old"))], False, ["ADDED"], errors.Gone),
    ],
)
async def test_watch_yields_whole_lines_and_raises_its_end(
    serve: Serve, chunks: list[bytes], cut: bool, seen: list[str], error: type[Exception] | None
) -> None:
    events, raised = await watched(await serve(streams(*chunks, cut=cut)))
    assert events == seen
    assert type(raised) is (error or type(None))


async def test_a_silent_watch_is_ended(serve: Serve) -> None:
    hold = asyncio.Event()
    client = await serve(streams(line("ADDED", pod("a")), hold=hold))
    seen, error = await watched(client, silence=0.1)
    hold.set()
    assert seen == ["ADDED"]
    assert isinstance(error, errors.Unreachable)
    assert "sent nothing for 0.1 s" in str(error)


async def test_a_watch_refused_with_410_is_gone(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        return refusal(410, "Expired", "too old resource version: 1 (9)")

    seen, error = await watched(await serve(handler))
    assert (seen, type(error)) == ([], errors.Gone)


async def test_leaving_a_watch_closes_its_connection(serve: Serve) -> None:
    closed = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(line("ADDED", pod("a")))
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    client = await serve(handler)
    events: list[WatchEvent] = []
    async with contextlib.aclosing(client.watch(PODS, version="1", timeout=60)) as watch:
        async for event in watch:
            events.append(event)
            break
    async with asyncio.timeout(scaled(5)):
        await closed.wait()


async def test_log_and_followed_log(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if "follow" not in request.query:
            return web.Response(body=b"one\ntwo\n")
        return await streams(b"one\n", b"two\n")(request)

    client = await serve(handler)
    assert await client.log("p", namespace="n") == b"one\ntwo\n"
    assert b"".join([chunk async for chunk in client.follow_log("p", namespace="n")]) == b"one\ntwo\n"


async def test_the_log_of_a_pod_that_is_nowhere_yet_is_empty(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=204)

    assert await (await serve(handler)).log("p", namespace="n") == b""


@pytest.mark.parametrize(
    ("answer", "allowed"), [({"allowed": True}, True), ({"allowed": False, "denied": True}, False), ({}, False)]
)
async def test_allowed_is_the_reviews_answer(serve: Serve, answer: dict[str, bool], allowed: bool) -> None:
    client = await serve(Echo({"kind": "SelfSubjectAccessReview", "status": answer}))
    assert await client.allowed("create", JOBS, namespace="n") is allowed


class Answer:
    """A complete answer without a network."""

    def __init__(self, status: int, body: Any) -> None:
        self.status, self.body = status, body
        self.headers: dict[str, str] = {}
        self.socket = None

    async def read(self) -> bytes:
        return orjson.dumps(self.body)

    async def chunks(self) -> AsyncGenerator[bytes]:
        yield orjson.dumps(self.body)

    async def close(self) -> None:
        pass


class Canned:
    async def open(self, request: Request, authorization: str | None) -> Answer:
        return Answer(200, {"metadata": {"name": request.method, "uid": request.path}})


async def test_any_transport_will_do() -> None:
    async with Client(Canned()) as client:
        answer = await client.get(PODS, "a", namespace="n")
        assert answer == {"metadata": {"name": "GET", "uid": "/api/v1/namespaces/n/pods/a"}}


@pytest.mark.parametrize("body", [b"null", b"{}", b"[]", b"7", b'"ok"', b'{"metadata": null}', b'{"metadata": {}}'])
async def test_an_answer_that_is_not_understood_is_no_refusal(serve: Serve, body: bytes) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, status=201, content_type="application/json")

    client = await serve(handler)
    for act in (
        client.create(PODS, pod("a")),
        client.get(PODS, "a", namespace="n"),
        client.patch(PODS, "a", {}, namespace="n"),
    ):
        with pytest.raises(errors.Unreachable, match="unexpected answer") as caught:
            await act
        assert caught.value.sent, "the pod may have been created"


@pytest.mark.parametrize("body", [b"null", b"{}", b"[]", b'{"items": []}', b'{"metadata": {}, "items": [null]}'])
async def test_an_answer_that_is_no_list_is_not_read_as_an_empty_one(serve: Serve, body: bytes) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    client = await serve(handler)
    with pytest.raises(errors.Unreachable, match="not a list"):
        await client.list(PODS, namespace="n")


class FailingRenewal:
    """Credentials that the server refuses and that cannot be renewed."""

    async def current(self) -> str | None:
        return "Bearer old"

    async def renew(self, used: str | None) -> bool:
        raise errors.CredentialsError("the exec plug-in failed")


class Refusing:
    """A transport that answers 401 and counts how many answers are open."""

    def __init__(self) -> None:
        self.open_answers = 0

    async def open(self, request: Request, authorization: str | None) -> Any:
        self.open_answers += 1
        return self

    status = 401
    headers: dict[str, str] = {}  # noqa: RUF012
    socket = None

    async def read(self) -> bytes:
        return b"{}"

    async def close(self) -> None:
        self.open_answers -= 1


async def test_a_refusal_is_closed_when_the_credentials_cannot_be_renewed() -> None:
    transport = Refusing()
    client = Client(transport, FailingRenewal())  # type: ignore[arg-type]
    for _ in range(3):
        with pytest.raises(errors.CredentialsError):
            await client.get(PODS, "a", namespace="n")
    assert transport.open_answers == 0


async def test_answers_cut_to_their_metadata_are_asked_for_with_plain_json_as_the_other_choice(serve: Serve) -> None:
    accepted: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        accepted.append(request.headers["Accept"])
        return web.json_response({"kind": "PartialObjectMetadata", "metadata": {"name": "a", "uid": "u"}})

    client = await serve(handler)
    created = await client.create(PODS, pod("a"), metadata_only=True)
    await client.delete(PODS, "a", namespace="n", metadata_only=True)
    await client.get(PODS, "a", namespace="n")
    assert created["metadata"]["uid"] == "u"
    cut = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
    assert accepted == [cut, cut, "application/json"]


async def test_a_proxy_that_takes_plain_json_alone_is_asked_for_that_from_then_on(serve: Serve) -> None:
    accepted: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        accepted.append(request.headers["Accept"])
        if request.headers["Accept"] != "application/json":
            return refusal(406, "NotAcceptable", "only the following media types are accepted: application/json")
        return web.json_response(pod("a"))

    client = await serve(handler)
    await client.create(PODS, pod("a"), metadata_only=True)
    await client.create(PODS, pod("b"), metadata_only=True)
    assert [form == "application/json" for form in accepted] == [False, True, True]

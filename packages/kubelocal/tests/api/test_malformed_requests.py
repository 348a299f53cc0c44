"""Whatever a client sends is answered: as Kubernetes answers it, or with a 4xx that says what is wrong; never a 5xx."""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from deadlines import scaled
from example_objects import EXAMPLES
from kubelocal.admission import plugins
from kubelocal.api.app import Api, make_app
from kubelocal.auth.bootstrap_roles import BOOTSTRAP
from kubelocal.auth.rbac import Authorizer
from kubelocal.auth.users import User
from kubelocal.codec.kinds import KINDS, SERVED, Kind
from kubelocal.controllers.cron_job_controller import CronJobController
from kubelocal.controllers.endpoint_slice_controller import EndpointSliceController
from kubelocal.controllers.garbage_collector import GarbageCollector
from kubelocal.controllers.job_controller import JobController
from kubelocal.controllers.quota_controller import QuotaController
from kubelocal.controllers.scheduler import Scheduler
from kubelocal.controllers.workload_controllers import ReplicaController
from kubelocal.kubelet.runtimes import NoRuntime
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.registry.patches import PATCHES, STRATEGIC
from kubelocal.settings import LocalSettings
from kubelocal.storage.store import Store

JSON = "application/json"
MERGE = "application/merge-patch+json"
PROTOBUF = "application/vnd.kubernetes.protobuf"
YAML = "application/yaml"
ADMIN = User("admin", ("system:masters",))
# 504 is how Kubernetes says that a version is not reached yet
ALLOWED_5XX = frozenset({504})

ODD_VALUES: list[Any] = [
    None,
    [],
    {},
    [None],
    [[]],
    [{}],
    {"": None},
    5,
    -1,
    0,
    2**63,
    1.5,
    True,
    "",
    "x",
    "..",
    "..data/x",
    "a/b/c",
    "ä\u0000",
    "9" * 5000,
    "1e999999999",
    "2030-99-99T00:00:00Z",
    {"$patch": "delete"},
    {"$patch": ["replace"]},
    {"$retainKeys": 5},
    [{"$patch": "replace"}],
]
LEFT_OUT = object()
DRY_RUN = b"dryRun=All"
STATES = {"status", "scale", "ephemeralcontainers"}
ODD_BODIES = [
    b"",
    b"null",
    b"[]",
    b"5",
    b'"text"',
    b"{",
    b"\xff\xfe",
    b"{}",
    b'{"a":1,"a":2}',
    b"[" * 5000,
    b'{"spec":' * 600 + b"1" + b"}" * 600,
    b'{"kind":5,"apiVersion":[]}',
    b'{"metadata":{"name":' + b"9" * 5000 + b"}}",
    b"k8s\x00",
    b"k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\xff\xff\xff\xff\xff",
    b"k8s\x00\x0a\x02\x08\x05\x12\x00",
]
ODD_TEXTS = [
    "",
    "nan",
    "inf",
    "-1",
    "1.5",
    "9" * 5000,
    "٣",
    "1_0",
    " 1",
    "x",
    "true",
    "..",
    "%00",
    "ä",
    "a,,b",
    "a in (",
    "!",
]
PARAMETERS = [
    "allowWatchBookmarks",
    "continue",
    "dryRun",
    "fieldManager",
    "fieldSelector",
    "fieldValidation",
    "force",
    "gracePeriodSeconds",
    "includeObject",
    "labelSelector",
    "limit",
    "orphanDependents",
    "pretty",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
]
SETTINGS = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    max_examples=30,
    phases=[Phase.generate],
)


class Server:
    """The API without a socket, with an example of each kind in it."""

    def __init__(self) -> None:
        admitting = plugins.mutators(LocalSettings(inject=("istio",)))
        self.registry = ClusterRegistry(Store(), admitting, plugins.ADMITTERS)
        for manifest in (_namespace("default"), _namespace("ns"), *BOOTSTRAP):
            self.registry.create(manifest["kind"], "", copy.deepcopy(manifest))
        self.registry.create("ServiceAccount", "ns", {"metadata": {"name": "default"}})
        for kind in KINDS.values():
            if kind.stored and kind.kind != "Namespace":
                made = {**copy.deepcopy(EXAMPLES[kind.kind]), "metadata": {"name": "x"}}
                self.registry.create(kind.kind, "ns" if kind.namespaced else "", made)
        rights, nothing = Authorizer(self.registry), _Minter()
        self.app: Api = make_app(self.registry, NoRuntime(), lambda _: ADMIN, rights, nothing)  # type: ignore[arg-type]

    async def call(
        self, method: str, path: str, query: bytes, body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        """Return the code and the body of the answer; a watch is hung up on once it has begun."""
        given = [
            (name.encode(), value.encode("latin-1")) for name, value in {"authorization": "Bearer t", **headers}.items()
        ]
        scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": given}
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        full = {**scope, "raw_path": path.encode(), "root_path": "", "http_version": "1.1", "asgi": {"version": "3.0"}}
        await asyncio.wait_for(self.app(full, receive, send), scaled(20))
        return sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:])


class _Minter:
    """Answers requests for tokens without one."""

    def issue(self, account: Any, request: Any) -> Any:
        return request


def _namespace(name: str) -> dict[str, Any]:
    return {"kind": "Namespace", "metadata": {"name": name, "labels": {"istio-injection": "enabled"}}}


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield where something stands in a manifest."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def spoilt(manifest: Any, place: tuple[str | int, ...], odd: Any) -> Any:
    """Return a copy in which something odd stands at a place."""
    if not place:
        return odd
    fresh = copy.deepcopy(manifest)
    above = fresh
    for key in place[:-1]:
        above = above[key]
    if odd is LEFT_OUT:
        del above[place[-1]]
    else:
        above[place[-1]] = odd
    return fresh


def variants(kind: Kind) -> Iterator[bytes]:
    """Yield the example of a kind with each of its parts left out, and with each odd value in its place."""
    made = {"metadata": {"name": "x", "labels": {"a": "b"}, "annotations": {"a": "b"}}, **EXAMPLES[kind.kind]}
    for place in places(made):
        for odd in ODD_VALUES:
            yield _dumped(spoilt(made, place, odd))
        if place:
            yield _dumped(spoilt(made, place, LEFT_OUT))


@st.composite
def bodies(draw: Callable[..., Any], kind: Kind) -> bytes:
    """Draw a body: of an example with one or two parts spoilt, or bytes of their own."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(ODD_BODIES) | st.binary(max_size=30))
    made = {**EXAMPLES[kind.kind], "metadata": {"name": draw(st.sampled_from(["x", "new", ""])), "labels": {"a": "b"}}}
    for _ in range(draw(st.integers(1, 2))):
        made = spoilt(made, draw(st.sampled_from(list(places(made)))), draw(st.sampled_from(ODD_VALUES)))
    return _dumped(made)


@st.composite
def patches(draw: Callable[..., Any], kind: Kind) -> bytes:
    """Draw a patch: of the two that merge, or operations."""
    if draw(st.booleans()):
        return draw(bodies(kind))
    part = st.sampled_from(
        [f"/{'/'.join(map(str, place))}" for place in places(EXAMPLES[kind.kind])] + ["", "a", "/-", "/~2"]
    )
    operation = st.fixed_dictionaries(
        {},
        optional={
            "op": st.sampled_from(["add", "remove", "replace", "copy", "move", "test", "explode", 5]),
            "path": part | st.sampled_from([5, None]),
            "from": part | st.sampled_from([5, None]),
            "value": st.sampled_from(ODD_VALUES),
        },
    )
    orders = [
        f"${word}/{field}" for word in ("setElementOrder", "deleteFromPrimitiveList") for field in EXAMPLES[kind.kind]
    ]
    directives = st.dictionaries(st.sampled_from([*orders, "$patch", "$retainKeys"]), st.sampled_from(ODD_VALUES))
    return _dumped(draw(st.lists(operation, max_size=3) | st.sampled_from(ODD_VALUES) | directives))


def _dumped(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)


def collection(kind: Kind) -> str:
    return f"{kind.path}/namespaces/ns/{kind.plural}" if kind.namespaced else f"{kind.path}/{kind.plural}"


@st.composite
def requests(draw: Callable[..., Any], kind: Kind) -> tuple[str, str, bytes, bytes, dict[str, str]]:
    """Draw a request to an address of a kind."""
    parts = [f"/x/{part}" for part in kind.parts if part not in ("log", "exec", "attach", "portforward")]
    path = collection(kind) + draw(st.sampled_from(["", "/x", "/new", *parts]))
    method = draw(st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]))
    query = draw(st.dictionaries(st.sampled_from(PARAMETERS), st.sampled_from(ODD_TEXTS) | st.just("All"), max_size=2))
    if method == "PATCH":
        media, body = draw(st.sampled_from([*PATCHES, JSON])), draw(patches(kind))
    else:
        media, body = draw(st.sampled_from([JSON, JSON, JSON, PROTOBUF, YAML, ""])), draw(bodies(kind))
    text = urlencode(query).encode() + draw(st.sampled_from([b"", b"", b"&a=\xff", b"&%zz", b"&&=&"]))
    return method, path, text, body, {"content-type": media}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", SERVED, ids=lambda kind: kind.qualified)
def test_no_part_of_an_object_is_too_odd_to_be_answered(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    there, states = collection(kind), STATES & kind.parts.keys()
    ways = [("POST", there, JSON), ("PUT", f"{there}/x", JSON)]
    ways += [("PATCH", f"{there}/x", media) for media in (MERGE, STRATEGIC)]
    ways += [("PUT", f"{there}/x/{part}", JSON) for part in states]
    ways += [("PATCH", f"{there}/x/{part}", MERGE) for part in states]
    asked = itertools.product(variants(kind), ways)
    answer_all(
        ((method, path, DRY_RUN, body, {"content-type": media}) for body, (method, path, media) in asked), caplog
    )


LOG_PARAMETERS = ["container", "follow", "limitBytes", "previous", "sinceSeconds", "sinceTime", "tailLines", "stream"]
STREAM_PARAMETERS = ["command", "container", "ports", "stdin", "stdout", "tty"]


def test_no_query_is_too_odd_for_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    asked = [("log", "GET", name, text) for name, text in itertools.product(LOG_PARAMETERS, ODD_TEXTS)]
    streams = itertools.product(("exec", "attach", "portforward"), ("GET", "POST"), STREAM_PARAMETERS, ODD_TEXTS)
    sent = (
        (method, f"/api/v1/namespaces/ns/pods/x/{part}", urlencode({name: text}).encode(), b"", {})
        for part, method, name, text in (*asked, *streams)
    )
    answer_all(sent, caplog)


HEADERS = ["accept", "authorization", "content-type", "host"]
HEADERS += ["impersonate-user", "impersonate-group", "impersonate-uid", "impersonate-extra-%"]
TABLE = "application/json;as=Table;g=5;v="
ODD_HEADERS = [*ODD_TEXTS[:5], "Bearer", "Bearer x y", TABLE, "application/json;;=;q=x", "a/b;c", "\xe9"]
PATHS = ["/", "//", "/api", "/api/v1/", "/apis/", "/apis/apps/v1/x/y/z/a/b/c", "/openapi/v3/..", "/version", "/metrics"]
PATHS += ["/openapi/v3/apis/apps/v1", "/api/v1/pods", "/api/v1/namespaces/ns/pods/x", "/api/v1/namespaces/\x00/pods"]


def test_no_path_or_header_is_too_odd(caplog: pytest.LogCaptureFixture) -> None:
    asked = itertools.product(("GET", "PUT", "PATCH", "TRACE"), PATHS, HEADERS, ODD_HEADERS)
    answer_all(((method, path, b"", b"{}", {name: text}) for method, path, name, text in asked), caplog)


@pytest.mark.parametrize("kind", SERVED, ids=lambda kind: kind.qualified)
@SETTINGS
@given(st.data())
def test_nothing_that_is_sent_to_a_kind_is_a_5xx(
    kind: Kind, caplog: pytest.LogCaptureFixture, data: st.DataObject
) -> None:
    answer_all([data.draw(requests(kind)) for _ in range(data.draw(st.integers(1, 4)))], caplog)


def answer_all(sent: Iterable[tuple[str, str, bytes, bytes, dict[str, str]]], caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        server = Server()
        for request in sent:
            code, body = await server.call(*request)
            assert code < 500 or code in ALLOWED_5XX, (request, body)
            if code >= 400 and body.startswith(b"{"):
                assert orjson.loads(body)["kind"] == "Status", (request, body)

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert not [record for record in caplog.records if record.exc_info], caplog.text
    caplog.clear()


ANNOTATIONS = [
    "config.linkerd.io/proxy-await",
    "config.linkerd.io/shutdown-grace-period",
    "kuma.io/sidecar-injection",
    "linkerd.io/inject",
    "proxy.istio.io/config",
    "sidecar.istio.io/inject",
    "sidecar.istio.io/nativeSidecar",
    "sidecar.istio.io/proxyImage",
    "status.sidecar.istio.io/port",
    "vault.hashicorp.com/agent-inject",
    "vault.hashicorp.com/agent-inject-secret-a",
]
ODD_ANNOTATIONS = [
    "",
    "x",
    "-1",
    "9" * 5000,
    "true",
    "enabled",
    "[" * 5000,
    "a: [",
    "a: 2030-01-02",
    "statusPort: x",
]


@pytest.mark.parametrize("owner", [{}, {"kind": "Job", "controller": True}])
def test_no_annotation_is_too_odd_for_an_injector(owner: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    more = {"linkerd.io/inject": "enabled", "kuma.io/sidecar-injection": "enabled", "vault.hashicorp.com/role": "r"}
    owners = [owner] if owner else []
    sent = []
    for key, value in itertools.product(ANNOTATIONS, ODD_ANNOTATIONS):
        metadata = {"generateName": "new", "annotations": {**more, key: value}, "ownerReferences": owners}
        body = _dumped({"metadata": metadata, **EXAMPLES["Pod"]})
        sent.append(("POST", "/api/v1/namespaces/ns/pods", DRY_RUN, body, {"content-type": JSON}))
    answer_all(sent, caplog)


def test_a_patch_may_not_grow_without_bounds() -> None:
    async def scenario() -> list[int]:
        server = Server()
        path, headers = "/api/v1/namespaces/ns/configmaps/x", {"content-type": "application/json-patch+json"}
        doubling = [{"op": "add", "path": "/data", "value": {"a": {}}}]
        doubling += [{"op": "copy", "from": "/data", "path": f"/data/a{i}"} for i in range(60)]
        long = [{"op": "test", "path": "/kind", "value": "ConfigMap"}] * 10_001
        return [(await server.call("PATCH", path, b"", _dumped(one), headers))[0] for one in (doubling, long)]

    assert asyncio.run(scenario()) == [413, 413]


CONTROLLED = [
    "CronJob",
    "DaemonSet",
    "Deployment",
    "EndpointSlice",
    "Job",
    "Pod",
    "ReplicaSet",
    "Service",
    "StatefulSet",
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", [KINDS[name] for name in CONTROLLED], ids=lambda kind: kind.kind)
def test_no_object_that_is_accepted_is_too_odd_for_the_controllers(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> int:
        server = Server()
        registry, headers = server.registry, {"content-type": JSON}
        controllers = (JobController, ReplicaController, CronJobController, EndpointSliceController, GarbageCollector)
        parts = [asyncio.create_task(one(registry).run()) for one in (*controllers, QuotaController, Scheduler)]
        accepted = 0
        for body in variants(kind):
            code, answer = await server.call("POST", collection(kind), b"", body.replace(b'"x"', b'"odd"', 1), headers)
            if code == 201:
                accepted += 1
                for _ in range(3):
                    await asyncio.sleep(0)
                await server.call("DELETE", f"{collection(kind)}/odd", b"propagationPolicy=Background", b"", {})
                await asyncio.sleep(0)
            assert not any(part.done() for part in parts), (body, answer)
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        return accepted

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(scenario()) > 20
    assert not [record for record in caplog.records if record.exc_info], caplog.text

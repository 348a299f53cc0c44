from __future__ import annotations

import base64
from contextlib import suppress
from datetime import datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from example_objects import EXAMPLES
from kubelocal.codec.decoder import decode
from kubelocal.codec.kinds import BODIES, KINDS, Kind
from kubelocal.codec.protobuf import MAGIC, read_protobuf
from kubelocal.codec.schema import CUSTOM, Type, struct, type_of
from kubelocal.codec.status_errors import StatusError
from kubelocal.codec.wire_fields import wire_fields

# what kubectl 1.32 sent, to the byte
CREATE_JOB = (
    "azhzAAoPCghiYXRjaC92MRIDSm9iEogBChEKAWoSABoAIgAqADIAOABCABJpMmcKEAoAEgAaACIAKgAyADgAQgASUxIwCgFqEgdidXN5Ym94GgJz"
    "aBoCLWMaBmV4aXQgMCoAQgBqAHIAgAEAiAEAkAEAogEAGgVOZXZlcjIAQgBKAFIAWABgAGgAggEAigEAmgEAwgEAGgggACgAMAA6ABoAIgA="
)
CREATE_TOKEN = (
    "azhzAAooChhhdXRoZW50aWNhdGlvbi5rOHMuaW8vdjESDFRva2VuUmVxdWVzdBIdChAKABIAGgAiACoAMgA4AEIAEgMgsAkaBAoAEgAaACIA"
)
CREATE_SECRET = "azhzAAoMCgJ2MRIGU2VjcmV0EiQKEQoBcxIAGgAiACoAMgA4AEIAEgUKAWESABIGCgFiEgF4GgAaACIA"
CREATE_QUOTA = (
    "azhzAAoTCgJ2MRINUmVzb3VyY2VRdW90YRIzChEKAXESABoAIgAqADIAOABCABIcCg0KA2NwdRIGCgQ1MDBtCgsKBHBvZHMSAwoBNRoAGgAiAA=="
)


def read(kind: str, body: bytes) -> Any:
    """What the registry gets of a body."""
    known = KINDS.get(kind) or BODIES[kind]
    return decode(known, orjson.dumps(read_protobuf(known, body)), strict="Strict")[0]


@pytest.mark.parametrize(
    ("kind", "body", "wanted"),
    [
        (
            "Job",
            CREATE_JOB,
            {
                "kind": "Job",
                "apiVersion": "batch/v1",
                "metadata": {"name": "j"},
                "spec": {
                    "template": {
                        "metadata": {},
                        "spec": {
                            "containers": [
                                {"name": "j", "image": "busybox", "command": ["sh", "-c", "exit 0"], "resources": {}}
                            ],
                            "restartPolicy": "Never",
                        },
                    }
                },
                "status": {},
            },
        ),
        (
            "TokenRequest",
            CREATE_TOKEN,
            {
                "kind": "TokenRequest",
                "apiVersion": "authentication.k8s.io/v1",
                "metadata": {},
                "spec": {"expirationSeconds": 1200},
                "status": {},
            },
        ),
        (
            "Secret",
            CREATE_SECRET,
            {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}, "data": {"a": "", "b": "eA=="}},
        ),
        (
            "ResourceQuota",
            CREATE_QUOTA,
            {
                "kind": "ResourceQuota",
                "apiVersion": "v1",
                "metadata": {"name": "q"},
                "spec": {"hard": {"cpu": "500m", "pods": "5"}},
                "status": {},
            },
        ),
    ],
)
def test_what_kubectl_sends_is_read(kind: str, body: str, wanted: dict[str, Any]) -> None:
    assert read(kind, base64.b64decode(body)) == wanted


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def put(number: int, value: int | str | bytes) -> bytes:
    """Encode one field."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def envelope(version: str, kind: str, content: bytes) -> bytes:
    return MAGIC + put(1, put(1, version) + put(2, kind)) + put(2, content) + put(3, "") + put(4, "")


TEXTS = st.text("abcä", min_size=1, max_size=300)


@given(st.dictionaries(TEXTS, st.text("abc")), st.dictionaries(TEXTS, st.binary()), st.booleans())
def test_maps_are_read_whole(data: dict[str, str], binary: dict[str, bytes], immutable: bool) -> None:
    content = put(1, put(1, "c")) + b"".join(put(2, put(1, key) + put(2, text)) for key, text in data.items())
    content += b"".join(put(3, put(1, key) + put(2, raw)) for key, raw in binary.items()) + put(4, int(immutable))
    seen = read_protobuf(KINDS["ConfigMap"], envelope("v1", "ConfigMap", content))
    assert seen["immutable"] is immutable  # held by pointer: false is not absent
    assert (
        seen.get("data", {}),
        {key: base64.b64decode(text) for key, text in seen.get("binaryData", {}).items()},
    ) == (
        data,
        binary,
    )


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers_have_64_bits_and_a_sign(number: int) -> None:
    content = put(2, put(4, number))
    seen = read_protobuf(KINDS["Pod"], envelope("v1", "Pod", content))
    assert seen["spec"]["terminationGracePeriodSeconds"] == number


def test_types_that_stand_in_others_times_and_ports() -> None:
    probe = put(1, put(2, put(1, "/x") + put(2, put(1, 1) + put(2, 0) + put(3, "http")))) + put(2, 5)
    numbered = put(1, put(3, put(1, put(1, 0) + put(2, 8080) + put(3, ""))))
    source = put(4, put(2, put(1, put(1, "name")) + put(2, "key")))
    container = put(1, "base") + put(10, probe) + put(11, numbered) + put(7, put(1, "A") + put(3, source))
    volume = put(1, "v") + put(2, put(2, put(1, b"")))
    content = put(1, put(8, put(1, 1_800_000_000) + put(2, 0))) + put(2, put(1, volume) + put(2, container))
    seen = read_protobuf(KINDS["Pod"], envelope("v1", "Pod", content))
    [base] = seen["spec"]["containers"]
    assert seen["metadata"]["creationTimestamp"] == "2027-01-15T08:00:00Z"
    assert seen["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert base["livenessProbe"] == {"httpGet": {"path": "/x", "port": "http"}, "initialDelaySeconds": 5}
    assert base["readinessProbe"] == {"tcpSocket": {"port": 8080}}


def test_a_lease_keeps_its_microseconds_and_an_empty_holder() -> None:
    spec = put(1, "") + put(4, put(1, 1_800_000_000) + put(2, 123_456_789)) + put(5, 0)
    seen = read_protobuf(KINDS["Lease"], envelope("coordination.k8s.io/v1", "Lease", put(2, spec)))
    assert seen["spec"] == {
        "holderIdentity": "",
        "renewTime": "2027-01-15T08:00:00.123456Z",
        "leaseTransitions": 0,
    }


@pytest.mark.parametrize(
    "body", [envelope("v1", "ConfigMap", put(999, "x")), envelope("v1", "ConfigMap", put(1, 5)), MAGIC + b"\xff", b"{}"]
)
def test_what_is_not_in_the_tables_is_refused_and_not_dropped(body: bytes) -> None:
    with pytest.raises(StatusError) as refusal:
        read_protobuf(KINDS["ConfigMap"], body)
    assert refusal.value.code == 400


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for body in (data, MAGIC + data, envelope("v1", "Pod", data)):
        with suppress(StatusError):
            read_protobuf(KINDS["Pod"], body)


# every kind


def reachable(name: str, seen: set[str]) -> set[str]:
    """The types of the package that are in a type."""
    if name not in seen:
        seen.add(name)
        for field in struct(name).fields.values():
            inner = field.type.inner or field.type
            if inner.form == "struct":
                reachable(inner.name, seen)
    return seen


def names(owner: str) -> set[str]:
    inlined = [field.name for field in wire_fields(owner).values() if field.inlined]
    own = {field.name for field in wire_fields(owner).values() if not field.inlined}
    return own.union(*map(names, inlined)) if inlined else own


IN_PROTOBUF = [kind for kind in (*KINDS.values(), *BODIES.values()) if f"V1{kind.kind}" not in CUSTOM]


@pytest.mark.parametrize("kind", IN_PROTOBUF, ids=lambda kind: kind.kind)
def test_each_field_of_a_kind_has_its_number(kind: Kind) -> None:
    for name in reachable(type_of(kind.kind, kind.group).name, set()):
        assert struct(name).fields.keys() - {"kind", "apiVersion"} <= names(name), name


def encoded(name: str, value: dict[str, Any], numbers: str = "") -> bytes:
    """Write a message as Go does, without the zeros."""
    shape, out = struct(name).fields, b""
    for number, field in sorted(wire_fields(numbers or name).items()):
        if field.inlined:
            out += put(number, encoded(name, value, field.name))
        elif field.name in value:
            wanted, item = shape[field.name].type, value[field.name]
            if wanted.form == "list":
                out += b"".join(put(number, wire(wanted.inner, one)) for one in item)
            elif wanted.form == "map":
                out += b"".join(put(number, put(1, key) + put(2, wire(wanted.inner, one))) for key, one in item.items())
            else:
                out += put(number, wire(wanted, item))
    return out


def wire(wanted: Type | None, value: Any) -> int | str | bytes:
    assert wanted is not None
    match wanted.form:
        case "struct":
            return encoded(wanted.name, value)
        case "bytes":
            return base64.b64decode(value)
        case "quantity":
            return put(1, value)
        case "port":
            return put(1, 0) + put(2, value) if isinstance(value, int) else put(1, 1) + put(3, value)
        case "time" | "micro":
            moment = datetime.fromisoformat(value)
            return put(1, int(moment.timestamp())) + put(2, moment.microsecond * 1000)
    return int(value) if isinstance(value, bool | int) else str(value)


@pytest.mark.parametrize("kind", [kind for kind in IN_PROTOBUF if kind.kind in EXAMPLES], ids=lambda kind: kind.kind)
def test_an_object_of_each_kind_is_read_as_from_json(kind: Kind) -> None:
    made = {**EXAMPLES[kind.kind], "metadata": {"name": "x", "labels": {"a": "b"}}}
    content = encoded(type_of(kind.kind, kind.group).name, made)
    body = orjson.dumps(read_protobuf(kind, envelope(kind.api_version, kind.kind, content)))
    assert decode(kind, body, strict="Strict") == decode(kind, orjson.dumps(made), strict="Strict")

"""What holds for every object of the right types, however odd: nothing that reads objects may fail on one."""

import copy

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubelocal.admission import resource_quota
from kubelocal.api import printers
from kubelocal.codec import decoder
from kubelocal.codec.kinds import KINDS
from kubelocal.codec.schema import Type, struct, type_of
from kubelocal.registry import defaults, update_validation, validation
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.store import Store

WORDS = (
    "a",
    "Never",
    "Always",
    "In",
    "Exists",
    "b.c/d",
    "",
    "x" * 70,
    "metadata.name",
    "TCP",
    "-",
    "ä",
    "kubernetes.io/tls",
)
SCALARS = {
    "any": st.sampled_from([{}, {"a": 1}]),
    "bool": st.booleans(),
    "bytes": st.sampled_from(["", "MQ==", "/w=="]),
    "float": st.floats(0, 9),
    "int32": st.sampled_from([0, 1, 80, -1, 2**31 - 1]),
    "int64": st.sampled_from([0, 30, -1, 2**62]),
    "micro": st.just("2030-01-02T03:04:05.000000Z"),
    "port": st.sampled_from([0, 80, "http", ""]),
    "quantity": st.sampled_from(["1", "500m", "1Gi", "-1", "0"]),
    "string": st.sampled_from(WORDS),
    "time": st.just("2030-01-02T03:04:05Z"),
}


def values(wanted, depth):
    match wanted:
        case Type(form="list", inner=inner):
            return st.lists(values(inner, depth), max_size=2)
        case Type(form="map", inner=inner):
            return st.dictionaries(st.sampled_from(WORDS), values(inner, depth), max_size=2)
        case Type(form="struct", name=name):
            return structs(name, depth)
    return SCALARS[wanted.form]


@st.composite
def structs(draw, name, depth=6):
    fields = list(struct(name).fields.values())
    if depth == 0:
        return {}
    chosen = draw(st.lists(st.sampled_from(fields), max_size=5, unique_by=lambda field: field.name))
    # the parts in which most rules are, more often than by chance
    chosen += [field for field in fields if field.name in ("spec", "containers", "template") and field not in chosen]
    return {field.name: draw(values(field.type, depth - 1)) for field in chosen}


@st.composite
def objects(draw, kind):
    known = KINDS[kind]
    made = draw(structs(type_of(kind, known.group).name))
    made["metadata"] = {**made.get("metadata", {}), "name": "x", "namespace": "ns", "uid": "u"}
    return {**made, "kind": kind, "apiVersion": known.api_version}


def ready(kind, made):
    decoded, _ = decoder.decode(KINDS[kind], orjson.dumps(made))
    defaults.apply_defaults(KINDS[kind], decoded)
    return decoded


STORED = [kind.kind for kind in KINDS.values() if kind.stored]
FEW = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("kind", STORED)
@FEW
@given(st.data())
def test_reading_is_idempotent_and_strict_about_nothing_known(kind, data):
    made = data.draw(objects(kind))
    first, warnings = decoder.decode(KINDS[kind], orjson.dumps(made), strict="Strict")
    assert warnings == []
    assert decoder.decode(KINDS[kind], orjson.dumps(first))[0] == first
    assert decoder.check(KINDS[kind], first)[0] == first


@pytest.mark.parametrize("kind", STORED)
@FEW
@given(st.data())
def test_defaulting_is_idempotent_and_validation_gives_causes(kind, data):
    filled = ready(kind, data.draw(objects(kind)))
    again = copy.deepcopy(filled)
    defaults.apply_defaults(KINDS[kind], again)
    assert again == filled
    for cause in validation.validate(KINDS[kind], filled):
        assert cause.reason.startswith("FieldValue")
        assert cause.message


@pytest.mark.parametrize("kind", STORED)
@FEW
@given(st.data())
def test_every_object_that_may_exist_has_a_row(kind, data):
    filled = ready(kind, data.draw(objects(kind)))
    if not validation.validate(KINDS[kind], filled):
        assert has_row(kind, filled)


CONTAINERS = {"containers": [{"name": "a"}], "initContainers": [{"name": "b"}]}
SPECS = {"Pod": CONTAINERS, "Job": {"template": {"spec": CONTAINERS}}, "Node": {}, "PersistentVolumeClaim": {}}


@pytest.mark.parametrize("kind", SPECS)
@settings(FEW, max_examples=50)
@given(st.data())
def test_no_status_is_too_odd_for_a_row(kind, data):
    status = data.draw(structs(struct(type_of(kind).name).fields["status"].type.name))
    assert has_row(kind, ready(kind, {"metadata": {"name": "x"}, "spec": SPECS[kind], "status": status}))


def has_row(kind, manifest):
    shown = printers.table(KINDS[kind], [manifest], "1", False)
    return len(shown["rows"][0]["cells"]) == len(shown["columnDefinitions"])


@pytest.mark.parametrize("kind", STORED)
@FEW
@given(st.data())
def test_every_object_may_become_itself(kind, data):
    old, new = (ready(kind, data.draw(objects(kind))) for _ in range(2))
    if not validation.validate(KINDS[kind], old):
        assert update_validation.validate_update(KINDS[kind], old, copy.deepcopy(old)) == []
        for cause in update_validation.validate_update(KINDS[kind], old, new):
            assert cause.reason.startswith("FieldValue")


@FEW
@given(st.data())
def test_what_a_quota_limits_can_be_counted_in_every_pod(data):
    registry = ClusterRegistry(Store())
    registry.create("Namespace", "", {"metadata": {"name": "ns"}})
    hard = {"pods": "9", "requests.cpu": "9", "limits.memory": "9Gi", "count/pods": "9"}
    limit = registry.create("ResourceQuota", "ns", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    pod = ready("Pod", data.draw(objects("Pod")))
    if not validation.validate(KINDS["Pod"], pod):
        registry.create("Pod", "ns", pod)
        assert resource_quota.used(registry, limit).keys() == hard.keys()


def test_an_empty_strategy_type_counts_as_not_given():
    made = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "namespace": "ns"}}
    filled = made | {"spec": {"strategy": {"type": ""}, "template": {"spec": {"containers": []}}}}
    defaults.apply_defaults(KINDS["Deployment"], filled)
    limits = {"maxUnavailable": "25%", "maxSurge": "25%"}
    assert filled["spec"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": limits}

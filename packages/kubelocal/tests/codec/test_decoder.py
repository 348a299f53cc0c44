import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelocal.codec import decoder
from kubelocal.codec.kinds import BODIES, KINDS
from kubelocal.codec.status_errors import StatusError


def decode(kind, body, strict="Warn"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decoder.decode(KINDS.get(kind) or BODIES[kind], raw, strict=strict)


def refusal(kind, body, strict="Warn"):
    with pytest.raises(StatusError) as refused:
        decode(kind, body, strict)
    assert (refused.value.code, refused.value.reason) == (400, "BadRequest")
    return refused.value.status["message"]


def pod(**spec):
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "base"}], **spec},
    }


def test_kind_and_version_are_filled_in():
    assert decode("Job", {"metadata": {"name": "j"}}) == (
        {"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": "j"}},
        [],
    )


def test_nulls_and_empty_collections_are_left_out_but_empty_objects_kept():
    body = pod(volumes=None, tolerations=[], nodeSelector={}, securityContext={}, terminationGracePeriodSeconds=0)
    decoded, _ = decode("Pod", body)
    assert decoded["spec"] == {
        "containers": [{"name": "base"}],
        "securityContext": {},
        "terminationGracePeriodSeconds": 0,
    }


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        (
            "Pod",
            "spec",
            {"containers": "base"},
            "string into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        ("Pod", "spec", [], "array into Go struct field Pod.spec of type v1.PodSpec"),
        (
            "Pod",
            "spec",
            {"containers": [{"env": [{"name": "A", "value": 1}]}]},
            "number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        ("Pod", "spec", {"hostNetwork": "yes"}, "string into Go struct field PodSpec.spec.hostNetwork of type bool"),
        (
            "Pod",
            "spec",
            {"containers": [{"ports": [{"containerPort": 3.5}]}]},
            "number 3.5 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        ("ConfigMap", "data", {"a": 1}, "number into Go struct field ConfigMap.data of type string"),
        ("ConfigMap", "data", {"a": {}}, "object into Go struct field ConfigMap.data of type string"),
        (
            "Job",
            "spec",
            {"backoffLimit": 2**31},
            "number 2147483648 into Go struct field JobSpec.spec.backoffLimit of type int32",
        ),
    ],
)
def test_a_wrong_json_type_is_refused_with_its_path(kind, field, value, message):
    refused_with = refusal(kind, {"kind": kind, "apiVersion": KINDS[kind].api_version, field: value})
    version = KINDS[kind].version
    assert (
        refused_with == f'{kind} in version "{version}" cannot be handled as a {kind}: json: cannot unmarshal {message}'
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"kind": "ConfigMap", "apiVersion": "v1"}, r'ConfigMap in version "v1" cannot be handled as a Pod: '),
        (
            {"kind": "Pod", "apiVersion": "v2"},
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            {"kind": "Nosuch", "apiVersion": "v2"},
            'Nosuch in version "v2" cannot be handled as a Pod: no kind "Nosuch" is registered for version "v2"',
        ),
        (
            b"",
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: ",
        ),
        (
            b"[]",
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json",
        ),
        ({"kind": 7}, "couldn't get version/kind; json parse error: "),
        (
            {"spec": 1},
            "the object provided is unrecognized (must be of type Pod): json: cannot unmarshal number into Go struct",
        ),
    ],
)
def test_a_body_that_is_no_such_object_is_refused(body, message):
    assert refusal("Pod", body).startswith(message)


def test_unknown_fields_are_dropped_with_a_warning_and_refused_when_strict():
    body = pod(nosuch=1, volumes=[{"name": "v"}, {"name": "w", "emptyDirr": {"a": 1}}])
    decoded, warnings = decode("Pod", body)
    assert decoded["spec"]["volumes"] == [{"name": "v"}, {"name": "w"}]
    assert warnings == ['unknown field "spec.nosuch"', 'unknown field "spec.volumes[1].emptyDirr"']
    assert decode("Pod", body, "Ignore") == (decoded, [])
    assert refusal("Pod", body, "Strict") == (
        'Pod in version "v1" cannot be handled as a Pod: strict decoding error: '
        'unknown field "spec.nosuch", unknown field "spec.volumes[1].emptyDirr"'
    )


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b'{"spec": {"restartPolicy": "Never", "containers": [], "restartPolicy": "Never"}}', "spec.restartPolicy"),
        (b'{"spec": {"containers": [{"name": "a", "name": "b"}]}}', "spec.containers[0].name"),
        (b'{"metadata": {"labels": {"a": "1", "\\u0061": "2"}}}', "metadata.labels.a"),
        (b'{"metadata": {"name": "\\u0022\\u0022", "name": "\\"\\""}}', "metadata.name"),
    ],
)
def test_doubled_fields_are_found(raw, path):
    assert decode("Pod", raw)[1] == [f'duplicate field "{path}"']
    assert f'strict decoding error: duplicate field "{path}"' in refusal("Pod", raw, "Strict")
    assert decode("Pod", raw, "Ignore")[1] == []


@given(st.dictionaries(st.text(), st.text(), min_size=1))
def test_no_text_is_taken_for_a_doubled_field(data):
    for coded in (json.dumps({"data": data}), json.dumps({"data": data}, ensure_ascii=False)):
        decoded, warnings = decode("ConfigMap", coded.encode("utf-8", "surrogatepass"))
        assert (decoded["data"], warnings) == (data, [])


def test_quantities_are_canonical_and_may_be_numbers():
    resources = {"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": 2, "memory": "1.5Gi"}}
    decoded, _ = decode("Pod", pod(containers=[{"name": "base", "resources": resources}]))
    assert decoded["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "500m", "memory": "1Gi"},
        "requests": {"cpu": "2", "memory": "1536Mi"},
    }
    wrong = pod(containers=[{"name": "base", "resources": {"limits": {"cpu": "much"}}}])
    assert "quantities must match the regular expression" in refusal("Pod", wrong)


@pytest.mark.parametrize("value", ["not base64!", "MQ", "M===", "MQ=="[:3]])
def test_data_that_is_not_base64_is_refused(value):
    assert "illegal base64 data at input byte" in refusal("Secret", {"data": {"a": value}})


@pytest.mark.parametrize(
    ("given_time", "kept"),
    [
        ("2030-01-02T03:04:05Z", "2030-01-02T03:04:05Z"),
        ("2030-01-02T03:04:05.678Z", "2030-01-02T03:04:05Z"),
        ("2030-01-02T03:04:05+02:00", "2030-01-02T01:04:05Z"),
    ],
)
def test_times_are_whole_seconds_in_utc(given_time, kept):
    assert decode("Event", {"lastTimestamp": given_time})[0]["lastTimestamp"] == kept


@pytest.mark.parametrize("value", ["2030-01-02", "soon", "2030-13-02T03:04:05Z"])
def test_what_is_no_time_is_refused(value):
    assert f'parsing time "{value}"' in refusal("Event", {"lastTimestamp": value})


@pytest.mark.parametrize("value", ["2030-01-02T03:04:05Z", "2030-01-02T03:04:05.678Z", "2030-01-02T03:04:05.6789012Z"])
def test_lease_times_need_six_digits(value):
    assert f'parsing time "{value}"' in refusal("Lease", {"spec": {"renewTime": value}})
    exact = "2030-01-02T03:04:05.678901Z"
    assert decode("Lease", {"spec": {"renewTime": exact}})[0]["spec"]["renewTime"] == exact


@pytest.mark.parametrize("strict", ["Warn", "Strict"])
def test_a_wrong_outcome_of_a_patch_is_422_at_patch(strict):
    wrong = {"kind": "ConfigMap", "apiVersion": "v1", **({"data": {"a": 1}} if strict == "Warn" else {"nosuch": "1"})}
    with pytest.raises(StatusError) as refused:
        decoder.check(KINDS["ConfigMap"], wrong, strict=strict)
    assert refused.value.code == 422
    assert [cause["field"] for cause in refused.value.status["details"]["causes"]] == ["patch"]
    if strict == "Strict":
        assert refused.value.status["message"].endswith('strict decoding error: unknown field "nosuch"')


@pytest.mark.parametrize("kind", [*KINDS, *BODIES])
def test_every_kind_can_be_decoded(kind):
    decoded, warnings = decode(kind, {"metadata": {"name": "x", "labels": {"a": "b"}}})
    assert decoded["kind"] == kind
    assert (decoded.get("metadata") == {"name": "x", "labels": {"a": "b"}}) != bool(warnings)


def test_zeros_are_left_out_where_go_leaves_them_out():
    status = {"replicas": 0, "readyReplicas": 0, "observedGeneration": 0}
    spec = {"replicas": 0, "minReadySeconds": 0, "paused": False, "template": {"spec": {"hostNetwork": False}}}
    made = {"metadata": {"name": "x", "generation": 0}, "spec": spec, "status": status}
    deployment, _ = decode("Deployment", made)
    assert deployment["metadata"] == {"name": "x"}
    assert deployment["spec"] == {"replicas": 0, "template": {"spec": {}}}
    assert deployment["status"] == {}
    replica_set, _ = decode("ReplicaSet", {"status": status})
    assert replica_set["status"] == {"replicas": 0}


def test_zeros_that_mean_something_are_kept():
    security = {"privileged": False, "runAsUser": 0, "runAsNonRoot": False}
    containers = [{"name": "", "securityContext": security, "ports": [{"containerPort": 0}]}]
    pod, _ = decode("Pod", {"spec": {"containers": containers, "restartPolicy": ""}})
    assert pod["spec"] == {"containers": containers}

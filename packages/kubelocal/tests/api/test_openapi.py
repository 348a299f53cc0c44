import re

import pytest

from kubelocal.api import openapi
from kubelocal.codec.kinds import SERVED
from kubelocal.codec.schema import describe, parse_type, struct, type_of


def every_document():
    return {path: openapi.document(path) for path in openapi.index()["paths"]}


def test_the_index_names_a_document_for_each_group_version():
    paths = openapi.index()["paths"]
    assert {"api/v1", "apis/batch/v1", "apis/coordination.k8s.io/v1"} <= set(paths)
    for path, entry in paths.items():
        assert re.fullmatch(rf"/openapi/v3/{path}\?hash=[0-9A-F]{{32}}", entry["serverRelativeURL"])
    assert openapi.document("api/v2") is None


def test_every_kind_and_every_type_that_is_referred_to_is_described():
    described = set()
    for document in every_document().values():
        schemas = document["components"]["schemas"]
        text = str(schemas)
        assert set(re.findall(r"#/components/schemas/([\w.]+)", text)) <= set(schemas)
        for schema in schemas.values():
            for identity in schema.get("x-kubernetes-group-version-kind", ()):
                described.add((identity["group"], identity["kind"]))
    assert described == {(kind.group, kind.kind) for kind in SERVED}


def test_a_type_has_one_name_in_all_documents():
    core = openapi.document("api/v1")["components"]["schemas"]
    batch = openapi.document("apis/batch/v1")["components"]["schemas"]
    assert {"io.k8s.api.batch.v1.Job", "io.k8s.api.batch.v1.JobSpec", "io.k8s.api.core.v1.PodSpec"} <= set(batch)
    assert batch["io.k8s.api.core.v1.Container"] == core["io.k8s.api.core.v1.Container"]
    assert "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" in core


@pytest.mark.parametrize(
    ("name", "field", "wanted"),
    [
        ("core.v1.Pod", "spec", {"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]}),
        ("core.v1.PodSpec", "containers", {"type": "array", "x-kubernetes-patch-merge-key": "name"}),
        ("core.v1.PodSpec", "volumes", {"x-kubernetes-patch-strategy": "merge,retainKeys"}),
        ("core.v1.Container", "volumeMounts", {"x-kubernetes-patch-merge-key": "mountPath"}),
        ("core.v1.Container", "command", {"type": "array", "items": {"type": "string"}}),
        ("core.v1.PodSpec", "terminationGracePeriodSeconds", {"type": "integer", "format": "int64"}),
        ("core.v1.PodSpec", "nodeSelector", {"type": "object", "additionalProperties": {"type": "string"}}),
        ("core.v1.Secret", "data", {"additionalProperties": {"type": "string", "format": "byte"}}),
    ],
)
def test_fields_have_types_and_merge_keys(name, field, wanted):
    properties = openapi.document("api/v1")["components"]["schemas"][f"io.k8s.api.{name}"]["properties"]
    assert properties[field] | wanted == properties[field]
    assert properties[field]["description"] or field == "spec"


def test_required_fields_are_named():
    assert openapi.document("api/v1")["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["required"] == [
        "containers"
    ]


def test_patches_take_field_validation_and_name_their_kind():
    patch = openapi.document("apis/batch/v1")["paths"]["/apis/batch/v1/namespaces/{namespace}/jobs/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "batch", "version": "v1", "kind": "Job"}
    assert "fieldValidation" in [parameter["name"] for parameter in patch["parameters"]]
    assert "application/strategic-merge-patch+json" in patch["requestBody"]["content"]


def test_a_type_that_does_not_exist_is_a_lookup_error():
    with pytest.raises(LookupError, match="V1Nosuch"):
        type_of("Nosuch")


def test_types_are_read_from_their_text():
    nested = parse_type("dict[str, list[V1EnvVar]]")
    assert (nested.form, nested.inner.form, nested.inner.inner.name) == ("map", "list", "V1EnvVar")
    assert struct("V1Container").fields["name"].required
    assert describe("V1Container")["image"].startswith("Container image name.")

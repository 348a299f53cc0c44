from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswind.errors import TemplateError
from crosswind.pods.templates import parse_template

GOOD = """\
apiVersion: v1
kind: Pod
metadata:
  name: worker
spec:
  containers:
    - name: base
      image: apache/airflow:3.3.2
"""


def _refusal(text: str) -> str:
    with pytest.raises(TemplateError) as caught:
        parse_template(text, "t.yaml")
    return str(caught.value)


def test_a_template_is_returned_as_kubernetes_has_it() -> None:
    assert parse_template(GOOD, "t.yaml")["spec"]["containers"] == [{"name": "base", "image": "apache/airflow:3.3.2"}]


def test_base_may_stand_behind_a_sidecar() -> None:
    text = GOOD.replace("    - name: base", "    - {name: proxy, image: envoy}\n    - name: base")
    assert [c["name"] for c in parse_template(text, "t.yaml")["spec"]["containers"]] == ["proxy", "base"]


def test_fields_that_only_the_api_server_sets_are_dropped() -> None:
    text = GOOD.replace("  name: worker", "  name: worker\n  uid: 1-2\n  creationTimestamp: null\n  generateName: w-")
    template = parse_template(text + "status: {phase: Running}\n", "t.yaml")
    assert template["metadata"] == {"name": "worker"}
    assert "status" not in template


def test_a_null_limit_is_none() -> None:
    template = parse_template(GOOD + "      resources: {limits: {cpu: null, memory: 1Gi}}\n", "t.yaml")
    assert template["spec"]["containers"][0]["resources"] == {"limits": {"memory": "1Gi"}}


@pytest.mark.parametrize("name", ["dags_in_image", "dags_in_volume", "git_sync"])
def test_airflows_own_example_templates_are_accepted(name: str) -> None:
    from airflow.providers.cncf import kubernetes

    path = Path(kubernetes.__path__[0], "pod_template_file_examples", f"{name}_template.yaml")
    assert parse_template(path.read_text(), str(path))["metadata"]["name"] in ("dummy-name", "placeholder-name")


IMAGE = "image: apache/airflow:3.3.2"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (GOOD, "", "t.yaml: the file is empty; write a Pod"),
        (GOOD, "# nothing\n", "t.yaml: the file is empty"),
        (GOOD, "just text\n", "t.yaml:1: the document is text, not a Pod"),
        (GOOD, GOOD + "---\n" + GOOD, "t.yaml:9: the file holds more than one YAML document; keep the Pod"),
        ("name: worker", "name: {worker", "t.yaml:5: not readable as YAML"),
        ("  containers:", "\tcontainers:", "t.yaml:6: not readable as YAML"),
        ("metadata:", "metadata: !!python/object:os.system", "t.yaml:3: not readable as YAML"),
        ("kind: Pod", "kind: Deployment", "t.yaml:2: kind is 'Deployment', not 'Pod'; write kind: Pod"),
        ("kind: Pod\n", "", "t.yaml:1: the document has no kind; write kind: Pod and apiVersion: v1"),
        ("apiVersion: v1", "apiVersion: v2", "t.yaml:1: apiVersion is 'v2', not 'v1'; write apiVersion: v1"),
        ("  name: worker\n", "  labels: {}\n", "t.yaml:3: metadata.name is not set; give any name"),
        ("name: worker", "name:", "t.yaml:4: metadata.name is not set"),
        ("name: worker", "name: 7", "t.yaml:4: metadata.name is 7; put it into quotes"),
        ("metadata:\n  name: worker\n", "", "metadata.name is not set"),
        ("name: base", "name: main", "t.yaml:6: spec.containers has no container named base, there is only main; name"),
        ("  containers:", "  initContainers:", "there is none (an init container does not count)"),
        ("spec:", "specification:", "spec.containers has no container named base"),
        ("  containers:", "  container:", "t.yaml:6: spec.container is not a field of Kubernetes; write containers"),
        (IMAGE, "imagePullPolicy: Always", "t.yaml:7: spec.containers[0].image of container 'base' is not"),
        (IMAGE, 'image: " "', "t.yaml:8: spec.containers[0].image of container 'base' is"),
        (IMAGE, "image: 3.3", "t.yaml:8: spec.containers[0].image is 3.3; put it into quotes"),
        (
            "    - name: base\n      image",
            "    - base\n    - image",
            "t.yaml:7: spec.containers[0] is 'base'; write a mapping of fields",
        ),
        ("name: worker", "name: worker\n  name: other", "t.yaml:5: metadata.name is given twice; keep one of them"),
        ("name: worker", "name: worker\n  labels: {on: yes}", "metadata.labels has the key True, which is not text"),
        (
            "name: worker",
            "name: worker\n  labels: {ok: yes}",
            "t.yaml:5: metadata.labels.ok is true; put it into quotes",
        ),
        ("spec:", "spec:\n  nodeSelector: [a]", "t.yaml:6: spec.nodeSelector is a list; write a mapping"),
        (
            "spec:",
            "spec:\n  volumes:\n    - emptyDir: {}",
            "t.yaml:7: spec.volumes[0].name is missing; write name: with a value",
        ),
    ],
)
def test_an_unusable_template_is_refused_with_line_and_fix(old: str, new: str, message: str) -> None:
    assert message in _refusal(GOOD.replace(old, new))


def test_all_problems_are_reported_together() -> None:
    text = GOOD.replace("  name: worker", "  labels: {}").replace("name: base", "name: main")
    assert _refusal(text).count("\n") == 1


def test_anchors_and_merge_keys_may_be_used() -> None:
    text = GOOD + "      env: &env\n        - {name: A, value: b}\n    - {name: helper, image: x, env: *env}\n"
    assert parse_template(text, "t.yaml")["spec"]["containers"][1]["env"] == [{"name": "A", "value": "b"}]


@given(st.text(max_size=200) | st.text(alphabet="{}[]:-&*!?|>\n \t'\"#a1", max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        parse_template(text, "t.yaml")

"""The examples of docs/guides/pod-templates.md work as shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kubernetes.client import ApiClient

from crosswind.engine.worker_pod import WorkerSettings, WorkerTask, worker_pod
from crosswind.engine.workload_secrets import SecretWorkload
from crosswind.errors import OverrideError, TemplateError
from crosswind.pods.templates import parse_template

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "pod-templates.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
IMAGE = ROOT / "examples" / "pod_templates" / "image.yaml"


def _worker(override: dict | None) -> dict:
    task = WorkerTask("orders", "load", "manual__1", 1, "0f8fad5b")
    template = parse_template(IMAGE.read_text(), str(IMAGE))
    return worker_pod(template, override, task, WorkerSettings(), SecretWorkload("w", "k"))


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_of_the_page_gives_a_pod(number: int) -> None:
    names: dict = {}
    exec(SNIPPETS[number], names)
    for value in names.values():
        if isinstance(value, dict) and "pod_override" in value:
            override = ApiClient().sanitize_for_serialization(value["pod_override"])
            assert _worker(override)["spec"]["containers"][0]["resources"]["requests"] == {
                "cpu": "250m",
                "memory": "512Mi",
            }


def test_the_pages_message_about_a_wrong_container_is_the_real_one() -> None:
    with pytest.raises(OverrideError) as caught:
        _worker({"spec": {"containers": [{"name": "bse"}]}})
    assert f"    {caught.value}\n" in PAGE


def test_the_pages_messages_about_a_template_are_the_real_ones() -> None:
    text = IMAGE.read_text().replace("imagePullPolicy:", "volume_mounts: []\n      imagePullPolicy:")
    with pytest.raises(TemplateError) as caught:
        parse_template(text.replace("metadata:", "metadata:\n  labels: {spot: true}"), "t")
    for line in str(caught.value).splitlines():
        assert line.split(" ", 1)[1] in PAGE


def test_the_page_names_the_templates_that_are_shipped() -> None:
    assert re.findall(r"^\| `(\S+\.yaml)`", PAGE, re.M) == ["image.yaml", "pvc.yaml", "git-sync.yaml", "bundle.yaml"]

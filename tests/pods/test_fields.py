from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from any_json import any_pod
from crosswind.pods import fields
from crosswind.pods.kept_logs import log_outlives_pod
from crosswind.pods.states import container_reports, holding_containers

POD = {
    "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}, "ownerReferences": [{"kind": "Job"}]},
    "spec": {"containers": [{"name": "base"}], "initContainers": [{"name": "proxy", "restartPolicy": "Always"}]},
    "status": {"conditions": [{"type": "Ready"}], "containerStatuses": [{"name": "base"}]},
}
READERS: list[Callable[[Any], Any]] = [
    fields.metadata_of,
    fields.spec_of,
    fields.status_of,
    fields.labels_of,
    fields.annotations_of,
    fields.owners_of,
    fields.containers_of,
    fields.init_containers_of,
    fields.container_statuses_of,
    fields.conditions_of,
]


@given(any_pod)
def test_any_json_is_read_as_the_declared_shapes(value: Any) -> None:
    pod = fields.as_pod(value)
    for read in READERS:
        part = read(pod)
        assert isinstance(part, dict) or all(isinstance(item, dict) for item in part)
    assert isinstance(fields.container_of(pod, "base"), dict)
    assert all(isinstance(report.name, str) for report in container_reports(value, "base"))
    assert isinstance(holding_containers(value, "base"), tuple)
    assert isinstance(log_outlives_pod(value, "/logs"), bool)


def test_a_pod_is_read_as_it_is() -> None:
    assert [read(fields.as_pod(POD)) for read in READERS] == [
        POD["metadata"],
        POD["spec"],
        POD["status"],
        {"a": "b"},
        {"c": "d"},
        [{"kind": "Job"}],
        [{"name": "base"}],
        [{"name": "proxy", "restartPolicy": "Always"}],
        [{"name": "base"}],
        [{"type": "Ready"}],
    ]
    assert fields.is_native(fields.container_of(fields.as_pod(POD), "proxy"))
    assert fields.container_of(fields.as_pod(POD), "other") == {}


@pytest.mark.parametrize(
    ("value", "texts"),
    [(["sh", "-c"], ["sh", "-c"]), (["sleep", 5, None], ["sleep", "5", "None"]), ("sh", []), (5, [])],
)
def test_the_words_of_a_command_are_texts(value: object, texts: list[str]) -> None:
    assert fields.texts(value) == texts

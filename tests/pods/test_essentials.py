from __future__ import annotations

import pytest
from test_causes import SENTENCES
from test_verdict import CASES, RUNNING, make_pod

from crosswind.pods.causes import why
from crosswind.pods.essentials import essentials
from crosswind.pods.verdict import judge

PODS = [
    pod for pod, _ in (*CASES.values(), *SENTENCES) if isinstance(pod, dict) and "metadata" in pod and "spec" in pod
]


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("number", range(len(PODS)))
def test_the_verdict_and_its_reason_are_those_of_the_whole_pod(number: int, deleted: bool) -> None:
    pod = PODS[number]
    assert judge(essentials(pod), deleted=deleted) == judge(pod, deleted=deleted)
    assert why(essentials(pod), deleted=deleted) == why(pod, deleted=deleted)


def test_fields_that_no_verdict_reads_are_dropped() -> None:
    pod = make_pod("Running", {"base": RUNNING}, podIP="10.0.0.1")
    pod["metadata"]["annotations"] = {"a": "b"}
    pod["spec"]["containers"][0] |= {"env": [{"name": "A"}], "image": "i"}
    kept = essentials(pod)
    assert kept["metadata"] == {"name": "p", "namespace": "airflow"}
    assert kept["spec"]["containers"] == [{"name": "base", "image": "i"}]
    assert kept["status"] == {"phase": "Running", "containerStatuses": [{"name": "base", "state": RUNNING}]}

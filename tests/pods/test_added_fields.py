"""What a pod has in the cluster that nobody asked for, by name."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from tests.any_json import any_pod

from crosswind.pods.added_fields import added_fields, asked_fields
from crosswind.pods.fields import as_pod

ASKED: dict[str, Any] = {
    "metadata": {"labels": {"dag_id": "d"}, "annotations": {"mine": "1"}},
    "spec": {
        "volumes": [{"name": "workload"}],
        "containers": [
            {"name": "base", "env": [{"name": "A"}], "volumeMounts": [{"name": "workload", "mountPath": "/workload"}]}
        ],
    },
}


def admitted() -> dict[str, Any]:
    """Return the pod as the API server has it, after the ServiceAccount admission plugin and Istio's webhook."""
    pod = copy.deepcopy(ASKED)
    token = {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    pod["metadata"]["labels"]["istio.io/rev"] = "default"
    pod["metadata"]["annotations"] |= {"sidecar.istio.io/status": "{}", "crosswind/workload": "sealed"}
    pod["spec"]["volumes"].append({"name": "kube-api-access-x"})
    pod["spec"]["containers"][0]["env"].append({"name": "HTTP_PROXY", "value": "secret"})
    pod["spec"]["containers"][0]["volumeMounts"].append(token)
    pod["spec"]["containers"].append({"name": "istio-proxy", "env": [{"name": "POD_NAME"}], "volumeMounts": [token]})
    pod["spec"]["initContainers"] = [{"name": "istio-init", "volumeMounts": [token]}]
    return pod


def test_what_admission_added_is_named_without_what_is_ours_and_what_whole_containers_have() -> None:
    assert added_fields(admitted(), asked_fields(ASKED)) == [
        "labels/istio.io/rev",
        "annotations/sidecar.istio.io/status",
        "volumes/kube-api-access-x",
        "env/base/HTTP_PROXY",
        "volumeMounts/base//var/run/secrets/kubernetes.io/serviceaccount",
    ]


def test_a_pod_as_it_was_asked_for_has_nothing_added() -> None:
    assert added_fields(ASKED, asked_fields(ASKED)) == []


def test_equal_pods_share_the_names_of_their_fields() -> None:
    assert asked_fields(ASKED) is asked_fields(copy.deepcopy(ASKED))


@given(any_pod, any_pod)
def test_any_pod_has_fields(asked: Any, pod: Any) -> None:
    added_fields(as_pod(pod), asked_fields(as_pod(asked)))

"""What the API server would refuse in a pod is refused where it is read, by template and override alike."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import yaml

from api_validation import refusal
from crosswind.errors import OverrideError, TemplateError
from crosswind.pods.merge import check_override, merge_pods
from crosswind.pods.templates import parse_template

SMALL_GPU = {"requests": {"nvidia.com/gpu": 1}}


def _pod(spec: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    base = {"name": "base", "image": "apache/airflow:3.3.2", **container}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "w"},
        "spec": {"containers": [base], **(spec or {})},
    }


def _volume(**source: Any) -> dict[str, Any]:
    return _pod({"volumes": [{"name": "v", **source}]})


def _toleration(**fields: Any) -> dict[str, Any]:
    return _pod({"tolerations": [fields]})


def _node_term(**requirement: Any) -> dict[str, Any]:
    term = {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}
    return _pod({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}})


REFUSED: list[tuple[dict[str, Any], str]] = [
    # misspelt fields and values of another type
    (_pod(env=[{"name": "A", "valuefrom": {}}]), "containers[0].env[0].valuefrom is not a field"),
    (_volume(secret={"secretname": "x"}), "volumes[0].secret.secretname is not a field"),
    (_pod(volumeMounts=[{"name": "v", "mountpath": "/x"}]), "containers[0].volumeMounts[0].mountpath is not a field"),
    (_pod(resources={"limit": {"cpu": 1}}), "containers[0].resources.limit is not a field of Kubernetes; write limits"),
    (
        _volume(secret={"secretName": "x", "defaultMode": "0440"}),
        "volumes[0].secret.defaultMode is '0440'; write a whole",
    ),
    (
        _volume(configMap={"name": "x", "optional": "true"}),
        "volumes[0].configMap.optional is 'true'; write true or false",
    ),
    (
        _pod(resources={"requests": {"memory": "2GB"}}),
        "containers[0].resources.requests.memory is '2GB'; write a quant",
    ),
    (_toleration(operator="Exists", tolerationSeconds="5"), "tolerations[0].tolerationSeconds is '5'; write a whole"),
    (_pod({"affinity": {"nodeAffinity": ["a"]}}), "affinity.nodeAffinity is a list; write a mapping of fields"),
    (_pod({"terminationGracePeriodSeconds": "30"}), "terminationGracePeriodSeconds is '30'; write a whole number"),
    (_pod({"automountServiceAccountToken": "false"}), "automountServiceAccountToken is 'false'; write true or false"),
    (_pod(ports=[{"containerPort": "80"}]), "containers[0].ports[0].containerPort is '80'; write a whole number"),
    (_pod(securityContext={"runAsUser": "1000"}), "containers[0].securityContext.runAsUser is '1000'; write a whole"),
    (_pod(envFrom=[{"secretRef": "my"}]), "containers[0].envFrom[0].secretRef is 'my'; write a mapping of fields"),
    (_pod({"imagePullSecrets": ["my"]}), "imagePullSecrets[0] is 'my'; write a mapping of fields"),
    (_pod({"hostAliases": ["my"]}), "hostAliases[0] is 'my'; write a mapping of fields"),
    (_pod({"readinessGates": ["my"]}), "readinessGates[0] is 'my'; write a mapping of fields"),
    (
        _pod(livenessProbe={"httpGet": {"port": True}}),
        "containers[0].livenessProbe.httpGet.port is true; write a number",
    ),
    # missing, contradicting and excluding fields
    (
        _pod(env=[{"name": "A", "valueFrom": {}}]),
        "containers[0].env[0].valueFrom has no content; write one of configMapK",
    ),
    (
        _pod(env=[{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
        "containers[0].env[0] has value and valueFrom; keep one of them",
    ),
    (_pod(envFrom=[{"prefix": "A_"}]), "containers[0].envFrom[0] has no content; write one of configMapRef, secretRef"),
    (_pod(envFrom=[{"secretRef": {}}]), "containers[0].envFrom[0].secretRef.name is missing"),
    (_volume(emptyDir={}, configMap={"name": "x"}), "volumes[0] has emptyDir and configMap; keep one of them"),
    (_pod(livenessProbe={"periodSeconds": 5}), "containers[0].livenessProbe has no content; write one of exec, grpc"),
    (_pod(lifecycle={"preStop": {}}), "containers[0].lifecycle.preStop has no content; write one of exec, httpGet"),
    (
        _pod(resources={"requests": {"cpu": 2, "memory": "1Gi"}, "limits": {"cpu": "1500m", "memory": "2G"}}),
        "containers[0].resources.requests.cpu is 2, above the limit '1500m'; lower it, or raise the limit",
    ),
    # names, enumerations and ranges
    (_pod(env=[{"name": "A=B", "value": "x"}]), "containers[0].env[0].name is 'A=B'; use printable ASCII"),
    (
        _pod(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a/b c"}}}]),
        "containers[0].env[0].valueFrom.secretKeyRef.key is 'a/b c'; use letters, digits",
    ),
    (_pod({"volumes": [{"name": "Ca_X", "emptyDir": {}}]}), "volumes[0].name is 'Ca_X'; use at most 63 lower-case"),
    (_pod(resources={"requests": {"cpu": "-1"}}), "containers[0].resources.requests.cpu is '-1'; write 0 or more"),
    (
        _pod(resources={"requests": {"memroy": "1Gi"}}),
        "containers[0].resources.requests.memroy is not a resource; write mem",
    ),
    (_pod(image=" a"), "containers[0].image is ' a'; leave out the space"),
    (_pod(imagePullPolicy="always"), "containers[0].imagePullPolicy is 'always'; write Always"),
    (_pod(ports=[{"containerPort": 70000}]), "containers[0].ports[0].containerPort is 70000; write a number from 1 to"),
    (_pod({"nodeSelector": {"a b": "c"}}), "nodeSelector has the key 'a b'; use letters"),
    (_pod({"nodeSelector": {"a": "b c"}}), "nodeSelector.a is 'b c'; use at most 63 letters"),
    (_toleration(key="spot", operator="Exist"), "tolerations[0].operator is 'Exist'; write Exists"),
    (_toleration(key="spot", operator="Some"), "tolerations[0].operator is 'Some'; write one of Equal, Exists"),
    (_toleration(key="spot", effect="NoRun"), "tolerations[0].effect is 'NoRun'; write one of NoSchedule"),
    (_toleration(value="x"), "tolerations[0] has no key; write key, or operator: Exists"),
    (_toleration(operator="Exists", value="x"), "tolerations[0].value is not used with operator Exists"),
    (_toleration(key="a", tolerationSeconds=5), "tolerations[0].tolerationSeconds applies to effect NoExecute alone"),
    (_node_term(key="a", operator="in", values=["b"]), "matchExpressions[0].operator is 'in'; write In"),
    (_node_term(key="a", operator="In"), "matchExpressions[0].values is missing for operator In; write a list"),
    (_volume(secret={"secretName": "x", "defaultMode": 1000}), "volumes[0].secret.defaultMode is 1000; write an octal"),
    (_volume(hostPath={"path": "/a", "type": "directory"}), "volumes[0].hostPath.type is 'directory'; write Directory"),
    (
        _volume(configMap={"name": "x", "items": [{"key": "a", "path": "../b"}]}),
        "volumes[0].configMap.items[0].path is '../b'; write a relative path without '..'",
    ),
    (_pod({"restartPolicy": "never"}), "restartPolicy is 'never'; write Never"),
    (_pod({"terminationGracePeriodSeconds": -1}), "terminationGracePeriodSeconds is -1; write a number of at least 0"),
]


@pytest.mark.parametrize(("pod", "message"), REFUSED)
def test_what_the_api_server_refuses_is_refused_in_template_and_override(pod: dict[str, Any], message: str) -> None:
    assert refusal(pod), "the API server accepts it"
    with pytest.raises(TemplateError) as in_template:
        parse_template(yaml.safe_dump(pod, sort_keys=False), "t.yaml")
    with pytest.raises(OverrideError) as in_override:
        check_override(pod)
    for error in (in_template, in_override):
        assert message in str(error.value)


BETWEEN_PARTS: list[tuple[dict[str, Any], str]] = [
    (
        _pod({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "secret": {"secretName": "s"}}]}),
        "spec.volumes[1].name is 'v' a second time; give each volume its own name",
    ),
    (
        _pod(volumeMounts=[{"name": "nope", "mountPath": "/x"}]),
        "spec.containers[0].volumeMounts[0].name is 'nope', which is no volume of the pod; add it to volumes",
    ),
    (
        _pod(
            {"volumes": [{"name": "v", "emptyDir": {}}]},
            volumeMounts=[{"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "/x"}],
        ),
        "spec.containers[0].volumeMounts[1].mountPath is '/x' a second time; give each mount its own path",
    ),
]
"""An override may have them: its lists are merged by key into the template's."""


@pytest.mark.parametrize(("pod", "message"), BETWEEN_PARTS)
def test_what_does_not_fit_together_in_a_pod_is_refused_in_a_template(pod: dict[str, Any], message: str) -> None:
    assert refusal(pod), "the API server accepts it"
    with pytest.raises(TemplateError) as caught:
        parse_template(yaml.safe_dump(pod, sort_keys=False), "t.yaml")
    assert message in str(caught.value)
    check_override(pod)


def test_a_gpu_needs_a_limit_which_an_override_need_not_repeat() -> None:
    with pytest.raises(
        TemplateError, match=r"limits.nvidia.com/gpu is missing beside the request.*write nvidia.com/gpu: 1"
    ):
        parse_template(yaml.safe_dump(_pod(resources=SMALL_GPU)), "t.yaml")
    check_override(_pod(resources=SMALL_GPU))
    with pytest.raises(OverrideError, match=r"requests.nvidia.com/gpu is 1, not equal to the limit 2"):
        check_override(_pod(resources={**SMALL_GPU, "limits": {"nvidia.com/gpu": 2}}))


ACCEPTED = [
    _pod(env=[{"name": "my.var-1 x", "value": ""}, {"name": "A"}, {"name": "N", "value": None}]),
    _pod(
        resources={"requests": {"cpu": 0.5, "hugepages-2Mi": "4Mi"}, "limits": {"cpu": "500m", "hugepages-2Mi": "4Mi"}}
    ),
    _pod(
        {
            "tolerations": [
                {"operator": "Exists"},
                {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 0},
            ]
        }
    ),
    _pod({"nodeSelector": {"topology.kubernetes.io/zone": "eu-1", "empty": ""}}),
    _pod(ports=[{"containerPort": 53, "name": "dns", "protocol": "UDP"}, {"containerPort": 53}]),
    _pod(livenessProbe={"httpGet": {"port": "http"}, "periodSeconds": 5}, readinessProbe={"tcpSocket": {"port": 80}}),
    _pod(securityContext={"runAsUser": 0, "seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}),
    _volume(),
    _volume(secret={"secretName": "s", "defaultMode": 0o400, "items": [{"key": "a", "path": "b/c", "mode": 0}]}),
    _node_term(key="a", operator="Gt", values=["5"]),
    _node_term(key="a", operator="Exists"),
]


@pytest.mark.parametrize("pod", ACCEPTED)
def test_what_the_api_server_accepts_is_accepted(pod: dict[str, Any]) -> None:
    assert refusal(pod) == ""
    assert parse_template(yaml.safe_dump(pod, sort_keys=False), "t.yaml")
    check_override(pod)


def test_what_a_newer_kubernetes_may_have_passes() -> None:
    pod = _pod({"volumes": [{"name": "v", "aNewSource": {"x": 1}}], "aNewField": 5}, livenessProbe={"aNewHandler": {}})
    assert parse_template(yaml.safe_dump(pod, sort_keys=False), "t.yaml")["spec"]["aNewField"] == 5
    check_override(pod)


@pytest.mark.parametrize("field", ["envFrom", "ports", "volumeMounts", "env", "volumeDevices"])
@pytest.mark.parametrize("item", ["x", 5, ["x"], None, {"secretRef": "x"}, {"name": ["x"]}, {"containerPort": {}}])
def test_a_list_of_a_container_is_merged_or_refused(field: str, item: Any) -> None:
    with suppress(OverrideError):
        merge_pods(_pod(**{field: [{"name": "x"}]}), _pod(**{field: [item]}))

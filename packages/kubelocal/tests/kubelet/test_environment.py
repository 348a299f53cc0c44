"""Variables, expansion and downward values, by tables."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from kubelocal.kubelet.environment import ContainerConfigError, downward, environment, expand, service_variables

SECRET = {
    "kind": "Secret",
    "data": {"password": base64.b64encode(b"s3cret").decode(), "A": base64.b64encode(b"of secret").decode()},
}
CONFIG = {"kind": "ConfigMap", "data": {"colour": "green"}, "binaryData": {"bin": base64.b64encode(b"\xff").decode()}}
POD = {
    "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "b", "x/y": 'q"\\'}, "annotations": {}},
    "spec": {"nodeName": "node", "serviceAccountName": "me", "containers": []},
    "status": {"podIP": "10.0.0.2", "hostIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.2"}]},
}
ALLOCATABLE = {"cpu": "2", "memory": "8Gi"}


def lookup(kind: str, name: str) -> dict[str, Any] | None:
    return {("Secret", "s"): SECRET, ("ConfigMap", "c"): CONFIG}.get((kind, name))


def made(*variables: dict[str, Any], services: dict[str, str] | None = None, **container: Any) -> dict[str, str]:
    return environment(POD, {"name": "c", "env": list(variables), **container}, services or {}, lookup, ALLOCATABLE)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("$(A)", "one"),
        ("$(NOSUCH)", "$(NOSUCH)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$one"),
        ("5$$6", "5$6"),
        ("$A $", "$A $"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("a$\nb", "a$\nb"),
    ],
)
def test_references_are_expanded(text: str, wanted: str) -> None:
    assert expand(text, {"A": "one"}) == wanted


def test_later_variables_see_earlier_ones_and_win_over_what_is_given() -> None:
    variables = (
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)$(C)"},
        {"name": "C", "value": "3"},
        {"name": "D"},
    )
    assert made(*variables, services={"A": "0"}) == {"A": "1", "B": "1$(C)", "C": "3", "D": ""}


def ref(**source: Any) -> dict[str, Any]:
    return {"name": "V", "valueFrom": source}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ({"secretKeyRef": {"name": "s", "key": "password"}}, "s3cret"),
        ({"configMapKeyRef": {"name": "c", "key": "colour"}}, "green"),
        ({"fieldRef": {"fieldPath": "metadata.name"}}, "p"),
        ({"fieldRef": {"fieldPath": "metadata.labels['a']"}}, "b"),
        ({"fieldRef": {"fieldPath": "metadata.labels['none']"}}, ""),
        ({"fieldRef": {"fieldPath": "status.podIP"}}, "10.0.0.2"),
        ({"fieldRef": {"fieldPath": "status.podIPs"}}, "10.0.0.2"),
        ({"resourceFieldRef": {"resource": "limits.memory"}}, str(64 << 20)),
        ({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}, "64"),
        ({"resourceFieldRef": {"resource": "requests.cpu"}}, "1"),
        ({"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}, "250"),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "2"),
    ],
)
def test_values_come_from_objects_fields_and_resources(source: dict[str, Any], value: str) -> None:
    resources = {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}
    assert made(ref(**source), resources=resources) == {"V": value}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"secretKeyRef": {"name": "no", "key": "x"}}, 'secret "no" not found'),
        ({"secretKeyRef": {"name": "s", "key": "x"}}, "couldn't find key x in Secret n/s"),
        ({"configMapKeyRef": {"name": "no", "key": "x"}}, 'configmap "no" not found'),
        ({"fieldRef": {"fieldPath": "spec.restartPolicy"}}, "unsupported fieldPath: spec.restartPolicy"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ContainerConfigError, match=f"^{message}$"):
        made(ref(**source))


@pytest.mark.parametrize("name", ["no", "s"])
def test_optional_keys_may_be_missing(name: str) -> None:
    assert made(ref(secretKeyRef={"name": name, "key": "x", "optional": True})) == {}


def test_env_from_takes_all_keys_with_a_prefix_and_env_wins() -> None:
    sources = [{"secretRef": {"name": "s"}}, {"prefix": "C_", "configMapRef": {"name": "c"}}]
    sources.append({"configMapRef": {"name": "no", "optional": True}})
    got = made({"name": "A", "value": "own"}, envFrom=sources)
    assert got == {"password": "s3cret", "A": "own", "C_colour": "green", "C_bin": "\udcff"}


def test_downward_files_list_labels_quoted_and_sorted() -> None:
    item = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    assert downward(POD, item, ALLOCATABLE) == 'a="b"\nx/y="q\\"\\\\"'


def service(name: str, address: str, *ports: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"clusterIP": address, "ports": list(ports)}}


def test_services_give_variables_as_docker_links_did() -> None:
    first, second = {"name": "web-ui", "port": 5555}, {"name": "dns", "port": 53, "protocol": "UDP"}
    assert service_variables([service("my-flower", "10.0.0.7", first, second)]) == {
        "MY_FLOWER_SERVICE_HOST": "10.0.0.7",
        "MY_FLOWER_SERVICE_PORT": "5555",
        "MY_FLOWER_SERVICE_PORT_WEB_UI": "5555",
        "MY_FLOWER_SERVICE_PORT_DNS": "53",
        "MY_FLOWER_PORT": "tcp://10.0.0.7:5555",
        "MY_FLOWER_PORT_5555_TCP": "tcp://10.0.0.7:5555",
        "MY_FLOWER_PORT_5555_TCP_PROTO": "tcp",
        "MY_FLOWER_PORT_5555_TCP_PORT": "5555",
        "MY_FLOWER_PORT_5555_TCP_ADDR": "10.0.0.7",
        "MY_FLOWER_PORT_53_UDP": "udp://10.0.0.7:53",
        "MY_FLOWER_PORT_53_UDP_PROTO": "udp",
        "MY_FLOWER_PORT_53_UDP_PORT": "53",
        "MY_FLOWER_PORT_53_UDP_ADDR": "10.0.0.7",
    }


def test_services_without_an_address_or_ports_give_none() -> None:
    pending: dict[str, Any] = {"metadata": {"name": "pending"}, "spec": {"ports": [{"port": 1}]}}
    assert service_variables([service("headless", "None", {"port": 1}), service("bare", "10.0.0.1"), pending]) == {}

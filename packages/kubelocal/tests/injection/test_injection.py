"""What injectors do to pods; ``REWRITE=1`` writes the golden files anew, to be read before they are committed."""

from __future__ import annotations

import base64
import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubelocal.codec.status_errors import StatusError
from kubelocal.errors import SettingError
from kubelocal.injection import switch_on, vault
from kubelocal.injection.gcsfuse import GcsFuse
from kubelocal.injection.istio import Istio
from kubelocal.injection.kuma import Kuma
from kubelocal.injection.linkerd import Linkerd
from kubelocal.injection.user_sidecars import load

GOLDEN = Path(__file__).parent / "golden"
VAULT = "vault.hashicorp.com/"


def pod(
    *, labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    metadata = {"name": "task-1", "namespace": "airflow", "labels": labels or {}, "annotations": annotations or {}}
    base = {"name": "base", "image": "apache/airflow:3.3.2"}
    fetch = {"name": "fetch-dags", "image": "busybox"}
    return {
        "metadata": metadata | more,
        "spec": {"containers": [base], "initContainers": [fetch], "restartPolicy": "Never"},
    }


def namespace(name: str = "airflow", *, annotations: dict[str, str] | None = None, **labels: str) -> dict[str, Any]:
    said = {key.replace("__", "/").replace("_", "-"): value for key, value in labels.items()}
    return {"metadata": {"name": name, "labels": said, "annotations": annotations or {}}}


MESHED = namespace(istio_injection="enabled")
LINKED = namespace(annotations={"linkerd.io/inject": "enabled"})
HOLD = {"proxy.istio.io/config": "holdApplicationUntilProxyStarts: true\nterminationDrainDuration: 1s"}
CASES: dict[str, Any] = {
    "istio": (Istio(), pod(labels={"app": "etl"}), MESHED),
    "istio-native": (Istio(), pod(annotations={"sidecar.istio.io/nativeSidecar": "true"}), MESHED),
    "istio-hold": (Istio(), pod(annotations=HOLD | {"status.sidecar.istio.io/port": "15555"}), MESHED),
    "linkerd": (Linkerd(), pod(), LINKED),
    "linkerd-native": (
        Linkerd(),
        pod(
            annotations={
                "config.beta.linkerd.io/proxy-enable-native-sidecar": "true",
                "config.linkerd.io/proxy-admin-shutdown": "enabled",
            }
        ),
        LINKED,
    ),
    "gcsfuse": (GcsFuse(), pod(annotations={"gke-gcsfuse/volumes": "true"}), namespace()),
    "kuma": (Kuma(), pod(), {"metadata": {"name": "airflow", "labels": {"kuma.io/sidecar-injection": "enabled"}}}),
    "vault": (
        vault.inject,
        pod(annotations={f"{VAULT}agent-inject": "true", f"{VAULT}agent-inject-secret-db.txt": "secret/data/db"}),
        namespace(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_injected_pods_are_as_in_the_golden_files(name: str) -> None:
    inject, before, where = CASES[name]
    untouched = copy.deepcopy(before)
    after = yaml.safe_dump(json.loads(json.dumps(inject(before, where))), sort_keys=False, width=120)
    file = GOLDEN / f"{name}.yaml"
    if os.environ.get("REWRITE"):
        file.write_text(after)
    assert after == file.read_text()
    assert before == untouched


def names(pod: dict[str, Any], field: str = "containers") -> list[str]:
    return [one["name"] for one in pod["spec"][field]]


INJECT = "sidecar.istio.io/inject"


@pytest.mark.parametrize(
    ("where", "what", "injected"),
    [
        (MESHED, pod(), True),
        (MESHED, pod(labels={INJECT: "false"}), False),
        (MESHED, pod(annotations={INJECT: "false"}), False),
        (MESHED, pod(annotations={"sidecar.istio.io/status": "{}"}), False),
        (namespace(), pod(), False),
        (namespace(), pod(labels={INJECT: "true"}), True),
        (namespace(), pod(annotations={INJECT: "true"}), False),
        (namespace(), pod(labels={"istio.io/rev": "default"}), True),
        (namespace(), pod(labels={"istio.io/rev": "canary", INJECT: "true"}), False),
        (namespace(istio_injection="disabled"), pod(labels={INJECT: "true"}), False),
        (namespace(istio_io__rev="x"), pod(), False),
        (namespace("kube-system", istio_injection="enabled"), pod(), False),
    ],
)
def test_istio_injects_where_its_webhook_would(where: Any, what: Any, injected: bool) -> None:
    assert ("istio-proxy" in names(Istio()(what, where))) is injected


def test_istio_leaves_pods_of_the_host_network_alone() -> None:
    plain = pod()
    plain["spec"]["hostNetwork"] = True
    assert Istio()(plain, MESHED) is plain


JOB = [{"kind": "Job", "name": "migrate-28912345", "controller": True}]


@pytest.mark.parametrize(
    ("what", "canonical"),
    [
        (pod(), "task-1"),
        (pod(labels={"app": "a"}), "a"),
        (pod(labels={"app": "a", "app.kubernetes.io/name": "b"}), "b"),
        (pod(labels={"service.istio.io/canonical-name": "c", "app": "a"}), "c"),
        (pod(generateName="migrate-", ownerReferences=JOB), "migrate"),
        (pod(ownerReferences=JOB), "task-1"),
    ],
)
def test_the_canonical_name_comes_from_label_or_workload(what: Any, canonical: str) -> None:
    assert Istio()(what, MESHED)["metadata"]["labels"]["service.istio.io/canonical-name"] == canonical


def test_a_long_workload_name_is_cut_only_on_request() -> None:
    long = pod(name="n" * 62 + "-x" * 10)
    label = "service.istio.io/canonical-name"
    assert len(Istio()(long, MESHED)["metadata"]["labels"][label]) == 82
    assert Istio(cut=True)(long, MESHED)["metadata"]["labels"][label] == "n" * 62


def test_fields_that_the_user_gives_the_proxy_win() -> None:
    custom = pod()
    custom["spec"]["containers"].append({"name": "istio-proxy", "image": "mine:1"})
    made = Istio()(custom, MESHED)
    assert names(made) == ["base", "istio-proxy"]
    assert made["spec"]["containers"][1]["image"] == "mine:1"
    assert made["spec"]["containers"][1]["readinessProbe"]


def test_a_wrong_proxy_config_is_refused_with_its_text() -> None:
    with pytest.raises(StatusError, match=r"proxy.istio.io/config is not a YAML mapping: 'hold'"):
        Istio()(pod(annotations={"proxy.istio.io/config": "hold"}), MESHED)


@pytest.mark.parametrize(
    ("annotations", "where", "injected"),
    [
        ({}, LINKED, True),
        ({"linkerd.io/inject": "disabled"}, LINKED, False),
        ({}, namespace(), False),
        ({"linkerd.io/inject": "enabled"}, namespace(), True),
    ],
)
def test_linkerd_heeds_pod_before_namespace(annotations: dict[str, str], where: Any, injected: bool) -> None:
    assert ("linkerd-proxy" in names(Linkerd()(pod(annotations=annotations), where))) is injected


def vaulted(**said: str) -> dict[str, Any]:
    annotations = {
        f"{VAULT}{name.replace('_', '-')}": value for name, value in {"agent_inject": "true", **said}.items()
    }
    return vault.inject(pod(annotations=annotations), namespace())


def test_vault_prepopulates_only_on_request() -> None:
    assert names(vaulted()) == ["base", "vault-agent"]
    assert names(vaulted(agent_pre_populate_only="true")) == ["base"]
    assert names(vaulted(agent_pre_populate="false"), "initContainers") == ["fetch-dags"]
    assert names(vaulted(agent_init_first="true"), "initContainers") == ["vault-agent-init", "fetch-dags"]


def test_vault_listens_for_quit_only_when_enabled() -> None:
    def listeners(made: dict[str, Any]) -> Any:
        environment = {one["name"]: one.get("value") for one in made["spec"]["containers"][-1]["env"]}
        return json.loads(base64.b64decode(environment["VAULT_CONFIG"])).get("listener")

    assert listeners(vaulted()) is None
    enabled = listeners(vaulted(agent_enable_quit="true", agent_cache_listener_port="8300"))
    assert enabled[0]["tcp"]["address"] == "127.0.0.1:8300"


DECLARED = """
sidecars:
- when: {'namespace.metadata.labels["logs"]': shipped, 'pod.metadata.annotations["no-logs"]': false}
  container: {name: shipper, image: 'fluent-bit:3', env: [{name: POD, value: '$pod.metadata.name'}]}
- container: {name: clock, image: clock}
  native: true
  first: true
"""


def test_declared_sidecars_are_injected_when_their_conditions_hold(tmp_path: Path) -> None:
    file = tmp_path / "sidecars.yaml"
    file.write_text(DECLARED)
    shipper, clock = load(file)
    made = clock(shipper(pod(), namespace(logs="shipped")), namespace())
    assert names(made) == ["base", "shipper"]
    assert made["spec"]["containers"][1]["env"] == [{"name": "POD", "value": "task-1"}]
    assert made["spec"]["initContainers"][0] == {"name": "clock", "image": "clock", "restartPolicy": "Always"}
    assert shipper(pod(annotations={"no-logs": ""}), namespace(logs="shipped"))["spec"] == pod()["spec"]
    assert shipper(made, namespace(logs="shipped")) is made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "sidecars file .*: not readable as YAML"),
        ("a: 1", "write a mapping with the list `sidecars`"),
        ("sidecars: [3]", r"sidecars\[0\]: a mapping is required, not 3"),
        ("sidecars: [{container: {name: a}}]", r"sidecars\[0\]\.container: name and image are needed"),
        ("sidecars: [{native: 'yes'}]", r"sidecars\[0\]\.native: 'yes' is not a bool"),
        ("sidecars: [{image: x}]", "unknown field 'image'; there are when, container"),
        ("sidecars: [{when: {'a b': 1}, container: {name: a, image: b}}]", "'a b' is not a path"),
    ],
)
def test_a_wrong_sidecars_file_is_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "sidecars.yaml"
    file.write_text(text)
    with pytest.raises(SettingError, match=message):
        load(file)


def test_a_missing_sidecars_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"none\.yaml"):
        load(tmp_path / "none.yaml")


def test_meshes_are_switched_on_for_a_whole_namespace() -> None:
    switched = namespace()
    switch_on(switched, ["istio", "linkerd"])
    assert "istio-proxy" in names(Istio()(pod(), switched))
    assert "linkerd-proxy" in names(Linkerd()(pod(), switched))

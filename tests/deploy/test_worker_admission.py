"""The admission policy applies to task pods, never to Airflow's own."""

from __future__ import annotations

import json
import re
from itertools import product
from typing import Any

import kubernetes_validate
import pytest

from crosswind.deploy.explanations import missing_objects, required_keys
from crosswind.deploy.references import VOLUME_SECRETS
from crosswind.deploy.tree import render
from crosswind.deploy.values_file import FIRST_LINE, read_values
from crosswind.deploy.worker_template import worker_pod
from crosswind.errors import ConfigError

OWN_PODS = "workers.admissionPolicy would refuse Airflow's own pods in namespace airflow; "
LAYOUTS = [
    {"image": "example.com/airflow:1", "workers": {"namespaces": namespaces, "admissionPolicy": True}, **more}
    for namespaces, more in product(
        ([], ["airflow"], ["tasks"], ["tasks", "airflow"]),
        (
            {},
            {"config": {"crosswind": {"queues": json.dumps({"big": {"namespace": "airflow"}})}}},
            {"config": {"crosswind": {"queues": json.dumps({"big": {"namespace": "others"}})}}},
            {"dags": {"source": "pvc", "volume": {"claim": "dags"}}, "reaper": {"namespaces": ["tasks"]}},
            {"web": {"admin": {"email": "a@example.com", "password": {"name": "admin", "key": "password"}}}},
        ),
    )
]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image: a\nworkers:\n  namespaces: [airflow]\n  admissionPolicy: true\n",
            f"v.yaml:4: {OWN_PODS}write workers: {{namespaces: [airflow-workers]}}",
        ),
        (
            f"{FIRST_LINE}\nimage: a\nworkers: {{admissionPolicy: true}}\n",
            f"v.yaml:3: {OWN_PODS}write workers: {{namespaces: [airflow-workers]}}",
        ),
        (
            "image: a\nworkers: {namespaces: [x, airflow], admissionPolicy: true}\n",
            f"v.yaml:2: {OWN_PODS}write workers: {{namespaces: [x]}}",
        ),
        (
            "image: a\nnamespace: a-namespace-of-thirty-letters\n"
            "workers:\n  namespaces: [a-namespace-of-thirty-letters]\n  admissionPolicy: true\n",
            f"v.yaml:5: {OWN_PODS.replace('airflow;', 'a-namespace-of-thirty-letters;')}"
            "write workers: {namespaces: [a-namespace-of-thirty-letters-workers]}",
        ),
        (
            "image: a\nworkers: {admissionPolicy: true}\n"
            'config: {crosswind: {queues: \'{"big": {"namespace": "airflow"}}\'}}\n',
            f"v.yaml:2: {OWN_PODS}name another namespace for that queue in [crosswind] queues",
        ),
        (
            "image: a\nworkers: {admissionPolicy: true}\nlogs: {to: volume, volume: {storageClass: nfs}}\n",
            f"v.yaml:2: {OWN_PODS}write workers: {{namespaces: [airflow-workers]}}, and for dags and logs an EFS file",
        ),
    ],
)
def test_a_policy_in_the_namespace_of_airflows_own_pods_is_refused_with_the_fix(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_values(text, "v.yaml")
    assert str(caught.value).startswith(message)


def test_workers_that_stay_with_airflow_because_they_were_there_before_cannot_get_the_policy() -> None:
    values = read_values("image: a\nworkers: {admissionPolicy: true}\n", "v.yaml")
    with pytest.raises(ConfigError, match="would refuse Airflow's own pods"):
        values.with_workers_apart(False)


@pytest.mark.parametrize("first_line", [FIRST_LINE, "# Mine."])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_program_in_a_namespace_of_the_policy_has_a_service_account_that_it_lists(
    layout: dict[str, Any], first_line: str
) -> None:
    try:
        values = read_values(f"{first_line}\n{json.dumps(layout)}", "v.yaml")
    except ConfigError as error:
        assert OWN_PODS in str(error)  # noqa: PT017 - a layout is either refused so, or keeps the promise
        return
    manifests = [rendered.manifest for rendered in render(values)]
    (policy,) = (m for m in manifests if m["kind"] == "ValidatingAdmissionPolicy")
    (binding,) = (m for m in manifests if m["kind"] == "ValidatingAdmissionPolicyBinding")
    (accounts,) = (v["expression"] for v in policy["spec"]["variables"] if v["name"] == "accounts")
    (selector,) = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    programs = [m for m in manifests if m["kind"] in {"Deployment", "StatefulSet", "Job", "CronJob"}]
    assert programs
    for program in programs:
        if program["metadata"]["namespace"] in selector["values"]:
            assert _account(program["spec"]) in re.findall(r"'([^']+)'", accounts), program["metadata"]["name"]


def _account(spec: dict[str, Any]) -> str:
    """Return the service account of the pods of a Deployment, StatefulSet, Job or CronJob."""
    template = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]
    return str(template["spec"].get("serviceAccountName", "default"))


def test_most_layouts_are_rendered() -> None:
    """The property above is not empty: layouts whose workers are apart are accepted."""
    accepted = 0
    for layout in LAYOUTS:
        try:
            read_values(json.dumps(layout), "v.yaml")
        except ConfigError:
            continue
        accepted += 1
    assert accepted == 8


SECRETS_OF_A_POD = """
image: a
createNamespaces: false  # else the level restricted refuses most of these volumes
workers:
  admissionPolicy: true
  env:
  - {name: A, valueFrom: {secretKeyRef: {name: optional-variable, key: k, optional: true}}}
  - {name: B, valueFrom: {secretKeyRef: {name: variable, key: k}}}
  volumes:
  - {name: a, projected: {sources: [{secret: {name: projected, items: [{key: tls.crt, path: c}]}}]}}
  - {name: b, projected: {sources: [{secret: {name: optional-projected, optional: true}}, {configMap: {name: public}}]}}
  - {name: c, secret: {secretName: volume}}
  - {name: d, secret: {secretName: optional-volume, optional: true}}
  - {name: e, csi: {driver: d, nodePublishSecretRef: {name: csi}}}
  - {name: f, azureFile: {secretName: azure-file, shareName: s}}
  - {name: g, cephfs: {monitors: [m], secretRef: {name: ceph}}}
  - {name: h, flexVolume: {driver: d, secretRef: {name: flex}}}
  - {name: i, iscsi: {targetPortal: p, iqn: q, lun: 0, secretRef: {name: iscsi}}}
  - {name: j, rbd: {monitors: [m], image: i, secretRef: {name: rbd}}}
  - {name: k, scaleIO: {gateway: g, system: s, secretRef: {name: scale-io}}}
  - {name: l, storageos: {secretRef: {name: storage-os}}}
"""
REQUIRED = {
    "azure-file", "ceph", "csi", "flex", "iscsi", "projected", "rbd", "scale-io", "storage-os", "variable", "volume",
}  # fmt: skip
OPTIONAL = {"optional-projected", "optional-variable", "optional-volume"}


def test_the_policy_lists_every_secret_of_the_workers_template_and_the_explanation_the_required_ones() -> None:
    values = read_values(SECRETS_OF_A_POD, "v.yaml")
    objects = render(values)
    (policy,) = (r.manifest for r in objects if r.manifest["kind"] == "ValidatingAdmissionPolicy")
    (allowed,) = (v["expression"] for v in policy["spec"]["variables"] if v["name"] == "secrets")
    assert set(re.findall(r"'([^']+)'", allowed)) == REQUIRED | OPTIONAL
    missing = missing_objects(values, objects)
    assert {name for kind, namespace, name in missing if (kind, namespace) == ("Secret", "airflow-workers")} == REQUIRED
    assert ("ConfigMap", "airflow-workers", "public") in missing
    assert required_keys(values, objects)["Secret", "airflow-workers", "projected"] == {"tls.crt"}


def test_a_secret_that_another_pod_requires_is_missing_although_the_workers_can_do_without_it() -> None:
    source = "{secretKeyRef: {name: shared, key: k, optional: true}}"
    text = f"image: a\npods: {{env: [{{name: A, valueFrom: {source}}}]}}\nimagePullSecrets: [shared]\n"
    values = read_values(text, "v.yaml")
    assert ("Secret", "airflow", "shared") in missing_objects(values, render(values))


def test_the_policy_looks_at_the_secret_of_each_kind_of_volume_in_the_fields_of_kubernetes() -> None:
    values = read_values(SECRETS_OF_A_POD, "v.yaml")
    kubernetes_validate.validate(worker_pod(values), "1.36", strict=True)
    volumes = worker_pod(values)["spec"]["volumes"]
    assert {kind for volume in volumes for kind in volume} >= VOLUME_SECRETS.keys()
    (policy,) = (r.manifest for r in render(values) if r.manifest["kind"] == "ValidatingAdmissionPolicy")
    rules = " ".join(rule["expression"] for rule in policy["spec"]["validations"])
    for kind, path in VOLUME_SECRETS.items():
        assert f"!has({'.'.join(('v', kind, *path))}) || {'.'.join(('v', kind, *path))} in variables.secrets" in rules

"""The admission policy applies to task pods, never to Airflow's own."""

from __future__ import annotations

import json
import re
from itertools import product
from typing import Any

import pytest

from crosswind.deploy.tree import render
from crosswind.deploy.values_file import FIRST_LINE, read_values
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

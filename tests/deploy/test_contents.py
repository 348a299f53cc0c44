"""Airflow accepts the rendered configuration, and the executor accepts the rendered pod template."""

from __future__ import annotations

import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from deployments import DAGS, NAMES, containers, of_kind, pods, values_of

from crosswind.deploy.airflow_config import airflow_cfg
from crosswind.deploy.tree import render
from crosswind.deploy.values import Values
from crosswind.engine.worker_pod import WorkerSettings, worker_namespace
from crosswind.pods.templates import parse_template
from deadlines import scaled

HARMLESS = "LocalExecutor"  # airflow config lint always reports a default that has changed


def data(name: str, key: str) -> list[str]:
    return [manifest["data"][key] for manifest in of_kind(name, "ConfigMap") if key in manifest["data"]]


@pytest.mark.parametrize("name", NAMES)
def test_airflow_finds_nothing_wrong_with_its_configuration(name: str, tmp_path: Path) -> None:
    config = tmp_path / "airflow.cfg"
    config.write_text(data(name, "airflow.cfg")[0])
    environment = os.environ | {
        "AIRFLOW_CONFIG": str(config),
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "False",  # its provider need not be installed here
    }
    command = [sys.executable, "-m", "airflow", "config", "lint"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=scaled(25))
    assert ran.returncode == 0, ran.stderr
    assert not [line for line in ran.stdout.splitlines() if line.lstrip().startswith("- ") and HARMLESS not in line], (
        ran.stdout
    )


@pytest.mark.parametrize("name", NAMES)
def test_all_namespaces_have_the_same_configuration(name: str) -> None:
    assert len({*data(name, "airflow.cfg")}) == 1
    assert len(data(name, "airflow.cfg")) == len(values_of(name).namespaces)


@pytest.mark.parametrize("name", [*NAMES, *(f"{dags}-archive-istio-ordinary" for dags in DAGS)])
def test_executor_takes_the_template(name: str) -> None:
    text = data(name, "pod_template.yaml")[0]
    pod = parse_template(text, "pod_template.yaml")
    assert pod == yaml.safe_load(text)
    assert worker_namespace(pod, None, WorkerSettings(namespace="w")) == "w"


@pytest.mark.parametrize("name", NAMES)
def test_values_of_options_survive_the_file(name: str) -> None:
    parser = ConfigParser()
    parser.read_string(data(name, "airflow.cfg")[0])
    assert parser["core"]["execution_api_server_url"].endswith("/execution/")


def test_given_options_win_and_percent_signs_are_kept() -> None:
    values = Values.model_validate(
        {
            "image": "x",
            "config": {"core": {"load_examples": True, "parallelism": 64}, "logging": {"log_format": "%(a)s"}},
        }
    )
    parser = ConfigParser()
    parser.read_string(airflow_cfg(values))
    assert (parser["core"]["load_examples"], parser["core"]["parallelism"]) == ("True", "64")
    assert parser["logging"]["log_format"] == "%(a)s"


def test_workers_in_other_namespaces_find_the_execution_api() -> None:
    text = data("namespaces", "airflow.cfg")[0]
    assert (
        "execution_api_server_url = http://airflow-api-server.airflow.svc.cluster.local:8080/airflow/execution/" in text
    )
    assert "multi_namespace_mode_namespace_list = airflow-workers,team-orders,team-stock" in text


def test_execution_api_is_not_on_the_ingress() -> None:
    (ingress,) = of_kind("namespaces", "Ingress")
    first, second = ingress["spec"]["rules"][0]["http"]["paths"]
    assert (first["path"], first["backend"]["service"]["name"]) == ("/airflow/execution", "airflow-nowhere")
    assert (second["path"], second["backend"]["service"]["name"]) == ("/airflow", "airflow-api-server")


def test_nothing_secret_is_in_config_maps_or_arguments() -> None:
    for name in NAMES:
        for pod in pods(name):
            for container in containers(pod):
                arguments = [
                    argument.replace('--password "$ADMIN_PASSWORD"', "") for argument in container.get("args", [])
                ]
                assert not [argument for argument in arguments if "password" in argument.lower()]
        assert not of_kind(name, "Secret")
        assert not [text for text in data(name, "airflow.cfg") if "sql_alchemy_conn" in text or "secret_key" in text]


@pytest.mark.parametrize("name", ["image-archive-linkerd-ordinary", "ssh-archive-linkerd-ordinary"])
def test_with_ordinary_sidecars_nothing_needs_the_network_before_them(name: str) -> None:
    for pod in pods(name):
        for container in pod["spec"].get("initContainers", []):
            assert container["securityContext"]["runAsUser"] == 2102
    (job,) = of_kind(name, "Job")
    args = job["spec"]["template"]["spec"]["containers"][0]["args"]
    annotations = job["spec"]["template"]["metadata"]["annotations"]
    assert annotations["config.linkerd.io/proxy-admin-shutdown"] == "enabled"
    assert args == ["python", "-m", "crosswind", "wrap", "--mesh", "linkerd", "--", "airflow", "db", "migrate"]


def test_migration_job_is_a_new_one_when_it_runs_something_else() -> None:
    first, second = (of_kind(name, "Job")[0]["metadata"]["name"] for name in ("minimal", "eks-istio"))
    assert first != second


def test_several_of_a_kind_are_spread_and_kept_through_drains() -> None:
    budgets = {budget["metadata"]["name"] for budget in of_kind("eks-istio", "PodDisruptionBudget")}
    assert budgets == {"airflow-scheduler", "airflow-api-server"}


def test_a_mesh_without_its_plugin_is_not_refused_by_the_namespace() -> None:
    values = {"image": "x", "mesh": {"kind": "istio", "cni": False}}
    from crosswind.deploy.namespace_objects import namespaces

    (rendered,) = namespaces(Values.model_validate(values))
    assert rendered.manifest["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"


QUEUES = '{"gpu": {"namespace": "gpu-tasks"}, "urgent": {"priority_class": "high"}}'


def test_namespaces_of_queues_get_all_that_workers_need() -> None:
    objects = render(Values.model_validate({"image": "x", "config": {"crosswind": {"queues": QUEUES}}}))
    kinds = {
        rendered.manifest["kind"]
        for rendered in objects
        if rendered.manifest["metadata"].get("namespace") == "gpu-tasks"
    }
    assert kinds == {"ConfigMap", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy"}
    assert ("Namespace", "gpu-tasks") in {
        (rendered.manifest["kind"], rendered.manifest["metadata"]["name"]) for rendered in objects
    }


@pytest.mark.parametrize("queues", ["{", "[]", '{"gpu": {"namspace": "x"}}', '{"gpu": {"namespace": "X!"}}'])
def test_queues_that_the_executor_would_refuse_are_refused(queues: str) -> None:
    with pytest.raises(ValueError, match=r"\[crosswind\] queues"):
        Values.model_validate({"image": "x", "config": {"crosswind": {"queues": queues}}})

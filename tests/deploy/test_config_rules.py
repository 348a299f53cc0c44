"""Options of airflow.cfg that the manifests rest upon: they follow, or it is refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from crosswind.deploy.config_rules import FOLLOWED
from crosswind.deploy.tree import files, render
from crosswind.deploy.values import Values
from crosswind.deploy.values_file import read_values
from crosswind.errors import ConfigError


def tree(values: dict[str, Any]) -> dict[str, Any]:
    objects = files(render(Values.model_validate({"image": "x", "web": {"host": "a.example.org"}, **values})))
    return {path: yaml.safe_load(text) for path, text in objects.items()}


def ports_in(manifest: Any) -> set[int]:
    """Return all numbers that stand as a port anywhere in an object."""
    if isinstance(manifest, dict):
        own = {value for key, value in manifest.items() if key in ("port", "containerPort") and isinstance(value, int)}
        return own.union(*(ports_in(value) for value in manifest.values()))
    return set().union(*(ports_in(item) for item in manifest)) if isinstance(manifest, list) else set()


@pytest.mark.parametrize(
    ("section", "option", "default", "places"),
    [
        ("api", "port", 8080, ["api-server/deployment.yaml", "network/api-server.yaml"]),
        ("scheduler", "scheduler_health_check_server_port", 8974, ["scheduler/deployment.yaml"]),
        (
            "logging",
            "trigger_log_server_port",
            8794,
            [
                "triggerer/stateful-set.yaml",
                "triggerer/service.yaml",
                "network/triggerer.yaml",
                "network/api-server.yaml",
            ],
        ),
        (
            "metrics",
            "statsd_port",
            9125,
            ["statsd/deployment.yaml", "statsd/service.yaml", "network/scheduler.yaml", "network/statsd.yaml"],
        ),
    ],
)
def test_a_port_is_followed_everywhere(section: str, option: str, default: int, places: list[str]) -> None:
    before, after = tree({}), tree({"config": {section: {option: 9999}}})
    for place in places:
        assert default in ports_in(before[place]), place
        assert 9999 in ports_in(after[place]), place
        assert default not in ports_in(after[place]), place
    assert f"{option} = 9999" in after["configmap.yaml"]["data"]["airflow.cfg"]


def test_a_port_of_the_mesh_is_followed() -> None:
    values = {
        "mesh": {"kind": "istio"},
        "config": {"api": {"port": 9999}, "logging": {"trigger_log_server_port": 9998}},
    }
    objects = tree(values)
    assert list(objects["istio/api-server-open.yaml"]["spec"]["portLevelMtls"]) == ["9999"]
    assert "'9998'" in str(objects["istio/triggerer-logs.yaml"])


def test_without_health_check_the_scheduler_is_probed_by_its_heartbeat() -> None:
    objects = tree({"config": {"scheduler": {"enable_health_check": False}}})
    container = objects["scheduler/deployment.yaml"]["spec"]["template"]["spec"]["containers"][0]
    assert "SchedulerJob" in str(container["livenessProbe"]["exec"])
    assert not {"ports", "startupProbe"} & container.keys()


def test_the_prefix_of_metrics_is_followed_by_their_mappings() -> None:
    objects = tree({"config": {"metrics": {"statsd_prefix": "prod"}}})
    mappings = yaml.safe_load(objects["statsd/mappings.yaml"]["data"]["mappings.yml"])["mappings"]
    assert {mapping["match"].partition(".")[0] for mapping in mappings} == {"prod"}


@pytest.mark.parametrize(
    ("config", "fix"),
    [
        ("core: {executor: LocalExecutor}", "write executor: in the values file"),
        ("core: {dags_folder: /x}", "write dags.path"),
        ("core: {auth_manager: a.B}", "write web.auth"),
        ("kubernetes_executor: {namespace: x}", "write workers.namespaces"),
        ("kubernetes_executor: {multi_namespace_mode: true}", "write workers.namespaces"),
        ("kubernetes_executor: {pod_template_file: /x}", "write what the pods need into workers"),
        ("logging: {base_log_folder: /x}", "leave it out"),
        ("logging: {remote_logging: true}", "write logs: {to: remote"),
        ("api: {ssl_cert: /x}", "TLS ends at the ingress"),
        ("api: {host: 127.0.0.1}", "leave it out"),
        ("api: {port: 80}", "write a number from 1024 to 65535"),
        ("api: {port: http}", "write a number from 1024 to 65535"),
        ("api: {base_url: https://a.example.org/airflow}", "write web.host and web.path"),
        ("metrics: {statsd_host: statsd.example.org}", "write metrics: {statsd: false}"),
        ("metrics: {statsd_on: false}", "write metrics: {statsd: false}"),
        ("fab: {config_file: /x}", "web.fabConfig"),
        ("crosswind: {archive_log: never}", "has [crosswind] archive_log, which is no option; write archive_logs"),
        ("crosswind: {zzz: 1}", "has [crosswind] zzz, which is no option; there are after_losses, archive_days, "),
        ("crosswind: {workload_delivery: Secret}", "which is 'Secret'; write one of secret, args"),
        ("crosswind: {infra_retries: many}", "which is 'many'; write an integer"),
        ("kubernetes_executor: {delete_worker_pod: true}", "which is no option; write delete_worker_pods"),
        ("kubernetes_executor: {delete_worker_pods: yes please}", "which is 'yes please'; write true or false"),
    ],
)
def test_an_option_that_contradicts_the_manifests_is_refused_with_the_key_to_write(config: str, fix: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_values(f"image: x\nconfig: {{{config}}}\n", "v.yaml")
    assert fix in str(refused.value)


def test_a_list_of_bundles_goes_with_the_image_alone() -> None:
    text = 'image: x\nconfig: {dag_processor: {dag_bundle_config_list: "[]"}}\n'
    assert read_values(text, "v.yaml").dags.source == "image"
    with pytest.raises(ConfigError, match="dag_bundle_config_list beside dags of source git-sync"):
        read_values(text + "dags: {source: git-sync, repo: git@github.com:a/b.git}\n", "v.yaml")


@pytest.mark.parametrize(("section", "option"), sorted(FOLLOWED))
def test_a_variable_that_would_override_a_followed_option_is_refused(section: str, option: str) -> None:
    name = f"AIRFLOW__{section.upper()}__{option.upper()}"
    with pytest.raises(ConfigError, match=rf"{name}, which the rendered objects do not follow; write config: "):
        read_values(f"image: x\npods: {{env: [{{name: {name}, value: '9000'}}]}}\n", "v.yaml")


def test_a_variable_that_contradicts_is_refused_in_any_component() -> None:
    with pytest.raises(
        ConfigError, match=r"AIRFLOW__CORE__EXECUTOR, which contradicts the rendered objects; write executor"
    ):
        read_values("image: x\nscheduler: {env: [{name: AIRFLOW__CORE__EXECUTOR, value: x}]}\n", "v.yaml")


@pytest.mark.parametrize(
    ("variable", "fix"),
    [
        ("{name: AIRFLOW__CROSSWIND__ARCHIVE_LOG, value: never}", "which is no option; write archive_logs"),
        ("{name: AIRFLOW__CROSSWIND__INFRA_RETRIES, value: many}", "which is 'many'; write an integer"),
    ],
)
def test_a_variable_that_the_executor_would_not_read_or_refuse_is_refused(variable: str, fix: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_values(f"image: x\nscheduler: {{env: [{variable}]}}\n", "v.yaml")
    assert fix in str(refused.value)


def test_an_option_of_the_executor_that_no_object_depends_on_may_come_from_a_config_map() -> None:
    source = "{configMapKeyRef: {name: a, key: b}}"
    text = f"image: x\nscheduler: {{env: [{{name: AIRFLOW__CROSSWIND__INFRA_RETRIES, valueFrom: {source}}}]}}\n"
    assert read_values(text, "v.yaml").scheduler.env


class ReadOptions(dict[str, Any]):
    """Options by section that record which of them are read by name."""

    def __init__(self, options: dict[str, Any], section: str = "", read: set[tuple[str, str]] | None = None) -> None:
        super().__init__(options)
        self.section, self.read = section, set() if read is None else read

    def get(self, key: str, default: Any = None) -> Any:
        if not self.section:
            return ReadOptions(super().get(key, {}), key, self.read)
        self.read.add((self.section, key))
        return super().get(key, default)


@pytest.mark.parametrize("logs", ["archive", "none"])
def test_each_option_that_shapes_an_object_is_refused_as_a_variable(logs: str) -> None:
    values = read_values(f"image: x\nlogs: {{to: {logs}}}\nreaper: {{namespaces: [a]}}\n", "v.yaml")
    recorder = ReadOptions({})
    assert render(values.model_copy(update={"config": recorder}))
    # Network policies open the ports of the bundles' addresses; they search variables for addresses too.
    assert recorder.read - {("dag_processor", "dag_bundle_config_list")} <= FOLLOWED
    assert {("crosswind", "queues"), ("crosswind", "workload_delivery"), ("api", "port")} <= recorder.read

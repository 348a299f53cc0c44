from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from airflow.policies import hookimpl
from airflow.providers.cncf.kubernetes.get_provider_info import get_provider_info as stock_provider_info
from airflow.settings import get_policy_plugin_manager

from crosswind import config
from crosswind.config import OPTIONS, STOCK_DEFAULTS, Fate, read_settings, without_effect, worker_environment
from crosswind.errors import ConfigError
from crosswind.provider import get_provider_info

STOCK = stock_provider_info()["config"]["kubernetes_executor"]["options"]
DOCS = Path(__file__).parents[1] / "docs" / "configuration.md"


class Conf:
    """Airflow's configuration with these values and else the defaults of the installed providers."""

    def __init__(self, **values: str) -> None:
        own = get_provider_info()["config"]["crosswind"]["options"]
        self._values = {name: option["default"] for name, option in {**STOCK, **own}.items()} | values

    def get(self, section: str, option: str, fallback: Any = None) -> Any:
        value = self._values.get(option)
        return fallback if value is None else value

    def getint(self, section: str, option: str, fallback: Any = None) -> Any:
        return int(self.get(section, option, fallback))

    def getboolean(self, section: str, option: str, fallback: Any = None) -> Any:
        text = str(self.get(section, option, fallback)).lower()
        if text not in ("true", "false"):
            raise ValueError(f"{text!r} is no boolean")
        return text == "true"

    def getjson(self, section: str, option: str, fallback: Any = None) -> Any:
        text = self.get(section, option)
        return json.loads(text) if text else fallback


def settings(**values: str) -> config.ExecutorSettings:
    return read_settings(Conf(**values), "7")


def test_the_table_covers_exactly_the_options_of_the_installed_provider() -> None:
    assert set(OPTIONS) == set(STOCK)


def test_of_each_option_that_is_replaced_the_default_is_known() -> None:
    replaced = {option for option, (fate, _) in OPTIONS.items() if fate is Fate.REPLACED}
    assert {name: str(STOCK[name]["default"] or "") for name in replaced} == STOCK_DEFAULTS


def test_a_value_that_does_nothing_is_told_with_what_does_its_job() -> None:
    assert list(without_effect(Conf())) == []
    (told,) = without_effect(Conf(worker_pods_creation_batch_size="16"))
    assert told.startswith("[kubernetes_executor] worker_pods_creation_batch_size = 16 has no effect: pods are created")


def test_a_coordinators_template_is_its_queues_and_a_route_to_none_is_refused() -> None:
    jdk = {"classpath": "a.B", "extra": {"pod_template_file": "/java.yaml"}}
    options = {"coordinators": json.dumps({"jdk": jdk}), "queue_to_coordinator": '{"java": "jdk"}'}
    assert settings(**options).queues["java"].template == "/java.yaml"
    with pytest.raises(ConfigError, match=r"^\[sdk\] queue_to_coordinator: java: coordinators has no 'jre'"):
        settings(**options | {"queue_to_coordinator": '{"java": "jre"}'})


def test_the_documentation_has_a_row_for_each_option_with_its_fate() -> None:
    rows = {line.split("`")[1]: line for line in DOCS.read_text().splitlines() if line.startswith("| `")}
    own = get_provider_info()["config"]["crosswind"]["options"]
    assert set(rows) == set(OPTIONS) | set(own)
    for option, (fate, _) in OPTIONS.items():
        assert f"| {fate} |" in rows[option], option
    for option, described in own.items():
        default = f"`{described['default']}`" if described["default"] else ""
        assert f"` | {default}".rstrip() + " |" in rows[option], option


def test_stocks_defaults_give_stocks_behaviour() -> None:
    found = settings()
    assert found.engine.namespaces == ("default",)
    assert found.engine.delete_pods
    assert not found.engine.delete_failed_pods
    assert "ErrImagePull" in found.engine.fatal_reasons
    assert found.engine.launch_retries == 1
    assert found.engine.launch_retry_excluded == {"Error"}
    assert found.kube.in_cluster
    assert found.template is None
    assert found.log_lines == 100


@pytest.mark.parametrize(
    ("values", "read", "expected"),
    [
        ({"namespace": "workers"}, lambda s: (s.engine.namespaces, s.worker.namespace), (("workers",), "workers")),
        ({"multi_namespace_mode": "True"}, lambda s: s.engine.namespaces, (None,)),
        (
            {"multi_namespace_mode": "True", "multi_namespace_mode_namespace_list": "a, b ,default"},
            lambda s: s.engine.namespaces,
            ("default", "a", "b"),
        ),
        (
            {"queues": '{"gpu": {"namespace": "gpus"}, "urgent": {"priority_class": "high"}}'},
            lambda s: (s.engine.namespaces, s.queues["urgent"].priority_class),
            (("default", "gpus"), "high"),
        ),
        ({"delete_worker_pods": "False"}, lambda s: s.engine.delete_pods, False),
        ({"delete_worker_pods_on_failure": "True"}, lambda s: s.engine.delete_failed_pods, True),
        (
            {"worker_pod_pending_fatal_container_state_reasons": "A, B"},
            lambda s: s.engine.fatal_reasons,
            {"A", "B"},
        ),
        ({"pod_launch_failure_retries": "-1"}, lambda s: s.engine.launch_retries, -1),
        ({"pod_launch_failure_excluded_container_reasons": ""}, lambda s: s.engine.launch_retry_excluded, set()),
        ({"pod_creation_max_concurrency": "16"}, lambda s: s.engine.max_requests, 16),
        ({"delete_option_kwargs": '{"grace_period_seconds": 10}'}, lambda s: s.engine.grace_period, 10),
        ({"delete_option_kwargs": '{"propagationPolicy": "Foreground"}'}, lambda s: s.engine.propagation, "Foreground"),
        ({"in_cluster": "False", "config_file": "/k"}, lambda s: (s.kube.in_cluster, s.kube.kubeconfig), (False, "/k")),
        ({"cluster_context": "kind"}, lambda s: s.kube.context, "kind"),
        (
            {"verify_ssl": "False", "ssl_ca_cert": "/ca"},
            lambda s: (s.kube.verify_ssl, s.kube.ssl_ca_cert),
            (False, "/ca"),
        ),
        (
            {"kube_client_request_args": '{"_request_timeout": [5, 50]}'},
            lambda s: (s.kube.connect_timeout, s.kube.request_timeout),
            (5.0, 50.0),
        ),
        ({"kube_client_request_args": '{"_request_timeout": 20}'}, lambda s: s.kube.request_timeout, 20.0),
        ({"pod_template_file": "/opt/pod.yaml"}, lambda s: s.template, "/opt/pod.yaml"),
        ({"running_pod_log_lines": "500"}, lambda s: s.log_lines, 500),
        ({"workload_delivery": "args"}, lambda s: s.engine.workload_delivery, "args"),
        ({"launch_timeout": "12.5"}, lambda s: s.engine.launch_timeout, 12.5),
        ({"ask_native_sidecars": ""}, lambda s: s.worker.ask_native, ()),
        ({"native_sidecars": "True"}, lambda s: s.worker.native_sidecars, True),
    ],
)
def test_an_option_reaches_the_setting(
    values: dict[str, str], read: Callable[[config.ExecutorSettings], object], expected: object
) -> None:
    assert read(settings(**values)) == expected


def test_repository_and_tag_make_an_image_and_a_pod_without_a_template() -> None:
    found = settings(worker_container_repository="registry/airflow", worker_container_tag="3.3.2")
    assert found.worker.image == "registry/airflow:3.3.2"
    assert found.fallback is not None
    assert found.fallback["spec"]["containers"] == [{"name": "base", "image": "registry/airflow:3.3.2"}]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"client_factory": "my.factory"}, "[kubernetes_executor] client_factory is not supported"),
        ({"async_client_factory": "my.factory"}, "exec plugins"),
        ({"running_pod_log_lines": "0"}, "running_pod_log_lines must be greater than 0, is 0"),
        ({"pod_launch_failure_retries": "many"}, "pod_launch_failure_retries cannot be read"),
        ({"delete_worker_pods": "perhaps"}, "delete_worker_pods cannot be read"),
        ({"delete_option_kwargs": '{"dry_run": "All"}'}, "delete_option_kwargs has dry_run"),
        ({"delete_option_kwargs": "[1]"}, "must be a JSON object"),
        ({"kube_client_request_args": '{"pretty": true}'}, "kube_client_request_args has pretty"),
        ({"workload_delivery": "email"}, "[crosswind] workload_delivery must be one of secret, args, is 'email'"),
        ({"launch_timeout": "-1"}, "[crosswind] launch_timeout must be greater than 0"),
    ],
)
def test_a_bad_value_is_told_with_section_option_and_reason(values: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**values)
    assert told in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        settings(client_factory="a", launch_timeout="0")
    assert len(str(caught.value).splitlines()) == 2


def test_every_option_says_what_becomes_of_it() -> None:
    assert {fate for fate, _ in OPTIONS.values()} == set(Fate)
    assert all(text for fate, text in OPTIONS.values() if fate is not Fate.HONOURED)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}),
        ({"execution_api_server_url": "http://a/"}, {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://a/"}),
    ],
)
def test_workers_learn_where_the_execution_api_is(values: dict[str, str], expected: Mapping[str, str]) -> None:
    assert dict(worker_environment(Conf(**values))) == expected


class Policy:
    """A deployment's airflow_local_settings."""

    @hookimpl
    def pod_mutation_hook(self, pod: Any) -> None:
        pod.metadata.labels = {"mutated": "yes"}


def test_a_pod_mutation_hook_works_on_the_manifest() -> None:
    assert config.pod_mutation() is None
    manager, policy = get_policy_plugin_manager(), Policy()
    manager.register(policy)
    try:
        mutate = config.pod_mutation()
        assert mutate is not None
        assert mutate({"metadata": {"name": "a"}})["metadata"] == {"name": "a", "labels": {"mutated": "yes"}}
    finally:
        manager.unregister(policy)


def test_sidecars_of_the_deployments_own_come_before_those_that_are_known(tmp_path: Path) -> None:
    file = tmp_path / "sidecars.yaml"
    file.write_text("sidecars:\n  - {name: ours, containers: [istio-proxy], images: ['*']}\n")
    assert [known.name for known in settings(sidecars_file=str(file)).ending.known[:2]] == ["ours", "istio"]
    assert settings(sidecar_swap_image="my/pause:1").ending.swap_image == "my/pause:1"


@pytest.mark.parametrize(
    ("text", "told"), [("sidecars: 3\n", ":1: sidecars is 3"), (None, "No such file"), ("\n", "the file is empty")]
)
def test_a_file_of_sidecars_that_cannot_be_used_is_told_with_its_line(
    tmp_path: Path, text: str | None, told: str
) -> None:
    file = tmp_path / "sidecars.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=r"\[crosswind\] sidecars_file cannot be used") as raised:
        settings(sidecars_file=str(file))
    assert told in str(raised.value)

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from airflow.configuration import AirflowConfigParser
from airflow.policies import hookimpl
from airflow.providers.cncf.kubernetes.get_provider_info import get_provider_info as stock_provider_info
from airflow.settings import get_policy_plugin_manager

from crosswind.deploy.executor_options import OPTION_KINDS, option_problems
from crosswind.engine.losses import LossChoice, LossPolicy
from crosswind.errors import ConfigError
from crosswind.provider import config, get_provider_info
from crosswind.provider.config import options_without_effect, read_settings, worker_environment
from crosswind.provider.options import OPTIONS, STOCK_DEFAULTS, OptionSupport

STOCK = stock_provider_info()["config"]["kubernetes_executor"]["options"]
DOCS = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


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
            raise ValueError(f"{text!r} is not a boolean")
        return text == "true"

    def getjson(self, section: str, option: str, fallback: Any = None) -> Any:
        text = self.get(section, option)
        return json.loads(text) if text else fallback


def settings(**values: str) -> config.ExecutorSettings:
    return read_settings(Conf(**values), "7")


def test_the_table_covers_exactly_the_options_of_the_installed_provider() -> None:
    assert set(OPTIONS) == set(STOCK)


def test_the_default_of_each_replaced_option_is_stocks() -> None:
    replaced = {option for option, (support, _) in OPTIONS.items() if support is OptionSupport.REPLACED}
    assert {name: str(STOCK[name]["default"] or "") for name in replaced} == STOCK_DEFAULTS


def test_a_value_without_effect_is_reported_with_the_reason() -> None:
    assert list(options_without_effect(Conf())) == []
    (problem,) = options_without_effect(Conf(worker_pods_creation_batch_size="16"))
    assert problem.startswith(
        "[kubernetes_executor] worker_pods_creation_batch_size = 16 has no effect: Crosswind creates pods"
    )


def test_a_coordinators_template_is_its_queues_and_a_route_to_none_is_refused() -> None:
    jdk = {"classpath": "a.B", "extra": {"pod_template_file": "/java.yaml"}}
    options = {"coordinators": json.dumps({"jdk": jdk}), "queue_to_coordinator": '{"java": "jdk"}'}
    assert settings(**options).queues["java"].template == "/java.yaml"
    with pytest.raises(ConfigError, match=r"^\[sdk\] queue_to_coordinator: java: coordinators has no 'jre'"):
        settings(**options | {"queue_to_coordinator": '{"java": "jre"}'})


def test_the_documentation_has_a_row_for_each_option_with_its_support() -> None:
    rows = {line.split("`")[1]: line for line in DOCS.read_text().splitlines() if line.startswith("| `")}
    own = get_provider_info()["config"]["crosswind"]["options"]
    assert set(rows) == set(OPTIONS) | set(own)
    for option, (support, remark) in OPTIONS.items():
        assert rows[option].replace("`", "") == f"| {option} | {support} | {remark} |", option
    for option, described in own.items():
        default = f"`{described['default']}`" if described["default"] else ""
        assert f"` | {default}".rstrip() + " |" in rows[option], option


def test_stocks_defaults_give_stocks_behaviour() -> None:
    read_back = settings()
    assert read_back.engine.namespaces == ("default",)
    assert read_back.engine.delete_pods
    assert not read_back.engine.delete_failed_pods
    assert "ErrImagePull" in read_back.engine.fatal_reasons
    assert read_back.engine.launch_retries == 1
    assert read_back.engine.launch_retry_excluded == {"Error"}
    assert read_back.kube.in_cluster
    assert read_back.template is None
    assert read_back.log_lines == 100


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
        ({}, lambda s: (s.worker.shim, s.worker.bytecode_volume, s.worker.coordinated_queues), (True, "", set())),
        ({"worker_shim": "False"}, lambda s: s.worker.shim, False),
        ({"bytecode_volume": "bytecode"}, lambda s: s.worker.bytecode_volume, "bytecode"),
        ({}, lambda s: (s.losses, s.engine.deleted_is_loss), (LossPolicy(3, {}, 30), False)),
        ({"infra_retries": "0", "node_loss_seconds": "0"}, lambda s: s.losses, LossPolicy(0, {}, 0)),
        (
            {"after_losses": '{"2": {"spec": {"nodeSelector": {"a": "b"}}}}'},
            lambda s: s.losses.after,
            {2: {"spec": {"nodeSelector": {"a": "b"}}}},
        ),
        (
            {"queues": '{"spot": {"infra_retries": 5, "node_loss_seconds": 60, "after_losses": {"1": {}}}}'},
            lambda s: s.queues["spot"].losses,
            LossChoice(5, {1: {}}, 60),
        ),
        ({"deleted_is_loss": "True"}, lambda s: s.engine.deleted_is_loss, True),
        ({}, lambda s: s.tune_garbage_collector, True),
        ({"tune_garbage_collector": "False"}, lambda s: s.tune_garbage_collector, False),
    ],
)
def test_an_option_reaches_the_setting(
    values: dict[str, str], read: Callable[[config.ExecutorSettings], object], expected: object
) -> None:
    assert read(settings(**values)) == expected


def test_repository_and_tag_make_an_image_and_a_pod_without_a_template() -> None:
    read_back = settings(worker_container_repository="registry/airflow", worker_container_tag="3.3.2")
    assert read_back.worker.image == "registry/airflow:3.3.2"
    assert read_back.fallback is not None
    assert read_back.fallback["spec"]["containers"] == [{"name": "base", "image": "registry/airflow:3.3.2"}]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"client_factory": "my.factory"}, "[kubernetes_executor] client_factory is not supported"),
        ({"async_client_factory": "my.factory"}, "exec plug-ins"),
        ({"running_pod_log_lines": "0"}, "running_pod_log_lines must be greater than 0, not 0"),
        ({"pod_launch_failure_retries": "many"}, "pod_launch_failure_retries cannot be read"),
        ({"delete_worker_pods": "perhaps"}, "delete_worker_pods cannot be read"),
        ({"delete_option_kwargs": '{"dry_run": "All"}'}, "delete_option_kwargs has dry_run"),
        ({"delete_option_kwargs": "[1]"}, "must be a JSON object"),
        ({"kube_client_request_args": '{"pretty": true}'}, "kube_client_request_args has pretty"),
        ({"workload_delivery": "email"}, "[crosswind] workload_delivery must be one of secret, args, not 'email'"),
        ({"tune_garbage_collector": "sometimes"}, "[crosswind] tune_garbage_collector cannot be read"),
        ({"launch_timeout": "-1"}, "[crosswind] launch_timeout must be greater than 0"),
        ({"worker_shim": "perhaps"}, "[crosswind] worker_shim cannot be read"),
        (
            {"infra_retries": "-1"},
            "[crosswind] infra_retries: must be a whole number of at least 0, not -1; 0 means no new try",
        ),
        ({"infra_retries": "some"}, "[crosswind] infra_retries cannot be read"),
        ({"node_loss_seconds": "-5"}, "[crosswind] node_loss_seconds: must be a whole number of at least 0, not -5"),
        ({"node_loss_seconds": "1m"}, "[crosswind] node_loss_seconds cannot be read"),
        ({"after_losses": "[1]"}, "[crosswind] after_losses must be a JSON object"),
        ({"after_losses": "{"}, "[crosswind] after_losses cannot be read"),
        ({"after_losses": '{"x": {}}'}, "[crosswind] after_losses: 'x' is not a number of losses"),
        ({"after_losses": '{"1": {"spec": {"nodeSelector": 3}}}'}, "[crosswind] after_losses.1: spec.nodeSelector"),
        ({"deleted_is_loss": "perhaps"}, "[crosswind] deleted_is_loss cannot be read"),
        ({"bytecode_volume": "/mnt/cache"}, "[crosswind] bytecode_volume must be the name of a volume"),
        ({"task_queued_timeout": "soon"}, "[scheduler] task_queued_timeout cannot be read"),
        ({"delete_option_kwargs": '{"grace_period_seconds": "10s"}'}, "must be a whole number of seconds, not '10s'"),
        ({"kube_client_request_args": '{"_request_timeout": "5s"}'}, "_request_timeout must be seconds, or a pair"),
        ({"kube_client_request_args": '{"_request_timeout": [5, "x"]}'}, "(connect, read) seconds, not [5, 'x']"),
    ],
)
def test_a_bad_value_is_reported_with_section_option_and_reason(values: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**values)
    assert problem in str(caught.value)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e400", "1e10", "999999999999999"])
@pytest.mark.parametrize(
    "option", ["launch_timeout", "task_queued_timeout", "relist_interval", "settle_interval", "archive_days"]
)
def test_a_number_that_no_clock_can_count_is_refused(option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^\[\w+\] {option} must be (at most \d+|greater than 0), not [^\n]+$"):
        settings(**{option: value})


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"archive_days": "999999"}, "[crosswind] archive_days must be at most 365000, not 999999.0; 0 means for ever"),
        ({"relist_interval": "inf"}, "[crosswind] relist_interval must be at most 1000000000, not inf"),
        ({"secret_batch": "1" + 13 * "0"}, "secret_batch must be at most 1000000000000, not 10000000000000"),
        ({"pod_launch_failure_retries": "-" + 13 * "1"}, "pod_launch_failure_retries must be at least -1000000000000"),
        ({"node_loss_seconds": "9999999999"}, "node_loss_seconds: must be at most 1000000000, not 9999999999"),
        ({"infra_retries": "9999999999"}, "infra_retries: must be at most 1000000000, not 9999999999"),
        ({"queues": '{"q": {"node_loss_seconds": 9999999999}}'}, "q.node_loss_seconds: must be at most 1000000000"),
        ({"delete_option_kwargs": '{"grace_period_seconds": 9999999999}'}, "whole number of seconds, not 9999999999"),
        ({"kube_client_request_args": '{"_request_timeout": 1e400}'}, "_request_timeout must be seconds, or a pair"),
        ({"kube_client_request_args": '{"_request_timeout": [5, Infinity]}'}, "(connect, read) seconds, not [5, inf]"),
    ],
)
def test_an_amount_above_its_bound_is_reported_with_the_bound(values: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**values)
    assert problem in str(caught.value)


@pytest.mark.parametrize("days", ["0", "0.5", "365000"])
def test_logs_and_rows_stay_for_as_many_days_as_there_are_dates(days: str) -> None:
    engine = settings(archive_days=days).engine
    assert engine.archive is not None
    assert engine.archive.days == engine.history_days == float(days)
    assert datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=float(days))


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        settings(client_factory="a", launch_timeout="0")
    assert len(str(caught.value).splitlines()) == 2


def test_every_option_that_is_not_honoured_has_a_remark() -> None:
    assert {support for support, _ in OPTIONS.values()} == set(OptionSupport)
    assert all(text for support, text in OPTIONS.values() if support is not OptionSupport.HONOURED)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}),
        ({"execution_api_server_url": "http://a/"}, {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://a/"}),
    ],
)
def test_workers_get_the_url_of_the_execution_api(values: dict[str, str], expected: Mapping[str, str]) -> None:
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


def test_the_deployments_own_sidecars_come_before_the_catalog(tmp_path: Path) -> None:
    file = tmp_path / "sidecars.yaml"
    file.write_text("sidecars:\n  - {name: ours, containers: [istio-proxy], images: ['*']}\n")
    assert [known.name for known in settings(sidecars_file=str(file)).ending.known[:2]] == ["ours", "istio"]
    assert settings(sidecar_swap_image="my/pause:1").ending.swap_image == "my/pause:1"


@pytest.mark.parametrize(
    ("text", "problem"), [("sidecars: 3\n", ":1: sidecars is 3"), (None, "No such file"), ("\n", "the file is empty")]
)
def test_a_wrong_sidecars_file_is_reported_with_the_line(tmp_path: Path, text: str | None, problem: str) -> None:
    file = tmp_path / "sidecars.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=r"\[crosswind\] sidecars_file cannot be used") as raised:
        settings(sidecars_file=str(file))
    assert problem in str(raised.value)


SAMPLES = (
    "true",
    "F",
    "maybe",
    "",
    "0",
    "7",
    "-1",
    "2.0",
    "1.5",
    "text",
    "secret",
    "args",
    "Secret",
    "never",
    "Always",
)
CHECKED_ELSEWHERE = {
    "after_losses",
    "async_client_factory",  # with another executor it is in order
    "bytecode_volume",
    "client_factory",
    "delete_option_kwargs",
    "kube_client_request_args",
    "queues",
    "sidecars_file",  # a path in the scheduler's pod
    "ui_scripts",  # read by API servers
}
"""Options whose values have a shape of their own, or that the executor does not read."""


@pytest.fixture(scope="module")
def airflow_parser() -> AirflowConfigParser:
    return AirflowConfigParser()


def refused_at_start(parser: AirflowConfigParser, section: str, option: str, value: str) -> bool:
    parser.clear()
    parser.read_dict({section: {option: value}})
    try:
        read_settings(parser, "7")
    except ConfigError as error:
        return f"[{section}] {option}" in str(error)
    return False


def test_values_files_know_the_options_of_the_installed_providers() -> None:
    assert set(OPTION_KINDS["kubernetes_executor"]) == set(STOCK)
    assert set(OPTION_KINDS["crosswind"]) == set(get_provider_info()["config"]["crosswind"]["options"])


@pytest.mark.parametrize(
    ("section", "option"),
    [
        (section, option)
        for section, kinds in OPTION_KINDS.items()
        for option in kinds
        if option not in CHECKED_ELSEWHERE
    ],
)
def test_values_files_accept_the_values_that_the_executor_accepts_at_its_start(
    airflow_parser: AirflowConfigParser, section: str, option: str
) -> None:
    for value in SAMPLES:
        problems = [*option_problems(section, option, value)]
        assert bool(problems) is refused_at_start(airflow_parser, section, option, value), (value, problems)


@pytest.mark.parametrize(
    ("options", "secret"),
    [
        ({"jwt_secret": "tokens", "fernet_key": "fernet"}, b"tokens"),
        ({"fernet_key": "fernet"}, b"fernet"),
        ({"jwt_secret": "random", "jwt_private_key_path": "/keys/jwt.pem", "fernet_key": "fernet"}, b"fernet"),
        ({}, b""),
    ],
)
def test_the_secret_that_schedulers_share_is_one_that_all_processes_have(
    options: dict[str, str], secret: bytes
) -> None:
    assert settings(**options).engine.warm_secret == secret

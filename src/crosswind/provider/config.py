"""Reads Airflow's configuration into settings: ``[kubernetes_executor]`` as stock defines it, and ``[crosswind]``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from crosswind.documents import read_text
from crosswind.engine.executor_config import to_json, to_pod
from crosswind.engine.losses import LossPolicy, loss_choice, loss_problems
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.queues import QueueSettings, join_coordinators, parse_queues
from crosswind.engine.worker_pod import WorkerSettings
from crosswind.errors import ConfigError
from crosswind.provider.config_reader import MAX_SECONDS, STOCK_SECTION, AirflowConf, ConfigReader, is_positive
from crosswind.provider.options import OPTIONS, STOCK_DEFAULTS
from crosswind.provider.warm_config import read_shared_secret, read_warm
from crosswind.settings import ARCHIVE_MODES, WORKLOAD_DELIVERIES, ArchiveSettings, EngineSettings, KubeSettings
from crosswind.sidecars.catalog import KNOWN
from crosswind.sidecars.shutdown import ShutdownSettings
from crosswind.sidecars.user_catalog import parse_sidecars
from crosswind.types import Manifest

__all__ = [
    "AirflowConf",
    "ExecutorSettings",
    "PodSettings",
    "options_without_effect",
    "pod_mutation",
    "read_executor_settings",
    "read_pod_settings",
    "read_settings",
    "worker_environment",
]

_VOLUME_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DEFAULT_MAX_REQUESTS = 64
_DEFAULT_CONNECT_TIMEOUT_S, _DEFAULT_REQUEST_TIMEOUT_S = 10.0, 30.0


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """The configuration of one executor."""

    engine: EngineSettings
    kube: KubeSettings
    worker: WorkerSettings
    template: str | None
    """Path of the global pod template."""
    fallback: Manifest | None
    """The pod to begin with where an image is configured and no template."""
    log_lines: int
    """Lines of a running task's log that the UI gets."""
    ending: ShutdownSettings = field(default_factory=ShutdownSettings)
    """How to stop the sidecars of pods that are kept."""
    queues: Mapping[str, QueueSettings] = field(default_factory=dict)
    """Settings of the pods of a queue's tasks, by the queue's name."""
    losses: LossPolicy = field(default_factory=LossPolicy)
    """The policy for tasks whose pods the cluster took."""
    tune_garbage_collector: bool = True
    """Whether the scheduler process runs full garbage collections less often; see ``provider.garbage_collection``."""
    warm_problems: tuple[str, ...] = ()
    """Why no pod waits for tasks although ``[crosswind] warm`` is set."""

    def composer(self, mutate: Callable[[Manifest], Manifest] | None = None) -> PodComposer:
        """Return the composer of pods for these settings. ``mutate``: see ``pod_mutation``."""
        return PodComposer(
            self.worker,
            template=self.template,
            fallback=self.fallback,
            queues=self.queues,
            mutate=mutate,
            losses=self.losses,
        )


@dataclass(frozen=True, slots=True)
class PodSettings:
    """The configuration of the pod operator."""

    ask_native: tuple[str, ...]
    """Injectors to ask for native sidecars."""
    ending: ShutdownSettings
    """How to stop the sidecars of pods that are kept."""
    infra_retries: int = 3
    """How many pods of a try may be launched in place of pods that the cluster took."""
    deleted_is_loss: bool = False
    """Whether a pod that a user deletes counts as one that the cluster took."""
    node_loss_seconds: int = 0
    """Seconds that a pod stays bound to a node that does not answer; 0 leaves it to the cluster."""


def read_settings(
    conf: AirflowConf,
    executor_id: str,
    *,
    environment: Mapping[str, str] | None = None,
    shared: AirflowConf | None = None,
) -> ExecutorSettings:
    """Read the configuration.

    ``conf``: the configuration of the executor, a team's own if it has one. ``shared``: where to read the sections that
    all teams share, default ``conf``. ``environment``: variables for workers.

    Raises ``ConfigError`` with one line for each problem.
    """
    reader = ConfigReader(conf, shared)
    image = _image(reader)
    queues = _queues(reader)
    warm, warm_problems = read_warm(reader)
    settings = ExecutorSettings(
        engine=replace(_engine(reader, executor_id, queues), warm=warm, warm_secret=read_shared_secret(reader)),
        kube=_kube(reader),
        worker=_worker(reader, image, environment or {}),
        template=reader.text("pod_template_file") or None,
        fallback=_fallback(image),
        log_lines=reader.positive("running_pod_log_lines", 100),
        ending=_ending(reader),
        queues=queues,
        losses=_losses(reader),
        tune_garbage_collector=reader.flag("tune_garbage_collector", True, "crosswind"),
        warm_problems=tuple(warm_problems),
    )
    reader.check_refused_options()
    if reader.problems:
        raise ConfigError("\n".join(dict.fromkeys(reader.problems)))
    return settings


def read_executor_settings(executor_conf: AirflowConf, executor_id: str) -> ExecutorSettings:
    """Read the configuration of a running Airflow. ``executor_conf``: that of the executor's team, if it has one.

    Raises ``ConfigError`` with one line for each problem.
    """
    from airflow.configuration import conf

    environment = dict(worker_environment(executor_conf, conf))
    return read_settings(executor_conf, executor_id, environment=environment, shared=conf)


def options_without_effect(conf: AirflowConf) -> Iterator[str]:
    """Yield a sentence for each option of stock's section whose value is not the default and has no effect."""
    for option, default in STOCK_DEFAULTS.items():
        value = str(conf.get(STOCK_SECTION, option, fallback=default) or "").strip()
        if value.lower() != default.lower():
            yield f"[{STOCK_SECTION}] {option} = {value} has no effect: {OPTIONS[option][1]}"


def _queues(reader: ConfigReader) -> Mapping[str, QueueSettings]:
    own_queues, problems = parse_queues(reader.mapping("queues", "crosswind"))
    reader.problems.extend(f"[crosswind] queues: {problem}" for problem in problems)
    coordinators, routes = reader.mapping("coordinators", "sdk"), reader.mapping("queue_to_coordinator", "sdk")
    queues, problems = join_coordinators(own_queues, coordinators, routes)
    reader.problems.extend(f"[sdk] {problem}" for problem in problems)
    return queues


def _losses(reader: ConfigReader) -> LossPolicy:
    default = LossPolicy()
    settings = {
        "infra_retries": reader.number("infra_retries", default.retries, "crosswind"),
        "node_loss_seconds": reader.number("node_loss_seconds", default.node_seconds, "crosswind"),
        "after_losses": reader.mapping("after_losses", "crosswind"),
    }
    problems = [problem for key, value in settings.items() for problem in loss_problems(key, key, value)]
    reader.problems.extend(f"[crosswind] {problem}" for problem in problems)
    return default if problems else default.chosen(loss_choice(settings))


def _engine(reader: ConfigReader, executor_id: str, queues: Mapping[str, QueueSettings]) -> EngineSettings:
    deletion = reader.mapping("delete_option_kwargs")
    snake_case = {"gracePeriodSeconds": "grace_period_seconds", "propagationPolicy": "propagation_policy"}
    deletion = {snake_case.get(key, key): value for key, value in deletion.items()}
    reader.check_keys("delete_option_kwargs", deletion, ("grace_period_seconds", "propagation_policy"))
    return EngineSettings(
        executor_id=executor_id,
        namespaces=_namespaces(reader, queues),
        workload_delivery=reader.choice("workload_delivery", WORKLOAD_DELIVERIES, "crosswind"),
        secret_batch=reader.positive("secret_batch", 64, "crosswind"),
        max_requests=max(0, reader.number("pod_creation_max_concurrency", 0)) or _DEFAULT_MAX_REQUESTS,
        launch_timeout=reader.seconds("launch_timeout", 300.0),
        token_lifetime=reader.seconds("task_queued_timeout", 600.0, "scheduler"),
        delete_pods=reader.flag("delete_worker_pods", True),
        delete_failed_pods=reader.flag("delete_worker_pods_on_failure", False),
        fatal_reasons=frozenset(reader.names("worker_pod_pending_fatal_container_state_reasons")),
        launch_retries=reader.number("pod_launch_failure_retries", 1),
        launch_retry_excluded=frozenset(reader.names("pod_launch_failure_excluded_container_reasons", "Error")),
        deleted_is_loss=reader.flag("deleted_is_loss", False, "crosswind"),
        grace_period=_grace_period(reader, deletion.get("grace_period_seconds")),
        propagation=deletion.get("propagation_policy"),
        relist_interval=reader.seconds("relist_interval", 600.0),
        settle_interval=reader.seconds("settle_interval", 15.0),
        log_tasks=reader.flag("logs_task_metadata", False),
        archive=_archive(reader),
        history_days=reader.days("archive_days", 30.0) if reader.flag("pod_history", True, "crosswind") else None,
    )


def _grace_period(reader: ConfigReader, value: object) -> int | None:
    if value is None or (isinstance(value, int) and 0 <= value <= MAX_SECONDS):
        return value
    description = f"grace_period_seconds must be a whole number of seconds, not {value!r}"
    return reader.add_problem(STOCK_SECTION, "delete_option_kwargs", description, None)


def _archive(reader: ConfigReader) -> ArchiveSettings | None:
    mode = reader.choice("archive_logs", ARCHIVE_MODES, "crosswind")
    settings = ArchiveSettings(
        folder=reader.text("base_log_folder", section="logging"),
        spare=mode == "auto",
        limit=reader.positive("archive_limit", 10 * 1024 * 1024, "crosswind"),
        days=reader.days("archive_days", 30.0),
    )
    is_remote = reader.flag("remote_logging", False, "logging")
    return None if mode == "never" or (mode == "auto" and is_remote) else settings


def _namespaces(reader: ConfigReader, queues: Mapping[str, QueueSettings]) -> tuple[str | None, ...]:
    default = reader.text("namespace", "default") or "default"
    listed: tuple[str, ...] = ()
    if reader.flag("multi_namespace_mode", False):
        listed = reader.names("multi_namespace_mode_namespace_list")
        if not listed:
            return (None,)
    of_queues = (queue.namespace for queue in queues.values() if queue.namespace)
    return tuple(dict.fromkeys((default, *listed, *of_queues)))


def _kube(reader: ConfigReader) -> KubeSettings:
    arguments = reader.mapping("kube_client_request_args")
    reader.check_keys("kube_client_request_args", arguments, ("_request_timeout",))
    connect, whole = _timeouts(reader, arguments.get("_request_timeout"))
    return KubeSettings(
        in_cluster=reader.flag("in_cluster", True),
        kubeconfig=reader.text("config_file") or None,
        context=reader.text("cluster_context") or None,
        request_timeout=whole,
        connect_timeout=connect,
        verify_ssl=reader.flag("verify_ssl", True),
        ssl_ca_cert=reader.text("ssl_ca_cert") or None,
    )


def _timeouts(reader: ConfigReader, value: object) -> tuple[float, float]:
    """Return the seconds for connecting and for the whole request; a pair is (connect, read), as in stock."""
    match value:
        case None:
            return _DEFAULT_CONNECT_TIMEOUT_S, _DEFAULT_REQUEST_TIMEOUT_S
        case [connect, whole] if is_positive(connect) and is_positive(whole):
            return float(connect), float(whole)
        case int() | float() if is_positive(value):
            return _DEFAULT_CONNECT_TIMEOUT_S, float(value)
    description = f"_request_timeout must be seconds, or a pair of (connect, read) seconds, not {value!r}"
    defaults = (_DEFAULT_CONNECT_TIMEOUT_S, _DEFAULT_REQUEST_TIMEOUT_S)
    return reader.add_problem(STOCK_SECTION, "kube_client_request_args", description, defaults)


def _worker(reader: ConfigReader, image: str | None, environment: Mapping[str, str]) -> WorkerSettings:
    return WorkerSettings(
        namespace=reader.text("namespace", "default") or "default",
        image=image,
        environment=environment,
        ask_native=reader.names("ask_native_sidecars", "istio,linkerd", "crosswind"),
        native_sidecars=reader.flag("native_sidecars", False, "crosswind"),
        shim=reader.flag("worker_shim", True, "crosswind"),
        coordinated_queues=frozenset(reader.mapping("queue_to_coordinator", "sdk")),
        bytecode_volume=_volume_name(reader, "bytecode_volume"),
    )


def _volume_name(reader: ConfigReader, option: str) -> str:
    """Return the name of a volume of a pod; "" for none."""
    text = reader.text(option, section="crosswind")
    if text and not _VOLUME_NAME.fullmatch(text):
        return reader.add_problem("crosswind", option, f"must be the name of a volume of a pod, not {text!r}", "")
    return text


def _ending(reader: ConfigReader) -> ShutdownSettings:
    path, catalog = reader.text("sidecars_file", section="crosswind"), KNOWN
    try:
        if path:
            catalog = (*parse_sidecars(read_text(path), path), *KNOWN)
    except ConfigError as error:
        reader.problems.append(f"[crosswind] sidecars_file cannot be used: {error}")
    return ShutdownSettings(catalog, reader.text("sidecar_swap_image", section="crosswind"))


def _image(reader: ConfigReader) -> str | None:
    repository, tag = reader.text("worker_container_repository"), reader.text("worker_container_tag")
    return f"{repository}:{tag}" if repository and tag else None


def _fallback(image: str | None) -> Manifest | None:
    if image is None:
        return None
    base = {"name": "base", "image": image}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "worker"},
        "spec": {"restartPolicy": "Never", "containers": [base]},
    }


def read_pod_settings(conf: AirflowConf) -> PodSettings:
    """Read the options of ``[crosswind]`` that the pod operator uses.

    Raises ``ConfigError`` with one line for each problem.
    """
    reader = ConfigReader(conf)
    losses = _losses(reader)
    settings = PodSettings(
        reader.names("ask_native_sidecars", "istio,linkerd", "crosswind"),
        _ending(reader),
        losses.retries,
        reader.flag("deleted_is_loss", False, "crosswind"),
        losses.node_seconds,
    )
    if reader.problems:
        raise ConfigError("\n".join(reader.problems))
    return settings


def pod_mutation() -> Callable[[Manifest], Manifest] | None:
    """Return the deployment's ``pod_mutation_hook`` as a function of manifests; None when there is none."""
    from airflow import settings

    hook = settings.get_policy_plugin_manager().hook.pod_mutation_hook
    if not hook.get_hookimpls():
        return None

    def mutate(manifest: Manifest) -> Manifest:
        pod = to_pod(manifest)
        settings.pod_mutation_hook(pod)  # type: ignore[no-untyped-call]
        mutated = to_json(pod, "V1Pod", "the pod after pod_mutation_hook")
        assert isinstance(mutated, dict)
        return mutated

    return mutate


def worker_environment(conf: AirflowConf, shared: AirflowConf | None = None) -> Iterator[tuple[str, str]]:
    """Yield the environment variables by which a worker finds the execution API, if its URL is configured.

    ``shared``: where to read the URL if ``conf``, a team's, has none.
    """
    sources = [source for source in (conf, shared) if source is not None]
    urls = (source.get("core", "execution_api_server_url", fallback="") for source in sources)
    if url := next(filter(None, urls), ""):
        yield "AIRFLOW__CORE__EXECUTION_API_SERVER_URL", str(url)

"""Airflow's configuration, read into settings: ``[kubernetes_executor]`` as stock has it, and ``[crosswind]``.

``OPTIONS`` says what becomes of each option of ``[kubernetes_executor]``: none is silently ignored.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from crosswind.errors import ConfigError
from crosswind.pods.declared_sidecars import parse_sidecars
from crosswind.pods.known_sidecars import KNOWN
from crosswind.pods.queues import Queue, join_coordinators, parse_queues
from crosswind.pods.workers import WorkerSettings
from crosswind.regular_files import read_text
from crosswind.runs.composing import Composer
from crosswind.runs.ending import EndSettings
from crosswind.runs.overrides import to_json, to_pod
from crosswind.settings import ArchiveSettings, EngineSettings, KubeSettings
from crosswind.types import Manifest

__all__ = [
    "OPTIONS",
    "STOCK_DEFAULTS",
    "Conf",
    "ExecutorSettings",
    "Fate",
    "PodSettings",
    "pod_mutation",
    "read_pod_settings",
    "read_settings",
    "without_effect",
    "worker_environment",
]

_SECTION = "kubernetes_executor"
_SHARED = ("logging", "scheduler", "sdk")
"""Sections that Airflow reads without a team's prefix."""

T = TypeVar("T")


class Fate(enum.StrEnum):
    """What becomes of an option."""

    HONOURED = "honoured"
    REPLACED = "replaced"
    """Something better does its job; a value is told in the log and has no effect."""
    REFUSED = "refused"
    """A value other than the default is an error."""


_RETRIES = "requests are tried again by their kind of failure, until [crosswind] launch_timeout"
_KEEPALIVE = "keepalive is always on (after 30 s, every 10 s, 3 times), and each request and watch has a time limit"
_PACE = "pods are created concurrently, as fast as the API server takes them"
_FACTORY = "use a kubeconfig (config_file), whose exec plugins can mint credentials"

OPTIONS: Mapping[str, tuple[Fate, str]] = {
    "api_client_retry_configuration": (Fate.REPLACED, _RETRIES),
    "logs_task_metadata": (
        Fate.HONOURED,
        "the scheduler's log says of a pod that failed which task it was for",
    ),
    "running_pod_log_lines": (Fate.HONOURED, "lines of a running task's log"),
    "pod_template_file": (Fate.HONOURED, "checked at start; read again when the file changes"),
    "worker_container_repository": (
        Fate.HONOURED,
        "image where the template has a placeholder, or there is no template",
    ),
    "worker_container_tag": (Fate.HONOURED, "see worker_container_repository"),
    "namespace": (Fate.HONOURED, "for pods whose template and pod_override name none"),
    "delete_worker_pods": (Fate.HONOURED, "a pod that is kept gets its sidecars told to end"),
    "delete_worker_pods_on_failure": (Fate.HONOURED, "a pod that waits is deleted in any case: it could still start"),
    "worker_pod_pending_fatal_container_state_reasons": (
        Fate.HONOURED,
        "an image pull that failed for a passing cause is waited for nevertheless",
    ),
    "worker_pods_creation_batch_size": (Fate.REPLACED, _PACE),
    "async_pod_creation": (Fate.REPLACED, _PACE),
    "pod_creation_max_concurrency": (Fate.HONOURED, "upper limit of concurrent creations; 0 is 64"),
    "multi_namespace_mode": (Fate.HONOURED, "without a list of namespaces, pods are watched in the whole cluster"),
    "multi_namespace_mode_namespace_list": (Fate.HONOURED, "blanks around the commas are allowed"),
    "in_cluster": (Fate.HONOURED, ""),
    "cluster_context": (Fate.HONOURED, ""),
    "config_file": (Fate.HONOURED, ""),
    "client_factory": (Fate.REFUSED, _FACTORY),
    "async_client_factory": (Fate.REFUSED, _FACTORY),
    "kube_client_request_args": (Fate.HONOURED, "_request_timeout only; any other key is refused"),
    "delete_option_kwargs": (Fate.HONOURED, "grace_period_seconds and propagation_policy; any other key is refused"),
    "enable_tcp_keepalive": (Fate.REPLACED, _KEEPALIVE),
    "tcp_keep_idle": (Fate.REPLACED, _KEEPALIVE),
    "tcp_keep_intvl": (Fate.REPLACED, _KEEPALIVE),
    "tcp_keep_cnt": (Fate.REPLACED, _KEEPALIVE),
    "verify_ssl": (Fate.HONOURED, ""),
    "ssl_ca_cert": (Fate.HONOURED, ""),
    "task_publish_max_retries": (Fate.REPLACED, _RETRIES + "; quotas are waited for"),
    "pod_launch_failure_retries": (Fate.HONOURED, ""),
    "pod_launch_failure_excluded_container_reasons": (Fate.HONOURED, ""),
}
"""Every option of ``[kubernetes_executor]``: its fate, and what to know about it."""

STOCK_DEFAULTS: Mapping[str, str] = {
    "api_client_retry_configuration": "",
    "worker_pods_creation_batch_size": "1",
    "async_pod_creation": "False",
    "enable_tcp_keepalive": "True",
    "tcp_keep_idle": "120",
    "tcp_keep_intvl": "30",
    "tcp_keep_cnt": "6",
    "task_publish_max_retries": "0",
}
"""Of the options that are replaced: another value was chosen by somebody, who is told that it has no effect."""


class Conf(Protocol):
    """What is used of Airflow's ``conf`` and of an executor's team-aware ``ExecutorConf``."""

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Return an option as text."""
        ...

    def getint(self, *args: Any, **kwargs: Any) -> Any:
        """Return an option as int."""
        ...

    def getboolean(self, *args: Any, **kwargs: Any) -> Any:
        """Return an option as bool."""
        ...

    def getjson(self, *args: Any, **kwargs: Any) -> Any:
        """Return an option as JSON."""
        ...


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """All that an executor needs to know."""

    engine: EngineSettings
    kube: KubeSettings
    worker: WorkerSettings
    template: str | None
    """Path of the global pod template."""
    fallback: Manifest | None
    """The pod to begin with when there is no template but an image."""
    log_lines: int
    ending: EndSettings = field(default_factory=EndSettings)
    """How sidecars of pods that are kept end."""
    queues: Mapping[str, Queue] = field(default_factory=dict)
    """What some queues say about their tasks' pods, by name."""

    def composer(self, mutate: Callable[[Manifest], Manifest] | None = None) -> Composer:
        """Return what makes pods under these settings; ``mutate``: see ``pod_mutation``."""
        return Composer(self.worker, template=self.template, fallback=self.fallback, queues=self.queues, mutate=mutate)


@dataclass(frozen=True, slots=True)
class PodSettings:
    """What the pod operator needs to know: whom to ask for native sidecars, and how other ones end."""

    ask_native: tuple[str, ...]
    ending: EndSettings


def read_settings(
    conf: Conf, executor_id: str, *, environment: Mapping[str, str] | None = None, shared: Conf | None = None
) -> ExecutorSettings:
    """Read the configuration.

    ``conf``: of the executor, a team's own if it has a team. ``shared``: where to read the sections that no team has of
    its own, default ``conf``. Raises ``ConfigError`` with one line for each problem.
    """
    reader = _Reader(conf, shared)
    image = _image(reader)
    queues = _queues(reader)
    settings = ExecutorSettings(
        engine=_engine(reader, executor_id, queues),
        kube=_kube(reader),
        worker=_worker(reader, image, environment or {}),
        template=reader.text("pod_template_file") or None,
        fallback=_fallback(image),
        log_lines=reader.positive("running_pod_log_lines", 100),
        ending=_ending(reader),
        queues=queues,
    )
    reader.refuse()
    if reader.problems:
        raise ConfigError("\n".join(reader.problems))
    return settings


def without_effect(conf: Conf) -> Iterator[str]:
    """Yield a sentence for each option of ``[kubernetes_executor]`` that somebody set and that does nothing."""
    for option, default in STOCK_DEFAULTS.items():
        value = str(conf.get(_SECTION, option, fallback=default) or "").strip()
        if value.lower() != default.lower():
            yield f"[{_SECTION}] {option} = {value} has no effect: {OPTIONS[option][1]}"


class _Reader:
    """Reads options; what is wrong is collected, so that it is told all at once."""

    def __init__(self, conf: Conf, shared: Conf | None = None) -> None:
        self._own, self._shared = conf, shared or conf
        self.problems: list[str] = []

    def _conf(self, section: str) -> Conf:
        return self._shared if section in _SHARED else self._own

    def text(self, option: str, default: str = "", section: str = _SECTION) -> str:
        """Return an option's text, trimmed."""
        return str(self._conf(section).get(section, option, fallback=default) or "").strip()

    def flag(self, option: str, default: bool, section: str = _SECTION) -> bool:
        """Return a boolean."""
        read = self._conf(section).getboolean
        return self._read(lambda: bool(read(section, option, fallback=default)), option, default, section)

    def number(self, option: str, default: int, section: str = _SECTION) -> int:
        """Return an integer."""
        read = self._conf(section).getint
        return self._read(lambda: int(read(section, option, fallback=default)), option, default, section)

    def positive(self, option: str, default: int, section: str = _SECTION) -> int:
        """Return an integer above 0."""
        value = self.number(option, default, section)
        return value if value > 0 else self._wrong(section, option, f"must be greater than 0, is {value}", default)

    def seconds(self, option: str, default: float) -> float:
        """Return a number, of seconds say, above 0, from ``[crosswind]``."""
        text = self.text(option, str(default), "crosswind")
        value = self._read(lambda: float(text), option, default, "crosswind")
        return value if value > 0 else self._wrong("crosswind", option, f"must be greater than 0, is {value}", default)

    def names(self, option: str, default: str = "", section: str = _SECTION) -> tuple[str, ...]:
        """Return the parts of a comma-separated list."""
        return tuple(part.strip() for part in self.text(option, default, section).split(",") if part.strip())

    def choice(self, option: str, choices: tuple[T, ...], section: str) -> T:
        """Return one of ``choices``; the first is the default."""
        text = self.text(option, str(choices[0]), section)
        for allowed in choices:
            if text == allowed:
                return allowed
        return self._wrong(section, option, f"must be one of {', '.join(map(str, choices))}, is {text!r}", choices[0])

    def mapping(self, option: str, section: str = _SECTION) -> dict[str, Any]:
        """Return a JSON object."""
        read = self._conf(section).getjson
        value: object = self._read(lambda: read(section, option, fallback={}) or {}, option, {}, section)
        if isinstance(value, dict):
            return value
        self._wrong(section, option, f"must be a JSON object, is {value!r}", None)
        return {}

    def refuse(self) -> None:
        """Complain of options that are refused."""
        for option, (fate, reason) in OPTIONS.items():
            if fate is Fate.REFUSED and self.text(option):
                self._wrong(_SECTION, option, f"is not supported: {reason}", None)

    def only(self, option: str, given: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
        """Complain of keys that are not known."""
        if unknown := sorted(given.keys() - set(allowed)):
            self._wrong(_SECTION, option, f"has {', '.join(unknown)}; only {', '.join(allowed)} are supported", None)

    def _read(self, read: Callable[[], T], option: str, default: T, section: str) -> T:
        try:
            return read()
        except Exception as error:  # Airflow raises its own kinds for bad values
            return self._wrong(section, option, f"cannot be read: {error}", default)

    def _wrong(self, section: str, option: str, message: str, default: T) -> T:
        self.problems.append(f"[{section}] {option} {message}")
        return default


def _queues(reader: _Reader) -> Mapping[str, Queue]:
    queues, problems = parse_queues(reader.mapping("queues", "crosswind"))
    reader.problems.extend(f"[crosswind] queues: {problem}" for problem in problems)
    coordinators, routes = reader.mapping("coordinators", "sdk"), reader.mapping("queue_to_coordinator", "sdk")
    joined, problems = join_coordinators(queues, coordinators, routes)
    reader.problems.extend(f"[sdk] {problem}" for problem in problems)
    return joined


def _engine(reader: _Reader, executor_id: str, queues: Mapping[str, Queue]) -> EngineSettings:
    deletion = reader.mapping("delete_option_kwargs")
    snake = {"gracePeriodSeconds": "grace_period_seconds", "propagationPolicy": "propagation_policy"}
    deletion = {snake.get(key, key): value for key, value in deletion.items()}
    reader.only("delete_option_kwargs", deletion, ("grace_period_seconds", "propagation_policy"))
    return EngineSettings(
        executor_id=executor_id,
        namespaces=_namespaces(reader, queues),
        workload_delivery=reader.choice("workload_delivery", ("secret", "args"), "crosswind"),
        secret_batch=reader.positive("secret_batch", 64, "crosswind"),
        max_requests=max(0, reader.number("pod_creation_max_concurrency", 0)) or 64,
        launch_timeout=reader.seconds("launch_timeout", 300.0),
        token_lifetime=float(reader.text("task_queued_timeout", "600", "scheduler")),
        delete_pods=reader.flag("delete_worker_pods", True),
        delete_failed_pods=reader.flag("delete_worker_pods_on_failure", False),
        fatal_reasons=frozenset(reader.names("worker_pod_pending_fatal_container_state_reasons")),
        launch_retries=reader.number("pod_launch_failure_retries", 1),
        launch_retry_excluded=frozenset(reader.names("pod_launch_failure_excluded_container_reasons", "Error")),
        grace_period=deletion.get("grace_period_seconds"),
        propagation=deletion.get("propagation_policy"),
        relist_interval=reader.seconds("relist_interval", 600.0),
        settle_interval=reader.seconds("settle_interval", 15.0),
        log_tasks=reader.flag("logs_task_metadata", False),
        archive=_archive(reader),
    )


def _archive(reader: _Reader) -> ArchiveSettings | None:
    wanted = reader.choice("archive_logs", ("auto", "always", "never"), "crosswind")
    days = reader.text("archive_days", "30", "crosswind")
    settings = ArchiveSettings(
        folder=reader.text("base_log_folder", section="logging"),
        spare=wanted == "auto",
        limit=reader.positive("archive_limit", 10 * 1024 * 1024, "crosswind"),
        days=0.0 if days == "0" else reader.seconds("archive_days", 30.0),
    )
    remote = reader.flag("remote_logging", False, "logging")
    return None if wanted == "never" or (wanted == "auto" and remote) else settings


def _namespaces(reader: _Reader, queues: Mapping[str, Queue]) -> tuple[str | None, ...]:
    own = reader.text("namespace", "default") or "default"
    listed: tuple[str, ...] = ()
    if reader.flag("multi_namespace_mode", False):
        listed = reader.names("multi_namespace_mode_namespace_list")
        if not listed:
            return (None,)
    of_queues = (queue.namespace for queue in queues.values() if queue.namespace)
    return tuple(dict.fromkeys((own, *listed, *of_queues)))


def _kube(reader: _Reader) -> KubeSettings:
    arguments = reader.mapping("kube_client_request_args")
    reader.only("kube_client_request_args", arguments, ("_request_timeout",))
    connect, whole = _timeouts(arguments.get("_request_timeout"))
    return KubeSettings(
        in_cluster=reader.flag("in_cluster", True),
        kubeconfig=reader.text("config_file") or None,
        context=reader.text("cluster_context") or None,
        request_timeout=whole,
        connect_timeout=connect,
        verify_ssl=reader.flag("verify_ssl", True),
        ssl_ca_cert=reader.text("ssl_ca_cert") or None,
    )


def _timeouts(given: Any) -> tuple[float, float]:
    """Return the seconds for connecting and for the whole request; a pair is (connect, read), as stock has it."""
    if isinstance(given, list | tuple) and len(given) == 2:
        return float(given[0]), float(given[1])
    return (10.0, float(given)) if isinstance(given, int | float) else (10.0, 30.0)


def _worker(reader: _Reader, image: str | None, environment: Mapping[str, str]) -> WorkerSettings:
    return WorkerSettings(
        namespace=reader.text("namespace", "default") or "default",
        image=image,
        environment=environment,
        ask_native=reader.names("ask_native_sidecars", "istio,linkerd", "crosswind"),
        native_sidecars=reader.flag("native_sidecars", False, "crosswind"),
    )


def _ending(reader: _Reader) -> EndSettings:
    path, known = reader.text("sidecars_file", section="crosswind"), KNOWN
    try:
        if path:
            known = (*parse_sidecars(read_text(path), path), *KNOWN)
    except ConfigError as error:
        reader.problems.append(f"[crosswind] sidecars_file cannot be used: {error}")
    return EndSettings(known, reader.text("sidecar_swap_image", section="crosswind"))


def _image(reader: _Reader) -> str | None:
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


def read_pod_settings(conf: Conf) -> PodSettings:
    """Read what the pod operator needs of ``[crosswind]``. Raises ``ConfigError`` with one line for each problem."""
    reader = _Reader(conf)
    settings = PodSettings(reader.names("ask_native_sidecars", "istio,linkerd", "crosswind"), _ending(reader))
    if reader.problems:
        raise ConfigError("\n".join(reader.problems))
    return settings


def pod_mutation() -> Callable[[Manifest], Manifest] | None:
    """Return the deployment's ``pod_mutation_hook``, on JSON; None when there is none."""
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


def worker_environment(conf: Conf, shared: Conf | None = None) -> Iterator[tuple[str, str]]:
    """Yield what a worker needs to know of this configuration: where the execution API is, if that is configured.

    ``shared``: where to read it when ``conf``, a team's, does not say.
    """
    found = (one.get("core", "execution_api_server_url", fallback="") for one in (conf, shared) if one is not None)
    if url := next(filter(None, found), ""):
        yield "AIRFLOW__CORE__EXECUTION_API_SERVER_URL", str(url)

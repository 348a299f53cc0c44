"""The options that the executor reads, and the values that it accepts: others stop a scheduler at its start. Pure.

``provider.config`` reads the options in Airflow. This is its counterpart without Airflow, for values files; a test
compares the two, and the names with those of the installed provider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches

from crosswind.settings import ARCHIVE_MODES, WORKLOAD_DELIVERIES
from crosswind.types import Json

__all__ = ["OPTION_KINDS", "option_problems"]

Kind = tuple[Callable[[str], bool], str]
"""Whether a text is a value of the option, and what to write."""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _is_whole(text: str) -> bool:
    return _number(text).is_integer()


_TEXT: Kind = (lambda _: True, "")
_FLAG: Kind = (lambda text: text.lower() in ("t", "true", "1", "f", "false", "0"), "write true or false")
_INTEGER: Kind = (_is_whole, "write an integer")
_COUNT: Kind = (lambda text: _is_whole(text) and _number(text) >= 0, "write an integer, 0 or more")
_POSITIVE: Kind = (lambda text: _is_whole(text) and _number(text) > 0, "write an integer above 0")
_SECONDS: Kind = (lambda text: _number(text) > 0, "write a number above 0")
_DAYS: Kind = (lambda text: text == "0" or _number(text) > 0, "write a number above 0, or 0 for ever")


def _choice(choices: tuple[str, ...]) -> Kind:
    return (lambda text: text in choices, f"write one of {', '.join(choices)}")


OPTION_KINDS: Mapping[str, Mapping[str, Kind]] = {
    "crosswind": {
        "after_losses": _TEXT,
        "archive_days": _DAYS,
        "archive_limit": _POSITIVE,
        "archive_logs": _choice(ARCHIVE_MODES),
        "ask_native_sidecars": _TEXT,
        "bytecode_volume": _TEXT,
        "deleted_is_loss": _FLAG,
        "infra_retries": _COUNT,
        "launch_timeout": _SECONDS,
        "native_sidecars": _FLAG,
        "node_loss_seconds": _COUNT,
        "pod_history": _FLAG,
        "queues": _TEXT,
        "relist_interval": _SECONDS,
        "secret_batch": _POSITIVE,
        "settle_interval": _SECONDS,
        "sidecar_swap_image": _TEXT,
        "sidecars_file": _TEXT,
        "tune_garbage_collector": _FLAG,
        "ui_scripts": _FLAG,
        "warm": _TEXT,
        "worker_shim": _FLAG,
        "workload_delivery": _choice(WORKLOAD_DELIVERIES),
    },
    "kubernetes_executor": {
        "api_client_retry_configuration": _TEXT,
        "async_client_factory": _TEXT,
        "async_pod_creation": _TEXT,
        "client_factory": _TEXT,
        "cluster_context": _TEXT,
        "config_file": _TEXT,
        "delete_option_kwargs": _TEXT,
        "delete_worker_pods": _FLAG,
        "delete_worker_pods_on_failure": _FLAG,
        "enable_tcp_keepalive": _TEXT,
        "in_cluster": _FLAG,
        "kube_client_request_args": _TEXT,
        "logs_task_metadata": _FLAG,
        "multi_namespace_mode": _FLAG,
        "multi_namespace_mode_namespace_list": _TEXT,
        "namespace": _TEXT,
        "pod_creation_max_concurrency": _INTEGER,
        "pod_launch_failure_excluded_container_reasons": _TEXT,
        "pod_launch_failure_retries": _INTEGER,
        "pod_template_file": _TEXT,
        "running_pod_log_lines": _POSITIVE,
        "ssl_ca_cert": _TEXT,
        "task_publish_max_retries": _TEXT,
        "tcp_keep_cnt": _TEXT,
        "tcp_keep_idle": _TEXT,
        "tcp_keep_intvl": _TEXT,
        "verify_ssl": _FLAG,
        "worker_container_repository": _TEXT,
        "worker_container_tag": _TEXT,
        "worker_pod_pending_fatal_container_state_reasons": _TEXT,
        "worker_pods_creation_batch_size": _TEXT,
    },
}
"""The options of the executor's two sections, and the values of each. Options without effect take any text."""


def option_problems(section: str, option: str, value: Json) -> Iterator[str]:
    """Yield why the executor does not read an option of its sections, or refuses its value; None: no literal value.

    Each problem completes a sentence that begins with the name of the option.
    """
    if section not in OPTION_KINDS:
        return
    kinds = OPTION_KINDS[section]
    if option not in kinds:
        close = get_close_matches(option, kinds, n=1, cutoff=0.6)
        yield "is no option; " + (f"write {close[0]}" if close else f"there are {', '.join(kinds)}")
    elif value is not None:
        fits, fix = kinds[option]
        if not fits(str(value)):
            yield f"is {value!r}; {fix}"

"""What Crosswind does with each option of ``[kubernetes_executor]``: it ignores none silently."""

from __future__ import annotations

import enum
from collections.abc import Mapping

__all__ = ["OPTIONS", "STOCK_DEFAULTS", "OptionSupport"]


class OptionSupport(enum.StrEnum):
    """What Crosswind does with an option."""

    HONOURED = "honoured"
    REPLACED = "replaced"
    """The option has no effect, because Crosswind solves the problem another way. A value is logged at start."""
    REFUSED = "refused"
    """A value other than the default is an error."""


_RETRIES = "Crosswind retries requests by their kind of failure, until [crosswind] launch_timeout"
_KEEPALIVE = "keepalive is always on (after 30 s, every 10 s, 3 times), and each request and watch has a time limit"
_CONCURRENCY = "Crosswind creates pods concurrently, as fast as the API server accepts them"
_CLIENT_FACTORY = "use a kubeconfig (config_file): its exec plug-ins can issue credentials"

OPTIONS: Mapping[str, tuple[OptionSupport, str]] = {
    "api_client_retry_configuration": (OptionSupport.REPLACED, _RETRIES),
    "logs_task_metadata": (OptionSupport.HONOURED, "the scheduler's log names the task of a failed pod"),
    "running_pod_log_lines": (OptionSupport.HONOURED, "lines of a running task's log that the UI shows"),
    "pod_template_file": (OptionSupport.HONOURED, "checked at start; read again when the file changes"),
    "worker_container_repository": (
        OptionSupport.HONOURED,
        "the image where the template has a placeholder, or where there is no template",
    ),
    "worker_container_tag": (OptionSupport.HONOURED, "see worker_container_repository"),
    "namespace": (OptionSupport.HONOURED, "for pods whose template and pod_override name no namespace"),
    "delete_worker_pods": (OptionSupport.HONOURED, "Crosswind ends the sidecars of a kept pod"),
    "delete_worker_pods_on_failure": (
        OptionSupport.HONOURED,
        "Crosswind always deletes a waiting pod, because it could still start",
    ),
    "worker_pod_pending_fatal_container_state_reasons": (
        OptionSupport.HONOURED,
        "Crosswind waits for an image pull that failed for a transient cause, whatever the option says",
    ),
    "worker_pods_creation_batch_size": (OptionSupport.REPLACED, _CONCURRENCY),
    "async_pod_creation": (OptionSupport.REPLACED, _CONCURRENCY),
    "pod_creation_max_concurrency": (OptionSupport.HONOURED, "upper limit of concurrent creations; 0 means 64"),
    "multi_namespace_mode": (
        OptionSupport.HONOURED,
        "without a list of namespaces, Crosswind watches the pods of the whole cluster",
    ),
    "multi_namespace_mode_namespace_list": (OptionSupport.HONOURED, "blanks around the commas are allowed"),
    "in_cluster": (OptionSupport.HONOURED, ""),
    "cluster_context": (OptionSupport.HONOURED, ""),
    "config_file": (OptionSupport.HONOURED, ""),
    "client_factory": (OptionSupport.REFUSED, _CLIENT_FACTORY),
    "async_client_factory": (OptionSupport.REFUSED, _CLIENT_FACTORY),
    "kube_client_request_args": (OptionSupport.HONOURED, "_request_timeout only; any other key is refused"),
    "delete_option_kwargs": (
        OptionSupport.HONOURED,
        "grace_period_seconds and propagation_policy; any other key is refused",
    ),
    "enable_tcp_keepalive": (OptionSupport.REPLACED, _KEEPALIVE),
    "tcp_keep_idle": (OptionSupport.REPLACED, _KEEPALIVE),
    "tcp_keep_intvl": (OptionSupport.REPLACED, _KEEPALIVE),
    "tcp_keep_cnt": (OptionSupport.REPLACED, _KEEPALIVE),
    "verify_ssl": (OptionSupport.HONOURED, ""),
    "ssl_ca_cert": (OptionSupport.HONOURED, ""),
    "task_publish_max_retries": (
        OptionSupport.REPLACED,
        _RETRIES + "; it waits for quotas",
    ),
    "pod_launch_failure_retries": (OptionSupport.HONOURED, ""),
    "pod_launch_failure_excluded_container_reasons": (OptionSupport.HONOURED, ""),
}
"""Support for each option, and a remark for the documentation."""

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
"""Defaults of the replaced options. Other values were set on purpose; the log reports that they have no effect."""

"""What Airflow's provider manager asks a provider package for."""

from __future__ import annotations

from typing import Any

__all__ = ["cli_commands", "get_provider_info"]


def cli_commands() -> list[Any]:
    """Return the commands that join the ``airflow`` command: none; the ``crosswind`` command has them."""
    return []


def _option(description: str, default: str, kind: str = "string", example: str | None = None) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": example,
        "default": default,
    }


_CROSSWIND = {
    "workload_delivery": _option(
        "How the workload, with its token, reaches the worker: ``secret`` (a file from a Secret that a batch of pods\n"
        "shares, each with a key of its own) or ``args`` (in the pod's arguments, where all who may read pods can\n"
        "read it; for clusters in which the scheduler may not create Secrets).\n",
        "secret",
        example="args",
    ),
    "secret_batch": _option("How many pods share one Secret at most.\n", "64", "integer"),
    "launch_timeout": _option(
        "Seconds for which a pod's creation is tried against an API server that does not answer or pushes back;\n"
        "then the task fails with the reason. Quotas that are used up are waited for without this limit.\n",
        "300",
        "float",
    ),
    "relist_interval": _option(
        "Seconds between two comparisons of all pods with what is known, beside the watch.\n", "600", "float"
    ),
    "settle_interval": _option(
        "Seconds after which an outcome that the metadata database does not show yet is told to the scheduler again.\n",
        "15",
        "float",
    ),
    "native_sidecars": _option(
        "Turn ordinary sidecars of template and ``pod_override`` into native ones, on API servers from 1.29 on. The\n"
        "annotation ``crosswind/native-sidecars`` decides for one pod.\n",
        "False",
        "boolean",
    ),
    "ask_native_sidecars": _option(
        "Meshes and injectors that are asked, by annotation, for native sidecars; a comma-separated list.\n",
        "istio,linkerd",
    ),
    "queues": _option(
        "What a task's ``queue`` says about its pod: a JSON object of queues, each with some of\n"
        "``pod_template_file``, ``namespace``, ``priority_class``, ``labels`` and ``max_pods``. A task's own\n"
        "``executor_config`` wins over its queue, the queue over what is configured for all pods.\n",
        "",
        example='{"gpu": {"pod_template_file": "/opt/airflow/gpu.yaml", "priority_class": "high"}}',
    ),
    "archive_logs": _option(
        "Keep the logs of tasks in the metadata database, from where the UI shows them when their pods are gone:\n"
        "``auto`` (where remote logging is off and no lasting volume is mounted at the workers' log folder),\n"
        "``always`` or ``never``. Schedulers and API servers must agree.\n",
        "auto",
    ),
    "archive_limit": _option(
        "Bytes of a pod's log that are kept, as printed; of a longer one the first and the last half of it.\n",
        "10485760",
        "integer",
    ),
    "archive_days": _option("Days for which logs are kept; 0 is for ever.\n", "30", "float"),
    "sidecars_file": _option(
        "Path of a YAML file with sidecars of your own: how each is recognised and told to end.\n",
        "",
        example="/opt/airflow/sidecars.yaml",
    ),
    "sidecar_swap_image": _option(
        "Image that may take the place of a sidecar's in a pod that is kept, when nothing else ends it. It must end\n"
        "with exit code 0 at once. Empty: images are left alone.\n",
        "",
    ),
}


def get_provider_info() -> dict[str, Any]:
    """Describe the package as an Airflow provider (``provider_info.schema.json``)."""
    return {
        "package-name": "crosswind",
        "name": "Crosswind",
        "description": "Airflow tasks in Kubernetes pods: fast, and under any service mesh.",
        "executors": ["crosswind.executor.KubernetesExecutor"],
        "task-decorators": [{"name": "pod", "class-name": "crosswind.decorators.pod_task"}],
        "cli": ["crosswind.provider.cli_commands"],
        "config": {
            "crosswind": {
                "description": "What crosswind has beyond the section ``[kubernetes_executor]``.",
                "options": _CROSSWIND,
            }
        },
    }

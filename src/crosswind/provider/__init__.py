"""The entry point of the Airflow provider: commands and options of the package.

Airflow's provider manager imports this module in most of Airflow's processes, and ``crosswind.provider`` is the parent
of all that knows Airflow. So it imports neither Airflow nor another module of the package.
"""

from __future__ import annotations

from typing import Any

__all__ = ["cli_commands", "get_provider_info"]


def cli_commands() -> list[Any]:
    """Return no commands for the ``airflow`` command: ``crosswind`` is a command of its own."""
    return []


def _option(description: str, default: str, kind: str = "string", example: str | None = None) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": example,
        "default": default,
    }


_CROSSWIND_OPTIONS = {
    "workload_delivery": _option(
        "How the workload, with its token, reaches the worker. ``secret``: a file from a Secret that a batch of pods\n"
        "shares, each with a key of its own. ``args``: the pod's arguments, which everybody who may read pods can\n"
        "read; for clusters in which the scheduler must not create Secrets.\n",
        "secret",
        example="args",
    ),
    "secret_batch": _option("Maximum number of pods that share one Secret.\n", "64", "integer"),
    "launch_timeout": _option(
        "Seconds for which the executor retries the creation of a pod against an API server that does not answer or\n"
        "pushes back. Then the task fails with the reason. An exhausted quota has no such limit.\n",
        "300",
        "float",
    ),
    "relist_interval": _option(
        "Seconds between two full lists of pods, which the executor compares with its state, beside the watch.\n",
        "600",
        "float",
    ),
    "settle_interval": _option(
        "Seconds after which the executor reports an outcome again that the metadata database does not show yet.\n",
        "15",
        "float",
    ),
    "native_sidecars": _option(
        "Convert ordinary sidecars of template and ``pod_override`` into native ones, on API servers from 1.29 on.\n"
        "The annotation ``crosswind/native-sidecars`` overrides it for one pod.\n",
        "False",
        "boolean",
    ),
    "ask_native_sidecars": _option(
        "Meshes and injectors that Crosswind asks, by annotation, for native sidecars; a comma-separated list.\n",
        "istio,linkerd",
    ),
    "queues": _option(
        "Settings for the pods of a task's ``queue``: a JSON object of queues, each with some of\n"
        "``pod_template_file``, ``namespace``, ``priority_class``, ``labels`` and ``max_pods``. A task's own\n"
        "``executor_config`` overrides its queue, and the queue overrides the settings for all pods.\n",
        "",
        example='{"gpu": {"pod_template_file": "/opt/airflow/gpu.yaml", "priority_class": "high"}}',
    ),
    "archive_logs": _option(
        "Keep the logs of tasks in the metadata database, from where the UI shows them after their pods are deleted:\n"
        "``auto`` (where remote logging is off and no persistent volume is mounted at the workers' log folder),\n"
        "``always`` or ``never``. Schedulers and API servers must have the same value.\n",
        "auto",
    ),
    "archive_limit": _option(
        "Bytes of a pod's log that are kept, as printed. Of a longer log, the first and the last half are kept.\n",
        "10485760",
        "integer",
    ),
    "archive_days": _option(
        "Days for which logs and the rows of pods are kept; 0 keeps them for ever.\n", "30", "float"
    ),
    "pod_history": _option(
        "Keep one row, of less than 2 kB, of what each worker pod went through (times, outcome, reason, memory,\n"
        "containers) in the metadata database, in the table ``crosswind_pod``.\n",
        "True",
        "boolean",
    ),
    "ui_scripts": _option(
        "Render the tab *Pod*, the page of the fleet and the dashboard's card by a script in Airflow's UI. False: tab\n"
        "and fleet are plain HTML in frames that run no script, and there is no card. API servers read it.\n",
        "True",
        "boolean",
    ),
    "tune_garbage_collector": _option(
        "Exempt what the scheduler has loaded at start from Python's garbage collection, and make collections rarer,\n"
        "unless the deployment has set thresholds of its own. A full collection stops all threads of the scheduler\n"
        "for about 150 ms. It changes the whole process: turn it off if the scheduler's memory grows with it.\n",
        "True",
        "boolean",
    ),
    "worker_shim": _option(
        "Run each task's worker under a small program that travels in the workload's Secret: the pod ends as soon as\n"
        "its task has ended, and a failure that a SIGTERM or an out-of-memory kill caused is not taken for the task's\n"
        "own. False: Airflow's own command. Without effect where ``workload_delivery`` is ``args``.\n",
        "True",
        "boolean",
    ),
    "infra_retries": _option(
        "How often in a row a task instance gets another try after the cluster has taken its pod (eviction, drain,\n"
        "preemption, spot machine, dead node), without using up a retry. 0 for tasks that must not run twice. A queue\n"
        'and ``executor_config={"crosswind": {"infra_retries": 5}}`` override it.\n',
        "3",
        "integer",
    ),
    "after_losses": _option(
        "Patches of the pods of a task from its n-th loss on: a JSON object of pods, shaped as ``pod_override``,\n"
        "by number of losses. A queue and ``executor_config`` override it.\n",
        "",
        example='{"2": {"spec": {"nodeSelector": {"karpenter.sh/capacity-type": "on-demand"}}}}',
    ),
    "node_loss_seconds": _option(
        "Seconds that a worker pod, or a pod of the pod operator, stays bound to a node that does not answer: its\n"
        "tolerations of the taints ``node.kubernetes.io/not-ready`` and ``unreachable``, unless its template has its\n"
        "own. A kubelet that is away for longer loses a healthy task. 0: those of the cluster, 300 s by default.\n"
        "Without effect where ``infra_retries`` is 0.\n",
        "30",
        "integer",
    ),
    "deleted_is_loss": _option(
        "Treat a pod that a user deletes while its task runs as one that the cluster took. False: the task fails,\n"
        "because a person who deletes the pod may mean the task.\n",
        "False",
        "boolean",
    ),
    "bytecode_volume": _option(
        "Name of a volume of the pod template with bytecode of Airflow (a filled ``PYTHONPYCACHEPREFIX``), for worker\n"
        "images that have none: imports then take half the time.\n",
        "",
        example="bytecode",
    ),
    "warm": _option(
        "Pods that wait for a task with everything imported, so that it starts in half a second: a JSON object with\n"
        "some of ``min`` and ``max`` (pods that wait, per scheduler), ``idle_seconds``, ``max_age`` and ``preload``\n"
        "(modules to import), and ``queues``, an object of the same keys for each queue. Each pod runs one task.\n"
        "Empty: no pod waits.\n",
        "",
        example='{"min": 2, "max": 10, "queues": {"gpu": {"max": 0}}}',
    ),
    "sidecars_file": _option(
        "Path of a YAML file with sidecars of your own: how to recognise and end each.\n",
        "",
        example="/opt/airflow/sidecars.yaml",
    ),
    "sidecar_swap_image": _option(
        "Image that may replace a sidecar's image in a kept pod when nothing else ends the sidecar. It must exit with\n"
        "code 0 at once. Empty: Crosswind changes no images.\n",
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
                "description": "Options of Crosswind beyond those of the section ``[kubernetes_executor]``.",
                "options": _CROSSWIND_OPTIONS,
            }
        },
    }

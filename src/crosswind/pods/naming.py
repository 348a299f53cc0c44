"""Names, labels and annotations of worker pods, as stock's ``KubernetesExecutor`` writes them.

``airflow kubernetes cleanup-pods``, log views and dashboards therefore work as with stock. No name and no label's value
is longer than the 63 characters that Kubernetes allows for a host name and for a label's value.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from hashlib import md5

from crosswind.types import Json

__all__ = [
    "CLAIM_LABEL",
    "DEPLOYMENT_LABEL",
    "MAX_LENGTH",
    "POOL_LABEL",
    "QUEUE_LABEL",
    "TEAM_LABEL",
    "UNIQUE_ID_ANNOTATION",
    "bad_label",
    "dns_label",
    "is_unique_id",
    "label_value",
    "mesh_labels",
    "pod_name",
    "task_annotations",
    "task_labels",
    "team_label",
]

MAX_LENGTH = 63
"""The most characters in a pod's name, which becomes the host name, and in a label's value."""

QUEUE_LABEL = "crosswind/queue"
"""Label, and annotation where the label's value is shortened, with the task's queue; stock has none."""

DEPLOYMENT_LABEL = "crosswind/deployment"
"""Equal for the pods and Secrets of one deployment. Several may share a namespace and number schedulers alike."""

TEAM_LABEL = "crosswind/team"

POOL_LABEL = "crosswind/pool"
"""The fingerprint of a pod that waits; gone as soon as it is claimed, or is about to be deleted."""
CLAIM_LABEL = "crosswind/claim"
"""The unique id of the run that has claimed the pod, by which everything finds it: its name says nothing."""

UNIQUE_ID_ANNOTATION = "crosswind/unique-id"
"""The unique id of a pod that mounts no workload: its name may be changed by a ``pod_mutation_hook``."""

APP_NAME = "airflow-worker"
"""Value of ``app.kubernetes.io/name`` unless the author sets another: to a mesh, all workers are one service."""

_UNIQUE_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}")
_NOT_IN_NAME = re.compile(r"[^a-z0-9]+")
_NOT_IN_LABEL = re.compile(r"[^a-zA-Z0-9_.-]")
_LABEL_VALUE = re.compile(r"([a-zA-Z0-9]([a-zA-Z0-9_.-]*[a-zA-Z0-9])?)?")
_NAME_SUFFIX = re.compile(r"[a-z0-9]([a-z0-9-]{0,56}[a-z0-9])?")
_REMEMBERED = 2048
"""Texts whose form is remembered: the tasks of a burst share their DAG, run and queue, and their labels' values."""
_NAMES_THE_APP = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")


def pod_name(dag_id: str, task_id: str, unique: str) -> str:
    """Return ``DAG-TASK-UNIQUE`` as a DNS-1123 label of at most 63 characters.

    ``unique``, such as a UUID, stays whole at the end, in lower case; DAG and task share the remaining length. Equal
    arguments give equal names. Raises ``ValueError`` when ``unique`` is empty, longer than 58 characters, or has other
    characters than letters, digits and dashes.
    """
    suffix = unique.lower()
    if not _NAME_SUFFIX.fullmatch(suffix):
        raise ValueError(f"{unique!r} cannot end a pod's name; use 1 to 58 letters, digits and inner dashes")
    room = MAX_LENGTH - len(suffix) - 1
    dag, task = _slug(dag_id), _slug(task_id)
    dag = dag[: max(room // 2, room - len(task) - 1)]
    stem = f"{dag}-{task}".strip("-")[:room].strip("-")
    return f"{stem or 'task'}-{suffix}"


def is_unique_id(text: str) -> bool:
    """Return whether a text is a UUID, as Airflow assigns it to each queued task, and no other executor's id."""
    return _UNIQUE_ID.fullmatch(text) is not None


@lru_cache(_REMEMBERED)
def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return _NOT_IN_NAME.sub("-", plain.lower()).strip("-")


@lru_cache(_REMEMBERED)
def label_value(text: str) -> str:
    """Return ``text`` as a label's value, with the same outcome as stock's ``make_safe_label_value``.

    A valid value stays. Any other text loses its invalid characters, is cut, and ends with a hash of the whole. A text
    without ASCII letters and digits becomes the hash alone; stock puts a dash before it, which Kubernetes refuses.
    """
    safe = _NOT_IN_LABEL.sub("", text).strip("_.-")
    if len(safe) <= MAX_LENGTH and safe == text:
        return safe
    digest = md5(text.encode(), usedforsecurity=False).hexdigest()[:9]
    return f"{safe[: MAX_LENGTH - len(digest) - 1]}-{digest}" if safe else digest


def dns_label(name: str, text: str) -> str:
    """Return a pod's name that begins and ends with a letter or digit; a hash of ``text``, an id, when none is left.

    An id without ASCII letters and digits consists of dashes once each invalid character is replaced by a dash.
    """
    if name[:1].isalnum() and name[-1:].isalnum():
        return name
    return name.strip("-.") or f"task-{md5(text.encode(), usedforsecurity=False).hexdigest()[:9]}"


def team_label(team: str) -> dict[str, str]:
    """Return the label of the objects of a team's executor, {} without a team."""
    return {TEAM_LABEL: label_value(team)} if team else {}


def bad_label(labels: Mapping[str, Json]) -> str | None:
    """Return the first key whose value Kubernetes would refuse, None when all are valid."""
    for key, value in labels.items():
        if value is not None and not (isinstance(value, str) and _is_label_value(value)):
            return key
    return None


@lru_cache(_REMEMBERED)
def _is_label_value(text: str) -> bool:
    return len(text) <= MAX_LENGTH and _LABEL_VALUE.fullmatch(text) is not None


def task_labels(
    *,
    dag_id: str,
    task_id: str,
    run_id: str,
    try_number: int,
    map_index: int = -1,
    executor_id: str | None = None,
    airflow_version: str = "",
    queue: str = "",
) -> dict[str, str]:
    """Return the labels that stock gives to the pod of a task instance, and ``crosswind/queue``.

    ``executor_id``: the scheduler's job id (label ``airflow-worker``); None omits the label, for a selector of all
    executors. ``airflow_version``: from ``airflow.version``; "" omits the label, and so does an empty ``queue``.
    """
    labels = {
        "dag_id": label_value(dag_id),
        "task_id": label_value(task_id),
        "try_number": str(try_number),
        "kubernetes_executor": "True",
    }
    if airflow_version:
        labels["airflow_version"] = airflow_version.replace("+", "-")
    if executor_id is not None:
        labels["airflow-worker"] = label_value(executor_id)
    if map_index >= 0:
        labels["map_index"] = str(map_index)
    if run_id:
        labels["run_id"] = label_value(run_id)
    if queue:
        labels[QUEUE_LABEL] = label_value(queue)
    return labels


def task_annotations(
    *, dag_id: str, task_id: str, run_id: str, try_number: int, map_index: int = -1, queue: str = ""
) -> dict[str, str]:
    """Return the annotations that stock gives, the values of the labels unshortened, and a queue that is shortened."""
    annotations = {"dag_id": dag_id, "task_id": task_id, "try_number": str(try_number)}
    if map_index >= 0:
        annotations["map_index"] = str(map_index)
    if run_id:
        annotations["run_id"] = run_id
    if label_value(queue) != queue:
        annotations[QUEUE_LABEL] = queue
    return annotations


def mesh_labels(labels: Mapping[str, str], app: str = APP_NAME) -> dict[str, str]:
    """Return the labels to add to ``labels`` so that Istio has a short name for the workload.

    Istio copies the pod's name into the label ``service.istio.io/canonical-name`` unless one of three labels names the
    application (versions before 1.21 without cutting it to 63 characters: istio/istio#25157). The author's choice
    stays. ``app``: the name of the workload.
    """
    return {} if any(name in labels for name in _NAMES_THE_APP) else {"app.kubernetes.io/name": app}

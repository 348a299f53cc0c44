"""Creates the pod of an operator's task, and waits while the cluster cannot create it.

``PodCreation`` runs in the task's own thread. Its waits end with the pod, with a refusal that repetition cannot change,
at ``schedule_timeout_seconds``, or when the task is killed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException

from crosswind.engine.executor_config import to_pod
from crosswind.errors import AlreadyExists, CrosswindError, Unreachable
from crosswind.podrun.cleanup import name_is_taken
from crosswind.podrun.reattach import CHECKED
from crosswind.podrun.refusals import GiveUp, decide_retry, is_denied, waits_for
from crosswind.pods.field_names import OPERATOR_FIELDS
from crosswind.pods.masking import mask_pod
from crosswind.provider.hook_client import post_pod, run_with_client, to_plain_json
from crosswind.provider.redaction import is_secret_name
from crosswind.types import Manifest, Pod

if TYPE_CHECKING:
    from airflow.sdk.types import Logger
    from kubernetes.client import CoreV1Api
    from kubernetes.client.models import V1Pod

__all__ = ["PodCreation"]

_OUTAGE_LIMIT_S = 900.0
"""How long the API server may be unreachable; ``podrun.follow`` allows the same to a pod that runs."""

_KILL_CHECK_S = 0.5
"""The longest sleep between two checks whether the task was killed."""


@dataclass(slots=True)
class PodCreation:
    """Creates one pod with the client of the operator's hook.

    ``schedule_timeout``: seconds to wait for a quota, or for refusals that may pass. ``may_attach``: whether the task
    may continue with a pod of its own that already has the name. ``is_killed``: asked between waits.
    """

    api: CoreV1Api
    log: Logger
    schedule_timeout: float
    may_attach: bool
    is_killed: Callable[[], bool]

    def create(self, request: V1Pod) -> V1Pod:
        """Create the pod, or return the one that an earlier request of this task created.

        Raises ``AirflowException`` with the cause and the fix. Only the debug log shows the whole pod.
        """
        manifest: Manifest = to_plain_json(request)
        namespace: str = request.metadata.namespace
        subject = f"Pod {namespace}/{request.metadata.name}"
        retries = _Retries(subject, self.schedule_timeout)
        self.log.debug("Creating pod:\n%s", json.dumps(mask_pod(manifest, is_secret_name), indent=1))
        while True:
            try:
                return post_pod(self.api, manifest, namespace)
            except AlreadyExists:
                # A request whose answer was lost has created the pod all the same.
                if (pod := self._own_pod_of_that_name(request)) is not None:
                    return pod
            except CrosswindError as error:
                delay = retries.delay_after(error)
                if warning := retries.warning_of(error):
                    self.log.warning("%s", warning)
                self._sleep(delay)

    def await_name(self, request: V1Pod) -> Pod | None:
        """Wait until no pod that is being deleted has the request's name.

        Returns the pod of this task that has the name, None when the name is free. Raises ``AirflowException`` when
        another pod keeps the name.
        """
        name, namespace = request.metadata.name, request.metadata.namespace
        holder = run_with_client(self.api, lambda client: name_is_taken(client, name, namespace))
        if holder is None:
            return None
        labels = holder["metadata"].get("labels") or {}
        # A later try of the task instance counts as the same task.
        own_labels = {key: value for key, value in (request.metadata.labels or {}).items() if key != "try_number"}
        is_leaving = "deletionTimestamp" in holder["metadata"]
        if is_leaving or CHECKED in labels or not own_labels.items() <= labels.items():
            raise AirflowException(_name_conflict(holder))
        return holder

    def _own_pod_of_that_name(self, request: V1Pod) -> V1Pod | None:
        """Return this task's pod that has the name already; None when the name is free by now."""
        holder = self.await_name(request)
        if holder is None:
            return None
        if not self.may_attach:
            raise AirflowException(_name_conflict(holder))
        return to_pod(holder)

    def _sleep(self, seconds: float) -> None:
        """Sleep in slices, because the handler of the kill signal returns and does not end a sleep."""
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            if self.is_killed():
                raise AirflowException("The task was killed")
            time.sleep(min(remaining, _KILL_CHECK_S))


class _Retries:
    """Decides how long to wait after each failed request; one object per pod."""

    def __init__(self, subject: str, schedule_timeout: float) -> None:
        self._subject = subject
        self._schedule_timeout = schedule_timeout
        self._started = time.monotonic()
        self._denied_since: float | None = None
        self._warned_of = ""

    def delay_after(self, error: CrosswindError) -> float:
        """Return the seconds until the next request. Raises ``AirflowException`` when there is to be none."""
        now = time.monotonic()
        self._denied_since = (self._denied_since or now) if is_denied(error) else None
        decision = decide_retry(
            error,
            what=self._subject,
            waited=now - self._started,
            patience=_OUTAGE_LIMIT_S if isinstance(error, Unreachable) else self._schedule_timeout,
            denied=now - self._denied_since if self._denied_since else 0.0,
            quota=self._schedule_timeout,
            fields=OPERATOR_FIELDS,
        )
        if isinstance(decision, GiveUp):
            raise AirflowException(decision.message) from error
        return decision.delay

    def warning_of(self, error: CrosswindError) -> str:
        """Return the warning to log; "" for an error of the same kind as the last, so that a long wait logs once."""
        if type(error).__name__ == self._warned_of:
            return ""
        self._warned_of = type(error).__name__
        return waits_for(error, self._subject, OPERATOR_FIELDS)


def _name_conflict(holder: Pod) -> str:
    metadata = holder["metadata"]
    labels: Mapping[str, str] = metadata.get("labels") or {}
    origin = [f"{key} {labels[key]}" for key in ("dag_id", "task_id", "run_id", "try_number") if key in labels]
    return (
        f"Pod {metadata['namespace']}/{metadata['name']} is there already"
        f" ({', '.join(origin) or 'not created by Airflow'}): delete it, or set random_name_suffix=True"
    )

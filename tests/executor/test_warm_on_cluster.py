"""Waiting pods on a cluster: claimed, refilled, given up, adopted, drained. A shell script plays the waiting worker."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.jobs.job import Job
from airflow.utils.session import create_session
from benchmarks.chaos.proxying import Proxy
from kubernetes.client import models as k8s
from sqlalchemy import delete
from tests.executor.test_adoption import adopt, orphan, scheduler

from crosswind.engine.sealed_workload import open_sealed
from crosswind.engine.warm_claim_patch import CLAIM_LABEL, OWNER_LABEL, POOL_LABEL
from crosswind.engine.warm_secrets import WORKLOAD_ANNOTATION
from crosswind.executor import KubernetesExecutor
from crosswind.kube.resources import NAMESPACES, SECRETS
from crosswind.testing import Cluster

pytestmark = pytest.mark.cluster

FORMER, NEW = 21, 22
CLAIMED = "until test -s /run/crosswind-claim/workload; do sleep 0.05; done; "
COLD = "test -e /run/crosswind/workload.json && exec sleep 60; "
"""A pod that is created for its task has the workload from the start."""


@pytest.fixture
def warm(running: Any, cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    """A bench whose requests go through a proxy, and whose schedulers can be replaced."""
    with Proxy(cluster.kubeconfig, tmp_path) as proxy:
        running.proxy = proxy
        running.set("kubernetes_executor", config_file=str(proxy.kubeconfig))
        running.script(waiting("exec sleep 60"))
        running.configure = lambda **options: running.set("crosswind", warm=json.dumps(options))
        running.scheduler = lambda job_id=FORMER: scheduler(running, job_id)
        running.waiting = lambda: waiting_pods(running)
        running.claimed = lambda: [pod for pod in running.pods() if CLAIM_LABEL in pod["metadata"]["labels"]]
        running.cold = lambda: [pod for pod in running.pods() if is_cold(pod["metadata"]["labels"])]
        yield running
        running.end()


def is_cold(labels: Mapping[str, str]) -> bool:
    """Whether these are the labels of a pod that was created for its task.

    A waiting pod that nobody may claim any more has no label of the pool either, but none of a worker's.
    """
    return "kubernetes_executor" in labels and CLAIM_LABEL not in labels


def waiting(then: str) -> str:
    """Return the script of a worker that waits, and does ``then`` with its claim."""
    return f"{COLD}echo waiting > /dev/termination-log; {CLAIMED}{then}"


def waiting_pods(bench: Any) -> list[Any]:
    return [pod for pod in bench.pods() if POOL_LABEL in pod["metadata"]["labels"]]


def ready(bench: Any, number: int = 1) -> Callable[[], list[Any]]:
    """Return a condition: the pods that are ready for a claim, if the scheduler knows of so many."""

    def condition() -> list[Any]:
        engine = bench.executor._engine
        gauges = engine._gauges() if engine is not None else {}
        known = sum(value for name, value in gauges.items() if name.startswith("crosswind.warm_pods:"))
        return waiting_pods(bench) if known >= number else []

    return condition


def figures(bench: Any) -> dict[str, Any]:
    engine = bench.executor._engine
    assert engine is not None
    return engine.figures()  # type: ignore[no-any-return]


def counted(bench: Any) -> dict[tuple[str, str], int]:
    return dict(bench.executor._engine._metrics.counts)


def test_a_task_takes_over_a_waiting_pod_and_another_one_waits_then(warm: Any) -> None:
    warm.configure(min=1)
    warm.scheduler()
    (pod,) = warm.until(ready(warm))
    assert pod["metadata"]["labels"].keys().isdisjoint({"kubernetes_executor", "airflow-worker", "dag_id"})
    key = warm.queue("task")
    (claimed,) = warm.until(warm.claimed)
    labels, annotations = claimed["metadata"]["labels"], claimed["metadata"]["annotations"]
    assert claimed["metadata"]["uid"] == pod["metadata"]["uid"]
    assert (labels["task_id"], labels["airflow-worker"], labels["kubernetes_executor"]) == ("task", "21", "True")
    assert annotations["task_instance_id"].replace("-", "") == warm.ids[key]
    assert labels.keys().isdisjoint({POOL_LABEL, OWNER_LABEL})
    assert "cluster-autoscaler.kubernetes.io/safe-to-evict" not in annotations
    warm.state(key, "running")
    warm.until(lambda: figures(warm)["running"] == 1)
    (other,) = warm.until(ready(warm))
    assert other["metadata"]["uid"] != pod["metadata"]["uid"]
    assert warm.cold() == []
    assert counted(warm)["crosswind.warm_claims", "hit"] == 1


def test_only_the_pods_own_secret_opens_the_workload(warm: Any) -> None:
    warm.configure(min=1)
    warm.scheduler()
    warm.until(ready(warm))
    warm.queue("task")
    (pod,) = warm.until(warm.claimed)
    uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
    secret = warm.ask(lambda client: client.get(SECRETS, name, namespace=warm.namespace))
    assert secret["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}]
    key = base64.b64decode(secret["data"]["key"])
    payload = json.loads(open_sealed(pod["metadata"]["annotations"][WORKLOAD_ANNOTATION], key, uid))
    assert payload["ti"]["task_id"] == "task"
    assert payload["token"] not in json.dumps(pod)
    assert {"worker.py", "key"} <= secret["data"].keys()


def test_base_runs_before_the_task_does(warm: Any) -> None:
    warm.configure(min=1)
    warm.scheduler()
    warm.until(ready(warm))
    key = warm.queue("task")
    warm.until(warm.claimed)
    assert figures(warm)["running"] == 0
    warm.state(key, "running")
    warm.until(lambda: figures(warm)["running"] == 1)


def test_a_pod_whose_task_ended_is_gone_with_its_secret(warm: Any) -> None:
    warm.script(waiting("exit 0"))
    warm.configure(min=1, queues={"default": {"max": 1}})
    warm.scheduler()
    warm.until(ready(warm))
    key = warm.queue("task")
    warm.state(key, "success")
    warm.until(lambda: not warm.executor.running)
    warm.until(warm.is_empty)
    warm.until(lambda: len(warm.pods()) == len(warm.waiting()))
    assert warm.events == {}


def test_a_claim_without_a_sign_of_life_costs_nothing_but_time(warm: Any) -> None:
    warm.configure(min=1)
    warm.scheduler()
    warm.until(ready(warm))
    key = warm.queue("task")
    (claimed,) = warm.until(warm.claimed)
    (cold,) = warm.until(warm.cold)  # the row is still QUEUED
    assert cold["metadata"]["labels"]["task_id"] == "task"
    assert claimed["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in warm.pods()}
    warm.state(key, "running")
    warm.until(lambda: figures(warm)["running"] == 1)
    assert warm.events == {}
    assert warm.executor.running == {key}
    assert counted(warm)["crosswind.warm_claims", "failed"] == 1


def test_a_pod_whose_log_shows_that_it_has_the_task_is_kept(warm: Any) -> None:
    warm.script("echo from the entry point; sleep 1; " + waiting("echo Executing workload; exec sleep 60"))
    warm.configure(min=1)
    warm.scheduler()
    warm.until(ready(warm))
    key = warm.queue("task")
    (run,) = warm.until(lambda: [run for run in warm.executor._engine._registry.runs.values() if run.claim])
    warm.until(lambda: run.claim.taken is not None)
    assert run.claim.taken
    warm.state(key, "running")
    warm.until(lambda: figures(warm)["running"] == 1)
    assert counted(warm)["crosswind.warm_claims", "hit"] == 1
    assert warm.cold() == []


def test_a_pod_that_dies_before_its_task_begins_is_replaced_by_a_cold_one(warm: Any) -> None:
    warm.script(waiting("exit 7"))
    warm.set("kubernetes_executor", pod_launch_failure_retries="0", delete_worker_pods_on_failure="True")
    warm.configure(min=1)
    warm.scheduler()
    warm.until(ready(warm))
    key = warm.queue("task")
    (cold,) = warm.until(warm.cold)
    assert cold["metadata"]["labels"]["task_id"] == "task"
    warm.state(key, "running")
    warm.until(lambda: figures(warm)["running"] == 1)
    assert warm.events == {}


def test_a_burst_is_met_by_as_many_pods_the_next_time(warm: Any) -> None:
    warm.configure(min=0, max=3)
    warm.scheduler()
    keys = [warm.queue(f"cold{number}") for number in range(5)]
    warm.until(lambda: len(warm.cold()) == 5)
    warm.until(ready(warm, 3))
    assert len(warm.waiting()) == 3
    assert counted(warm)["crosswind.cold_starts", "empty"] == 5
    for number in range(3):
        warm.queue(f"warm{number}")
    warm.until(lambda: len(warm.claimed()) == 3)
    assert len(keys) == 5


def test_a_task_with_a_pod_of_its_own_starts_cold_and_has_a_waiting_pod_the_next_time(warm: Any) -> None:
    override = k8s.V1Pod(metadata=k8s.V1ObjectMeta(labels={"size": "large"}))
    warm.configure(min=1, max=3)
    warm.scheduler()
    warm.until(ready(warm))
    warm.queue("first", {"pod_override": override})
    warm.until(warm.cold)
    warm.until(ready(warm, 2))
    warm.queue("second", {"pod_override": override})
    (claimed,) = warm.until(warm.claimed)
    assert claimed["metadata"]["labels"]["size"] == "large"


def test_waiting_pods_are_replaced_when_the_template_changes(warm: Any) -> None:
    warm.configure(min=1)
    warm.scheduler()
    (before,) = warm.until(ready(warm))
    warm.script(waiting("exec sleep 61"))

    def replaced() -> bool:
        pods = warm.waiting()
        return len(pods) == 1 and pods[0]["metadata"]["labels"][POOL_LABEL] != before["metadata"]["labels"][POOL_LABEL]

    warm.until(replaced)
    warm.until(ready(warm))
    warm.queue("task")
    warm.until(warm.claimed)


def test_waiting_pods_make_room_for_a_task_that_waits_for_a_node(warm: Any) -> None:
    warm.configure(min=2)
    warm.scheduler()
    warm.until(ready(warm, 2))
    base = k8s.V1Container(name="base", resources=k8s.V1ResourceRequirements(requests={"cpu": "9999"}))
    warm.queue("large", {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base]))})
    warm.until(lambda: not warm.waiting())


def test_the_next_scheduler_takes_over_the_waiting_pods(warm: Any) -> None:
    warm.configure(min=2)
    warm.scheduler(FORMER)
    before = {pod["metadata"]["uid"] for pod in warm.until(ready(warm, 2))}
    warm.scheduler(NEW)
    warm.until(lambda: {pod["metadata"]["labels"][OWNER_LABEL] for pod in warm.waiting()} == {str(NEW)})
    assert {pod["metadata"]["uid"] for pod in warm.waiting()} == before
    warm.queue("task")
    (claimed,) = warm.until(warm.claimed)
    assert claimed["metadata"]["uid"] in before


def test_a_scheduler_without_warm_pods_deletes_those_of_a_dead_one(warm: Any) -> None:
    warm.configure(min=2)
    warm.scheduler(FORMER)
    warm.until(ready(warm, 2))
    warm.set("crosswind", warm="")
    warm.scheduler(NEW)
    warm.executor._engine._thread.post(lambda: warm.executor._engine._session._housekeeper.sweep_soon())
    warm.until(lambda: warm.pods() == [])


@pytest.fixture
def former_lives() -> Iterator[None]:
    """The first scheduler's heartbeat is recent, as the database has it."""
    with create_session() as session:
        job = Job()
        job.id, job.job_type, job.state = FORMER, "SchedulerJob", "running"
        job.latest_heartbeat = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        session.add(job)
    yield
    with create_session() as session:
        session.execute(delete(Job).where(Job.id == FORMER))


@pytest.mark.usefixtures("former_lives")
def test_a_scheduler_claims_the_waiting_pod_of_its_sibling(warm: Any) -> None:
    warm.configure(min=1)
    warm.scheduler(FORMER)
    (pod,) = warm.until(ready(warm))
    uid = pod["metadata"]["uid"]
    warm.configure(min=0)
    sibling = KubernetesExecutor(parallelism=8)
    sibling.job_id = NEW
    sibling.start()
    try:
        warm.until(
            lambda: sibling._engine and sibling._engine._session and sibling._engine._session._pool.pods.get(uid)
        )
        warm.queue("task", executor=sibling)
        sibling.heartbeat()
        (claimed,) = warm.until(warm.claimed)
        assert claimed["metadata"]["uid"] == pod["metadata"]["uid"]
        assert claimed["metadata"]["labels"]["airflow-worker"] == str(NEW)
        warm.until(ready(warm))  # the first one refills
    finally:
        sibling.end()


@pytest.mark.parametrize("state", ["running", "queued"])
def test_a_claimed_pod_is_adopted_by_its_claim(warm: Any, state: str) -> None:
    warm.configure(min=1)
    warm.scheduler(FORMER)
    warm.until(ready(warm))
    key = orphan(warm, "task", "queued")
    (pod,) = warm.until(warm.claimed)
    warm.state(key, state)
    warm.scheduler(NEW)
    assert adopt(warm, key) == []
    if state == "running":
        warm.until(lambda: figures(warm)["running"] == 1)
        (adopted,) = warm.claimed()
        assert adopted["metadata"]["uid"] == pod["metadata"]["uid"]
        warm.until(lambda: warm.claimed()[0]["metadata"]["labels"]["airflow-worker"] == str(NEW))
        assert warm.cold() == []
    else:  # nobody has its workload: Airflow schedules it again
        warm.until(lambda: not warm.executor.running)
        ((rescheduled,),) = warm.rows("select state from task_instance where task_id = 'task'")
        assert rescheduled is None
    assert warm.events == {}


def test_a_claim_whose_answer_is_lost_has_one_pod(warm: Any) -> None:
    warm.configure(min=2)
    warm.scheduler()
    warm.until(ready(warm, 2))
    warm.proxy.fault = lambda method, target: "lost" if method == "PATCH" and "crosswind-warm-" in target else None
    key = warm.queue("task")
    warm.until(warm.claimed)
    warm.state(key, "running")
    warm.proxy.fault = lambda method, target: None
    warm.until(lambda: figures(warm)["running"] == 1)
    assert len(warm.claimed()) == 1
    assert warm.cold() == []


def test_without_a_permission_to_claim_tasks_start_cold(warm: Any) -> None:
    warm.configure(min=1)
    warm.scheduler()
    warm.until(ready(warm))
    warm.proxy.fault = lambda method, target: 403 if method == "PATCH" and "crosswind-warm-" in target else None
    warm.queue("task")
    warm.until(warm.cold)
    assert warm.claimed() == []


def test_a_pool_whose_pods_fail_says_why_once_and_tasks_start_cold(warm: Any, caplog: pytest.LogCaptureFixture) -> None:
    warm.script(f"{COLD}echo 'preload: no module named pandas' > /dev/termination-log; exit 78")
    warm.configure(min=2, preload=["pandas"])
    warm.scheduler()
    warm.until(lambda: "No pod waits for tasks of queue default" in caplog.text)
    warm.queue("task")
    warm.until(warm.cold)
    assert "no module named pandas" in caplog.text
    assert caplog.text.count("No pod waits for tasks of queue default") == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ('{"min": 1, "maximum": 2}', "maximum: is not known"),
        ("{min: 1}", "must be JSON"),
    ],
)
def test_a_wrong_option_is_reported_at_start_and_tasks_start_cold(
    warm: Any, capsys: pytest.CaptureFixture[str], options: str, text: str
) -> None:
    warm.set("crosswind", warm=options)
    warm.scheduler()
    logged = capsys.readouterr().out
    assert "All tasks start cold" in logged
    assert text in logged
    warm.queue("task")
    warm.until(warm.cold)


def test_a_template_that_can_never_wait_is_reported_at_start(warm: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = warm.folder / "template.yaml"
    path.write_text(path.read_text().replace("  restartPolicy: Never", "  restartPolicy: Never\n  hostname: fixed"))
    warm.configure(min=1)
    warm.scheduler()
    warm.until(lambda: "Tasks of queue default start cold" in caplog.text)
    assert "spec.hostname" in caplog.text
    warm.queue("task")
    warm.until(warm.cold)
    assert warm.waiting() == []


RESTRICTED = """
apiVersion: v1
kind: Pod
metadata: {{name: worker}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  securityContext: {{runAsNonRoot: true, runAsUser: {user}, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
  - name: base
    image: {image}
    imagePullPolicy: {policy}
    command: [sh, -c, {script!r}]
    securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}, readOnlyRootFilesystem: true}}
"""


def test_restricted_pod_security_allows_waiting_pods(warm: Any, cluster: Cluster) -> None:
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    warm.ask(lambda client: client.patch(NAMESPACES, warm.namespace, labels))
    script = waiting("exec sleep 60")
    warm.template(RESTRICTED.format(user=50000, image=cluster.image, policy=cluster.pull_policy, script=script))
    warm.configure(min=1)
    warm.scheduler()
    warm.until(ready(warm))
    warm.queue("task")
    (pod,) = warm.until(warm.claimed)
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_the_log_of_a_claimed_pod_is_found_by_its_claim(warm: Any) -> None:
    warm.script(waiting("echo this is the task; exec sleep 60"))
    warm.configure(min=1)
    warm.scheduler()
    warm.until(ready(warm))
    key = warm.queue("task")
    (pod,) = warm.until(warm.claimed)
    warm.state(key, "running")
    ti = SimpleNamespace(
        dag_id="dag",
        task_id="task",
        run_id="run",
        map_index=-1,
        external_executor_id=pod["metadata"]["labels"][CLAIM_LABEL],
        executor_config=None,
        queue="default",
    )
    name = pod["metadata"]["name"]

    def log() -> str:
        messages, (text,) = warm.executor.get_task_log(ti, 1)
        assert name in messages[-1]
        return str(text)

    warm.until(lambda: "this is the task" in log())

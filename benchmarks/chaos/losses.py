"""Pods that the cluster takes: a real scheduler on PostgreSQL, whose tasks have no retries, and every kind of loss.

Most workers are those of simulated pods, played through the real Execution API; some are real processes with the worker
shim, on nodes of their own. The cluster's waits are shortened: ``_scale`` multiplies the 50 to 55 s until a silent node
is unreachable and the toleration of 30 s; what Crosswind does afterwards takes its real time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import sqlalchemy
import yaml
from benchmarks.chaos.databases import environment as variables
from benchmarks.chaos.loss_explanations import explanations
from benchmarks.chaos.loss_figures import figures
from benchmarks.chaos.pod_records import PodRecord, PodRecords
from benchmarks.chaos.scenario import Row, Scenario, ScenarioSize
from benchmarks.chaos.taking import NODE_KINDS, POD_KINDS, PREEMPTOR_CLASS, PodTaker, template
from benchmarks.chaos.tries import MortalPlayers, Tries, accepted_states
from benchmarks.executors import NAMESPACE, database
from benchmarks.whole_scheduler import (
    DAG_ID,
    SchedulerContestant,
    Watched,
    log_in,
    ready,
    scheduler_environment,
    trigger,
)

from crosswind.demo.manifests import FOR_SLOW_MACHINES
from crosswind.demo.processes import Airflow, free_port
from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, PODS, SECRETS
from crosswind.settings import KubeSettings
from kubelocal.settings import LocalSettings
from kubelocal.testing import serve_in_thread

__all__ = ["SCENARIOS"]

_OURS = SchedulerContestant("Crosswind", "crosswind.executor.KubernetesExecutor")
_FOR_EVER = 3600.0
_LIMIT_S = 900.0
_CLEAN_S = 120.0
_PODS_PER_NODE = 20
_HEARTBEAT_S = 15.0
_REAL_CPU = "900m"
"""Requested by each worker that is a process: two at a time on a node of two cores. A start costs some 5 s of CPU, and
all forty at once would measure how long they wait for each other."""
_SENSOR_CPU = "50m"
"""Requested by each poke: two workers leave it on a node. A poke that waited for them could begin after the timeout of
its sensor, which then has no later poke to lose."""

_DAG = """\
import time
from pathlib import Path
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import DAG

REAL = {{"pod_template_file": {real!r}}}
POKE = {{"pod_template_file": {poke!r}}}

def mark(context):
    ti, path = context["ti"], Path({marks!r}, "callback-" + str(time.time()))
    path.write_text(f"{{ti.task_id}} try {{ti.try_number}}: {{context.get('exception')!r}}")

def poke():
    time.sleep(3)
    return False

arguments = {{"retries": 0, "on_failure_callback": mark, "on_retry_callback": mark, "email": "someone@example.com"}}
with DAG({dag_id!r}, schedule=None, default_args=arguments):
    for number in range({simulated}):
        BashOperator(task_id=f"work_{{number}}", bash_command="true")
    for number in range({real_tasks}):
        BashOperator(task_id=f"work_real_{{number}}", bash_command="sleep {seconds}; true", executor_config=REAL)
    for number in range({sensors}):
        PythonSensor(task_id=f"sense_{{number}}", python_callable=poke, mode="reschedule", poke_interval=2,
                     timeout={timeout}, soft_fail=True, executor_config=POKE)
"""
_MAIL = """\
import os, pathlib, time

def send_email(to, subject, *args, **kwargs):
    pathlib.Path(os.environ["CHAOS_MARKS"], "mail-" + str(time.time())).write_text(subject)
"""


@dataclass(frozen=True, slots=True)
class LossPlan:
    """The size of a run. ``scale``: of the cluster's waits. Seconds."""

    simulated: int
    real: int
    sensors: int
    pod_losses: int
    node_rounds: int
    real_rounds: int
    seconds: int
    """That a real task works."""
    timeout: int
    """Of the sensors; each loses a poke after its first one."""
    scale: float

    @property
    def tasks(self) -> int:
        """All tasks of the run."""
        return self.simulated + self.real + self.sensors


_FULL = LossPlan(460, 38, 2, 150, 2, 1, seconds=15, timeout=120, scale=0.1)
_SHORT = LossPlan(24, 2, 0, 8, 1, 0, seconds=6, timeout=60, scale=0.03)


@dataclass
class LossLab:
    """Everything that runs, and the observations."""

    plan: LossPlan
    home: Path
    airflow: Airflow
    client: Client
    web: aiohttp.ClientSession
    players: MortalPlayers
    records: PodRecords
    tries: Tries
    taker: PodTaker
    engine: sqlalchemy.Engine
    start_run: Callable[[], Awaitable[str]]
    call: Callable[[Callable[[Any], Any]], Any]
    simulated_nodes: list[str] = field(default_factory=list)
    real_nodes: list[str] = field(default_factory=list)
    kept_clocks: int = 0
    """Sensors whose first poke stayed the first one when they lost a later one."""

    async def until(self, happened: Callable[[], Any], what: str, limit: float = _LIMIT_S) -> None:
        """Wait until a condition holds. Raises ``TimeoutError`` with the states of the tasks."""
        end = time.monotonic() + limit
        while not happened():
            self.airflow.check()
            if time.monotonic() > end:
                states = Counter(row.state for row in self.tries.rows.values())
                log = self.airflow.log_end("scheduler", 20)
                raise TimeoutError(
                    f"not within {limit:g} s: {what}; {dict(states)}, {self.players.problems[:2]}\n{log}"
                )
            await asyncio.sleep(0.1)

    async def left(self, resource: Any) -> int:
        """Return the number of objects once it has stopped falling."""
        labels = "app.kubernetes.io/component=workloads" if resource is SECRETS else "kubernetes_executor=True"
        end = time.monotonic() + _CLEAN_S
        while objects := (await self.client.list(resource, namespace=NAMESPACE, labels=labels)).items:
            if time.monotonic() > end:
                break
            await asyncio.sleep(0.5)
        return len(objects)


@contextlib.asynccontextmanager
async def _lab(plan: LossPlan) -> AsyncIterator[LossLab]:
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cw-losses-")))
        stack.enter_context(variables({"XDG_RUNTIME_DIR": str(home)}))  # for the database server's package
        url = stack.enter_context(database("postgresql", home))
        simulated = plan.simulated // _PODS_PER_NODE + 3
        served = serve_in_thread(
            LocalSettings(
                nodes=3,
                simulate=simulated,
                simulated_start=0.1,
                simulated_run=None,
                node_loss_time_scale=plan.scale,
                network="shared",
            )
        )
        cluster = await asyncio.to_thread(stack.enter_context, served)
        records = stack.enter_context(PodRecords(served.call))
        port = free_port("127.0.0.1")
        _write_files(plan, home)
        airflow_environment = _environment(plan, home, url, cluster.kubeconfig, port)
        airflow = await stack.enter_async_context(Airflow(home, airflow_environment, "127.0.0.1", port))
        await airflow.migrate()
        await airflow.start()
        settings = KubeSettings(kubeconfig=str(cluster.kubeconfig))
        client = await stack.enter_async_context(await Client.connect(settings))
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        served.call(_create_priority_class)
        web = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)))
        players = MortalPlayers(
            client,
            web,
            NAMESPACE,
            api=f"{airflow.url}/execution",
            duration=_FOR_EVER,
            labels="kubernetes_executor=True,simulated=true",
            heartbeat=_HEARTBEAT_S,
        )
        engine = sqlalchemy.create_engine(url)
        stack.callback(engine.dispose)
        tries = Tries(engine)
        watched = Watched(url)
        await ready(airflow, watched)
        headers = await log_in(airflow.url, web)
        taker = PodTaker(served.call, records, players.died, _is_replaced(tries, records))
        lab = LossLab(
            *(plan, home, airflow, client, web, players, records, tries, taker, engine),
            start_run=lambda: trigger(airflow.url, web, headers),
            call=served.call,
        )
        lab.real_nodes = sorted(served.call(lambda local: list(local.kubelets)))
        lab.simulated_nodes = [f"crosswind-local-{number}" for number in range(simulated)]
        async with _tasks(players.run()):
            yield lab


def _is_replaced(tries: Tries, records: PodRecords) -> Callable[[PodRecord], bool]:
    def is_replaced(record: PodRecord) -> bool:
        """Whether its task goes on elsewhere: in another try, or, if it had not begun, in another pod of the same."""
        others = (each for each in records.all() if each.ti_id == record.ti_id and each.created > record.created)
        return tries.has_moved_on(record) or any(others)

    return is_replaced


@contextlib.asynccontextmanager
async def _tasks(*works: Awaitable[None]) -> AsyncIterator[None]:
    """Run coroutines beside the block, and cancel them at its end; their errors end it."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


def _create_priority_class(cluster: Any) -> None:
    cluster.registry.create("PriorityClass", "", {"metadata": {"name": PREEMPTOR_CLASS}, "value": 1_000_000})


def _write_files(plan: LossPlan, home: Path) -> None:
    for name in ("dags", "marks", "lib"):
        (home / name).mkdir()
    (home / "lib" / "chaos_mail.py").write_text(_MAIL)
    small = {"image": "apache/airflow:3.3.2", "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}
    simulated = template(small, simulated=True)
    simulated["metadata"]["labels"] = {"simulated": "true"}
    (home / "template.yaml").write_text(yaml.safe_dump(simulated))
    for name, cpu in (("real", _REAL_CPU), ("poke", _SENSOR_CPU)):
        (home / f"{name}.yaml").write_text(yaml.safe_dump(_real_template(home, cpu)))
    (home / "dags" / "whole.py").write_text(
        _DAG.format(
            dag_id=DAG_ID,
            real=str(home / "real.yaml"),
            poke=str(home / "poke.yaml"),
            marks=str(home / "marks"),
            simulated=plan.simulated,
            real_tasks=plan.real,
            sensors=plan.sensors,
            seconds=plan.seconds,
            timeout=plan.timeout,
        )
    )


def _real_template(home: Path, cpu: str) -> Any:
    """Return the template of pods that are processes, with the folders of the DAGs and of the callbacks' marks."""
    bundles = [
        {
            "name": "dags-folder",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(home / "dags")},
        }
    ]
    values = {
        "AIRFLOW_HOME": "/opt/airflow",
        "PYTHONWARNINGS": "ignore",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        **FOR_SLOW_MACHINES,
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
    }
    folders = {"dags": str(home / "dags"), "marks": str(home / "marks"), "home": "/opt/airflow"}
    base = {
        "image": "apache/airflow:3.3.2",
        "resources": {"requests": {"cpu": cpu, "memory": "100Mi"}},
        "env": [{"name": name, "value": value} for name, value in values.items()],
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in folders.items()],
    }
    volumes: list[Any] = [
        {"name": name, "hostPath": {"path": path}} for name, path in folders.items() if name != "home"
    ]
    return template(base, simulated=False, volumes=[*volumes, {"name": "home", "emptyDir": {}}])


def _environment(plan: LossPlan, home: Path, url: str, kubeconfig: Path, port: int) -> dict[str, str]:
    environment = scheduler_environment(home, url, kubeconfig, port, plan.tasks, _OURS)
    return environment | {
        "AIRFLOW__CROSSWIND__INFRA_RETRIES": "50",  # a task may be taken again and again, by chance
        "AIRFLOW__KUBERNETES_EXECUTOR__DELETE_WORKER_PODS_ON_FAILURE": "True",
        "AIRFLOW__EMAIL__EMAIL_BACKEND": "chaos_mail.send_email",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "CHAOS_MARKS": str(home / "marks"),
        "PYTHONPATH": f"{home / 'lib'}:{environment['PYTHONPATH']}",
    }


async def _take_at_random(lab: LossLab) -> None:
    """Take pods of all kinds until the plan is fulfilled; nodes meanwhile, one after the other of each kind of node."""
    shuffle = random.Random(1)
    async with asyncio.TaskGroup() as group:
        group.create_task(_take_nodes(lab, lab.simulated_nodes, list(NODE_KINDS) * lab.plan.node_rounds, shuffle))
        real_kinds = [kind for kind in NODE_KINDS if kind != "node deleted"] * lab.plan.real_rounds
        group.create_task(_take_nodes(lab, lab.real_nodes, real_kinds, shuffle))
        group.create_task(_take_pods(lab, shuffle))
        if lab.plan.sensors:
            group.create_task(_take_sensors(lab))


async def _take_nodes(lab: LossLab, nodes: list[str], kinds: list[str], shuffle: random.Random) -> None:
    shuffle.shuffle(kinds)
    for kind in kinds:
        await lab.until(lambda: lab.taker.idle(nodes), f"a node with tasks to take by {kind}")
        await lab.taker.take_node(kind, shuffle.choice(lab.taker.idle(nodes)))


async def _take_pods(lab: LossLab, shuffle: random.Random) -> None:
    """Take one pod after the other; one in three is a real process, as long as there are any."""
    for number in range(lab.plan.pod_losses):
        nodes = lab.real_nodes if number % 3 == 0 else lab.simulated_nodes
        await lab.until(lambda nodes=nodes: _choice(lab, nodes), "a pod to take")
        await lab.taker.take_pod(POD_KINDS[number // 3 % len(POD_KINDS)], shuffle.choice(_choice(lab, nodes)))
        await asyncio.sleep(shuffle.uniform(0.05, 0.4))


def _choice(lab: LossLab, nodes: list[str]) -> list[PodRecord]:
    """Return pods to take on these nodes; on any when the tasks with real processes have all ended."""
    real_rows = [row for row in lab.tries.rows.values() if row.task_id.startswith("work_real_")]
    is_done = bool(real_rows) and all(row.state == "success" for row in real_rows)
    return lab.taker.candidates(lab.simulated_nodes if nodes is lab.real_nodes and is_done else nodes)


async def _take_sensors(lab: LossLab) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(lab.plan.sensors):
            group.create_task(_take_sensor(lab, f"sense_{number}"))


async def _take_sensor(lab: LossLab, task_id: str) -> None:
    """Take a sensor in a poke, but not in its first one, which begins its clock; again if the poke was over."""

    def first_poke() -> Any:
        return lab.tries.first_poke(task_id)

    await lab.until(first_poke, f"the end of the first poke of {task_id}")
    started = first_poke()

    def pokes() -> list[PodRecord]:
        return [pod for pod in lab.taker.candidates(lab.real_nodes, task_id) if pod.started]

    def is_over() -> bool:
        return lab.tries.rows[task_id].state in ("skipped", "failed")

    while not lab.tries.losses.get(task_id):
        await lab.until(lambda: is_over() or pokes(), f"a later poke of {task_id}")
        if is_over():
            return  # the figures show that it lost no poke
        poke = pokes()[0]
        await lab.taker.take_pod("eviction", poke)
        await lab.until(lambda poke=poke: poke.ended, f"the end of a poke of {task_id}")
        await lab.until(lambda poke=poke: _has_followed(lab, poke), f"what follows a poke of {task_id}")
    lab.kept_clocks += first_poke() == started


def _has_followed(lab: LossLab, poke: PodRecord) -> bool:
    """Whether the poke was lost, or the sensor waits for its next one, which shows that it was not."""
    row = lab.tries.rows[poke.task_id]
    return row.ti_id != poke.ti_id or row.state not in ("queued", "running")


async def _run(plan: LossPlan) -> Sequence[Row]:
    async with _lab(plan) as lab:
        run_id = await lab.start_run()
        async with _tasks(lab.tries.follow(run_id)):
            await lab.until(lambda: lab.players.at_work >= plan.simulated, "all simulated tasks at work")
            await _take_at_random(lab)
            lab.players.duration = 0.0
            await lab.until(lab.tries.is_over, "the end of all tasks")
        lab.tries.finish(run_id)
        old = {ti_id: token for ti_id, token in lab.players.tokens.items() if ti_id in lab.tries.replaced}
        attempts, accepted = await accepted_states(f"{lab.airflow.url}/execution", old, lab.web)
        lab.tries.finish(run_id)
        pods, secrets = await lab.left(PODS), await lab.left(SECRETS)
        marks = sorted((lab.home / "marks").iterdir())
        for line in explanations(lab.records.all(), lab.tries, lab.engine, lab.home, marks):
            print(line, file=sys.stderr)
        return figures(
            lab.records.all(),
            lab.tries,
            expected_kinds=len(NODE_KINDS) + len(POD_KINDS),
            least=plan.pod_losses // 2,
            tasks=plan.tasks,
            sensors=plan.sensors,
            kept_clocks=lab.kept_clocks,
            late_pokes=sum(lab.tries.late_pokes(f"sense_{number}", plan.timeout) for number in range(plan.sensors)),
            real_nodes=lab.real_nodes,
            attempts=attempts,
            accepted=accepted,
            marks=len(marks),
            left=pods + secrets,
            problems=len(lab.players.problems),
        )


def _losses(size: ScenarioSize) -> Sequence[Row]:
    try:
        return asyncio.run(_run(size.of(_FULL, _SHORT)))
    except SystemExit as late:  # of a benchmark's wait
        raise RuntimeError(str(late)) from late


SCENARIOS = (Scenario("losses", "losses", "the cluster takes pods in every way; no task has a retry", _losses),)

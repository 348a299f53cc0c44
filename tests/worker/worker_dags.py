"""DAGs of one task each, for workers that are watched: they leave marks, as empty files, in the folder $MARKS."""

import multiprocessing
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator as StockPodOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, Variable
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException

from crosswind.operators import KubernetesPodOperator

MARKS = Path(os.environ.get("MARKS", "/nonexistent"))


def mark(name):
    (MARKS / name).touch()


def wait_for(name):
    while not (MARKS / name).exists():
        time.sleep(0.01)


if os.environ.get("SLOW_PARSE"):
    mark("parsing")
    time.sleep(600)


def called(context):
    mark("callback")
    if os.environ.get("SLOW_CALLBACK"):
        wait_for("go")


def sleeps():
    mark("began")
    for _ in range(6000):
        time.sleep(0.1)


def fails():
    mark("began")
    raise ValueError("this is the task's own")


def succeeds():
    mark("began")
    wait_for("go")
    mark("ended")


def skips():
    succeeds()
    raise AirflowSkipException


def is_rescheduled():
    succeeds()
    raise AirflowRescheduleException(datetime.now(UTC) + timedelta(hours=1))


def takes_memory():
    mark("began")
    held = []
    while True:
        held.append(bytearray(b"x" * 4_000_000))


def says_something():
    mark("began")
    Path(os.environ["TERMINATION_LOG"]).write_text("of the task")


def fails_late():
    succeeds()
    raise ValueError("this is the task's own")


def pushes(ti):
    while True:
        ti.xcom_push(key="now", value=str(time.time()))
        time.sleep(0.2)


def terminates_its_fork():
    fork = multiprocessing.get_context("fork").Process(target=sleeps)
    fork.start()
    wait_for("began")
    fork.terminate()  # Airflow's handler, which the fork has too, does nothing there
    time.sleep(0.5)
    fork.kill()
    fork.join()
    raise ValueError("this is the task's own")


class RaisesWhenKilled(PythonOperator):
    def on_kill(self):
        mark("killed")
        raise RuntimeError("on_kill")


class RaisesInTemplate(RaisesWhenKilled):
    """Is asked to end before its own code runs."""

    def render_template_fields(self, context, jinja_env=None):
        sleeps()


class Defers(BaseOperator):
    def execute(self, context):
        succeeds()
        self.defer(trigger=TimeDeltaTrigger(timedelta(hours=1)), method_name="execute")


class CleansUp(PythonOperator):
    """Fails some time after it was asked to end, as an operator does that stops a job elsewhere."""

    def on_kill(self):
        mark("killed")
        wait_for("go")
        raise RuntimeError("stopped")


def pod_operator(kind):
    return kind(
        task_id="work",
        name="held",
        kubernetes_conn_id=None,
        config_file=os.environ.get("CLUSTER", "/nonexistent"),
        namespace="default",
        image=os.environ.get("CLUSTER_IMAGE", "none"),
        cmds=["sh", "-c", "sleep 600"],
        termination_grace_period=1,
        get_logs=False,
        log_pod_spec_on_failure=False,
    )


PYTHON = {
    "sleeps": sleeps,
    "fails": fails,
    "succeeds": succeeds,
    "skips": skips,
    "is_rescheduled": is_rescheduled,
    "takes_memory": takes_memory,
    "says_something": says_something,
    "fails_late": fails_late,
    "pushes": pushes,
    "terminates_its_fork": terminates_its_fork,
}

for retries in (0, 2):
    arguments = {
        "retries": retries,
        "retry_delay": timedelta(hours=1),
        "on_failure_callback": called,
        "on_retry_callback": called,
    }
    for name, function in PYTHON.items():
        with DAG(f"{name}_{retries}", schedule=None, default_args=arguments):
            PythonOperator(task_id="work", python_callable=function)
    with DAG(f"bash_{retries}", schedule=None, default_args=arguments):
        BashOperator(task_id="work", bash_command='touch "$MARKS/began"; sleep 600; true')
    with DAG(f"raises_{retries}", schedule=None, default_args=arguments):
        RaisesWhenKilled(task_id="work", python_callable=sleeps)
    with DAG(f"raises_in_template_{retries}", schedule=None, default_args=arguments):
        RaisesInTemplate(task_id="work", python_callable=sleeps)
    with DAG(f"cleans_up_{retries}", schedule=None, default_args=arguments):
        CleansUp(task_id="work", python_callable=sleeps)
    with DAG(f"stock_pod_{retries}", schedule=None, default_args=arguments):
        pod_operator(StockPodOperator)
    with DAG(f"pod_{retries}", schedule=None, default_args=arguments):
        pod_operator(KubernetesPodOperator)
    with DAG(f"defers_{retries}", schedule=None, default_args=arguments):
        Defers(task_id="work")


def writes(ti):
    """Write a Variable and an XCom again and again, and record the moment of each write that the API has accepted."""
    mark("began")
    number = 0
    while True:
        number += 1
        try:
            Variable.set("written", str(number))
            ti.xcom_push("written", number)
        except Exception as error:
            print("not written:", error)
        else:
            with (MARKS / "writes").open("a") as file:
                file.write(f"{time.time()}\n")
        time.sleep(0.2)


with DAG("writes", schedule=None):
    PythonOperator(task_id="work", python_callable=writes, retries=0, on_failure_callback=called)

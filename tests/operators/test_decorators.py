from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from airflow.sdk import DAG, task
from benchmarks.operator_cells import execute
from tests.operators.test_lost_pods import Taker, evict

from crosswind.errors import ConfigError

pytestmark = pytest.mark.cluster


def run(runner: Any, function: Any, *args: Any, **options: Any) -> Any:
    """Execute a decorated function as a task."""

    def new() -> Any:
        with DAG("dag", schedule=None):
            decorated = task.pod(
                kubernetes_conn_id=None,
                config_file=str(runner.cluster.kubeconfig),
                namespace=runner.namespace,
                image=runner.cluster.airflow_image,
                image_pull_policy=runner.cluster.pull_policy,
                termination_grace_period=1,
                log_pod_spec_on_failure=False,
                **options,
            )(function)(*args)
        runner.operators.append(decorated.operator)
        return decorated.operator

    return execute(new, runner.instance)


def add(first: int, second: int = 2) -> dict[str, int]:
    import os

    assert "CROSSWIND_INPUT" not in os.environ
    return {"sum": first + second}


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_function_runs_in_a_pod_and_its_value_is_the_task_s(runner: Any, deferrable: bool) -> None:
    assert run(runner, add, 5, do_xcom_push=True, deferrable=deferrable) == {"sum": 7}


def count_in_the_second_pod(number: int) -> int:
    import os
    import time

    while not os.environ["HOSTNAME"].endswith("-1"):  # its name ends with the number of losses
        time.sleep(0.2)
    return number + 1


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_pod_after_a_loss_runs_the_function_too(runner: Any, deferrable: bool) -> None:
    with Taker(runner, evict(runner)):
        assert run(runner, count_in_the_second_pod, 5, do_xcom_push=True, deferrable=deferrable) == 6


def test_arguments_may_be_pickled_with_dill(runner: Any) -> None:
    assert run(runner, add, 5, 6, do_xcom_push=True, use_dill=True) == {"sum": 11}


def test_an_exception_fails_the_task_and_shows_the_line(runner: Any, printed: Any) -> None:
    def bad() -> None:
        raise ValueError("of this line")

    with pytest.raises(AirflowException, match="exit code 1"):
        run(runner, bad)
    assert '    raise ValueError("of this line")' in printed.lines()


def test_without_do_xcom_push_nothing_is_written(runner: Any) -> None:
    assert run(runner, add, 5) is None


def test_arguments_that_are_too_long_are_refused(runner: Any) -> None:
    with pytest.raises(ConfigError, match="the arguments take"):
        run(runner, add, "x" * 200_000)

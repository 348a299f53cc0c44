"""``crosswind demo``: the main job, on one machine or on a cluster of yours."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crosswind.interrupts import run_until_interrupted

__all__ = ["demo"]


@click.command()
@click.option(
    "--executor",
    type=click.Choice(["crosswind", "stock"]),
    default="crosswind",
    show_default=True,
    help="Which executor runs the DAG; stock is Airflow's own KubernetesExecutor.",
)
@click.option("--parallelism", type=click.IntRange(min=1), default=4, show_default=True, help="Slots of the executor.")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=10),
    metavar="SECONDS",
    help="Give up after so long; by default only when nothing has changed for five minutes.",
)
@click.option("--tasks", is_flag=True, help="Run the thirty task files of examples/tasks in place of a Python DAG.")
@click.option("--keep", is_flag=True, help="Leave Airflow's UI running afterwards, until Ctrl-C.")
@click.option("--context", metavar="NAME", help="Use this context of your kubeconfig, not the one-machine cluster.")
@click.option(
    "--sandbox",
    type=click.Choice(["auto", "user", "none"]),
    help="Namespaces of the pods' containers; none: plain processes, as on systems that have no namespaces.",
)
@click.option(
    "--settings",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file of settings of the one-machine cluster, as for crosswind local up.",
)
@click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: print the summary and the task instances as JSON; what happens meanwhile goes to stderr.",
)
@click.option("--image", metavar="IMAGE", help="Airflow 3.3 image of the workers; needed with --context.")
@click.option("--host", metavar="ADDRESS", help="Address under which the cluster's pods reach this machine.")
def demo(
    executor: str,
    parallelism: int,
    time_limit: float | None,
    tasks: bool,
    keep: bool,
    context: str | None,
    sandbox: str | None,
    file: Path | None,
    output: str,
    image: str | None,
    host: str | None,
) -> None:
    """Run a real DAG, every task in a pod of its own beside a mesh sidecar.

    Starts a Kubernetes API on this machine with an Istio-like injector and a real Airflow on SQLite, runs a DAG of
    examples/, shows each pod, prints the result and a summary, and takes everything away again.
    """
    # Imported here, so that `crosswind --help` needs neither a server nor a client.
    from rich.console import Console

    from crosswind.cli.local import read_settings
    from crosswind.demo.examples import ORDERS, SHOP
    from crosswind.demo.running import DemoOptions, run_demo

    options = DemoOptions(
        example=SHOP if tasks else ORDERS,
        executor=executor,
        parallelism=parallelism,
        time_limit=time_limit,
        keep=keep,
        context=context,
        image=image,
        host=host,
        results=sys.stdout if output == "json" else None,
        local=read_settings(file, {"sandbox": sandbox} if sandbox else {}),
    )
    console = Console(stderr=output == "json")
    code = run_until_interrupted(run_demo(options, console))
    if code is None:
        console.print("Interrupted; Airflow, the pods and the cluster have ended.")
        sys.exit(130)
    sys.exit(code)

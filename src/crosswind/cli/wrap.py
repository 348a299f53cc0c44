"""``crosswind wrap``: runs a command beside sidecars, for Jobs."""

from __future__ import annotations

import re
from typing import Any

import click

from crosswind.cli.parameter_types import FiniteRange
from crosswind.sidecars.catalog import KNOWN
from crosswind.sidecars.wrapper import LOOK_S, QuitEndpoint, WrapSettings, run

__all__ = ["wrap"]

_REQUEST = re.compile(r"(?:([A-Z]+) )?:(\d{1,5})(/\S*)")
_MESHES = sorted(known.name for known in KNOWN if known.asks or known.ready)


def _quit_endpoint(value: str) -> QuitEndpoint:
    """Parse ``[METHOD ]:PORT/PATH``, the form in which plans print requests."""
    match = _REQUEST.fullmatch(value)
    if match is None or not 0 < int(match[2]) < 65536:
        raise click.BadParameter(f"{value!r} is not of the form ':PORT/PATH' or 'METHOD :PORT/PATH'")
    return QuitEndpoint(value, match[1] or "POST", int(match[2]), match[3])


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--wait-timeout",
    type=FiniteRange(0),
    default=60.0,
    show_default=True,
    help="Seconds to wait for the sidecars to be ready; then the command runs in any case.",
)
@click.option(
    "--mesh",
    "meshes",
    type=click.Choice(["auto", "none", *_MESHES]),
    multiple=True,
    default=["auto"],
    metavar="NAME",
    help="Sidecars to wait for. auto (the default): every known sidecar that appears within --look. none. Or one of"
    f" these, repeatable: {', '.join(_MESHES)}.",
)
@click.option(
    "--look",
    type=FiniteRange(0),
    default=LOOK_S,
    show_default=True,
    help="Seconds after the start in which auto looks for sidecars that start late.",
)
@click.option(
    "--quit",
    "quits",
    multiple=True,
    type=_quit_endpoint,
    metavar="REQUEST",
    help="A further request that stops a sidecar: ':PORT/PATH'.",
)
@click.option("--address", default="localhost", show_default=True, help="Address at which the pod's sidecars listen.")
@click.option(
    "--print-shell", is_flag=True, help="Print a shell script with the same function, for images without Python."
)
@click.option("--print-helm-values", is_flag=True, help="Print Helm values for the Jobs of Airflow's official chart.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def wrap(command: tuple[str, ...], print_shell: bool, print_helm_values: bool, **options: Any) -> None:
    """Run COMMAND once all sidecars are ready, then ask the sidecars to quit.

    Exits with the command's exit code, or 128 + n for signal n. Forwards signals and reaps orphaned processes, so that
    it can be process 1 of a container. Use --quit for sidecars that listen on another port than usual.
    """
    meshes = options["meshes"]
    if "none" in meshes and len(meshes) > 1:
        raise click.UsageError("--mesh none cannot be combined with another --mesh")
    settings = WrapSettings(meshes, options["wait_timeout"], options["look"], options["quits"], options["address"])
    if print_shell or print_helm_values:
        from crosswind.sidecars import scripts

        click.echo(scripts.shell(settings) if print_shell else scripts.helm_values(settings), nl=False)
    elif not command:
        raise click.UsageError("the command is missing: write it after --")
    else:
        click.get_current_context().exit(run(command, settings))

"""``crosswind wrap``: a command among sidecars, for Jobs."""

from __future__ import annotations

import re
from typing import Any

import click

from crosswind.pods.known_sidecars import KNOWN
from crosswind.runs.wrapping import LOOK_S, Door, WrapSettings, run

__all__ = ["wrap"]

_DOOR = re.compile(r"(?:([A-Z]+) )?:(\d{1,5})(/\S*)")
_MESHES = sorted(one.name for one in KNOWN if one.asks or one.ready)


def _door(value: str) -> Door:
    """Read ``[METHOD ]:PORT/PATH``, as plans print requests."""
    found = _DOOR.fullmatch(value)
    if found is None or not 0 < int(found[2]) < 65536:
        raise click.BadParameter(f"{value!r} is not of the form ':PORT/PATH' or 'METHOD :PORT/PATH'")
    return Door(value, found[1] or "POST", int(found[2]), found[3], quit=True)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--wait-timeout",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="Seconds that sidecars may take to be ready; then the command runs all the same.",
)
@click.option(
    "--mesh",
    "meshes",
    type=click.Choice(["auto", "none", *_MESHES]),
    multiple=True,
    default=["auto"],
    metavar="NAME",
    help="auto (the default): every known sidecar that comes within --look; none; or a sidecar to wait for, as often"
    f" as there are sidecars: {', '.join(_MESHES)}.",
)
@click.option(
    "--look",
    type=click.FloatRange(0),
    default=LOOK_S,
    show_default=True,
    help="Seconds from the start in which auto waits for sidecars that begin late.",
)
@click.option(
    "--quit",
    "quits",
    multiple=True,
    type=_door,
    metavar="REQUEST",
    help="A further request that ends a sidecar: ':PORT/PATH'.",
)
@click.option("--address", default="localhost", show_default=True, help="Where the pod's sidecars listen.")
@click.option("--print-shell", is_flag=True, help="Print a script that does the same in images without Python.")
@click.option("--print-helm-values", is_flag=True, help="Print values for the Jobs of Airflow's official chart.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def wrap(command: tuple[str, ...], print_shell: bool, print_helm_values: bool, **given: Any) -> None:
    """Run COMMAND once all sidecars are ready, then ask the sidecars to quit.

    Exits with the command's exit code, 128 + n for signal n. Passes signals on and reaps orphans, so that it can be
    process 1 of a container. Sidecars that listen elsewhere than usual are named by --quit.
    """
    meshes = given["meshes"]
    if "none" in meshes and len(meshes) > 1:
        raise click.UsageError("--mesh none goes with no other --mesh")
    settings = WrapSettings(meshes, given["wait_timeout"], given["look"], given["quits"], given["address"])
    if print_shell or print_helm_values:
        from crosswind.runs import wrap_texts

        click.echo(wrap_texts.shell(settings) if print_shell else wrap_texts.helm_values(settings), nl=False)
    elif not command:
        raise click.UsageError("name a command, behind --")
    else:
        click.get_current_context().exit(run(command, settings))

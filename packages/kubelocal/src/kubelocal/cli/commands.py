"""The subcommands of ``kubelocal``: serve, list and stop clusters, print or merge their kubeconfigs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kubelocal.errors import KubelocalError, SettingError
from kubelocal.settings import LocalSettings

if TYPE_CHECKING:
    from kubelocal.cli.cluster_list import ClusterEntry, ClusterList
    from kubelocal.cluster import LocalCluster

__all__ = ["kubeconfig", "list_", "stop", "up"]

_FILE = click.Path(dir_okay=False, path_type=Path)
_OUTPUT = click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)


def _complete_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a cluster in a shell."""
    return [entry.name for entry in _clusters().entries() if entry.name.startswith(incomplete)]


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port of the API; a free one by default.")
@click.option("--kubeconfig", type=_FILE, help="Where to write the kubeconfig; a temporary file by default.")
@click.option("--state", "state_file", type=_FILE, help="Keep the objects in this file; in memory by default.")
@click.option(
    "--inject",
    multiple=True,
    type=click.Choice(["istio", "linkerd"]),
    help="Inject this mesh's sidecar into the pods of namespace default, as its label or annotation does elsewhere.",
)
@click.option("--simulate", type=click.IntRange(1), help="Simulate this number of nodes, whose pods run no processes.")
@click.option(
    "--settings", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="YAML file of settings."
)
@click.option("--name", help="Name of the cluster, for list, stop and kubeconfig; local by default.")
@click.option("--detach", is_flag=True, help="Serve in the background, until the command stop NAME.")
@_OUTPUT
def up(file: Path | None, output: str, inject: tuple[str, ...], detach: bool, **flags: Any) -> None:
    """Serve until Ctrl-C.

    With --output json, prints a line with url, kubeconfig, token_file, name and pid when the API answers.
    """
    options = {name: value for name, value in flags.items() if value is not None}
    from kubelocal.cli.settings_file import read_settings  # pydantic takes a tenth of a second

    settings = read_settings(file, {**options, **({"inject": inject} if inject else {})})
    if detach:
        _detach(settings.name, [*(["--settings", str(file)] if file else []), *_arguments(inject, options)], output)
        return
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, output))


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(settings: LocalSettings, output: str) -> None:
    from kubelocal.cluster import LocalCluster

    stop = asyncio.Event()
    signals = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        signals.add(signal.SIGHUP)
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _listed(settings.name) as announce:
        async with LocalCluster(settings) as cluster:
            name = announce(cluster)
            _announce({**_facts(cluster), "name": name, "pid": os.getpid()}, output, "Press Ctrl-C to stop it.")
            await cluster.serve_until(stop)


def _clusters() -> ClusterList:
    from kubelocal.cli.cluster_list import ClusterList, clusters_folder

    return ClusterList(clusters_folder(os.environ))


@contextlib.contextmanager
def _listed(name: str | None) -> Iterator[Callable[[LocalCluster], str]]:
    """List the cluster of this process while the block runs; yield a function that adds its URL and returns its name.

    A cluster without a name works without the list: it is left out where the list cannot be written.
    """
    from kubelocal.cli.cluster_list import DEFAULT, ClusterEntry, checked_name
    from kubelocal.owned_paths import Owner

    clusters = _clusters()
    entry: ClusterEntry | None = ClusterEntry(
        checked_name(DEFAULT if name is None else name), Owner.this_process(), started_at=time.time()
    )
    assert entry
    try:
        if name is None:
            entry = clusters.put_unnamed(entry)
        else:
            clusters.put(entry)
        with contextlib.suppress(SettingError):  # a damaged kubeconfig of the user must not stop a cluster
            clusters.forget_merged(entry.name)  # the entries of an earlier cluster that died
    except SettingError:
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


def _program() -> str:
    """Return how this program was called up to the subcommand: ``kubelocal`` or ``crosswind local``."""
    parent = click.get_current_context().parent
    return parent.command_path if parent else "kubelocal"


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
    """Return the command line of the detached process for these options."""
    renamed = {"state_file": "--state"}
    words = [(renamed.get(name, f"--{name}"), str(value)) for name, value in options.items() if name != "name"]
    return [word for pair in (*words, *(("--inject", mesh) for mesh in inject)) for word in pair]


def _detach(name: str | None, arguments: list[str], output: str) -> None:
    """Start the cluster in a process of its own and wait until its API answers."""
    from kubelocal.cli.cluster_list import DEFAULT

    clusters, name = _clusters(), DEFAULT if name is None else name
    clusters.require_free(name)
    log = clusters.new_log(name)
    line = [sys.executable, "-m", "kubelocal", "up", "--output", "json", "--name", name, *arguments]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
    assert process.stdout is not None
    with process.stdout:
        first_line = process.stdout.readline()
    if not first_line:
        code = process.wait()
        text = clusters.log(name).strip().removeprefix("kubelocal: ")
        raise (SettingError if code == 2 else KubelocalError)(
            text or f"the cluster {name} exited with code {code}; see {log}"
        )
    _announce(json.loads(first_line), output, f"Stop it with: {_program()} stop {name}.")


@click.command("list")
@_OUTPUT
def list_(output: str) -> None:
    """List this user's clusters on this machine."""
    entries = _clusters().entries()
    if output == "json":
        keys = ("name", "url", "kubeconfig")
        facts = [
            {key: getattr(entry, key) for key in keys} | {"pid": entry.owner.pid, "status": _status(entry)}
            for entry in entries
        ]
        click.echo(json.dumps(facts, indent=2))
        return
    rows = [("NAME", "STATUS", "PID", "URL", "KUBECONFIG")]
    rows += [(entry.name, _status(entry), str(entry.owner.pid), entry.url, entry.kubeconfig) for entry in entries]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _status(entry: ClusterEntry) -> str:
    if not entry.is_alive:
        return "Died"
    return "Running" if entry.url else "Starting"


@click.command()
@click.argument("names", nargs=-1, shell_complete=_complete_names)
@click.option("--all", "every", is_flag=True, help="All listed clusters.")
def stop(names: tuple[str, ...], every: bool) -> None:
    """End clusters and wait until they have ended.

    NAMES: the clusters, local by default. Contexts that kubeconfig --merge added are removed.
    """
    from kubelocal.cli.cluster_list import DEFAULT

    clusters = _clusters()
    if every:
        names = tuple(entry.name for entry in clusters.entries())
    for name in names or (() if every else (DEFAULT,)):
        ended = clusters.stop(name)
        click.echo(f"{name} has ended" if ended else f"{name} had already died; its entry was removed")


@click.command()
@click.argument("name", default="local", shell_complete=_complete_names)
@click.option("--merge", is_flag=True, help="Add the cluster to the first file of KUBECONFIG, else to ~/.kube/config.")
@click.option("--switch", is_flag=True, help="With --merge: make it the current context.")
def kubeconfig(name: str, merge: bool, switch: bool) -> None:
    """Print the kubeconfig of the cluster NAME, or add it to yours.

    --merge adds a cluster, user and context named crosswind-NAME and keeps the former file with the suffix .bak.
    They are removed when the cluster ends.
    """
    from kubelocal.auth.kubeconfig_file import context_name, dumped
    from kubelocal.cli.kubeconfig_merge import first_kubeconfig

    if switch and not merge:
        raise click.UsageError("--switch requires --merge")
    if not merge:
        click.echo(dumped(_clusters().kubeconfig(name)), nl=False)
        return
    path = first_kubeconfig(os.environ)
    _clusters().merge(name, path, switch=switch)
    use = "it is the current one" if switch else f"use it: kubectl --context {context_name(name)} get nodes"
    click.echo(f"context {context_name(name)} added to {path}; {use}")

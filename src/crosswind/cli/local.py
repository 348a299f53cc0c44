"""``crosswind local``: a Kubernetes API on this machine."""

from __future__ import annotations

import asyncio
import difflib
import json
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import TypeAdapter, ValidationError

from crosswind.errors import ConfigError
from crosswind.settings import LocalSettings

if TYPE_CHECKING:
    from crosswind.local.serving import LocalCluster

__all__ = ["local", "read_settings"]

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def local() -> None:
    """A Kubernetes API on this machine: pods run as processes, without Docker."""


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
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def up(file: Path | None, output: str, inject: tuple[str, ...], **given: Any) -> None:
    """Serve until Ctrl-C.

    With --output json one line tells url, kubeconfig and token_file as soon as the API answers.
    """
    options = {name: value for name, value in given.items() if value is not None}
    settings = read_settings(file, {**options, **({"inject": inject} if inject else {})})
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, output))


def read_settings(file: Path | None, overrides: dict[str, Any]) -> LocalSettings:
    """Return the settings of a YAML file (a mapping of field names), with ``overrides`` on top.

    Raises ``ConfigError`` for what is no setting or has the wrong type.
    """
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {} if file else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise ConfigError(f"cannot read settings {file}: {problem}") from problem
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: settings are a mapping, this is a {type(content).__name__}")
    known = LocalSettings.__dataclass_fields__
    if unknown := sorted(set(content) - set(known)):
        raise ConfigError(f"{file}: unknown setting {unknown[0]!r}; {_offer(unknown[0], known)}")
    try:
        return TypeAdapter(LocalSettings).validate_python({**content, **overrides})
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{file or 'settings'}: {where}: {first['msg']}, not {first['input']!r}") from problem


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
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with LocalCluster(settings) as cluster:
        _announce(cluster, output)
        await cluster.serve_until(stop)


def _announce(cluster: LocalCluster, output: str) -> None:
    if output == "json":
        facts = {
            "url": cluster.url,
            "kubeconfig": str(cluster.kubeconfig),
            "token_file": str(cluster.token_file),
        }
        click.echo(json.dumps(facts))
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Kubernetes API at [bold]{cluster.url}[/bold]. Ctrl-C ends it. In another terminal:\n")
    console.print(f"  export KUBECONFIG={cluster.kubeconfig}\n  kubectl get nodes\n")

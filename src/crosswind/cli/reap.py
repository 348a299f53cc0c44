"""``crosswind reap``: stops the sidecars of finished pods that neither an executor nor an operator owns.

``_serve`` owns the one task that works. SIGTERM and SIGINT cancel it; the lease is then released, so that another
replica takes over at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import signal
import socket
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import click

from crosswind.cli.cluster_options import kube_settings, own_namespace
from crosswind.cli.parameter_types import FiniteRange
from crosswind.documents import read_text
from crosswind.errors import ConfigError
from crosswind.settings import ReapSettings

if TYPE_CHECKING:
    from crosswind.kube.leader_election import LeaderElector, LeaseSettings
    from crosswind.sidecars.catalog import KnownSidecar
    from crosswind.sidecars.reaper import Reaper

__all__ = ["reap"]

log = logging.getLogger(__name__)


class ReapOptions(TypedDict):
    """The options of the command, as click hands them over."""

    namespaces: tuple[str, ...]
    selector: str
    main_container: str
    sidecars: tuple[str, ...]
    sidecars_file: Path | None
    airflow_pods: bool
    permissions: Literal["A", "B", "C"]
    may_fail: bool
    swap_image: str
    delete: bool
    rate: float
    retry: float
    dry_run: bool
    once: bool
    lease: str
    lease_duration: float
    listen: str
    context: str | None
    kubeconfig: str | None
    output: Literal["text", "json"]
    verbose: bool


_FILE_PATH = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "-n",
    "--namespace",
    "namespaces",
    multiple=True,
    required=True,
    help="Namespace whose pods may be changed; repeatable.",
)
@click.option(
    "-l", "--selector", required=True, help="Label selector of those pods, such as batch.kubernetes.io/job-name."
)
@click.option(
    "--main-container",
    default="",
    help="Container that does the work. By default the one that the annotation crosswind/main-container names, else the"
    " only one that is not a known, injected sidecar.",
)
@click.option("--sidecar", "sidecars", multiple=True, help="Name of a further sidecar container; repeatable.")
@click.option(
    "--sidecars-file", type=_FILE_PATH, help="YAML file of further sidecars, as in [crosswind] sidecars_file."
)
@click.option("--airflow-pods", is_flag=True, help="Include pods of Airflow's own executor and pod operator.")
@click.option(
    "--permissions",
    type=click.Choice(["A", "B", "C"]),
    default="C",
    show_default=True,
    help="Largest set of permissions to use.",
)
@click.option("--may-fail", is_flag=True, help="Allow steps after which a successful pod counts as failed.")
@click.option("--swap-image", default="", help="Image that may replace a sidecar's image.")
@click.option("--delete/--keep", default=False, show_default=True, help="Delete a pod when no other step works.")
@click.option(
    "--rate",
    type=FiniteRange(0.01),
    default=5.0,
    show_default=True,
    help="Maximum number of pods to start on per second.",
)
@click.option(
    "--retry",
    type=FiniteRange(1),
    default=600.0,
    show_default=True,
    help="Seconds until the next attempt on a pod.",
)
@click.option("--dry-run", is_flag=True, help="Report the steps, and the reasons against them, without doing them.")
@click.option("--once", is_flag=True, help="Exit after one pass, with code 1 if a sidecar still runs.")
@click.option("--lease", default="", help="[NAMESPACE/]NAME of the Lease that elects the active replica.")
@click.option(
    "--lease-duration",
    type=FiniteRange(2),
    default=15.0,
    show_default=True,
    help="Seconds until another replica takes over.",
)
@click.option(
    "--listen", default="127.0.0.1:8080", show_default=True, help="ADDRESS:PORT of /healthz, /readyz, /metrics."
)
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--kubeconfig", help="Path of the kubeconfig. By default a pod uses its service account.")
@click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format of the log; json: one object per line, with time, level and message.",
)
@click.option("-v", "--verbose", is_flag=True, help="Also log pods that do not need a step yet.")
@click.pass_context
def reap(ctx: click.Context, /, **options: Unpack[ReapOptions]) -> None:
    """Stop the sidecars of finished pods that neither Airflow's executor nor its pod operator owns.

    A Job does not complete while a sidecar runs in its pod. Once the main container has ended, the reaper stops the
    sidecars, and reports each step as an Event of the pod and in the log. Runs until SIGTERM.
    """
    _set_up_logging(options["verbose"], as_json=options["output"] == "json")
    settings = _settings(options)
    ctx.exit(asyncio.run(_serve(settings, options)))


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        content = {"time": time, "level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content)


def _set_up_logging(verbose: bool, *, as_json: bool) -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    if as_json:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(_JsonLines())
    logging.getLogger("crosswind").setLevel(logging.DEBUG if verbose else logging.INFO)


def _settings(options: ReapOptions) -> ReapSettings:
    if not options["selector"].strip():
        raise click.BadParameter("it is empty: name a label of the pods", param_hint="--selector")
    return ReapSettings(
        namespaces=tuple(dict.fromkeys(options["namespaces"])),
        selector=options["selector"],
        main=options["main_container"],
        sidecars=frozenset(options["sidecars"]),
        airflow=options["airflow_pods"],
        may_fail=options["may_fail"],
        swap_image=options["swap_image"],
        delete=options["delete"],
        rate=options["rate"],
        retry=options["retry"],
        dry_run=options["dry_run"],
    )


async def _serve(settings: ReapSettings, options: ReapOptions) -> int:
    from crosswind.kube.client import Client
    from crosswind.kube.leader_election import LeaderElector
    from crosswind.sidecars.reaper import Reaper
    from crosswind.sidecars.shutdown_plan import Permissions

    async with await Client.connect(kube_settings(options["kubeconfig"], options["context"])) as client:
        elector = LeaderElector(client, _lease(options, settings))
        leads = (lambda: True) if settings.dry_run else (lambda: elector.held)
        allowed = Permissions[options["permissions"]]
        reaper = Reaper(client, settings, known=_catalog(options["sidecars_file"]), allowed=allowed, leads=leads)
        work = asyncio.create_task(
            _run_once(reaper, elector, settings) if options["once"] else _run(reaper, elector, settings, options)
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        try:
            return await work
        except asyncio.CancelledError:
            log.info("Stopped by a signal")
            return 1 if options["once"] else 0
        finally:
            await elector.release()


async def _run(reaper: Reaper, elector: LeaderElector, settings: ReapSettings, options: ReapOptions) -> int:
    """Serve HTTP, and work while this replica holds the lease."""
    from crosswind.sidecars.reaper_http import serve_http

    host, port = _address(options["listen"])
    async with serve_http(reaper, elector, host, port) as port:
        log.info("Listening on %s:%s", host, port)
        await (reaper.run() if settings.dry_run else elector.lead(reaper.run))
    return 0


async def _run_once(reaper: Reaper, elector: LeaderElector, settings: ReapSettings) -> int:
    """Make one pass, unless another replica holds the lease. Return the exit code."""
    finished = True

    async def work() -> None:
        nonlocal finished
        finished = await reaper.once()

    if settings.dry_run:
        await work()
        return 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(elector.patience):
            await elector.acquire()
    if not elector.held:
        if elector.trouble:
            raise elector.trouble
        log.info("%s holds the lease: nothing to do", elector.holder)
        return 0
    await elector.lead(work)
    return 0 if finished else 1


def _lease(options: ReapOptions, settings: ReapSettings) -> LeaseSettings:
    from crosswind.kube.leader_election import LeaseSettings

    namespace, _, name = options["lease"].rpartition("/")
    if not namespace:
        namespace = own_namespace() or settings.namespaces[0]
    identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:12]}"
    return LeaseSettings(namespace, name or "crosswind-reaper", identity, options["lease_duration"])


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--listen {text} is not of the form ADDRESS:PORT, such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def _catalog(file: Path | None) -> tuple[KnownSidecar, ...]:
    from crosswind.sidecars.catalog import KNOWN
    from crosswind.sidecars.user_catalog import parse_sidecars

    return (*(parse_sidecars(read_text(file, pipes=True), str(file)) if file else ()), *KNOWN)

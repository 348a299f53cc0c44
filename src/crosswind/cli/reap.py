"""``crosswind reap``: ends the sidecars of finished pods that are nobody's."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import os
import signal
import socket
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crosswind.errors import ConfigError
from crosswind.regular_files import read_text
from crosswind.settings import KubeSettings, ReapSettings

if TYPE_CHECKING:
    from crosswind.pods.known_sidecars import KnownSidecar
    from crosswind.runs.leasing import Lease, LeaseSettings
    from crosswind.runs.reaping import Reaper

__all__ = ["reap"]

log = logging.getLogger(__name__)

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@click.command()
@click.option("-n", "--namespace", "namespaces", multiple=True, required=True, help="Where pods may be touched.")
@click.option(
    "-l", "--selector", required=True, help="Label selector of those pods, such as batch.kubernetes.io/job-name."
)
@click.option(
    "--main-container",
    default="",
    help="Container that does the work; without it the pod's annotation crosswind/main-container, else the only one"
    " that is no known, injected sidecar.",
)
@click.option("--sidecar", "sidecars", multiple=True, help="A container of this name is a sidecar too.")
@click.option("--sidecars-file", type=_FILE, help="YAML file of further sidecars, as [crosswind] sidecars_file.")
@click.option("--airflow-pods", is_flag=True, help="Also pods of (stock) Airflow's executor and pod operator.")
@click.option(
    "--permissions", type=click.Choice(["A", "B", "C"]), default="C", show_default=True, help="Set to use at most."
)
@click.option("--may-fail", is_flag=True, help="Also steps after which a pod that succeeded counts as failed.")
@click.option("--swap-image", default="", help="Image that may be swapped in.")
@click.option("--delete/--keep", default=False, show_default=True, help="Delete pods when nothing else helps.")
@click.option("--rate", type=click.FloatRange(0.01), default=5.0, show_default=True, help="Pods begun per second.")
@click.option("--retry", type=click.FloatRange(1), default=600.0, show_default=True, help="Seconds until another try.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and what speaks against it; do nothing.")
@click.option("--once", is_flag=True, help="End after one pass: exit code 1 if a sidecar stays.")
@click.option("--lease", default="", help="[NAMESPACE/]NAME of the Lease by which one replica is active.")
@click.option(
    "--lease-duration", type=click.FloatRange(2), default=15.0, show_default=True, help="Seconds to fail-over."
)
@click.option(
    "--listen", default="127.0.0.1:8080", show_default=True, help="ADDRESS:PORT of /healthz, /readyz, /metrics."
)
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--kubeconfig", help="Path of the kubeconfig; in a pod, its service account is used without.")
@click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the log's lines; json: one object a line, with time, level and message.",
)
@click.option("-v", "--verbose", is_flag=True, help="Also tell of pods that are only waited for.")
@click.pass_context
def reap(ctx: click.Context, /, **given: Any) -> None:
    """End the sidecars of finished pods that neither Airflow's executor nor its pod operator owns.

    A Job's pod runs on while a sidecar does. Once the main container has ended, the sidecars are told to end; what is
    done is told by Events on the pod and in the log. Runs until SIGTERM.
    """
    _log(given["verbose"], as_json=given["output"] == "json")
    settings = _settings(given)
    ctx.exit(asyncio.run(_serve(settings, given)))


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        content = {"time": time, "level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content)


def _log(verbose: bool, *, as_json: bool) -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    if as_json:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(_JsonLines())
    logging.getLogger("crosswind").setLevel(logging.DEBUG if verbose else logging.INFO)


def _settings(given: dict[str, Any]) -> ReapSettings:
    if not given["selector"].strip():
        raise click.BadParameter("it is empty: name a label that the pods have", param_hint="--selector")
    return ReapSettings(
        namespaces=tuple(dict.fromkeys(given["namespaces"])),
        selector=given["selector"],
        main=given["main_container"],
        sidecars=frozenset(given["sidecars"]),
        airflow=given["airflow_pods"],
        **{name: given[name] for name in ("may_fail", "swap_image", "delete", "rate", "retry", "dry_run")},
    )


async def _serve(settings: ReapSettings, given: dict[str, Any]) -> int:
    from crosswind.kube.client import Client
    from crosswind.pods.stop_plans import Abilities
    from crosswind.runs.leasing import Lease
    from crosswind.runs.reaping import Reaper

    async with await Client.connect(_cluster(given)) as client:
        lease = Lease(client, _lease(given, settings))
        leads = (lambda: True) if settings.dry_run else (lambda: lease.held)
        allowed = Abilities[given["permissions"]]
        reaper = Reaper(client, settings, known=_known(given["sidecars_file"]), allowed=allowed, leads=leads)
        work = asyncio.create_task(
            _pass(reaper, lease, settings) if given["once"] else _stay(reaper, lease, settings, given)
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        try:
            return await work
        except asyncio.CancelledError:
            log.info("Ends, as it was told to")
            return 1 if given["once"] else 0
        finally:
            await lease.release()


async def _stay(reaper: Reaper, lease: Lease, settings: ReapSettings, given: dict[str, Any]) -> int:
    """Answer, and work whenever the lease is ours."""
    from crosswind.runs.answering import answering

    host, port = _address(given["listen"])
    async with answering(reaper, lease, host, port) as port:
        log.info("Answers on %s:%s", host, port)
        await (reaper.run() if settings.dry_run else lease.lead(reaper.run))
    return 0


async def _pass(reaper: Reaper, lease: Lease, settings: ReapSettings) -> int:
    """Make one pass, unless somebody else is at it."""
    finished = True

    async def work() -> None:
        nonlocal finished
        finished = await reaper.once()

    if settings.dry_run:
        await work()
        return 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(lease.patience):
            await lease.acquire()
    if not lease.held:
        if lease.trouble:
            raise lease.trouble
        log.info("%s is at it: nothing to do", lease.holder)
        return 0
    await lease.lead(work)
    return 0 if finished else 1


def _cluster(given: dict[str, Any]) -> KubeSettings:
    """Use what is named, else the service account of the pod that we are in, else the user's kubeconfig."""
    named = given["kubeconfig"] or given["context"] or os.environ.get("KUBECONFIG")
    if not named and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return KubeSettings(in_cluster=True)
    return KubeSettings(kubeconfig=given["kubeconfig"], context=given["context"])


def _lease(given: dict[str, Any], settings: ReapSettings) -> LeaseSettings:
    from crosswind.runs.leasing import LeaseSettings

    namespace, _, name = given["lease"].rpartition("/")
    if not namespace:
        own = _OWN_NAMESPACE.read_text(encoding="utf-8").strip() if _OWN_NAMESPACE.exists() else ""
        namespace = own or settings.namespaces[0]
    identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:12]}"
    return LeaseSettings(namespace, name or "crosswind-reaper", identity, given["lease_duration"])


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--listen {text} is not of the form ADDRESS:PORT, such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def _known(file: Path | None) -> tuple[KnownSidecar, ...]:
    from crosswind.pods.declared_sidecars import parse_sidecars
    from crosswind.pods.known_sidecars import KNOWN

    return (*(parse_sidecars(read_text(file, pipes=True), str(file)) if file else ()), *KNOWN)

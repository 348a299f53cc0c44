"""The Grafana dashboard with real figures: a real Airflow runs a DAG, a real Prometheus answers every expression.

Debian has Prometheus and no Grafana, so that the page around the panels is ours: their titles, places, units and
expressions are those of ``examples/grafana/crosswind.json``, drawn by uPlot, which Grafana draws with too.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from crosswind.deploy.statsd_exporter import statsd
from crosswind.deploy.values_file import read_values
from pictures.browser import open_browser
from pictures.exporter import Exporter, serve

__all__ = ["draw"]

_TASKS, _DURATION_S = 300, 2.0
_DAG = """\
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG({dag_id!r}, schedule=None):
    for number in range({tasks}):
        BashOperator(task_id=f"work_{{number}}", bash_command="true", queue="etl" if number % 3 else "reports")
"""
_UPLOT = "uplot@1.6.32"
_PAGE = Path(__file__).with_name("dashboard.html")


def draw(folder: Path, work: Path) -> list[Path]:
    """Run Airflow, ask Prometheus and write the picture."""
    dashboard = json.loads((folder.parents[1] / "examples" / "grafana" / "crosswind.json").read_text())
    with serve(Exporter(_mappings())) as (statsd_port, metrics_port), _prometheus(work, metrics_port) as url:
        begun = time.time()
        asyncio.run(_run_dag(work, statsd_port))
        time.sleep(5)  # the last gauges go out every five seconds
        panels = [_answered(url, panel, begun, time.time()) for panel in dashboard["panels"]]
    return [_shot(panels, work, folder / "dashboard.png")]


def _mappings() -> list[dict[str, Any]]:
    (config, *_) = statsd(read_values("image: x\n", "values"))
    return list(yaml.safe_load(config.manifest["data"]["mappings.yml"])["mappings"])


@contextmanager
def _prometheus(work: Path, metrics_port: int) -> Iterator[str]:
    """Run Debian's Prometheus, unpacked and not installed, which scrapes once a second."""
    subprocess.run(["apt-get", "download", "-q", "prometheus"], cwd=work, check=True, capture_output=True)
    (package,) = work.glob("prometheus_*.deb")
    subprocess.run(["dpkg", "-x", package, work], check=True)
    target = {"job_name": "airflow", "static_configs": [{"targets": [f"127.0.0.1:{metrics_port}"]}]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [target]}
    (work / "prometheus.yml").write_text(yaml.safe_dump(config))
    from crosswind.demo.processes import free_port

    address = f"127.0.0.1:{free_port('127.0.0.1')}"
    process = subprocess.Popen(
        [
            *(work / "usr/bin/prometheus", f"--config.file={work}/prometheus.yml"),
            *(f"--storage.tsdb.path={work}/data", f"--web.listen-address={address}", "--log.level=error"),
        ]
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


async def _run_dag(work: Path, statsd_port: int) -> None:
    """Run one DAG of many tasks by Airflow's own scheduler; the nodes are simulated, as in ``make bench``."""
    sys.path.append(str(Path(__file__).parents[2]))
    from benchmarks.executors import TEMPLATE, database, simulated_cluster

    from benchmarks import whole_scheduler as whole

    ours = whole.CONTESTANTS[-1]
    home = work / "airflow"
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "whole.py").write_text(_DAG.format(dag_id=whole.DAG_ID, tasks=_TASKS))
    (home / "template.yaml").write_text(TEMPLATE)
    port = whole.free_port(whole.HOST)
    settings = {"STATSD_ON": "True", "STATSD_HOST": "127.0.0.1", "STATSD_PORT": str(statsd_port)}
    async with simulated_cluster(home, _TASKS // whole.PODS_PER_NODE + 2, simulated_run=None) as (kubeconfig, _):
        with database("postgresql", home) as url:
            environment = whole.scheduler_environment(home, url, kubeconfig, port, 60, ours) | {
                **{f"AIRFLOW__METRICS__{name}": value for name, value in settings.items()},
                "AIRFLOW__SCHEDULER__TI_METRICS_INTERVAL": "1",  # 30 would miss most of so short a run
            }
            async with whole.Airflow(home, environment, whole.HOST, port) as airflow:
                await airflow.migrate()
                await airflow.start()
                async with whole.playing(kubeconfig, airflow.url, _DURATION_S), whole.aiohttp.ClientSession() as web:
                    watched = whole.Watched(url)
                    await whole.ready(airflow, watched)
                    run_id = await whole.trigger(airflow.url, web, await whole.log_in(airflow.url, web))
                    await whole.until(lambda: watched.is_over(run_id), whole.LIMIT_S, "the DAG run")


def _answered(url: str, panel: dict[str, Any], begun: float, ended: float) -> dict[str, Any]:
    """Return a panel with the series of its expressions, all queues and DAGs chosen."""
    series = []
    for target in panel.get("targets", ()):
        expression = target["expr"].replace("$queue", ".+").replace("$dag", ".+").replace("[5m]", "[30s]")
        query = urllib.parse.urlencode({"query": expression, "start": begun, "end": ended, "step": 1})
        with urllib.request.urlopen(f"{url}/api/v1/query_range?{query}", timeout=60) as answer:  # noqa: S310 (ours)
            for result in json.loads(answer.read())["data"]["result"]:
                legend = target["legendFormat"]
                for label, value in result["metric"].items():
                    legend = legend.replace("{{" + label + "}}", value)
                series.append({"legend": legend, "values": result["values"]})
    return {
        "title": panel["title"],
        "row": panel["type"] == "row",
        "place": panel["gridPos"],
        "unit": panel.get("fieldConfig", {}).get("defaults", {}).get("unit", ""),
        "series": series,
    }


def _shot(panels: list[dict[str, Any]], work: Path, target: Path) -> Path:
    subprocess.run(
        ["npm", "install", "--no-save", "--silent", "--no-audit", "--no-fund", "--prefix", str(work), _UPLOT],
        check=True,
    )
    uplot = work / "node_modules" / "uplot" / "dist"
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(_PAGE.as_uri())
        page.add_style_tag(path=uplot / "uPlot.min.css")
        page.add_script_tag(path=uplot / "uPlot.iife.min.js")
        page.evaluate("panels => show(panels)", panels)
        page.screenshot(path=target, full_page=True)
    return target

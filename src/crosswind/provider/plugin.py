"""The Airflow plugin, which adds the pages of pods to the UI and the archived logs to the log reader.

All of Airflow's processes load plugins, workers too if the package is in their image, so this module imports little.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

__all__ = ["CrosswindPlugin"]

_POD_PAGE = "/crosswind/pod?dag_id={DAG_ID}&run_id={RUN_ID}&task_id={TASK_ID}&map_index={MAP_INDEX}"
"""Airflow's UI fills in the names in braces."""

_PLACES: tuple[dict[str, str], ...] = (
    {"name": "Pod", "destination": "task_instance", "url_route": "crosswind-pod"},
    {"name": "Pods", "destination": "nav", "category": "browse", "url_route": "crosswind-pods"},
    {"name": "Crosswind pods", "destination": "dashboard", "url_route": "crosswind-card"},
)
"""The tab, the page of the fleet and the dashboard's card. Their names are also those of the script's components."""

_SCRIPT = Path(__file__).with_name("pages") / "crosswind.js"


class CrosswindPlugin(AirflowPlugin):
    """Lets API servers show the pod of a task, and the logs that ``crosswind.provider.log_store`` keeps."""

    name = "crosswind"

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Add the pages and, if logs are archived, their reader. Does nothing where the executor is not configured."""
        if "crosswind." not in conf.get("core", "executor"):
            return
        cls._add_pages()
        archive = conf.get("crosswind", "archive_logs", fallback="auto")
        is_remote = conf.getboolean("logging", "remote_logging", fallback=False)
        if archive == "always" or (archive != "never" and not is_remote):
            from crosswind.provider.log_handler import install

            install()

    @classmethod
    def _add_pages(cls) -> None:
        cls.fastapi_apps = [{"app": _serve_ui, "url_prefix": "/crosswind", "name": "crosswind"}]
        if conf.getboolean("crosswind", "ui_scripts", fallback=True):
            # Airflow's UI resolves the address against its own base, and browsers keep the file until it changes.
            address = f"crosswind/static/crosswind.js?v={int(_SCRIPT.stat().st_mtime)}"
            cls.react_apps, cls.external_views = [{**place, "bundle_url": address} for place in _PLACES], []
            return
        root = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
        tab, fleet, _ = _PLACES
        cls.external_views = [{**tab, "href": root + _POD_PAGE}, {**fleet, "href": f"{root}/crosswind/fleet"}]
        cls.react_apps = []


async def _serve_ui(scope: Any, receive: Any, send: Any) -> None:
    """Serve ``crosswind.provider.ui``, imported with the first request: only API servers need it."""
    from crosswind.provider.ui import app

    await app(scope, receive, send)

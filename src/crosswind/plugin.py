"""What Airflow loads into its processes by itself; small, for workers load it too if it is in their image."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

__all__ = ["CrosswindPlugin"]

_POD = "/crosswind/pod?dag_id={DAG_ID}&run_id={RUN_ID}&task_id={TASK_ID}&map_index={MAP_INDEX}"


class CrosswindPlugin(AirflowPlugin):
    """Lets API servers show the pod of a task, and the logs that ``crosswind.archive`` keeps."""

    name = "crosswind"

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Add the page and, if logs are kept, their reader: where this executor is in use."""
        if "crosswind." not in conf.get("core", "executor"):
            return
        cls._show_pods()
        wanted = conf.get("crosswind", "archive_logs", fallback="auto")
        remote = conf.getboolean("logging", "remote_logging", fallback=False)
        if wanted == "always" or (wanted != "never" and not remote):
            from crosswind.task_logs import install

            install()

    @classmethod
    def _show_pods(cls) -> None:
        root = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
        view = {"name": "Pod", "href": root + _POD, "destination": "task_instance", "url_route": "crosswind-pod"}
        cls.external_views = [view]
        cls.fastapi_apps = [{"app": _pages, "url_prefix": "/crosswind", "name": "crosswind"}]


async def _pages(scope: Any, receive: Any, send: Any) -> None:
    """Serve ``crosswind.pages``, imported when somebody asks: all of Airflow's processes load plugins."""
    from crosswind.pages import app

    await app(scope, receive, send)

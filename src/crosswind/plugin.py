"""What Airflow loads into its processes by itself; small, for workers load it too if it is in their image."""

from __future__ import annotations

from typing import Any

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

__all__ = ["CrosswindPlugin"]


class CrosswindPlugin(AirflowPlugin):
    """Lets API servers show the logs that ``crosswind.archive`` keeps."""

    name = "crosswind"

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Install the reader of logs, where this executor is in use and logs are kept."""
        if "crosswind." not in conf.get("core", "executor"):
            return
        wanted = conf.get("crosswind", "archive_logs", fallback="auto")
        remote = conf.getboolean("logging", "remote_logging", fallback=False)
        if wanted == "always" or (wanted != "never" and not remote):
            from crosswind.task_logs import install

            install()

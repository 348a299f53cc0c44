"""Reads the state of a running Airflow from its public REST API."""

from __future__ import annotations

from typing import Any

import aiohttp

from crosswind.types import Json

__all__ = ["AirflowApi"]


class AirflowApi:
    """A client of an Airflow whose simple auth manager makes every user an admin. An async context manager.

    Methods return None, or nothing, while the server does not answer or has not parsed the DAG.
    """

    def __init__(self, url: str, dag_id: str = "") -> None:
        self.url, self.dag_id = url, dag_id
        self.answered = False
        """Whether the server has answered yet."""
        self._token: str | None = None

    async def __aenter__(self) -> AirflowApi:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def dag_run(self) -> Json | None:
        """Return the newest run of the DAG, or None if there is none yet."""
        answer = await self._get(f"/api/v2/dags/{self.dag_id}/dagRuns")
        runs = (answer or {}).get("dag_runs") or []
        return runs[-1] if runs else None

    async def import_errors(self) -> list[str]:
        """Return the stack traces of DAG files that cannot be imported."""
        answer = await self._get("/api/v2/importErrors")
        return [error["stack_trace"] for error in (answer or {}).get("import_errors", [])]

    async def broken_files(self) -> dict[str, str]:
        """Return the stack traces of DAG files that cannot be imported, by file."""
        answer = await self._get("/api/v2/importErrors")
        return {error["filename"]: error["stack_trace"] for error in (answer or {}).get("import_errors", [])}

    async def dag_ids(self) -> list[str] | None:
        """Return the ids of all DAGs; None while the server does not answer."""
        answer = await self._get("/api/v2/dags", limit="1000")
        return None if answer is None else sorted(dag["dag_id"] for dag in answer.get("dags", []))

    async def task_instances(self) -> list[Json]:
        """Return the task instances of all runs of the DAG, each mapped one by itself."""
        answer = await self._get(f"/api/v2/dags/{self.dag_id}/dagRuns/~/taskInstances", limit="500")
        return list((answer or {}).get("task_instances", []))

    async def xcom(self, run_id: str, task_id: str) -> Json | None:
        """Return the value that a task returned."""
        path = f"/api/v2/dags/{self.dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        answer = await self._get(path, deserialize="true")
        return answer["value"] if answer else None

    async def log(self, run_id: str, task_id: str, map_index: int, attempt: int) -> list[Json]:
        """Return the entries of a try's log."""
        path = f"/api/v2/dags/{self.dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}"
        answer = await self._get(path, map_index=str(map_index), full_content="true")
        content = (answer or {}).get("content")
        return content if isinstance(content, list) else []

    async def health(self) -> dict[str, str | None]:
        """Return the status of each component, as the UI's front page shows it."""
        answer = await self._get("/api/v2/monitor/health")
        return {name: (part or {}).get("status") for name, part in (answer or {}).items()}

    async def _get(self, path: str, **query: str) -> Any:
        try:
            if self._token is None:
                async with self._session.get(self.url + "/auth/token") as response:
                    self._token = (await response.json())["access_token"]
            headers = {"Authorization": f"Bearer {self._token}"}
            async with self._session.get(self.url + path, params=query, headers=headers) as response:
                self.answered = True
                return await response.json() if response.status == 200 else None
        except (TimeoutError, aiohttp.ClientError, KeyError, ValueError):  # starting, restarting or overloaded
            return None

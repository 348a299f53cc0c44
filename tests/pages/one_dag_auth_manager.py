"""An auth manager as a deployment has one: the user ``reader`` may read one DAG, everybody else all of them."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

THE_DAG = "orders"


class OneDagAuthManager(SimpleAuthManager):
    """Airflow's own users, with permissions by DAG."""

    def is_authorized_dag(self, *, user: Any, details: Any = None, **more: Any) -> bool:
        if user.username == "reader" and details is not None and details.id not in (None, THE_DAG):
            return False
        return super().is_authorized_dag(user=user, details=details, **more)

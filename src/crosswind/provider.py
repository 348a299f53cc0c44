"""What Airflow's provider manager asks a provider package for."""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]


def get_provider_info() -> dict[str, Any]:
    """Describe the package as an Airflow provider (``provider_info.schema.json``)."""
    return {
        "package-name": "crosswind",
        "name": "Crosswind",
        "description": "Airflow tasks in Kubernetes pods: fast, and under any service mesh.",
        "executors": ["crosswind.executor.KubernetesExecutor"],
    }

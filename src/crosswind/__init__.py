"""Airflow tasks in Kubernetes pods: fast, and under any service mesh."""

__version__ = "0.1.0"

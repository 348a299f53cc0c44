"""Airflow DAGs of the analysts' task files."""

from crosswind.dags import load_tasks

load_tasks("../task_files")

"""Airflow on this machine for one's own DAGs: database, cluster and Airflow, all gone when it ends."""

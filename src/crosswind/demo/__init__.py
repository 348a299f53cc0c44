"""The demo: a real DAG on a real Airflow, every task in a pod beside a mesh sidecar, watched and summed up."""

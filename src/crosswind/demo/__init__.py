"""The demo: a real DAG on a real Airflow, each task in a pod with a mesh sidecar, shown live and summarised."""

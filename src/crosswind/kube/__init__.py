"""The Kubernetes API: credentials, requests, watches and streams. Knows no Airflow and no tasks."""

"""The Kubernetes API: credentials, requests, watches and streams. Independent of Airflow and of tasks."""

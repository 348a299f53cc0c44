"""What runs inside a worker pod. It is shipped as text, so it imports the standard library and Airflow only."""

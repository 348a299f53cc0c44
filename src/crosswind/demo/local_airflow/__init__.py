"""``crosswind local airflow``: a temporary database, cluster and Airflow for the user's own DAGs."""

"""One pod's life and many pods' lives: launching, following, stopping, the engine. Uses kube and pods; knows no Airflow."""

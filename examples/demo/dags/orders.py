"""Six monthly exports of a shop's orders become one table in EUR and a report.

Every task instance runs in a pod of its own. The tasks share the folder OUTPUT (a volume); one of them asks for a
sidecar of its own by ``pod_override``; one check fails on its first try, and its retry succeeds.
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, get_current_context, task
from kubernetes.client import models as k8s

DATA = Path(__file__).parents[1] / "data"
OUTPUT = Path(os.environ.get("AIRFLOW_HOME", "/opt/airflow")) / "output"
DATABASE = OUTPUT / "orders.sqlite"
COLUMNS = ["order_id", "ordered_at", "customer", "country", "currency", "amount"]

RATES_SIDECAR = """
cat > /rates/eur.tmp <<END
{"EUR": 1.0, "GBP": 1.16, "USD": 0.92, "CHF": 1.05, "SEK": 0.088}
END
mv /rates/eur.tmp /rates/eur.json
trap 'exit 0' TERM
while true; do sleep 1; done
"""

RATES = k8s.V1VolumeMount(name="rates", mount_path="/rates")

with_rates = {
    "pod_override": k8s.V1Pod(
        spec=k8s.V1PodSpec(
            containers=[
                k8s.V1Container(name="base", env=[k8s.V1EnvVar(name="RATES", value="/rates")], volume_mounts=[RATES]),
                k8s.V1Container(
                    name="rates", image="busybox:1.37", command=["sh", "-c", RATES_SIDECAR], volume_mounts=[RATES]
                ),
            ],
            volumes=[k8s.V1Volume(name="rates", empty_dir=k8s.V1EmptyDirVolumeSource())],
        )
    )
}


def read_rates(patience_s: float = 120) -> dict[str, float]:
    """Read what the sidecar offers; it may start after us."""
    path, end = Path(os.environ["RATES"]) / "eur.json", time.monotonic() + patience_s
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"the sidecar wrote no {path} in {patience_s:.0f} s")
        time.sleep(0.2)
    return json.loads(path.read_text())


def valid_amount(text: str) -> bool:
    """Whether an export's amount is a number."""
    return text.replace(".", "", 1).isdigit()


@dag(
    schedule="@once",
    catchup=False,
    tags=["crosswind"],
    max_active_runs=1,  # runs share the output
    is_paused_upon_creation=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
)
def orders():
    """Orders of half a year, cleaned, converted and counted."""

    @task
    def extract() -> list[str]:
        """List the exports, and refuse one whose columns have changed."""
        files = sorted(DATA.glob("orders-*.csv"))
        if not files:
            raise FileNotFoundError(f"no orders-*.csv in {DATA}")
        for file in files:
            with file.open(newline="") as rows:
                header = next(csv.reader(rows))
            if header != COLUMNS:
                raise ValueError(f"{file.name}: columns {header}, expected {COLUMNS}")
        return [file.name for file in files]

    @task
    def transform(name: str) -> dict[str, int | str]:
        """Drop doubled lines and those without an amount."""
        with (DATA / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        orders = {row["order_id"]: row for row in rows if valid_amount(row["amount"])}
        clean = OUTPUT / "clean" / f"{Path(name).stem}.json"
        clean.parent.mkdir(parents=True, exist_ok=True)
        clean.write_text(json.dumps(list(orders.values())))
        print(f"{name}: {len(rows)} lines, {len(orders)} orders")
        return {"file": clean.name, "lines": len(rows), "orders": len(orders)}

    @task(executor_config=with_rates)
    def convert(parts: list[dict]) -> list[str]:
        """Turn every amount into EUR, by the rates that the sidecar serves."""
        rates = read_rates()
        for part in parts:
            file = OUTPUT / "clean" / part["file"]
            rows = json.loads(file.read_text())
            eur = [row | {"eur": round(float(row["amount"]) * rates[row["currency"]], 2)} for row in rows]
            (OUTPUT / part["file"]).write_text(json.dumps(eur))
        return [part["file"] for part in parts]

    @task
    def load(files: list[str]) -> int:
        """Load the orders into SQLite, all or nothing; loading again replaces."""
        rows = [row for file in files for row in json.loads((OUTPUT / file).read_text())]
        with closing(sqlite3.connect(DATABASE)) as db, db:
            db.execute("DROP TABLE IF EXISTS orders")
            db.execute("CREATE TABLE orders (order_id PRIMARY KEY, month, country, eur REAL)")
            values = [(r["order_id"], r["ordered_at"][:7], r["country"], r["eur"]) for r in rows]
            db.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", values)
        return len(rows)

    @task
    def check(loaded: int, parts: list[dict]) -> None:
        """Every order that was found must be in the table. The first try fails on purpose, to show a retry."""
        with closing(sqlite3.connect(DATABASE)) as db:
            (stored,) = db.execute("SELECT count(*) FROM orders").fetchone()
        expected = sum(part["orders"] for part in parts)
        if not stored == loaded == expected:
            raise ValueError(f"{expected} orders found, {loaded} loaded, {stored} stored")
        if get_current_context()["ti"].try_number == 1:
            raise RuntimeError("this check fails on its first try on purpose: the retry gets a new pod")

    @task
    def report() -> list[list]:
        """Orders and revenue for each month."""
        with closing(sqlite3.connect(DATABASE)) as db:
            found = db.execute("SELECT month, count(*), round(sum(eur), 2) FROM orders GROUP BY month ORDER BY month")
            return [list(row) for row in found]

    parts = transform.expand(name=extract())
    loaded = load(convert(parts))
    check(loaded, parts) >> report()


orders()

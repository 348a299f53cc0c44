"""Runs one query on a SQLite file that all tasks share. Prints, as its last line, what the made table holds, as JSON.

What a warehouse's own client would do: QUERY and TABLE come from the environment. The table ``raw_orders`` comes from
outside of the task files; it is loaded from the shop's exports the first time that somebody looks.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

HOME = Path(os.environ.get("SHOP_HOME") or os.environ.get("AIRFLOW_HOME", "/opt/airflow"))
RAW = ("order_id", "ordered_at", "customer", "country", "currency", "amount")


def load_raw(db: sqlite3.Connection) -> None:
    """Load the exports, unless they are there; BEGIN IMMEDIATE lets one task do it while others wait."""
    db.execute("BEGIN IMMEDIATE")
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'raw_orders'").fetchone():
        db.execute(f"CREATE TABLE raw_orders ({', '.join(RAW)})")
        for file in sorted((HOME / "data").glob("orders-*.csv")):
            with file.open(newline="") as lines:
                rows = [tuple(row[name] for name in RAW) for row in csv.DictReader(lines)]
            db.executemany("INSERT INTO raw_orders VALUES (?, ?, ?, ?, ?, ?)", rows)
    db.commit()


def run(query: str, table: str) -> dict[str, object]:
    """Run the statements in one transaction; return the table's name, its number of rows and their digest."""
    with closing(sqlite3.connect(HOME / "output" / "shop.sqlite", timeout=120)) as db:
        load_raw(db)
        db.executescript(f"BEGIN IMMEDIATE;\n{query}\n;COMMIT;")
        rows = sorted(json.dumps(row) for row in db.execute(f'SELECT * FROM "{table}"'))
    return {"table": table, "rows": len(rows), "digest": hashlib.sha256("\n".join(rows).encode()).hexdigest()[:12]}


if __name__ == "__main__":
    if not os.environ.get("QUERY"):
        sys.exit("QUERY is not set")
    print(json.dumps(run(os.environ["QUERY"], os.environ["TABLE"])))

"""A worker that the network cut off while the executor replaced its try: what it can still do, with the real API."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from partition import Partition
from rig import Rig, Run, until

from deadlines import scaled

pytestmark = pytest.mark.timeout(300)

LAST_WRITE_S = 15.0
"""Seconds after it reaches the API again in which an old worker's XComs and Variables are accepted (losses.md)."""

CUT_S = 8.0
API_VERSION = "2026-06-30"
NOW = "2026-01-01T00:00:00Z"


def writes(run: Run) -> list[float]:
    path = run.folder / "writes"
    return [float(line) for line in path.read_text().split()] if path.exists() else []


@pytest.mark.parametrize("hidden", [False, True], ids=["replaced-in-sight", "replaced-while-cut-off"])
def test_an_old_worker_writes_no_state_and_soon_nothing_at_all(rig: Rig, hidden: bool) -> None:
    with Partition(rig.port) as partition:
        address = f"http://127.0.0.1:{partition.port}/execution/"
        run = rig.start("writes", environment={"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": address})
        run.reached("began")
        until(lambda: len(writes(run)) > 3, "writes")
        if hidden:
            partition.cut()
        rig.replace(run.run_id)
        if hidden:
            time.sleep(CUT_S)  # the partition has to last: the worker does not know of the replacement
            assert run.process.poll() is None
        partition.heal()
        reached = until(lambda: partition.reached_at, "the API") if hidden else time.time()
        run.ended()
        late = max((moment - reached for moment in writes(run)), default=0.0)
    assert late <= LAST_WRITE_S, f"it wrote {late:.1f} s after it reached the API"
    assert run.state == "None", "the next try waits to be scheduled, whatever the old worker reported"
    assert not run.has("callback")
    assert run.record.get("reason") != "success"


def test_the_token_of_a_replaced_try_starts_and_ends_nothing(rig: Rig) -> None:
    workload = json.loads(rig.workload("writes"))
    ti, token = workload["ti"], workload["token"]
    headers = {"Authorization": f"Bearer {token}", "airflow-api-version": API_VERSION}
    url = f"http://127.0.0.1:{rig.port}/execution/task-instances/{ti['id']}"
    host = {"hostname": "old", "pid": 1}
    start = {"state": "running", "unixname": "airflow", "start_date": NOW, **host}
    success = {"state": "success", "end_date": NOW, "task_outlets": [], "outlet_events": []}
    with httpx.Client(headers=headers, timeout=scaled(20)) as client:
        first = client.patch(f"{url}/run", json=start)
        assert first.status_code == 200
        client.headers["Authorization"] = f"Bearer {first.headers.get('Refreshed-API-Token') or token}"
        rig.replace(ti["run_id"])
        answers = {
            "run": client.patch(f"{url}/run", json=start).status_code,
            "state": client.patch(f"{url}/state", json=success).status_code,
            "heartbeat": client.put(f"{url}/heartbeat", json=host).status_code,
        }
    assert answers == {"run": 404, "state": 404, "heartbeat": 410}
    assert rig.state(ti["run_id"]) == "None"

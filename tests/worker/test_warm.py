"""Workers that wait for their workload, with the real worker and the real Execution API."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from rig import Rig, Run, WaitingRun, python_path

from crosswind.demo.processes import free_port
from crosswind.worker import warm
from deadlines import scaled

pytestmark = pytest.mark.timeout(300)

SHORT = {"grace": 2}
OTEL = {
    "AIRFLOW__TRACES__OTEL_ON": "True",
    "AIRFLOW__METRICS__OTEL_ON": "True",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
}


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def module(folder: Path, name: str, text: str) -> dict[str, str]:
    """Write a module; return an environment that finds it."""
    (folder / f"{name}.py").write_text(text)
    return python_path(folder)


def finishes(run: Run) -> None:
    run.reached("began")
    (run.folder / "go").touch()
    assert run.ended() == 0
    assert run.state == "success"


def is_refused(run: WaitingRun, *words: str) -> None:
    assert run.ended() == warm.UNUSABLE
    text = run.message.decode()
    for word in words:
        assert word in text
        assert word in run.log


# --- from the start to the task's end ---------------------------------------------------------------------------------


def test_a_claim_runs_the_task_and_its_record_counts_from_there(rig: Rig) -> None:
    run = rig.wait().ready()
    assert run.message == warm.WAITING
    assert run.log == ""
    begun = time.monotonic()
    run.claim("succeeds_0")
    run.reached("began")
    took = time.monotonic() - begun
    finishes(run)
    record = run.record
    assert "reason" not in record
    assert 0 < record["imports"] < took
    assert record["waited"] > 0
    assert record["run"] > 0
    assert "Executing workload" in run.log
    assert "succeeds_0" in run.task_log or run.task_log


def test_a_claim_that_came_during_the_imports_is_run(rig: Rig) -> None:
    run = rig.wait()
    run.claim("succeeds_0")
    finishes(run)
    assert "Executing workload" in run.log


def test_the_message_of_a_pod_at_work_says_no_longer_that_it_waits(rig: Rig) -> None:
    run = rig.wait().ready()
    run.claim("succeeds_0")
    run.reached("began")
    assert run.message == b""
    run.kill()


def test_what_modules_print_at_their_import_is_in_the_log_of_the_task_alone(rig: Rig, tmp_path: Path) -> None:
    text = "import os, sys\nprint('of the import')\nos.write(2, b'of its library')\n"
    environment = module(tmp_path, "talks", text)
    run = rig.wait(warm={"preload": ["talks"]}, environment=environment).ready()
    assert run.log == ""
    run.claim("succeeds_0")
    finishes(run)
    assert run.log.count("of the import") == 1
    assert run.log.count("of its library") == 1


def test_a_preloaded_module_is_there_when_the_task_begins(rig: Rig, tmp_path: Path) -> None:
    environment = module(tmp_path, "heavy", f"open({str(tmp_path / 'imported')!r}, 'a').write('x')\n")
    run = rig.wait(warm={"preload": ["heavy"]}, environment=environment).ready()
    assert (tmp_path / "imported").read_text() == "x"
    run.kill()


def test_a_container_ends_when_its_task_has_ended(rig: Rig) -> None:
    late = []
    for _ in range(3):
        run = rig.wait().ready()
        run.claim("succeeds_0")
        finishes(run)
        late.append(time.time() - (run.folder / "ended").stat().st_mtime)
    assert max(late) < 3, late


# --- while it waits ---------------------------------------------------------------------------------------------------


def test_a_waiting_process_has_one_thread(rig: Rig) -> None:
    run = rig.wait().ready()
    assert threads(run.process.pid) == 1
    run.kill()


def test_exporters_of_opentelemetry_start_after_the_fork(rig: Rig) -> None:
    run = rig.wait(environment=OTEL).ready()
    assert threads(run.process.pid) == 1
    run.claim("sleeps_0")
    run.reached("began")
    (child,) = psutil.Process(run.process.pid).children()
    assert threads(child.pid) > 1
    assert threads(run.process.pid) > 1
    run.kill()


def test_waiting_takes_less_than_a_hundredth_of_a_processor_and_little_memory(rig: Rig) -> None:
    run = rig.wait().ready()
    process = psutil.Process(run.process.pid)
    before, begun = process.cpu_times(), time.monotonic()
    time.sleep(3)  # what it measures is a time of nothing
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    assert used <= 0.01 * (time.monotonic() - begun) + 0.01  # the kernel counts in hundredths
    assert process.memory_info().rss < 145 * 2**20  # the goal, 130, is that of make bench
    run.kill()


def test_a_module_may_use_what_is_left_out_to_save_memory(rig: Rig, tmp_path: Path) -> None:
    text = "import sys\nassert 'rich' not in sys.modules\nimport rich.console, pygments.lexers\n"
    run = rig.wait(warm={"preload": ["draws"]}, environment=module(tmp_path, "draws", text)).ready()
    run.claim("succeeds_0")
    finishes(run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pod_that_is_asked_to_end_while_it_waits_ends_at_once_and_well(rig: Rig, number: signal.Signals) -> None:
    run = rig.wait().ready()
    begun = time.monotonic()
    run.signal(number=number)
    assert run.ended() == 0
    assert time.monotonic() - begun < scaled(0.5)
    assert run.message == warm.WAITING
    assert run.log == ""


def test_a_pod_that_is_asked_to_end_while_it_imports_ends_well_too(rig: Rig, tmp_path: Path) -> None:
    text = f"import time\nopen({str(tmp_path / 'importing')!r}, 'w').close()\ntime.sleep(600)\n"
    run = rig.wait(warm={"preload": ["slow"]}, environment=module(tmp_path, "slow", text))
    run.reached(str(tmp_path / "importing"))
    run.signal()
    assert run.ended() == 0
    assert run.message == b""


def test_a_pod_that_nobody_claims_ends_by_itself(rig: Rig) -> None:
    run = rig.wait(warm={"wait": 0.1})
    assert run.ended() == 0
    assert run.message == warm.WAITING


# --- the guarantees of a cold pod -------------------------------------------------------------------------------------


@pytest.mark.parametrize("whom", ["process 1", "all"])
@pytest.mark.parametrize("dag", ["bash_0", "raises_2", "sleeps_0"])
def test_a_failure_after_sigterm_is_held_back(rig: Rig, dag: str, whom: str) -> None:
    run = rig.wait(options=SHORT).ready()
    run.claim(dag)
    run.reached("began")
    run.signal(whom)
    assert run.ended() == 143
    assert run.record["reason"] == "terminated"
    assert run.state == "running"
    assert not run.has("callback")


def test_a_sigterm_between_the_claim_and_the_task_is_a_loss(rig: Rig) -> None:
    run = rig.wait(options=SHORT, environment={"SLOW_PARSE": "1"}).ready()
    run.claim("succeeds_0")
    run.reached("parsing")
    run.signal()
    assert run.ended() == 143
    assert run.record["reason"] == "terminated"
    assert run.state == "running"


@pytest.mark.parametrize(("retries", "state"), [(0, "failed"), (2, "up_for_retry")])
def test_its_own_failure_is_reported(rig: Rig, retries: int, state: str) -> None:
    run = rig.wait().ready()
    run.claim(f"fails_{retries}")
    assert run.ended() == 0
    assert run.state == state


# --- what cannot work -------------------------------------------------------------------------------------------------


def test_a_module_that_does_not_import_is_named_with_the_fix(rig: Rig) -> None:
    run = rig.wait(warm={"preload": ["no_such_module"]})
    is_refused(run, "preload", "no_such_module", "ModuleNotFoundError", "image")


def test_a_module_that_starts_threads_is_named_with_the_fix(rig: Rig, tmp_path: Path) -> None:
    text = (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), name='poller', daemon=True).start()\n"
    )
    run = rig.wait(warm={"preload": ["busy"]}, environment=module(tmp_path, "busy", text))
    is_refused(run, "busy", "poller", "fork")


def test_a_workload_that_was_sealed_for_another_pod_is_not_run(rig: Rig) -> None:
    run = rig.wait().ready()
    other = WaitingRun(rig, run.folder, run.process, run.key, "another pod's uid")
    workload = rig.workload("succeeds_0")
    run.run_id = json.loads(workload)["ti"]["run_id"]
    run.deliver(other.seal(workload.encode()))
    is_refused(run, "cannot be opened", "jwt_secret")
    assert run.state == "queued"


@pytest.mark.parametrize("sealed", ["nonsense", "bm9uc2Vuc2U=", "=", "\u2028"])
def test_a_claim_that_is_no_seal_is_said_to_be_none(rig: Rig, sealed: str) -> None:
    run = rig.wait().ready()
    run.deliver(sealed)
    is_refused(run, "cannot be opened")


def test_without_a_key_the_pod_is_of_no_use(rig: Rig) -> None:
    is_refused(rig.wait(warm={"key": "/nonexistent/key"}), "/nonexistent/key")


def test_without_the_shim_the_pod_is_of_no_use(rig: Rig, tmp_path: Path) -> None:
    text = "import airflow.sdk.execution_time.coordinator as c\ndel c._PythonCoordinator\n"
    run = rig.wait(environment=module(tmp_path, "sitecustomize", text))
    is_refused(run, "worker shim")


# --- bundles ----------------------------------------------------------------------------------------------------------

BUNDLES = """
import os
from pathlib import Path
from airflow.dag_processing.bundles.base import BaseDagBundle
from airflow.sdk.bases.hook import BaseHook

class Remote(BaseDagBundle):
    supports_versioning = False

    def __init__(self, *, conn, path, **kwargs):
        super().__init__(**kwargs)
        self.conn, self._path = conn, Path(path)

    @property
    def path(self):
        return self._path

    def initialize(self):
        BaseHook.get_connection(self.conn)
        (Path(os.environ["MARKS"]) / f"fetched-{self.conn}").write_text(str(os.getppid()))
        super().initialize()

    def get_current_version(self):
        return None

    def refresh(self):
        pass
"""


def bundle(rig: Rig, name: str, conn: str) -> dict[str, Any]:
    return {"name": name, "classpath": "remotes.Remote", "kwargs": {"conn": conn, "path": str(rig.dags)}}


def test_bundles_whose_connection_needs_no_token_are_fetched_ahead(rig: Rig, tmp_path: Path) -> None:
    configured = [bundle(rig, "other", "unknown"), bundle(rig, "tests", "known")]
    environment = module(tmp_path, "remotes", BUNDLES) | {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(configured),
        "AIRFLOW_CONN_KNOWN": "http://host",
    }
    run = rig.wait(environment=environment).ready()
    assert (run.folder / "fetched-known").read_text() == str(run.process.pid)
    assert not run.has("fetched-unknown")
    assert threads(run.process.pid) == 1
    run.claim("succeeds_0")
    finishes(run)


def test_the_api_server_is_asked_before_the_pod_is_ready(rig: Rig) -> None:
    """It builds the Execution API at its first request, which the first task would wait for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/execution/"
        run = rig.wait(environment={"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": url}).ready()
        server.shutdown()
    assert paths == ["/execution/health"]
    assert threads(run.process.pid) == 1
    run.kill()


def test_without_an_api_server_the_pod_gets_ready(rig: Rig) -> None:
    address = f"http://127.0.0.1:{free_port()}/execution/"
    run = rig.wait(environment={"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": address}).ready()
    assert run.log == ""
    run.kill()


def test_a_fetch_ends_with_the_pod(rig: Rig, tmp_path: Path) -> None:
    text = BUNDLES + (
        "\ndef initialize(self):\n    import subprocess\n    (Path(os.environ['MARKS']) / 'fetching').touch()\n"
        "    subprocess.run(['sleep', '600'])\nRemote.initialize = initialize\n"
    )
    environment = module(tmp_path, "remotes", text) | {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle(rig, "tests", "known")])
    }
    run = rig.wait(environment=environment)
    run.reached("fetching")
    programs = psutil.Process(run.process.pid).children(recursive=True)
    run.signal()
    assert run.ended() == 0
    with contextlib.suppress(psutil.NoSuchProcess):
        assert not psutil.wait_procs(programs, timeout=scaled(5))[1]

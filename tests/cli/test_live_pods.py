"""The commands for live pods against a one-machine cluster: real pods, and simulated ones in every state."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from benchmarks.chaos.proxying import Proxy
from click.testing import CliRunner, Result
from tests.cli.task_pods import pods, task_pod

from crosswind.cli import main
from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, PODS, SERVICE_ACCOUNTS, Resource
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster, serve_in_thread
from crosswind.types import Manifest
from deadlines import scaled
from kubelocal.settings import LocalSettings


@pytest.fixture(scope="module")
def fleet() -> Iterator[Cluster]:
    """A cluster with a pod in each state in namespace airflow, written as a kubelet would."""
    with serve_in_thread(LocalSettings(simulate=1, simulated_start=3600)) as cluster:
        asyncio.run(_fill(cluster))
        yield cluster


async def _fill(cluster: Cluster) -> None:
    # The simulator ends a pod that is being deleted.
    alive = [pod for pod in pods() if "deletionTimestamp" not in pod["metadata"]]
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
        for name in ("airflow", "empty"):
            await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        await asyncio.gather(*(_create(client, pod) for pod in alive))
        other = task_pod(0xD1)
        other["metadata"] |= {"name": "web", "labels": {"app": "web"}, "annotations": {}}
        await _create(client, other)


async def _create(client: Client, pod: Manifest) -> None:
    status = pod["status"]
    metadata = {name: pod["metadata"][name] for name in ("name", "namespace", "labels", "annotations")}
    # The simulator lets pods be that have a node, until their start is due.
    created = await client.create(PODS, {**pod, "metadata": metadata, "spec": {**pod["spec"], "nodeName": "node-1"}})
    created["status"] = status
    await client.replace(PODS, created, namespace="airflow", subresource="status")


def call(cluster: Cluster, *arguments: object, columns: int | None = 80, **options: Any) -> Result:
    environment = {"KUBECONFIG": str(cluster.kubeconfig), "COLUMNS": None if columns is None else str(columns)}
    return CliRunner().invoke(main, ["pods", *map(str, arguments)], env=environment, **options)


def rows(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_the_list_shows_tasks_with_states_and_reasons_in_80_columns(fleet: Cluster) -> None:
    header, *lines = rows(call(fleet, "list", "-n", "airflow"))
    assert header.split() == ["POD", "TASK", "TRY", "STATE", "REASON", "AGE"]
    assert sum(" sales." in line or " billing." in line for line in lines) == 8
    assert max(map(len, lines)) <= 80
    killed = next(line for line in lines if "month_end" in line)
    # The age is in minutes when other tests have taken two.
    assert re.match(r"…000000a5 +billing.month_end +2 +failed +OOMKilled, held by.* +\d+[sm]$", killed)
    assert not any("web" in line for line in lines)


def test_the_server_selects_and_ids_that_no_label_holds_are_found(fleet: Cluster) -> None:
    long = "a_dag_with_a_name_that_is_so_long_that_no_label_can_hold_all_of_it_日本語"
    assert [row["dag_id"] for row in listed(fleet, "--dag", long)] == [long]
    assert [row["task_id"] for row in listed(fleet, "--queue", "files à lire")] == ["tâche"]
    assert {row["task_id"] for row in listed(fleet, "--state", "failed")} == {"month_end", "checks.totals", "export"}
    assert [row["reason"] for row in listed(fleet, "--reason", "oomkilled")] == ["OOMKilled"]
    assert [row["map_index"] for row in listed(fleet, "--map-index", 12)] == [12]
    assert {row["dag_id"] for row in listed(fleet, "-l", "dag_id in (billing)")} == {"billing"}


def listed(cluster: Cluster, *arguments: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(call(cluster, "list", "-n", "airflow", "-o", "json", *arguments).stdout)
    return found


def test_formats_for_programs_agree(fleet: Cluster) -> None:
    def by_name() -> list[dict[str, Any]]:
        return listed(fleet, "--sort", "name")

    def read_yaml() -> Any:
        return yaml.safe_load(call(fleet, "list", "-n", "airflow", "-o", "yaml", "--sort", "name").stdout)

    before, as_yaml, after = by_name(), read_yaml(), by_name()
    while before != after:  # a figure that depends on the time has changed in between
        before, as_yaml, after = after, read_yaml(), by_name()
    assert as_yaml == after
    names = rows(call(fleet, "list", "-n", "airflow", "-o", "name", "--sort", "name"))
    assert names == [f"{row['namespace']}/{row['name']}" for row in as_yaml]


def test_a_pipe_and_the_wide_form_cut_nothing(fleet: Cluster) -> None:
    def wide() -> list[str]:
        return rows(call(fleet, "list", "-n", "airflow", "-o", "wide"))

    before, piped, after = wide(), rows(call(fleet, "list", "-n", "airflow", columns=None)), wide()
    while before != after:  # an age has changed in between: those of the first two minutes do each second
        before, piped, after = after, rows(call(fleet, "list", "-n", "airflow", columns=None)), wide()
    assert piped == after
    assert "sales-load-0193a0d2-7c11-7d3e-8a55-0000000000a5" in "\n".join(piped)


def test_warm_pods_that_wait_are_counted_and_not_listed(fleet: Cluster) -> None:
    result = call(fleet, "list", "-n", "airflow")
    assert "1 warm pod without a task" in result.stderr
    assert "warm-default" not in result.stdout


def test_no_pods_is_no_failure_and_says_where_there_are_some(fleet: Cluster) -> None:
    result = call(fleet, "list", "-n", "empty")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("No pod of an Airflow task in namespace empty; there are some in airflow")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("list", "-n", "nowhere"), 1, "has no namespace nowhere"),
        (("list", "--context", "nowhere"), 2, 'has no context "nowhere" (there are: '),
        (("list", "--kubeconfig", "/no/file"), 2, "there is no kubeconfig at /no/file"),
        (("list", "-n", "airflow", "-A"), 2, "not both"),
        (("list", "--state", "odd"), 2, "'odd' is not one of"),
        (("describe", "-n", "airflow", "nothing-like-it"), 1, "has no pod of an Airflow task with nothing-like-it"),
        (("describe", "-n", "airflow", "--dag", "billing"), 2, "3 pods match dag billing; name one of them:"),
        (("describe", "-n", "airflow", "a"), 2, "too short"),
        (("describe", "-n", "airflow"), 2, "name a pod, or select one"),
        (("logs", "-n", "airflow", "00a5", "-c", "odd"), 2, "it has base, istio-proxy"),
        (("logs", "-n", "airflow", "gone-pod"), 1, "the log of a deleted pod is where Airflow keeps it"),
        (("logs", "-n", "airflow", "00a5", "-f", "-p"), 2, "not both"),
        (("logs", "-n", "airflow", "00a5", "--since", "soon"), 2, "not a duration"),
        (("delete", "-n", "airflow"), 2, "name pods, select them"),
        (("delete", "-n", "airflow", "--dag", "sales"), 2, "give --yes to delete, or --dry-run"),
        (("describe", "-n", "airflow", "00a5", "--airflow-url", "localhost"), 2, "does not begin with http"),
    ],
)
def test_wrong_use_and_failures_name_the_fix(fleet: Cluster, arguments: tuple[str, ...], code: int, text: str) -> None:
    result = call(fleet, *arguments)
    assert (result.exit_code, text in result.stderr) == (code, True), result.output


def test_a_cluster_that_is_down_is_a_failure(tmp_path: Any, fleet: Cluster) -> None:
    kubeconfig = yaml.safe_load(fleet.kubeconfig.read_text())
    kubeconfig["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    result = call(fleet, "list", "--kubeconfig", tmp_path / "kubeconfig")
    assert (result.exit_code, "127.0.0.1:1" in result.stderr) == (1, True), result.output


def test_a_pod_is_described_by_the_end_of_its_name(fleet: Cluster) -> None:
    text = call(fleet, "describe", "-n", "airflow", "…000000a5").stdout
    assert "billing.month_end, try 2, queue default" in text
    assert "base was killed because it used more memory than its limit of 1Gi" in " ".join(text.split())
    described = json.loads(call(fleet, "describe", "-n", "airflow", "--task", "month_end", "-o", "json").stdout)
    assert described["peak_memory"] == 2**30
    assert [container["name"] for container in described["containers"]] == ["base", "istio-proxy"]


def test_an_airflow_that_does_not_answer_is_named_beside_the_pod(fleet: Cluster) -> None:
    result = call(fleet, "describe", "-n", "airflow", "00a5", "--airflow-url", "http://127.0.0.1:1")
    assert result.exit_code == 0
    assert "not shown: http://127.0.0.1:1 did not respond" in " ".join(result.stdout.split())


def test_a_dry_run_deletes_nothing_and_leaves_other_pods_out(fleet: Cluster) -> None:
    before = listed(fleet)
    result = call(fleet, "delete", "-n", "airflow", "--dag", "sales", "--dry-run")
    assert result.exit_code == 0
    assert "dry run: 4 pods would be deleted" in result.stdout
    assert "spark-x1y2z3: it belongs to a KubernetesPodOperator" in result.stderr
    web = call(fleet, "delete", "-n", "airflow", "web", "--yes")
    assert (web.exit_code, "it is not an Airflow worker" in web.stderr) == (1, True)
    warm = call(fleet, "delete", "-n", "airflow", "warm-default-c1", "--yes")
    assert (warm.exit_code, "waits in the warm pool default" in warm.stderr) == (1, True)
    assert {row["uid"] for row in listed(fleet)} == {row["uid"] for row in before}


async def test_workers_are_deleted_after_their_number_is_shown(fleet: Cluster) -> None:
    async with await Client.connect(KubeSettings(kubeconfig=str(fleet.kubeconfig))) as client:
        for number in (0xE1, 0xE2):
            await _create(client, task_pod(number, "doomed", f"task{number}", phase="Pending"))
        command = ("delete", "-n", "airflow", "--dag", "doomed", "--grace-period", "0")
        result = await asyncio.to_thread(call, fleet, *command, "--yes")
        assert result.exit_code == 0, result.output
        assert "The 2 tasks that have not ended will fail or be retried" in result.stdout
        assert result.stdout.count(" deleted\n") == 2
        left = await client.list(PODS, namespace="airflow", labels="dag_id=doomed")
        assert not left.items
    again = await asyncio.to_thread(call, fleet, *command, "--yes")
    assert (again.exit_code, "has no pod of an Airflow task with dag doomed" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("pods describe -n airflow 00a5", ["sales-load-0193a0d2-7c11-7d3e-8a55-0000000000a5"]),
        ("pods list -n airflow --dag b", ["billing"]),
        ("pods logs -n airflow --dag billing --task m", ["month_end"]),
        ("pods list --context cross", ["crosswind-local"]),
        ("pods describe -n airflow --kubeconfig /no/file 00a5", []),
    ],
)
def test_shells_complete_pods_and_ids_from_the_cluster(fleet: Cluster, words: str, completed: list[str]) -> None:
    line = f"crosswind {words}"
    environment = {"_CROSSWIND_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    code = "from crosswind.cli import main; main(prog_name='crosswind')"
    variables = os.environ | environment | {"KUBECONFIG": str(fleet.kubeconfig)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    values = [choice.partition(",")[2] for choice in done.stdout.split()]
    assert values == completed, done.stderr


class Following:
    """A command as a process of its own; reads its lines."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def line(self, pattern: str) -> str:
        """Wait for a line."""
        assert self.process.stdout is not None
        while raw := await self.process.stdout.readline():
            if re.search(pattern, raw.decode()):
                return raw.decode().rstrip()
        raise AssertionError(f"the command ended before {pattern}")

    async def interrupted(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return await self.process.wait()


@contextlib.asynccontextmanager
async def following(cluster: Cluster, *arguments: str, stderr: int | None = None) -> AsyncIterator[Following]:
    environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig)}
    command = (sys.executable, "-m", "crosswind", "pods", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=stderr, env=environment)
    try:
        yield Following(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_user_without_permissions_learns_which_one_is_missing(fleet: Cluster, tmp_path: Any) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": "airflow"}}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {}}
    async with await Client.connect(KubeSettings(kubeconfig=str(fleet.kubeconfig))) as client:
        await client.create(SERVICE_ACCOUNTS, account)
        tokens = Resource("", "v1", "serviceaccounts/nobody/token", "TokenRequest")
        token = (await client.create(tokens, request, namespace="airflow"))["status"]["token"]
    kubeconfig = yaml.safe_load(fleet.kubeconfig.read_text())
    kubeconfig["users"][0]["user"] = {"token": token}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    for command in (("list",), ("watch",), ("describe", "some-pod"), ("delete", "--all", "--yes")):
        arguments = (*command, "-n", "airflow", "--kubeconfig", str(tmp_path / "kubeconfig"))
        async with asyncio.timeout(scaled(10)), following(fleet, *arguments, stderr=PIPE) as denied:
            _, text = await denied.process.communicate()
        assert denied.process.returncode == 1
        assert re.search(r'allow "(list|get)" on "pods" in namespace "airflow" by a Role', text.decode()), text


async def test_watch_prints_each_change_and_ends_on_ctrl_c_with_130(fleet: Cluster) -> None:
    async with (
        asyncio.timeout(scaled(20)),
        await Client.connect(KubeSettings(kubeconfig=str(fleet.kubeconfig))) as client,
        following(fleet, "watch", "-n", "airflow", "--dag", "watched") as watch,
    ):
        pod = task_pod(0xF1, "watched", phase="Pending")
        await _create(client, pod)
        await watch.line(r"pending +watched.load try 1  airflow/sales-load-")
        current = await client.get(PODS, pod["metadata"]["name"], namespace="airflow")
        current["status"] = {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}
        await client.replace(PODS, current, namespace="airflow", subresource="status")
        await watch.line(r"failed +watched.load try 1: Evicted  airflow/")
        await client.delete(PODS, pod["metadata"]["name"], namespace="airflow", grace_period=0)
        await watch.line(r"deleted +watched.load")
        assert await watch.interrupted() == 130


async def test_watch_writes_an_object_per_change_for_programs(fleet: Cluster) -> None:
    async with asyncio.timeout(scaled(20)), following(fleet, "watch", "-A", "--dag", "billing", "-o", "json") as watch:
        events = [json.loads(await watch.line("")) for _ in range(3)]
        assert {event["type"] for event in events} == {"ADDED"}
        assert {event["pod"]["task_id"] for event in events} == {"month_end", "checks.totals", "export"}


async def test_watch_goes_on_when_its_connection_breaks_and_its_version_is_gone(fleet: Cluster, tmp_path: Path) -> None:
    async with asyncio.timeout(scaled(25)), connected(fleet) as client:
        with Proxy(fleet.kubeconfig, tmp_path) as proxy:
            through = replace(fleet, kubeconfig=proxy.kubeconfig)
            async with following(through, "watch", "-n", "airflow", "--dag", "unbroken") as watch:
                for number, break_it in enumerate((lambda: None, proxy.cut, lambda: expire(proxy))):
                    break_it()
                    pod = task_pod(0x1F0 + number, "unbroken", f"task{number}", phase="Pending")
                    await _create(client, pod)
                    await watch.line(f"pending +unbroken.task{number} try 1")
                assert await watch.interrupted() == 130


def expire(proxy: Proxy) -> None:
    """Answer the next watches with 410, as a server does that has compacted their version."""
    gone = iter([410, 410])
    proxy.fault = lambda method, path: next(gone, None) if "watch=true" in path else None
    proxy.cut()


@contextlib.asynccontextmanager
async def connected(cluster: Cluster) -> AsyncIterator[Client]:
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
        yield client


async def test_a_followed_log_has_each_line_once_although_its_connection_breaks(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.3; done"
    async with asyncio.timeout(scaled(25)), connected(cluster) as client:
        await client.create(PODS, worker(cluster, "etl", script), namespace=namespace)
        with Proxy(cluster.kubeconfig, tmp_path) as proxy:
            through = replace(cluster, kubeconfig=proxy.kubeconfig)
            async with following(through, "logs", "etl", "-n", namespace, "-f") as logs:
                lines = []
                for number in range(1, 9):
                    lines.append(await logs.line(""))
                    if number in (2, 5):
                        proxy.cut()
                assert lines == [f"line {number}" for number in range(1, 9)]
                assert await logs.process.wait() == 0


@pytest.mark.cluster
async def test_logs_are_followed_to_the_end_of_the_container(cluster: Cluster, namespace: str) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.3; done"
    async with (
        asyncio.timeout(scaled(25)),
        await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client,
    ):
        pod = worker(cluster, "etl", script)
        await client.create(PODS, pod, namespace=namespace)
        async with following(cluster, "logs", "etl", "-n", namespace, "-f") as logs:
            assert [await logs.line("") for _ in range(5)] == [f"line {number}" for number in range(1, 6)]
            assert await logs.process.wait() == 0
        assert await printed(cluster, "logs", "etl", "-n", namespace, "--tail", "2") == ["line 4", "line 5"]
        assert await printed(cluster, "logs", "etl", "-n", namespace, "--tail", "1", "-f") == ["line 5"]
        assert await printed(cluster, "logs", "etl", "-n", namespace, "--tail", "0", "-f") == []
        first, *_ = await printed(cluster, "logs", "etl", "-n", namespace, "--timestamps", "-f")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z line 1", first)


@pytest.mark.cluster
async def test_logs_of_several_pods_name_the_task_in_each_line(cluster: Cluster, namespace: str) -> None:
    async with (
        asyncio.timeout(scaled(25)),
        await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client,
    ):
        for name in ("first", "second"):
            await client.create(PODS, worker(cluster, name, f"echo of {name}; sleep 0.5"), namespace=namespace)
        follow = ("logs", "--dag", "sales", "--all", "-n", namespace)
        lines = ["[sales.first …first] of first", "[sales.second …second] of second"]
        assert sorted(await printed(cluster, *follow, "-f")) == lines
        assert await printed(cluster, *follow) == lines


async def printed(cluster: Cluster, *arguments: str) -> list[str]:
    async with following(cluster, *arguments) as command:
        output, _ = await command.process.communicate()
        assert command.process.returncode == 0
        return output.decode().splitlines()


def worker(cluster: Cluster, name: str, script: str) -> Manifest:
    labels = {"dag_id": "sales", "task_id": name, "run_id": "r", "try_number": "1", "kubernetes_executor": "True"}
    base = {"name": "base", "image": cluster.image, "command": ["sh", "-c", script]}
    spec = {"containers": [base], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}

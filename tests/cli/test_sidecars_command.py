from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from crosswind.cli import main
from crosswind.sidecars.catalog import KNOWN
from crosswind.sidecars.user_catalog import parse_sidecars
from crosswind.testing import Cluster

DOCS = Path(__file__).parents[2] / "docs"
CATALOG = (DOCS / "reference" / "sidecars.md").read_text()
GUIDE = (DOCS / "guides" / "sidecars.md").read_text()
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: etl, namespace: airflow}
spec:
  restartPolicy: Never
  containers:
    - {name: base, image: "apache/airflow:3.3.2"}
    - {name: istio-proxy, image: "istio/proxyv2:1.26.4-distroless"}
    - {name: second, image: my/own, command: [/serve]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pod.yaml"
    path.write_text(POD)
    return path


def call(*arguments: object, **options: object) -> Result:
    environment = {"COLUMNS": "200"}
    return CliRunner().invoke(main, ["sidecars", *map(str, arguments)], env=environment, **options)  # type: ignore[arg-type]


def test_a_plan_is_printed_in_order_with_reasons_and_hints(file: Path) -> None:
    done = call("explain", "-f", file)
    assert done.exit_code == 0
    places = [done.output.index(text) for text in ("second", "istio-proxy", "ask POST :15020/quitquitquit", "Easier")]
    assert places == sorted(places)
    assert "left out: its image has no shell" in done.output
    assert "left out: the pod is to be kept" in done.output
    assert 'annotation sidecar.istio.io/nativeSidecar: "true"' in done.output


def test_a_pod_may_come_from_standard_input() -> None:
    assert "No sidecar to stop" in call("explain", "-f", "-", input=POD[: POD.index("    - {name: istio")]).output


def test_the_plan_for_programs_is_json(file: Path) -> None:
    plan = json.loads(call("explain", "-f", file, "--output", "json", "--permissions", "A").output)
    assert plan["permissions"] == ["forward"]
    assert [target["container"] for target in plan["targets"]] == ["second", "istio-proxy"]
    steps = [step["way"] for step in plan["targets"][1]["steps"] if not step["skip"]]
    assert steps == ["ask", "ask"]


def test_sidecars_of_ones_own_are_planned_for(file: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "sidecars:\n  - {name: ours, containers: [second], images: ['*'], asks: [{port: 8080, path: /quit}]}\n"
    )
    assert "ask POST :8080/quit" in call("explain", "-f", file, "--sidecars-file", own).output
    assert json.loads(call("list", "--sidecars-file", own, "--output", "json").output)[0]["name"] == "ours"


@pytest.mark.parametrize(
    ("text", "problem"),
    [("- a\n", "is not one Pod"), ("kind: Job\nspec: {}\n", "is not one Pod"), ("a: [\n", "not readable as YAML")],
)
def test_what_is_no_pod_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(text)
    done = call("explain", "-f", path)
    assert done.exit_code == 2
    assert problem in done.output


@pytest.mark.parametrize("arguments", [(), ("etl", "-f", "x")])
def test_it_wants_a_pod_or_a_file(arguments: tuple[str, ...]) -> None:
    done = call("explain", *arguments)
    assert (done.exit_code, "name a pod, or give -f FILE" in done.output) == (2, True)


def test_the_list_shows_how_each_is_stopped() -> None:
    output = call("list").output
    assert all(known.name in output for known in KNOWN)
    assert "POST :4191/shutdown" in output


@pytest.mark.cluster
async def test_a_pod_of_a_cluster_is_planned_for_with_the_permissions_that_are_there(
    cluster: Cluster, namespace: str
) -> None:
    import asyncio

    from crosswind.kube.client import Client
    from crosswind.kube.resources import PODS
    from crosswind.settings import KubeSettings

    manifest = yaml.safe_load(POD.replace("namespace: airflow", "namespace: null"))
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
        await client.create(PODS, manifest, namespace=namespace)
    where = ("-n", namespace, "--kubeconfig", cluster.kubeconfig)
    done = await asyncio.to_thread(call, "explain", "etl", *where, "--output", "json")
    plan = json.loads(done.output)
    assert plan["permissions"] == ["forward", "exec", "patch", "delete"]
    assert plan["waits_for"]
    missing = await asyncio.to_thread(call, "explain", "none", *where)
    assert missing.exit_code == 1
    assert "not found" in missing.output


def test_the_page_lists_every_sidecar_and_how_it_ends() -> None:
    for known in KNOWN:
        (row,) = re.findall(rf"^\| {known.name} \|.*$", CATALOG.partition("\n## Test results\n")[0], re.M)
        assert all(f"{ask.method} :{ask.port.default}{ask.path.default}" in row for ask in known.asks)
        assert known.note in row


def test_the_pages_own_sidecar_can_be_read() -> None:
    (text,) = re.findall(r"^```yaml\n(sidecars:.*?)^```", GUIDE, re.M | re.S)
    assert parse_sidecars(text, "page")[0].client == ("/usr/bin/pgcat-quit", "--port={port}")

"""What the commands for live pods print, as golden files at 80 columns. UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import datetime
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from tests.any_json import any_pod
from tests.cli.task_pods import NOW, RUN, pods, stamp

from crosswind.cli.pod_description import describe_pod, description_lines, task_lines
from crosswind.cli.pod_table import age, document, pod_lines, sorted_pods
from crosswind.cli.pod_watch import change_line
from crosswind.cli.text_table import Column, cell_width, clean, cut, plain, table_lines, wrapped
from crosswind.pods.naming import label_value
from crosswind.pods.pod_filter import PodFilter
from crosswind.pods.pod_summary import STATES, PodSummary, summarise
from crosswind.types import PodEvent
from deadlines import scaled

GOLDEN = Path(__file__).parent / "golden"
SUMMARIES = [summarise(pod) for pod in pods()]
EVENTS: list[PodEvent] = [
    {
        "type": "Warning",
        "reason": "FailedScheduling",
        "message": "0/3 nodes are available: 3 Insufficient cpu.",
        "lastTimestamp": stamp(240),
        "count": 7,
    },  # type: ignore[typeddict-unknown-key]
    {"type": "Normal", "reason": "Scheduled", "message": "Assigned airflow/x to node-1", "eventTime": stamp(200)},
]
TRIES = {
    "state": "up_for_retry",
    "max_tries": 2,
    "problem": "",
    "pods": [],
    "tries": [
        {"try_number": 1, "max_tries": 2, "state": "failed", "start": "2026-11-29 11:40:00", "seconds": "61.0"}
        | {"host": "sales-load-0193a0d2-7c11-7d3e-8a55-0000000000a0", "queue": "default"},
        {"try_number": 2, "max_tries": 2, "state": "up_for_retry", "start": "2026-11-29 11:56:40", "seconds": "140.2"}
        | {"host": "sales-load-0193a0d2-7c11-7d3e-8a55-0000000000a5", "queue": "default"},
    ],
}


def same(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text + "\n")
    assert text + "\n" == path.read_text()


def of_tasks() -> list[PodSummary]:
    return [pod for pod in SUMMARIES if pod.kind != "warm"]


@pytest.mark.parametrize("width", [80, 160, None])
@pytest.mark.parametrize("namespaces", [False, True])
def test_the_list_fits_its_width(width: int | None, namespaces: bool) -> None:
    lines = [plain(line) for line in pod_lines(of_tasks(), NOW, width, namespaces=namespaces)]
    same(f"pods-{width or 'wide'}{'-all' if namespaces else ''}.txt", "\n".join(lines))
    assert width is None or max(map(cell_width, lines)) <= width


def test_what_needs_a_person_comes_first_when_sorted_by_state() -> None:
    ordered = sorted_pods(of_tasks(), "state")
    assert [pod.state for pod in ordered][:5] == ["failed", "failed", "failed", "pending", "pending"]
    assert ordered[-1].state == "succeeded"


@pytest.mark.parametrize("index", range(len(SUMMARIES)))
def test_a_description_fits_80_columns(index: int) -> None:
    pod = pods()[index]
    described = describe_pod(pod, NOW, EVENTS if index == 0 else (), TRIES if index == 4 else None)
    lines = [plain(line) for line in description_lines(described, NOW, 80)]
    same(f"describe-{pod['metadata']['uid'][-2:]}.txt", "\n".join(lines))
    assert max(map(cell_width, lines)) <= 80


def test_the_pods_of_all_tries_stand_in_place_of_tries_where_airflow_records_them() -> None:
    ended = {"try_number": 1, "launch": 0, "name": "sales-load-0193a0d2-7c11-7d3e-8a55-0000000000a0", "node": "node-9"}
    ended |= {"status": "Failed: OOMKilled after 2 min 5 s", "cause": "base was killed", "peak_memory": 2**30}
    ended |= {"memory": "peak 1.0 GiB, 100% of the limit; limit 1.0 GiB"}
    airflow = TRIES | {"pods": [ended | {"try_number": 2, "status": "Running for 3 s", "peak_memory": None}, ended]}
    lines = description_lines(describe_pod(pods()[4], NOW, (), airflow), NOW, 80)
    same("describe-pods-of-tries.txt", "\n".join(map(plain, lines)))
    task = PodFilter("billing", RUN, "month_end").task
    assert task is not None
    same("describe-gone.txt", "\n".join(map(plain, task_lines(task, airflow | {"pods": [ended]}, 80))))


def test_the_line_of_a_change_names_state_task_reason_and_pod() -> None:
    moment = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    same("watch-lines.txt", "\n".join(change_line(pod, gone, moment) for pod in of_tasks() for gone in (False, True)))


def test_a_summary_survives_its_json() -> None:
    assert [PodSummary.from_json(pod.to_json()) for pod in SUMMARIES] == [
        pod._replace(label_ids=("", "", "")) for pod in SUMMARIES
    ]


def test_the_list_for_programs_is_the_same_in_json_and_yaml() -> None:
    import yaml

    rows = [pod.to_json() for pod in SUMMARIES]
    same("pods.json", document(rows, "json"))
    assert yaml.safe_load(document(rows, "yaml")) == json.loads(document(rows, "json"))


@pytest.mark.parametrize(
    ("wanted", "ends"),
    [
        (PodFilter(dag_id="billing"), ["a5", "a6", "a7"]),
        (PodFilter(task_id="checks.totals"), ["a6"]),
        (PodFilter(run_id=RUN, states=frozenset({"pending"})), ["a1", "a2"]),
        (PodFilter(states=frozenset({"failed"}), reasons=frozenset({"oomkilled", "evicted"})), ["a5", "a7"]),
        (PodFilter(dag_id=SUMMARIES[8].dag_id), ["a9"]),
        (PodFilter(dag_id=SUMMARIES[8].label_ids[0]), ["a9"]),
        (PodFilter(queue="files à lire"), ["a9"]),
        (PodFilter(queue="big"), ["a3"]),
        (PodFilter(dag_id="bill"), []),
    ],
)
def test_a_filter_takes_true_ids_and_those_of_labels(wanted: PodFilter, ends: list[str]) -> None:
    assert [pod.uid[-2:] for pod in of_tasks() if wanted.matches(pod)] == ends


def test_the_server_selects_by_every_id_and_number() -> None:
    wanted = PodFilter("a dag", "run", "t", 3, 2, "big", selector="team=x")
    assert wanted.labels == (
        f"dag_id={label_value('a dag')},run_id=run,task_id=t,crosswind/queue=big,map_index=3,try_number=2,team=x"
    )
    assert PodFilter().labels == "dag_id"


@given(any_pod)
def test_any_json_has_a_summary_and_a_description(pod: object) -> None:
    summary = summarise(pod)  # type: ignore[arg-type]
    assert summary.state in STATES
    description_lines(describe_pod(pod, NOW), NOW, 80)  # type: ignore[arg-type]
    json.dumps(summary.to_json())


def test_control_characters_of_a_cluster_reach_no_terminal() -> None:
    assert clean("a\x1b[31mb\nc\x9b") == "a�[31mb c�"


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5s"), (119, "119s"), (130, "2m"), (10_900, "3h1m"), (90_000, "25h"), (200_000, "2d7h")]
)
def test_ages_are_those_of_kubectl(seconds: int, words: str) -> None:
    assert age(NOW - seconds, NOW) == words


@pytest.mark.parametrize(("where", "short"), [("start", "…efghij"), ("middle", "abc…hij"), ("end", "abcdef…")])
def test_a_text_is_cut_where_it_matters_least(where: str, short: str) -> None:
    assert cut("abcdefghij", 7, where) == short  # type: ignore[arg-type]


def test_wide_characters_take_two_columns() -> None:
    assert cell_width(cut("日本語テスト", 5)) <= 5
    assert [cell_width(line) <= 6 for line in wrapped("日本語テスト x", 6)] == [True] * 3


def test_optional_columns_come_only_where_there_is_space() -> None:
    columns = [Column("A", str), Column("B", lambda text: text * 2, optional=True, rank=1)]
    assert [plain(line) for line in table_lines(columns, ["xyz"], 6)] == ["A", "xyz"]
    assert [plain(line) for line in table_lines(columns, ["xyz"], 11)] == ["A    B", "xyz  xyzxyz"]


def test_five_thousand_pods_take_less_than_half_a_second_of_cpu() -> None:
    """The whole list, process start and HTTP included, then takes less than a second."""
    fleet = pods() * 500
    began = time.process_time()
    rows = sorted_pods(map(summarise, fleet), "state")
    text = "\n".join(map(plain, pod_lines(rows, NOW, 80, namespaces=False)))
    assert time.process_time() - began < scaled(0.5)
    assert text.count("\n") == len(fleet)

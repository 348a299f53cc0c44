from __future__ import annotations

import pytest

from crosswind.pods.pod_life import PodFacts, life_of, pod_life

TIMES = {
    "queued": 100.3,
    "created": 100.0,
    "scheduled": 101.0,
    "sandbox": 102.0,
    "initialized": 103.0,
    "pulled": 112.0,
    "started": 113.0,
    "running": 115.2,
    "ended": 160.0,
    "gone": 161.5,
}
SECONDS = {"imports": 2.0, "bundle": 0.1, "parse": 0.9, "run": 40.0}
NOW = 1000.0


def parts(facts: PodFacts, now: float = NOW) -> dict[str, float]:
    return {part.label: round(part.seconds, 3) for part in pod_life(facts, now).parts}


@pytest.mark.parametrize("pulled", [112.0, 113.4], ids=["in order", "later than a start in whole seconds"])
def test_the_parts_follow_each_other_and_none_overlaps(pulled: float) -> None:
    life = pod_life(PodFacts(outcome="success", times=TIMES | {"pulled": pulled}, seconds=SECONDS), NOW)
    for before, after in zip(life.parts, life.parts[1:], strict=False):
        assert after.start == pytest.approx(before.start + before.seconds)
    assert life.total == pytest.approx(161.5 - 100.3)
    assert sum(part.share for part in life.parts) == pytest.approx(1)


def test_each_part_is_named_for_what_its_time_is_spent_on() -> None:
    assert parts(PodFacts(outcome="success", times=TIMES, seconds=SECONDS)) == {
        "Scheduling": 0.7,
        "Network and volumes": 1,
        "Init and sidecars": 1,
        "Image pull": 9,
        "Container start": 1,
        "Imports of Airflow": 2,
        "DAG bundle": 0.1,
        "DAG file": 0.9,
        "User code": 40,
        "Rest of the worker": 4,
        "Sidecars and deletion": 1.5,
    }


def test_an_image_that_is_pulled_before_the_init_containers_end_comes_before_them() -> None:
    names = [*parts(PodFacts(outcome="success", times=TIMES | {"pulled": 102.4}, seconds=SECONDS))]
    assert names.index("Image pull") < names.index("Init and sidecars")


def test_without_the_workers_figures_airflows_own_time_divides_the_task() -> None:
    shown = parts(PodFacts(outcome="success", times=TIMES))
    assert (shown["Worker start"], shown["Task"]) == (2.2, 44.8)


def test_a_pod_that_never_started_has_no_task() -> None:
    times = {"queued": 100.0, "created": 101.0, "ended": 130.0}
    assert parts(PodFacts(outcome="failed", times=times)) == {
        "Until created": 1,
        "Until it was given up": 29,
    }


def test_the_time_of_a_warm_pods_task_begins_with_its_claim() -> None:
    times = {"queued": 100.0, "claimed": 100.2, "running": 100.5, "ended": 110.2, "gone": 111.2}
    facts = PodFacts(outcome="success", times=times, seconds={"imports": 0.1, "parse": 0.4, "run": 9.0})
    assert parts(facts) == {
        "Claim of a warm pod": 0.2,
        "Imports of Airflow": 0.1,
        "DAG file": 0.4,
        "User code": 9,
        "Rest of the worker": 0.5,
        "Sidecars and deletion": 1,
    }
    assert pod_life(facts, NOW).status.title == "Succeeded after 10 s"


@pytest.mark.parametrize(
    ("seconds", "largest"), [(SECONDS, "User code"), ({**SECONDS, "run": 1.0}, "Rest of the worker"), ({}, "Task")]
)
def test_the_largest_part_is_marked(seconds: dict[str, float], largest: str) -> None:
    life = pod_life(PodFacts(outcome="success", times=TIMES, seconds=seconds), NOW)
    assert [part.label for part in life.parts if part.is_largest] == [largest]


def test_the_last_part_of_a_living_pod_extends_to_now() -> None:
    life = pod_life(PodFacts(phase="pending", reason="Unschedulable", times={"queued": 900.0, "created": 901.0}), NOW)
    assert [(part.label, part.seconds, part.is_open) for part in life.parts] == [
        ("Until created", 1, False),
        ("Waits in the cluster", 99, True),
    ]
    assert life.status.title == "Waits in the cluster for 1 min 39 s: Unschedulable"


@pytest.mark.parametrize(
    ("facts", "tone", "title", "text"),
    [
        (PodFacts(outcome="success", times=TIMES), "success", "Succeeded after 47 s", ""),
        (
            PodFacts(outcome="failed", reason="OOMKilled", message="raise the limit", exit_code=137),
            "failed",
            "Failed: OOMKilled",
            "raise the limit",
        ),
        (
            PodFacts(outcome="failed", reason="Error", exit_code=127),
            "failed",
            "Failed: Error",
            "Exit code 127: the command was not found in the image.",
        ),
        (PodFacts(outcome="revoked", reason="x"), "neutral", "Ended by Airflow", None),
        (PodFacts(outcome="lost", reason="Evicted", message="m"), "waiting", "Lost: Evicted", "m"),
        (PodFacts(phase="running", times={"started": 990.0}), "running", "Running for 10 s", ""),
        (PodFacts(phase="ending", times={"ended": 990.0}), "neutral", "The task has ended", None),
        (PodFacts(phase="something new"), "neutral", "something new", ""),
    ],
)
def test_the_status_line_says_what_the_pod_does_or_how_it_ended(
    facts: PodFacts, tone: str, title: str, text: str | None
) -> None:
    status = pod_life(facts, NOW).status
    assert (status.tone, status.title) == (tone, title)
    assert status.text == text if text is not None else status.text


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (
            PodFacts(requests={"memory": "512Mi"}, limits={"memory": "1Gi"}, peak_memory=512 * 1024**2),
            "peak 512 MiB, 50% of the limit; request 512 MiB; limit 1.0 GiB",
        ),
        (
            PodFacts(requests={"memory": "1G"}, peak_memory=500_000_000),
            "peak 477 MiB, 50% of the request; request 954 MiB",
        ),
        (PodFacts(peak_memory=1024**2), "peak 1 MiB; no limit"),
        (PodFacts(limits={"memory": "1Gi"}), "peak not measured; limit 1.0 GiB"),
    ],
)
def test_memory_is_compared_with_the_limit_or_else_the_request(facts: PodFacts, text: str) -> None:
    memory = pod_life(facts, NOW).memory
    assert memory is not None
    assert memory.text == text


def test_nothing_is_said_of_memory_where_nothing_is_known() -> None:
    assert pod_life(PodFacts(limits={"memory": ["1Gi"]}), NOW).memory is None


def test_the_newest_launch_of_the_newest_try_comes_first() -> None:
    pods = [PodFacts(1), PodFacts(2, 1), PodFacts(2, 0), PodFacts(3)]
    assert [(life.facts.try_number, life.facts.launch) for life in life_of(pods, NOW)] == [
        (3, 0),
        (2, 1),
        (2, 0),
        (1, 0),
    ]

from dataclasses import replace

import pytest

from crosswind.demo.timelines import PodTimeline, advance, median_removal_time, state_word


def pod(states: dict, phase: str = "Running", **labels: str) -> dict:
    return {
        "metadata": {
            "uid": "u1",
            "name": "p1",
            "labels": {"task_id": "load", "map_index": "-1", "try_number": "1"} | labels,
        },
        "status": {"phase": phase, "containerStatuses": [{"name": n, "state": s} for n, s in states.items()]},
    }


RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
DONE = {"terminated": {"exitCode": 0}}
LIFE = [
    ("ADDED", pod({}, "Pending"), 1.0, "Pending"),
    (
        "MODIFIED",
        pod({"base": {"waiting": {"reason": "ImagePullBackOff"}}}, "Pending"),
        2.0,
        "Pending (ImagePullBackOff)",
    ),
    ("MODIFIED", pod({"istio-proxy": RUNNING, "base": RUNNING}), 3.0, "Running"),
    ("MODIFIED", pod({"istio-proxy": RUNNING, "base": DONE}), 7.0, "base done, istio-proxy still running"),
    ("DELETED", pod({"istio-proxy": DONE, "base": DONE}, "Succeeded"), 7.5, "deleted"),
]


def test_each_step_of_a_pods_life_has_a_state():
    timelines: dict[str, PodTimeline] = {}
    words = []
    for kind, manifest, now, _ in LIFE:
        timelines = advance(timelines, kind, manifest, now)
        words.append(state_word(timelines["u1"]))
    assert words == [word for *_, word in LIFE]
    assert timelines["u1"] == PodTimeline("u1", "p1", "load", "1", 1.0, 3.0, 7.0, 0, 7.5, True)


def test_the_first_sighting_of_a_state_counts():
    timelines = advance({}, "ADDED", pod({"base": RUNNING}), 1.0)
    timelines = advance(timelines, "MODIFIED", pod({"base": RUNNING}), 9.0)
    assert timelines["u1"].running == 1.0


def test_a_mapped_task_shows_its_index():
    assert advance({}, "ADDED", pod({}, map_index="3"), 0)["u1"].task == "load [3]"


def test_pods_that_airflow_did_not_start_are_left_out():
    stranger = {"metadata": {"uid": "x", "name": "x"}}
    assert advance({}, "ADDED", stranger, 0) == {}


@pytest.mark.parametrize(("gone", "expected"), [((5.0, 9.0), 3.0), ((5.0, None), 1.0), ((None, None), None)])
def test_the_wait_is_the_median_of_pods_that_are_gone(gone, expected):
    done = PodTimeline("u", "p", "t", "1", 0.0, base_done=4.0)
    assert median_removal_time([replace(done, gone=end) for end in gone]) == expected

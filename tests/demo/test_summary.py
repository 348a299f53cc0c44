from crosswind.demo.screen import PlainLines
from crosswind.demo.summary import find_stall, summarise
from crosswind.demo.timelines import PodTimeline

GONE = PodTimeline("u1", "p1", "load", "1", 0.0, 1.0, 2.0, 0, 2.5, True)
HELD = PodTimeline("u2", "p2", "check", "1", 0.0, 1.0, 2.0, 0, None, False, ("istio-proxy",))
BUSY = PodTimeline("u3", "p3", "check", "1", 0.0, 1.0)
WAITS = {"task_id": "report", "state": "scheduled"}
DONE = {
    "task_id": "load",
    "state": "success",
    "queued_when": "2026-01-01T00:00:00.500Z",
    "start_date": "2026-01-01T00:00:03Z",
}


def test_a_run_is_summed_up_with_its_leaks():
    summary = summarise("running", [DONE, WAITS], [GONE, HELD], 12.0)
    assert (summary.tasks, summary.succeeded, summary.pods, summary.leaked) == (2, 1, 2, ("p2",))
    assert (summary.queued_to_running, summary.base_done_to_gone) == (2.5, 0.5)


def test_tasks_in_pods_that_had_waited_are_summed_up_apart():
    claimed = PodTimeline("u4", "p4", "check [3]", "1", 0.0, 1.0, 2.0, 0, 2.5, True, claimed=True)
    fast = DONE | {"task_id": "check", "map_index": 3, "start_date": "2026-01-01T00:00:00.900Z"}
    summary = summarise("success", [DONE | {"map_index": -1}, fast], [GONE, claimed], 12.0)
    assert (summary.queued_to_running, summary.warm_queued_to_running) == (2.5, 0.4)


def test_a_run_stands_still_when_only_sidecars_live_and_tasks_wait():
    stall = find_stall([DONE, WAITS], [GONE, HELD], 30.0)
    assert stall is not None
    assert (stall.held, stall.sidecars, stall.unfinished) == (("p2",), ("istio-proxy",), 1)


def test_a_run_with_a_working_pod_does_not_stand_still():
    assert find_stall([WAITS], [HELD, BUSY], 30.0) is None


def test_a_finished_run_does_not_stand_still():
    assert find_stall([DONE], [HELD], 30.0) is None


def test_plain_lines_report_each_change_once():
    lines = PlainLines()
    assert len(lines.news([HELD], 3.0)) == 1
    assert lines.news([HELD], 4.0) == []

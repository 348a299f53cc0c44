"""The answers of a real API server: Airflow's permissions, and what is refused."""

from __future__ import annotations

import pytest
from tests.pages.rig import RUN, PagesServer, of_task

pytestmark = pytest.mark.timeout(300)

HIDDEN = {"dag_id": "secret_plans", "run_id": RUN, "task_id": "hidden"}
OF_A_TASK = ("api/pod", "api/pod/manifest", "pod")
OF_THE_FLEET = ("api/fleet", "api/fleet/summary", "fleet")


@pytest.fixture(scope="module")
def admin(server: PagesServer) -> str:
    return server.token("admin")


@pytest.fixture(scope="module")
def reader(server: PagesServer) -> str:
    """Who may read the DAG ``orders`` alone."""
    return server.token("reader")


@pytest.mark.parametrize("path", [*OF_A_TASK, *OF_THE_FLEET])
def test_who_has_not_signed_in_sees_nothing(server: PagesServer, path: str) -> None:
    assert server.get(path, **of_task("extract"))[0] == 401
    assert server.get(path, "nobody", **of_task("extract"))[0] == 403


@pytest.mark.parametrize("path", OF_A_TASK)
def test_a_reader_of_one_dag_gets_its_pods_and_no_other(server: PagesServer, reader: str, path: str) -> None:
    assert server.get(path, reader, **of_task("extract"))[0] == 200
    assert server.get(path, reader, **HIDDEN)[0] == 403


def test_a_reader_of_one_dag_sees_its_part_of_the_fleet(server: PagesServer, admin: str, reader: str) -> None:
    everything, part = (server.json("api/fleet", token) for token in (admin, reader))
    assert (everything["total"], part["total"]) == (5000, 3)
    assert {pod["dag_id"] for pod in part["pods"]["rows"]} == {"orders"}
    assert [row["value"] for row in part["by"]["dag_id"]] == ["orders"]
    assert [wait["reason"] for wait in part["waits"]] == ["Unschedulable"]
    assert {fit["dag_id"] for fit in part["fits"]} == {"orders"}
    assert sum(failure["pods"] for failure in part["failures"]) < sum(one["pods"] for one in everything["failures"])


@pytest.mark.parametrize("path", OF_THE_FLEET)
def test_no_page_of_the_fleet_names_a_dag_that_its_reader_may_not_read(
    server: PagesServer, reader: str, path: str
) -> None:
    assert "etl_" not in server.get(path, reader)[1]
    assert "etl_" not in server.get(path, reader, search="etl_")[1].replace("value='etl_'", "")
    assert server.get(path, reader, dag_id="etl_00")[0] == 403


def test_what_is_not_there_is_not_found(server: PagesServer, admin: str) -> None:
    assert server.get("api/pod", admin, **of_task("nothing"))[0] == 404
    assert server.get("api/pod", admin, **of_task("partition"))[0] == 404
    assert server.get("static/../ui.py", admin)[0] == 404


def test_the_pages_own_files_need_no_rights_and_may_be_kept(server: PagesServer) -> None:
    status, script = server.get("static/crosswind.js")
    assert (status, "globalThis" in script) == (200, True)
    assert server.get("static/crosswind.css")[0] == 200


def test_texts_of_a_pod_show_no_secret(server: PagesServer, admin: str) -> None:
    for path in OF_A_TASK:
        assert "hunter2" not in server.get(path, admin, **of_task("extract"))[1]


def test_an_offset_or_a_sort_that_nobody_means_is_harmless(server: PagesServer, admin: str) -> None:
    page = server.json("api/fleet", admin, offset="x", sort="no such column")
    assert page["pods"]["total"] == 5000
    assert server.json("api/fleet", admin, offset="6000")["pods"]["rows"] == []
    assert server.get("api/fleet", admin, limit="5000")[0] == 422

"""The pods that somebody looks at, on real databases."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, update
from sqlalchemy.orm import Session
from tests.databases import DATABASES_AND_MARIADB, use_as_airflows

from crosswind.provider.pod_views import VIEWS, DatabasePodViews, look_at, read_details
from crosswind.provider.tables import make_tables


@pytest.fixture(scope="module", params=DATABASES_AND_MARIADB)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with request.param(tmp_path_factory.mktemp("database")) as engine:
        yield engine
        engine.dispose()


@pytest.fixture(autouse=True)
def session(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    maker = use_as_airflows(engine, monkeypatch)
    make_tables()
    with maker() as session:
        yield session
        session.rollback()
        session.execute(VIEWS.delete())
        session.commit()


def test_an_executor_hears_of_its_own_pods_that_somebody_looks_at() -> None:
    look_at({"a": "7", "b": "8"})
    assert (DatabasePodViews("7").viewed(), DatabasePodViews("8").viewed()) == (["a"], ["b"])
    assert DatabasePodViews("9").viewed() == []


def test_the_answer_is_kept_while_the_page_asks_again() -> None:
    look_at({"a": "7"})
    assert read_details(["a"]) == {"a": {}}
    DatabasePodViews("7").answer({"a": {"node": "worker-1"}})
    look_at({"a": "7"})
    assert read_details(["a", "b"]) == {"a": {"node": "worker-1"}}


def test_a_page_that_is_closed_asks_for_nothing_and_is_forgotten(session: Session) -> None:
    look_at({"old": "7", "older": "7"})
    session.execute(update(VIEWS).values(viewed_at=time.time() - 30))
    session.execute(update(VIEWS).where(VIEWS.c.unique_id == "older").values(viewed_at=time.time() - 3600))
    session.commit()
    assert DatabasePodViews("7").viewed() == []
    assert read_details(["old", "older"]) == {"old": {}}


def test_an_adopted_pod_is_asked_of_its_new_executor() -> None:
    look_at({"a": "7"})
    look_at({"a": "8"})
    assert (DatabasePodViews("7").viewed(), DatabasePodViews("8").viewed()) == ([], ["a"])


def test_a_description_that_no_column_takes_is_left_out() -> None:
    look_at({"a": "7"})
    DatabasePodViews("7").answer({"a": {"node": "x" * 100_000}})
    assert read_details(["a"]) == {"a": {}}


def test_a_page_is_shown_although_no_scheduler_has_made_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = create_engine("sqlite://")
    use_as_airflows(empty, monkeypatch)
    look_at({"a": "7"})
    assert read_details(["a"]) == {}
    empty.dispose()

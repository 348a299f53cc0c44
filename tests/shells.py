"""The shells that images have, as parameters of tests that run a shell script."""

from __future__ import annotations

import shutil

import pytest

__all__ = ["SHELLS", "needs"]


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where the machine lacks a program."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program} here")


SHELLS = [pytest.param(shell, marks=needs(shell.split()[0]), id=shell) for shell in ("dash", "busybox sh", "bash")]

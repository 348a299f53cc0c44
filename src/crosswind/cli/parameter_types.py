"""Types of arguments and options that are stricter than click's."""

from __future__ import annotations

import math
import os
from typing import Any

import click

__all__ = ["FiniteRange", "NamedPath"]


class FiniteRange(click.FloatRange):
    """A number. click accepts ``nan`` in every range, because it is neither below nor above a limit."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; raises ``BadParameter`` for ``nan`` and ``inf``, with which a wait has no end."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number that can be reached.", param, ctx)
        return number


class NamedPath(click.Path):
    """A path. click accepts "", which a shell passes for an unset variable and which means the current folder."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Return the path; raises ``BadParameter`` for an empty one."""
        if not os.fspath(value):
            self.fail("The path is empty; name a file or folder, '.' for the current one.", param, ctx)
        return super().convert(value, param, ctx)

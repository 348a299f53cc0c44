"""One line for an outage, however often something is tried while it lasts."""

from __future__ import annotations

import logging

__all__ = ["OutageLog"]


class OutageLog:
    """Logs the first failure of an outage as a warning, all others for debugging. ``log``: the caller's logger."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._lasts = False

    def failed(self, message: str, error: Exception) -> None:
        """Log a failure. ``message`` has one place, for the error."""
        self._log.log(logging.DEBUG if self._lasts else logging.WARNING, message, error)
        self._lasts = True

    def worked(self) -> None:
        """Note that the outage is over."""
        self._lasts = False

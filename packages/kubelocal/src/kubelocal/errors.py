"""The errors that kubelocal raises on purpose; refusals of its API are ``codec.status_errors.StatusError``.

::

    KubelocalError        something failed on this machine: a cluster did not start or did not end
    └── SettingError      correct a setting, a file or a path; nothing was done
"""

from __future__ import annotations

__all__ = ["KubelocalError", "SettingError"]


class KubelocalError(Exception):
    """The base of all."""


class SettingError(KubelocalError):
    """A setting, a file or a path cannot be used. The message names it, its value and the fix."""

"""Which names in a pod mark secrets for a task: those of the SDK's masker, and those of ``pods.masking``."""

from __future__ import annotations

from airflow.sdk._shared.secrets_masker import should_hide_value_for_key

from crosswind.pods.masking import is_sensitive

__all__ = ["is_secret_name"]


def is_secret_name(name: str) -> bool:
    """Whether a value under this name is a secret, which must not appear in the task's log."""
    return is_sensitive(name) or bool(should_hide_value_for_key(name))  # type: ignore[no-untyped-call]  # Airflow's gap

"""Names of tables that Airflow refuses as assets, as every table that a task makes is one. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["asset_problem"]

_MAX_NAME = 1500
"""Characters of an asset's name in Airflow."""
_RESERVED = {"self", "context"}


def asset_problem(name: str) -> str:
    """Return why Airflow refuses an asset of that name, or "".

    One refused name stops a whole DAG: that of the task, or one that follows the asset. These are the rules of
    ``airflow.sdk.Asset`` without those that depend on the installed providers and on the database.
    """
    if not name.strip():
        return "its name is blank"
    if name in _RESERVED:
        return "Airflow reserves that name"
    if len(name) > _MAX_NAME:
        return f"its name has more than {_MAX_NAME} characters"
    try:
        scheme = urlsplit(name).scheme
    except ValueError as error:
        return f"its name is not a valid URL ({error})"
    return "Airflow reserves the scheme airflow" if scheme.lower() == "airflow" else ""

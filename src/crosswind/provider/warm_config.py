"""Reads ``[crosswind] warm`` and the secret from which the keys of waiting pods are derived.

A wrong value costs no task: it is reported at start, and all tasks start cold.
"""

from __future__ import annotations

import json

from crosswind.engine.warm_options import parse_warm
from crosswind.provider.config_reader import ConfigReader
from crosswind.settings import WarmSettings

__all__ = ["read_shared_secret", "read_warm"]

_POD_NAME_CALLABLES = ("airflow.utils.net.getfqdn", "socket.getfqdn", "socket.gethostname")
"""Values of ``[core] hostname_callable`` that give a pod its name."""

_SHARED_SECRETS = (("api_auth", "jwt_secret"), ("core", "fernet_key"))
"""Options that all schedulers have in common, and no worker needs."""

_PRIVATE_KEY = "jwt_private_key_path"
"""In [api_auth]. With it Airflow signs by this key, and ``jwt_secret`` has a random default in each process."""


def read_shared_secret(reader: ConfigReader) -> bytes:
    """Return a secret that all schedulers share, b"" if there is none."""
    signs_by_key = bool(reader.text(_PRIVATE_KEY, section="api_auth"))
    options = (reader.text(option, section=section) for section, option in _SHARED_SECRETS[signs_by_key:])
    return next(filter(None, options), "").encode()


def read_warm(reader: ConfigReader) -> tuple[WarmSettings | None, list[str]]:
    """Return how many pods wait for tasks, None for no pod, and the problems, each with the fix."""
    text = reader.text("warm", section="crosswind")
    if not text:
        return None, []
    try:
        settings = json.loads(text)
    except ValueError as error:
        return None, [f'[crosswind] warm must be JSON, such as {{"min": 2, "max": 10}}: {error}; it is {text!r}']
    everywhere, queues, problems = parse_warm(settings)
    problems = [f"[crosswind] warm: {problem}" for problem in problems]
    secret = read_shared_secret(reader)
    if everywhere is None:
        return None, problems
    if not secret:
        problems.append(
            "[crosswind] warm needs a secret that all schedulers share: set [api_auth] jwt_secret or [core] fernet_key"
        )
    hostname = reader.text("hostname_callable", _POD_NAME_CALLABLES[0], "core")
    if hostname not in _POD_NAME_CALLABLES:
        problems.append(
            f"[core] hostname_callable is {hostname}: Airflow distinguishes two workers by their host name, which must"
            f" be the pod's name; use {_POD_NAME_CALLABLES[0]}, or leave [crosswind] warm empty"
        )
    if problems:
        return None, problems
    default_queue = reader.text("default_queue", "default", "operators") or "default"
    return WarmSettings(everywhere, secret, queues, default_queue), []

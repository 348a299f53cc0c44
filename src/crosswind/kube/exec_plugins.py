"""Runs exec plug-ins, the programs that a kubeconfig names for signing in: ``aws``, ``kubelogin`` and others.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
kubernetes_asyncio runs them too, but without a time limit, and once for each read of the token.

A plug-in runs in a session of its own. When the call is cancelled or its time is over, the whole session is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import os
import signal
from dataclasses import dataclass, field
from typing import Any

import orjson

from crosswind.errors import CredentialsError, KubeconfigError
from crosswind.kube.kubeconfig_fields import ClusterEntry, ExecConfig

__all__ = ["ExecCredential", "sign_in"]

_TRANSIENT_ERRNOS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY)
"""Failures to start a program that pass."""

_CLUSTER_FIELDS = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")


@dataclass(frozen=True, slots=True)
class ExecCredential:
    """The credential of a plug-in: a token, or a client certificate with its key (PEM), and its expiry."""

    token: str = field(default="", repr=False)
    certificate: str = ""
    key: str = field(default="", repr=False)
    expires: datetime.datetime | None = None


async def sign_in(plugin: ExecConfig, cluster: ClusterEntry, *, timeout: float) -> ExecCredential:
    """Run a plug-in for at most ``timeout`` seconds and return its credential.

    Raises ``KubeconfigError`` when it cannot be started as configured, ``CredentialsError`` when it returned nothing,
    which may pass; the message repeats the plug-in's last output.
    """
    name = plugin.get("command")
    if not name or not plugin.get("apiVersion"):
        raise KubeconfigError("exec needs the fields command and apiVersion")
    try:
        # Cancellation and time-out both reach _run, whose finally kills the plug-in with its children.
        async with asyncio.timeout(timeout):
            code, out, err = await _run(plugin, _environment(plugin, cluster))
    except TimeoutError:
        raise CredentialsError(f'the exec plug-in "{name}" did not answer within {timeout:g} s') from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in a word, or "=" in a variable's name
        hint = f"; {plugin['installHint']}" if plugin.get("installHint") else ""
        kind = CredentialsError if getattr(error, "errno", None) in _TRANSIENT_ERRNOS else KubeconfigError
        raise kind(
            f'the exec plug-in "{name}" cannot be started: {getattr(error, "strerror", None) or error}{hint}'
        ) from error
    if code:
        lines = [line.strip() for line in err.decode(errors="replace").splitlines() if line.strip()]
        # stderr only: stdout is where a plug-in writes the token.
        output = " ".join(lines[-3:])[-500:] or "it printed nothing"
        raise CredentialsError(f'the exec plug-in "{name}" ended with exit code {code}: {output}')
    return _read(out, str(name))


async def _run(plugin: ExecConfig, environment: dict[str, str]) -> tuple[int, bytes, bytes]:
    words = [str(plugin["command"]), *map(str, plugin.get("args") or [])]
    process = await asyncio.create_subprocess_exec(
        *words,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,  # a plug-in that asks a question must fail, not wait
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # so that its children can be killed with it
    )
    try:
        out, err = await process.communicate()
    finally:
        # Only after a cancellation: communicate() returns when the plug-in has ended.
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # Reaps it and closes the pipes. SIGKILL cannot be ignored, so this wait is short.
            await process.communicate()
    return process.returncode or 0, out, err


def _environment(plugin: ExecConfig, cluster: ClusterEntry) -> dict[str, str]:
    spec: dict[str, Any] = {"interactive": False}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = {key: value for key, value in cluster.items() if key in _CLUSTER_FIELDS}
    info = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": spec}
    own = {str(item["name"]): str(item["value"]) for item in plugin.get("env") or []}
    return {**os.environ, **own, "KUBERNETES_EXEC_INFO": orjson.dumps(info).decode()}


def _moment(text: str) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(text)
    # Plug-ins should write RFC 3339; those that leave out the zone mean UTC, as client-go reads it.
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _read(out: bytes, name: str) -> ExecCredential:
    try:
        status = orjson.loads(out)["status"]
        expires = status.get("expirationTimestamp")
        signed = ExecCredential(
            token=str(status.get("token") or ""),
            certificate=str(status.get("clientCertificateData") or ""),
            key=str(status.get("clientKeyData") or ""),
            expires=_moment(expires) if expires else None,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        signed = ExecCredential()
    if not signed.token and not (signed.certificate and signed.key):
        raise CredentialsError(f'the exec plug-in "{name}" returned neither a token nor a certificate with its key')
    return signed

"""Exec plug-ins: programs that a kubeconfig names to sign in (``aws``, ``gke-gcloud-auth-plugin``, ``kubelogin``).

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
kubernetes_asyncio runs them as well, but not within a time limit, and again for each look at the token.
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

__all__ = ["Signed", "sign_in"]

_PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY)
"""Reasons why a program cannot be started that pass."""

_SHARED = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")


@dataclass(frozen=True, slots=True)
class Signed:
    """What a plug-in gave: a token or a client certificate with its key (PEM), and until when it holds."""

    token: str = field(default="", repr=False)
    certificate: str = ""
    key: str = field(default="", repr=False)
    expires: datetime.datetime | None = None


async def sign_in(plugin: dict[str, Any], cluster: dict[str, Any], *, timeout: float) -> Signed:
    """Run a plug-in, at most ``timeout`` seconds.

    ``KubeconfigError``: it cannot be started as it is configured. ``CredentialsError``: it ran and gave nothing, which
    it may do the next time; the message repeats its complaint.
    """
    name = plugin.get("command")
    if not name or not plugin.get("apiVersion"):
        raise KubeconfigError("exec needs the fields command and apiVersion")
    try:
        async with asyncio.timeout(timeout):
            code, out, err = await _run(plugin, _environment(plugin, cluster))
    except TimeoutError:
        raise CredentialsError(f'the exec plug-in "{name}" did not answer within {timeout:g} s') from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte among the words, "=" in a variable's name
        hint = f"; {plugin['installHint']}" if plugin.get("installHint") else ""
        kind = CredentialsError if getattr(error, "errno", None) in _PASSING else KubeconfigError
        raise kind(
            f'the exec plug-in "{name}" cannot be started: {getattr(error, "strerror", None) or error}{hint}'
        ) from error
    if code:
        lines = [line.strip() for line in err.decode(errors="replace").splitlines() if line.strip()]
        complaint = " ".join(lines[-3:])[-500:] or "it said nothing"
        raise CredentialsError(f'the exec plug-in "{name}" ended with exit code {code}: {complaint}')
    return _read(out, str(name))


async def _run(plugin: dict[str, Any], environment: dict[str, str]) -> tuple[int, bytes, bytes]:
    words = [str(plugin["command"]), *map(str, plugin.get("args") or [])]
    process = await asyncio.create_subprocess_exec(
        *words,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,  # nobody sits there to answer its questions
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # so that its children can be ended with it
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()
    return process.returncode or 0, out, err


def _environment(plugin: dict[str, Any], cluster: dict[str, Any]) -> dict[str, str]:
    spec: dict[str, Any] = {"interactive": False}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = {key: cluster[key] for key in _SHARED if key in cluster}
    info = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": spec}
    own = {str(item["name"]): str(item["value"]) for item in plugin.get("env") or []}
    return {**os.environ, **own, "KUBERNETES_EXEC_INFO": orjson.dumps(info).decode()}


def _moment(text: str) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _read(out: bytes, name: str) -> Signed:
    try:
        status = orjson.loads(out)["status"]
        expires = status.get("expirationTimestamp")
        signed = Signed(
            token=str(status.get("token") or ""),
            certificate=str(status.get("clientCertificateData") or ""),
            key=str(status.get("clientKeyData") or ""),
            expires=_moment(expires) if expires else None,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        signed = Signed()
    if not signed.token and not (signed.certificate and signed.key):
        raise CredentialsError(f'the exec plug-in "{name}" gave neither a token nor a certificate with its key')
    return signed

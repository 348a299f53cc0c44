"""TLS towards an API server: whom we trust, and the client certificate that we show."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

from crosswind.errors import KubeconfigError
from crosswind.kube.logins import Login
from crosswind.regular_files import check_regular

__all__ = ["add_certificate", "context_of"]


def context_of(login: Login) -> ssl.SSLContext | None:
    """Return a new context for a login, None for one without TLS; ``KubeconfigError`` for what cannot be used."""
    if not login.url.startswith("https:"):
        return None
    try:
        # ssl takes ASCII alone; what is not, stands in comments between the certificates
        context = ssl.create_default_context(cadata=login.ca.decode("ascii", "ignore") if login.ca else None)
    except (ssl.SSLError, ValueError) as error:
        raise KubeconfigError(f"{login.source}: the CA in {login.ca_source} cannot be used: {error}") from error
    # Python 3.13 began to demand extensions that the CA certificates of many clusters do not have; kubectl does not
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not login.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    add_certificate(context, login)
    return context


def add_certificate(context: ssl.SSLContext, login: Login) -> None:
    """Show a login's client certificate, if it has one, on new connections.

    ``ssl`` reads files alone. What a kubeconfig holds itself goes through a folder that nobody else can look into and
    that is gone when this returns; the key's file is the owner's alone as well.
    """
    if not login.has_certificate:
        return
    try:
        with tempfile.TemporaryDirectory(prefix="crosswind-") as folder:
            certificate = _path(folder, "certificate", login.cert_data) or login.cert_file
            key = _path(folder, "key", login.key_data) or login.key_file
            for path in filter(None, (certificate, key)):
                check_regular(path)
            assert certificate
            context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise KubeconfigError(f"{login.source}: the client certificate or its key cannot be used: {error}") from error


def _no_password() -> str:
    """Refuse a key with a password: by itself, OpenSSL would ask for it at the terminal, and wait."""
    raise ValueError("the key has a password; write it without one, readable for its owner alone")


def _path(folder: str, name: str, content: bytes | None) -> str | None:
    if content is None:
        return None
    path = Path(folder, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    return str(path)

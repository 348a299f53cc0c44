"""TLS towards an API server: the CA that we trust, and our client certificate."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

from crosswind.documents import check_regular
from crosswind.errors import KubeconfigError
from crosswind.kube.login_sources import Login

__all__ = ["add_certificate", "context_of"]


def context_of(login: Login) -> ssl.SSLContext | None:
    """Return a new context for a login, None for one without TLS; raise ``KubeconfigError`` for an unusable CA."""
    if not login.url.startswith("https:"):
        return None
    try:
        # ssl accepts ASCII alone; other characters occur only in comments between the certificates
        context = ssl.create_default_context(cadata=login.ca.decode("ascii", "ignore") if login.ca else None)
    except (ssl.SSLError, ValueError) as error:
        raise KubeconfigError(f"{login.source}: the CA in {login.ca_source} cannot be used: {error}") from error
    # Since Python 3.13 the default demands extensions that the CA certificates of many clusters lack; kubectl does not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not login.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    add_certificate(context, login)
    return context


def add_certificate(context: ssl.SSLContext, login: Login) -> None:
    """Present a login's client certificate, if it has one, on new connections.

    ``ssl`` reads files alone. Data from the kubeconfig is written to a folder that only this user can read, in files
    that only this user can read, and the folder is deleted before this returns.
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
    """Refuse a key with a password: OpenSSL would ask for it at the terminal, and wait."""
    raise ValueError("the key has a password; write it without one, readable for its owner alone")


def _path(folder: str, name: str, content: bytes | None) -> str | None:
    if content is None:
        return None
    path = Path(folder, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    return str(path)

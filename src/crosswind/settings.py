"""Settings as data: frozen, read once at the door (a command line, a file, Airflow's configuration), passed down.

Each field's docstring gives its unit, its default and why that default.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KubeSettings"]


@dataclass(frozen=True, slots=True)
class KubeSettings:
    """How to reach a cluster and how patient to be with it."""

    in_cluster: bool = False
    """Use the pod's service account; else a kubeconfig."""

    kubeconfig: str | None = None
    """Path of a kubeconfig; None reads KUBECONFIG, then ~/.kube/config, as kubectl does."""

    context: str | None = None
    """Name of a context; None is the kubeconfig's current one."""

    request_timeout: float = 30.0
    """Seconds for one whole request, watches and followed logs excepted; the API server gives up after 60."""

    connect_timeout: float = 10.0
    """Seconds to get a connection."""

    verify_ssl: bool = True
    """Check the server's certificate."""

    ssl_ca_cert: str | None = None
    """Path of a CA bundle that replaces the one of the kubeconfig."""

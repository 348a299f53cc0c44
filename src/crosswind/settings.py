"""Settings as data: frozen, read once at the door (a command line, a file, Airflow's configuration), passed down.

Each field's docstring gives its unit, its default and why that default.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["KubeSettings", "LocalSettings"]


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


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """The one-machine cluster: where it serves, what it remembers, what its nodes have."""

    host: str = "127.0.0.1"
    """Address that the API is served on; loopback, because the token is the only guard."""

    port: int = 0
    """TCP port of the API; 0 lets the system choose a free one."""

    kubeconfig: Path | None = None
    """Where to write the kubeconfig (mode 0600); None writes it to a folder that goes with the cluster."""

    state_file: Path | None = None
    """Keep the objects in this file across runs; None keeps them in memory, as tests and demos want."""

    history_length: int = 20_000
    """Changes kept for watches that resume; older versions are answered 410 Expired. 20,000 is minutes of a busy cluster."""

    simulate: int = 0
    """Number of nodes that only play the lives of their pods; 0 runs pods as processes on this machine's node."""

    node_name: str = "crosswind-local"
    """Name of the node that runs pods; simulated ones add ``-0``, ``-1`` and so on."""

    node_cpu: str | None = None
    """Allocatable CPU of each node as a quantity such as ``8`` or ``500m``; None is what this machine has."""

    node_memory: str | None = None
    """Allocatable memory of each node as a quantity such as ``16Gi``; None is what this machine has."""

    node_pods: int = 110
    """Pods that one node may run; the kubelet's own default."""

    job_backoff: float = 10.0
    """Seconds before a Job's first new try, doubled with each failure up to 600; 10 is what Kubernetes waits."""

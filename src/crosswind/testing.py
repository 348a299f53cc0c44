"""Pytest fixtures with a Kubernetes cluster, for your own tests: those of ``kubelocal.testing``.

kubelocal registers them with pytest, so that they are available without an import.
"""

from __future__ import annotations

from kubelocal.testing import Cluster, cluster, namespace, serve_in_thread

__all__ = ["Cluster", "cluster", "namespace", "serve_in_thread"]

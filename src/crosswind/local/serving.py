"""An alias for one release: ``LocalCluster`` is ``kubelocal.cluster.LocalCluster``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if not TYPE_CHECKING:  # hidden from type checkers, for which every name would exist

    def __getattr__(name: str) -> Any:
        if name != "LocalCluster":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        message = "crosswind.local.serving.LocalCluster is now kubelocal.cluster.LocalCluster"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        from kubelocal.cluster import LocalCluster

        return LocalCluster

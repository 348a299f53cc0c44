"""Sidecar injection as the real webhooks do it, and the programs that run in the sidecars."""

from __future__ import annotations

from crosswind.local.injection import vault
from crosswind.local.injection.additions import Injector
from crosswind.local.injection.declared import load
from crosswind.local.injection.istio import Istio
from crosswind.local.injection.linkerd import Linkerd
from crosswind.settings import LocalSettings

__all__ = ["Injector", "injectors"]


def injectors(settings: LocalSettings) -> list[Injector]:
    """Return the injectors in the order in which they act. ``ConfigError``: the file of sidecars is wrong."""
    declared = load(settings.sidecars) if settings.sidecars else []
    istio = Istio(native=settings.native_sidecars, cut=settings.istio_long_names == "cut")
    return [vault.inject, *declared, Linkerd(settings.native_sidecars), istio]

"""Sidecar injection as the real webhooks do it, and the programs that run in the sidecars."""

from __future__ import annotations

from collections.abc import Sequence

from kubelocal.injection import vault
from kubelocal.injection.gcsfuse import GcsFuse
from kubelocal.injection.injector import Injector
from kubelocal.injection.istio import Istio
from kubelocal.injection.kuma import Kuma
from kubelocal.injection.linkerd import Linkerd
from kubelocal.injection.start_delays import delayed
from kubelocal.injection.user_sidecars import load
from kubelocal.settings import LocalSettings
from kubelocal.types import Manifest

__all__ = ["Injector", "injectors", "switch_on"]


def injectors(settings: LocalSettings) -> list[Injector]:
    """Return the injectors in the order in which they run. Raises ``SettingError`` for an invalid file of sidecars."""
    declared = load(settings.sidecars) if settings.sidecars else []
    istio = Istio(native=settings.native_sidecars, cut=settings.istio_long_names == "cut")
    native = settings.native_sidecars
    every: list[Injector] = [vault.inject, *declared, GcsFuse(native), Kuma(native), Linkerd(native), istio]
    return [delayed(injector, settings.start_delay, settings.ready_delay) for injector in every]


def switch_on(namespace: Manifest, meshes: Sequence[str]) -> None:
    """Have the pods of a namespace injected with the sidecars of these meshes, istio or linkerd."""
    metadata = namespace["metadata"]
    if "istio" in meshes:
        metadata["labels"] = {**metadata.get("labels", {}), "istio-injection": "enabled"}
    if "linkerd" in meshes:
        metadata["annotations"] = {**metadata.get("annotations", {}), "linkerd.io/inject": "enabled"}

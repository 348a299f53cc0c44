"""Sidecars that begin late or are not ready for a while."""

from __future__ import annotations

from typing import Any

import pytest

from kubelocal.injection import injectors
from kubelocal.injection.start_delays import READY_DELAY, START_DELAY, delay_of
from kubelocal.settings import LocalSettings

NAMESPACE = {"metadata": {"name": "meshed", "labels": {"istio-injection": "enabled"}}}


def injected(settings: LocalSettings, namespace: dict[str, Any] = NAMESPACE, **annotations: str) -> dict[str, str]:
    """Return the delays that the injectors leave in a pod's annotations."""
    metadata = {"name": "p", "namespace": "meshed", "annotations": annotations}
    pod: dict[str, Any] = {"metadata": metadata, "spec": {"containers": [{"name": "base", "image": "busybox"}]}}
    for injector in injectors(settings):
        pod = injector(pod, namespace)
    prefixes = (START_DELAY, READY_DELAY)
    return {name: value for name, value in pod["metadata"]["annotations"].items() if name.startswith(prefixes)}


@pytest.mark.parametrize("native", [True, False])
def test_an_injected_proxy_gets_the_delays_of_the_settings_and_its_init_container_does_not(native: bool) -> None:
    made = injected(LocalSettings(start_delay=3, ready_delay=0.5, native_sidecars=native))
    assert made == {f"{START_DELAY}istio-proxy": "3", f"{READY_DELAY}istio-proxy": "0.5"}


def test_without_settings_nothing_is_delayed() -> None:
    assert injected(LocalSettings()) == {}


def test_a_pod_into_which_nothing_is_injected_stays_as_it_is() -> None:
    assert injected(LocalSettings(start_delay=3), {"metadata": {"name": "plain"}}) == {}


def test_what_the_pod_says_wins_over_the_settings() -> None:
    own = {f"{START_DELAY}istio-proxy": "7"}
    assert injected(LocalSettings(start_delay=3), **own) == own


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf", ""])
def test_a_delay_that_is_no_number_of_seconds_is_refused_by_name_and_value(value: str) -> None:
    pod = {"metadata": {"annotations": {f"{START_DELAY}side": value}}}
    with pytest.raises(ValueError, match=f"{START_DELAY}side: '{value}' is not a number of seconds"):
        delay_of(pod, START_DELAY, "side")

"""Names that moved to kubelocal stay for one release, with a warning."""

from __future__ import annotations

import importlib

import pytest

import kubelocal.cluster
import kubelocal.settings
import kubelocal.testing

MOVED = {
    ("crosswind.local.serving", "LocalCluster"): kubelocal.cluster.LocalCluster,
    ("crosswind.settings", "LocalSettings"): kubelocal.settings.LocalSettings,
    ("crosswind.settings", "LocalImage"): kubelocal.settings.LocalImage,
}


@pytest.mark.parametrize(("module", "name"), MOVED)
def test_a_moved_name_is_the_same_class_and_warns(module: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"{module}\.{name} is now kubelocal\.\w+\.{name}"):
        moved = getattr(importlib.import_module(module), name)
    assert moved is MOVED[module, name]


@pytest.mark.parametrize("module", ["crosswind.local.serving", "crosswind.settings"])
def test_other_names_are_unknown(module: str) -> None:
    with pytest.raises(AttributeError, match="nosuch"):
        getattr(importlib.import_module(module), "nosuch")  # noqa: B009


def test_the_fixtures_are_those_of_kubelocal() -> None:
    testing = importlib.import_module("crosswind.testing")
    assert {name: getattr(testing, name) for name in testing.__all__} == {
        name: getattr(kubelocal.testing, name) for name in kubelocal.testing.__all__
    }

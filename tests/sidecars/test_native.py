from __future__ import annotations

from crosswind.pods.states import is_native
from crosswind.sidecars.catalog import KNOWN
from crosswind.sidecars.native import make_native, native_requests


def test_the_restart_policy_makes_a_native_sidecar_not_the_name() -> None:
    assert is_native({"name": "istio-proxy", "restartPolicy": "Always"})
    assert not is_native({"name": "istio-proxy"}), "a webhook took the policy away: it is an init container now"


def test_only_products_that_can_are_asked_for_native_sidecars() -> None:
    asked = native_requests({}, tuple(known.name for known in KNOWN))
    assert set(asked.values()) == {"true"}
    assert not any("vault" in name for name in asked)


def test_any_of_a_products_annotations_is_the_authors_choice() -> None:
    given = {"config.alpha.linkerd.io/proxy-enable-native-sidecar": "false"}
    assert native_requests(given, ("linkerd",)) == {}
    assert list(native_requests(given, ("istio", "linkerd"))) == ["sidecar.istio.io/nativeSidecar"]


def test_base_never_turns_native() -> None:
    spec = {"containers": [{"name": "base", "image": "a"}]}
    assert make_native(spec, frozenset({"base"}), "base") is spec

from __future__ import annotations

import pytest

from crosswind.pods.sidecars import KNOWN, is_native, known_sidecar, make_native, native_requests


@pytest.mark.parametrize(
    ("name", "image", "known"),
    [
        ("istio-proxy", "docker.io/istio/proxyv2:1.27.0-distroless", "istio"),
        ("istio-proxy", "registry.example:5000/mirror/proxyv2@sha256:0", "istio"),
        ("istio-proxy", "my/own:1", None),
        ("proxy", "docker.io/istio/proxyv2:1.27.0", None),
        ("linkerd-proxy", "cr.l5d.io/linkerd/proxy:stable-2.14.0", "linkerd"),
        ("vault-agent", "hashicorp/vault:1.20", "vault"),
        ("db", "gcr.io/cloud-sql-connectors/cloud-sql-proxy:2.25.3-alpine", "cloud-sql"),
        ("base", "apache/airflow:3.3.2", None),
    ],
)
def test_a_product_is_known_by_name_and_image(name: str, image: str, known: str | None) -> None:
    found = known_sidecar({"name": name, "image": image})
    assert (found.name if found else None) == known


def test_a_native_sidecar_is_told_by_its_restart_policy_not_its_name() -> None:
    assert is_native({"name": "istio-proxy", "restartPolicy": "Always"})
    assert not is_native({"name": "istio-proxy"}), "a webhook took the policy away: it is an init container now"


def test_only_products_that_can_are_asked_for_native_sidecars() -> None:
    asked = native_requests({}, tuple(known.name for known in KNOWN))
    assert set(asked.values()) == {"true"}
    assert not any("vault" in name for name in asked)


def test_any_of_a_products_annotations_is_the_authors_word() -> None:
    given = {"config.alpha.linkerd.io/proxy-enable-native-sidecar": "false"}
    assert native_requests(given, ("linkerd",)) == {}
    assert list(native_requests(given, ("istio", "linkerd"))) == ["sidecar.istio.io/nativeSidecar"]


def test_base_never_turns_native() -> None:
    spec = {"containers": [{"name": "base", "image": "a"}]}
    assert make_native(spec, frozenset({"base"}), "base") is spec

"""LimitRanges: what they give, what they refuse, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from kubelocal.admission import limit_ranger, plugins
from kubelocal.codec.status_errors import StatusError
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.settings import LocalSettings
from kubelocal.storage.store import Store


@pytest.fixture
def registry() -> ClusterRegistry:
    registry = ClusterRegistry(Store(), [limit_ranger.set_resources], [limit_ranger.admit])
    registry.create("Namespace", "", {"metadata": {"name": "ns"}})
    return registry


def limit(registry: ClusterRegistry, *items: dict[str, Any], name: str = "l") -> list[dict[str, Any]]:
    made = registry.create("LimitRange", "ns", {"metadata": {"name": name}, "spec": {"limits": list(items)}})
    return made["spec"]["limits"]


def container(name: str = "base", **resources: Any) -> dict[str, Any]:
    return {"name": name, "image": "a", **({"resources": resources} if resources else {})}


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": list(containers) or [container()], **spec}}


def refusal(registry: ClusterRegistry, kind: str, manifest: dict[str, Any], code: int = 403) -> str:
    with pytest.raises(StatusError) as refused:
        registry.create(kind, "ns", manifest)
    assert refused.value.code == code
    return refused.value.status["message"]


def test_containers_get_what_they_do_not_name(registry: ClusterRegistry) -> None:
    limit(registry, {"type": "Container", "default": {"cpu": "1", "memory": "64Mi"}, "defaultRequest": {"cpu": "500m"}})
    own = container("own", limits={"cpu": "2"})
    made = registry.create("Pod", "ns", pod(container(), own, initContainers=[container("first")]))
    wanted = {"requests": {"cpu": "500m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}}
    assert made["spec"]["containers"][0]["resources"] == wanted
    assert made["spec"]["initContainers"][0]["resources"] == wanted
    # a limit that is named was the request's default before
    assert made["spec"]["containers"][1]["resources"] == {
        "requests": {"cpu": "2", "memory": "64Mi"},
        "limits": {"cpu": "2", "memory": "64Mi"},
    }
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu, memory request for container base; cpu, memory limit for container base; "
        "memory request for container own; memory limit for container own; "
        "cpu, memory request for init container first; cpu, memory limit for init container first"
    )
    assert made["status"]["qosClass"] == "Burstable"


def test_a_limit_range_completes_itself(registry: ClusterRegistry) -> None:
    [item] = limit(registry, {"type": "Container", "max": {"memory": "1Gi"}, "min": {"cpu": "10m"}})
    assert item["default"] == {"memory": "1Gi"}
    assert item["defaultRequest"] == {"cpu": "10m", "memory": "1Gi"}
    [other] = limit(registry, {"type": "Pod", "max": {"memory": "1Gi"}}, name="other")
    assert other == {"type": "Pod", "max": {"memory": "1Gi"}}


@pytest.mark.parametrize(
    ("item", "resources", "message"),
    [
        (
            {"max": {"memory": "1Gi"}},
            {"limits": {"memory": "2Gi"}},
            "maximum memory usage per Container is 1Gi, but limit is 2Gi",
        ),
        (
            {"max": {"cpu": "1"}, "default": {"cpu": "1"}},
            {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}},
            "maximum cpu usage per Container is 1, but limit is 2",
        ),
        (
            {"min": {"cpu": "1"}},
            {"requests": {"cpu": "100m"}},
            "minimum cpu usage per Container is 1, but request is 100m",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {"requests": {"cpu": "1"}, "limits": {"cpu": "3"}},
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {},
            "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {"requests": {"cpu": "1"}},
            "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
        ),
    ],
)
def test_what_is_beyond_the_bounds_is_refused(
    registry: ClusterRegistry, item: dict[str, Any], resources: dict[str, Any], message: str
) -> None:
    limit(registry, {"type": "Container", **item})
    assert refusal(registry, "Pod", pod(container(**resources))) == f'pods "p" is forbidden: {message}'
    assert registry.list("Pod") == []


def test_every_complaint_is_told(registry: ClusterRegistry) -> None:
    limit(registry, {"type": "Pod", "max": {"cpu": "1", "memory": "1Gi"}})
    said = refusal(registry, "Pod", pod(container(limits={"cpu": "2"})))
    assert said.endswith(
        "[maximum cpu usage per Pod is 1, but limit is 2, maximum memory usage per Pod is 1Gi.  No limit is specified]"
    )


def test_a_pod_is_bounded_as_a_whole(registry: ClusterRegistry) -> None:
    limit(registry, {"type": "Pod", "max": {"memory": "1Gi"}, "min": {"memory": "512Mi"}})
    half = {"limits": {"memory": "512Mi"}}
    assert registry.create("Pod", "ns", pod(container("a", **half), container("b", **half)))
    three = pod(*(container(name, **half) for name in "abc"))
    assert "maximum memory usage per Pod is 1Gi, but limit is 1536Mi" in refusal(registry, "Pod", three)
    small = pod(container(limits={"memory": "1Mi"}))
    assert "minimum memory usage per Pod is 512Mi, but request is 1Mi" in refusal(registry, "Pod", small)


def test_claims_are_bounded(registry: ClusterRegistry) -> None:
    limit(registry, {"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}, "min": {"storage": "1Gi"}})

    def claim(size: str) -> dict[str, Any]:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
        return {"metadata": {"name": "c"}, "spec": spec}

    message = "storage usage per PersistentVolumeClaim is"
    assert f"maximum {message} 2Gi, but request is 3Gi" in refusal(registry, "PersistentVolumeClaim", claim("3Gi"))
    assert f"minimum {message} 1Gi, but request is 1Mi" in refusal(registry, "PersistentVolumeClaim", claim("1Mi"))
    assert registry.create("PersistentVolumeClaim", "ns", claim("2Gi"))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}], "min value 2 is greater than max value 1"),
        (
            [{"type": "Container", "defaultRequest": {"cpu": "2"}, "default": {"cpu": "1"}}],
            "default request value 2 is greater than default value 1",
        ),
        ([{"type": "Pod", "default": {"cpu": "1"}}], "spec.limits[0].default: Forbidden: may not be specified when"),
        ([{"type": "Pod"}, {"type": "Pod"}], 'spec.limits[1].type: Duplicate value: "Pod"'),
        ([{"type": "PersistentVolumeClaim"}], "either minimum or maximum storage value is required"),
        ([{"max": {"cpu": "1"}}], "spec.limits[0].type: Required value"),
        ([{"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}}], "ratio 500m is less than 1"),
    ],
)
def test_a_limit_range_that_contradicts_itself_is_refused(
    registry: ClusterRegistry, items: list[dict[str, Any]], message: str
) -> None:
    manifest = {"metadata": {"name": "l"}, "spec": {"limits": items}}
    assert message in refusal(registry, "LimitRange", manifest, 422)


def test_injected_containers_get_resources_too() -> None:
    settings = LocalSettings(inject=("istio",))
    registry = ClusterRegistry(Store(), plugins.mutators(settings), plugins.ADMITTERS)
    registry.create("Namespace", "", {"metadata": {"name": "ns", "labels": {"istio-injection": "enabled"}}})
    registry.create("ServiceAccount", "ns", {"metadata": {"name": "default"}})
    limit(registry, {"type": "Container", "default": {"ephemeral-storage": "1Gi"}})
    made = registry.create("Pod", "ns", pod())
    everyone = [*made["spec"]["containers"], *made["spec"]["initContainers"]]
    assert len(everyone) > 1
    assert {one["resources"]["limits"]["ephemeral-storage"] for one in everyone} == {"1Gi"}

from __future__ import annotations

import pytest

from crosswind.kube.resources import JOBS, LEASES, NAMESPACES, PODS, SELF_SUBJECT_ACCESS_REVIEWS, Resource


@pytest.mark.parametrize(
    ("resource", "arguments", "path"),
    [
        (PODS, (), "/api/v1/pods"),
        (PODS, ("a",), "/api/v1/namespaces/a/pods"),
        (PODS, ("a", "p"), "/api/v1/namespaces/a/pods/p"),
        (PODS, ("a", "p", "log"), "/api/v1/namespaces/a/pods/p/log"),
        (PODS, ("a/b", "p q"), "/api/v1/namespaces/a%2Fb/pods/p%20q"),
        (JOBS, ("a",), "/apis/batch/v1/namespaces/a/jobs"),
        (LEASES, ("a", "l"), "/apis/coordination.k8s.io/v1/namespaces/a/leases/l"),
        (NAMESPACES, (None, "a"), "/api/v1/namespaces/a"),
        (NAMESPACES, ("ignored", "a"), "/api/v1/namespaces/a"),
        (SELF_SUBJECT_ACCESS_REVIEWS, (), "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
    ],
)
def test_path_is_that_of_the_api(resource: Resource, arguments: tuple[str, ...], path: str) -> None:
    assert resource.path(*arguments) == path


def test_an_object_of_a_namespace_has_no_path_without_it() -> None:
    with pytest.raises(ValueError, match="Pod p has no path without a namespace"):
        PODS.path(None, "p")


def test_api_version_has_the_group_but_for_the_core() -> None:
    assert (PODS.api_version, JOBS.api_version) == ("v1", "batch/v1")

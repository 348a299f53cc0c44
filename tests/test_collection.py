"""What holds for the tests as a whole: they can be collected together, and run on a cluster that has two images."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.real_clusters import PYTHON_IMAGES, SHELL_IMAGES, Player, Rewriter, player_of, source

TESTS = Path(__file__).parent
DIRECT = ("kube",)
"""Folders whose tests reach the cluster without the proxy that fits pods to it."""

HOME = {"metadata": {"name": "home", "labels": {}}}
NAMES_IMAGES = re.compile(
    r"(^|=)(busybox|alpine|debian|ubuntu|python|apache/airflow|docker\.io|registry\.k8s\.io)([:/@]|$)"
)


def test_no_two_test_modules_have_one_name() -> None:
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def cluster_modules(folder: Path) -> list[Path]:
    """Return the modules with tests that make test-cluster runs."""
    return [path for path in sorted(folder.rglob("test_*.py")) if "mark.cluster" in path.read_text()]


def texts(path: Path) -> list[tuple[int, str]]:
    """Return the literals of a module that are no docstrings, with their lines."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and _has_text(node)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]
    return [(node.lineno, node.value) for node in found if isinstance(node.value, str)]


def _has_text(node: Any) -> bool:
    return bool(node.body) and isinstance(node.body[0], ast.Expr)


@pytest.mark.parametrize("folder", DIRECT)
def test_tests_that_reach_a_cluster_directly_name_no_image_and_no_pull_policy(folder: str) -> None:
    modules = cluster_modules(TESTS / folder)
    assert modules
    wrong = [
        f"{path.name}:{line}: {text}"
        for path in modules
        for line, text in texts(path)
        if NAMES_IMAGES.search(text) or text in ("Always", "IfNotPresent")
    ]
    assert wrong == []


@pytest.mark.parametrize("path", cluster_modules(TESTS), ids=lambda path: path.stem)
def test_images_that_cluster_tests_name_are_fitted_or_missing_on_purpose(path: Path) -> None:
    if path.parent.name in DIRECT:
        assert "cluster.image" in path.read_text() or "shell" in path.read_text()
        return
    for line, text in texts(path):
        if NAMES_IMAGES.search(text) and " " not in text:
            image = text.rpartition("=")[2]
            container = fitted({"name": "base", "image": image})
            assert container["image"].startswith("only.example/"), f"{path.name}:{line}: {text} is not fitted"
            assert container["imagePullPolicy"] == "Never"


def fitted(*containers: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """Return the first container of a pod as a cluster with two images gets it."""
    return pod(*containers, **metadata)["spec"]["containers"][0]


def pod(*containers: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    rewriter = Rewriter("only.example/shell:1", "only.example/airflow:1", "Never")
    return rewriter.rewritten({"metadata": metadata, "spec": {"containers": list(containers)}}, "pods", HOME)


@pytest.mark.parametrize("pattern", [*SHELL_IMAGES, *PYTHON_IMAGES])
@pytest.mark.parametrize("policy", ["Always", "IfNotPresent", None])
def test_every_container_gets_the_named_image_and_policy(pattern: str, policy: str | None) -> None:
    given = {"name": "base", "image": pattern.replace("*", "x"), **({"imagePullPolicy": policy} if policy else {})}
    container = fitted(given)
    named = "airflow" if pattern in PYTHON_IMAGES else "shell"
    assert (container["image"], container["imagePullPolicy"]) == (f"only.example/{named}:1", "Never")


def test_an_image_that_is_nowhere_is_looked_for() -> None:
    assert fitted({"name": "base", "image": "no/such:image"})["imagePullPolicy"] == "IfNotPresent"


def test_a_label_brings_the_sidecar_that_the_airflow_image_plays() -> None:
    found = pod({"name": "base", "image": "busybox"}, labels={"sidecar.istio.io/inject": "true"})
    base, proxy = found["spec"]["containers"]
    assert (base["image"], proxy["name"], proxy["image"]) == (
        "only.example/shell:1",
        "istio-proxy",
        "only.example/airflow:1",
    )
    assert proxy["command"] == ["/crosswind-played/pilot-agent/pilot-agent"]
    assert {one["imagePullPolicy"] for one in (base, proxy)} == {"Never"}
    assert [one["name"] for one in found["spec"]["volumes"] if "projected" in one][-1] == "crosswind-played"


@pytest.mark.parametrize(
    ("resource", "path"), [("jobs", ("template",)), ("cronjobs", ("jobTemplate", "spec", "template"))]
)
def test_templates_are_fitted_as_pods_are(resource: str, path: tuple[str, ...]) -> None:
    inner: dict[str, Any] = {"spec": {"containers": [{"name": "base", "image": "busybox"}]}}
    manifest: dict[str, Any] = {"metadata": {"name": "x"}, "spec": {}}
    place = manifest["spec"]
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = inner
    rewriter = Rewriter("only.example/shell:1", "only.example/airflow:1", "Never")
    changed = rewriter.rewritten(manifest, resource, HOME)["spec"]
    for key in path:
        changed = changed[key]
    assert changed["spec"]["containers"][0]["image"] == "only.example/shell:1"
    assert inner["spec"]["containers"][0]["image"] == "busybox", "what was handed in stays"


@pytest.mark.parametrize(
    "manifest", [{}, {"spec": None}, {"spec": {"containers": [None]}}, {"spec": {"containers": []}}]
)
def test_what_is_no_pod_is_left_to_the_api_server(manifest: dict[str, Any]) -> None:
    rewriter = Rewriter("only.example/shell:1", "only.example/airflow:1", "Never")
    assert rewriter.rewritten(manifest, "pods", HOME).get("spec") == manifest.get("spec")


def test_the_longest_pattern_says_who_plays_an_image() -> None:
    assert player_of("istio/proxyv2:1.26.4") == Player("pilot-agent", True)
    assert player_of("istio/proxyv2:1.26.4-distroless") == Player("pilot-agent", False)
    assert player_of("busybox") is None


def test_the_package_fits_into_a_config_map() -> None:
    assert len(source()["binaryData"]["crosswind.zip"]) < 1024 * 1024

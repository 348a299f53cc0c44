from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kubelocal.testing import Cluster

pytest_plugins = ["pytester"]

USERS_TEST = """
    import pytest

    def test_fresh_namespace(cluster, namespace):
        assert namespace.startswith("test-")
        assert not cluster.local
        assert cluster.url.startswith("https://")
        assert cluster.token
        assert cluster.token not in repr(cluster)

    def test_image(cluster):
        assert cluster.image == "mine"

    def test_airflow_image(cluster):
        assert cluster.airflow_image

    @pytest.mark.cluster
    def test_marked():
        pass
"""


def test_plugin_is_cheap_to_import() -> None:
    heavy = {"airflow", "aiohttp", "kubernetes", "kubernetes_asyncio", "starlette", "uvicorn", "yaml"}
    code = f"import sys, kubelocal.testing; print({heavy!r} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


@pytest.mark.timeout(60)
def test_real_cluster_is_taken_from_the_kubeconfig(
    pytester: pytest.Pytester, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not cluster.local:
        pytest.skip("plays the real cluster itself")
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    pytester.makepyfile(USERS_TEST)
    options = ["--cluster-context", "crosswind-local", "--cluster-image", "mine", "-p", "no:cacheprovider"]
    ran = pytester.runpytest_subprocess("-rs", "--strict-markers", *options)
    ran.assert_outcomes(passed=3, skipped=1)
    ran.stdout.fnmatch_lines(["*name it by --cluster-airflow-image*"])


def test_unknown_context_is_said(pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("contexts: []\nclusters: []\nusers: []\n")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    pytester.makepyfile("def test_it(cluster): pass")
    ran = pytester.runpytest_subprocess("--cluster-context", "nosuch")
    ran.assert_outcomes(errors=1)
    ran.stdout.fnmatch_lines(['*no context "nosuch"*'])


def test_a_missing_client_is_reported_with_the_extra_that_has_it(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import sys\nsys.modules['kubernetes_asyncio'] = None")
    pytester.makepyfile("def test_it(namespace): pass")
    ran = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    ran.assert_outcomes(errors=1)
    ran.stdout.fnmatch_lines(["*this fixture needs the extra kubelocal[[]testing[]]*"])

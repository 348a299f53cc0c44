"""Istio's and External Secrets' objects against the schemas of these products, which npm has."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml
from deployments import COMBINATIONS, NAMES, deployment

from deadlines import scaled

CHECK = Path(__file__).parents[2] / "tools" / "check_custom_resources.mjs"
PACKAGES = (
    "@kubernetes-models/istio@3.0.1",
    "@kubernetes-models/external-secrets@2.0.0",
    "@kubernetes-models/prometheus-operator@6.0.0",
    "js-yaml@4.1.0",
)
GROUPS = ("security.istio.io/", "networking.istio.io/", "external-secrets.io/", "monitoring.coreos.com/")

Check: TypeAlias = Callable[[list[dict[str, Any]]], tuple[int, str]]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("npm")
    command = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error", *PACKAGES]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=scaled(240), check=False)
    if done.returncode:
        pytest.skip(f"npm cannot fetch the schemas: {done.stderr[-300:]}")
    return folder


@pytest.fixture
def check(packages: Path, tmp_path: Path) -> Check:
    def run(manifests: list[dict[str, Any]]) -> tuple[int, str]:
        for number, manifest in enumerate(manifests):
            (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump(manifest))
        command = ["node", "--input-type=module", "-", str(tmp_path)]
        done = subprocess.run(
            command,
            cwd=packages,
            input=CHECK.read_text(),
            capture_output=True,
            text=True,
            timeout=scaled(60),
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def customs(*names: str) -> list[dict[str, Any]]:
    every = [rendered.manifest for name in names for rendered in deployment(name)]
    return [manifest for manifest in every if manifest["apiVersion"].startswith(GROUPS)]


@pytest.mark.timeout(300)
def test_schemas_of_istio_and_external_secrets_accept_each_object(check: Check) -> None:
    manifests = customs(*NAMES, *COMBINATIONS)
    kinds = {manifest["kind"] for manifest in manifests}
    assert kinds >= {"PrometheusRule", "ExternalSecret", "PeerAuthentication", "AuthorizationPolicy", "ServiceEntry"}
    assert check(manifests) == (0, f"{len(manifests)} objects checked\n")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "field", "wrong"),
    [
        ("AuthorizationPolicy", "action", "MAYBE"),
        ("PeerAuthentication", "mtls", {"mode": "STRICTEST"}),
        ("ServiceEntry", "hosts", "one.example.com"),
        ("ExternalSecret", "data", [{"secretKey": "a"}]),
    ],
)
def test_the_schemas_refuse_a_wrong_field(check: Check, kind: str, field: str, wrong: Any) -> None:
    manifest = next(custom for custom in customs(*NAMES, *COMBINATIONS) if custom["kind"] == kind)
    code, output = check([{**manifest, "spec": {**manifest["spec"], field: wrong}}])
    assert code == 1
    assert f"{kind}: " in output

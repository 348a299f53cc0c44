"""Each example is applied to a cluster by kubectl, as a user does it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from deployments import EXAMPLES, NAMES, deployment, values_of

from crosswind.cli import main
from crosswind.testing import Cluster, serve_in_thread
from deadlines import scaled
from kubelocal.settings import LocalSettings

pytestmark = [
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl on this machine"),
]

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def playing() -> Iterator[Cluster]:
    """Yield a cluster whose pods run nothing."""
    with serve_in_thread(LocalSettings(simulate=1)) as cluster:
        yield cluster


@pytest.fixture
def kubectl(playing: Cluster) -> Kubectl:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", *(str(argument) for argument in arguments)]
        environment = os.environ | {"KUBECONFIG": str(playing.kubeconfig)}
        return subprocess.run(command, capture_output=True, text=True, timeout=scaled(25), env=environment)

    return run


@pytest.mark.parametrize("name", NAMES)
def test_example_is_applied_in_one_go_and_again_without_change(
    name: str, kubectl: Kubectl, playing: Cluster, tmp_path: Path
) -> None:
    CliRunner().invoke(main, ["render", str(EXAMPLES / f"{name}.yaml"), "-o", str(tmp_path)])
    values = values_of(name)
    if not values.create_namespaces:
        kubectl("create", "namespace", values.namespace)
    for word in ("created", "unchanged"):
        ran = kubectl("apply", "-f", tmp_path, "--recursive")
        assert (ran.returncode, ran.stderr) == (0, "")
        assert [line for line in ran.stdout.splitlines() if line.split()[-1] != word] == []
        assert len(ran.stdout.splitlines()) == len(deployment(name))
    diff = ["render", str(EXAMPLES / f"{name}.yaml"), "--diff", "--kubeconfig", str(playing.kubeconfig)]
    assert (CliRunner().invoke(main, diff).stdout) == ""

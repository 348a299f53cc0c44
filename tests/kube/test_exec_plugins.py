from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from crosswind.errors import CredentialsError, KubeconfigError
from crosswind.kube.exec_plugins import ExecCredential, sign_in
from deadlines import scaled


def plugin(folder: Path, script: str, **more: Any) -> dict[str, Any]:
    path = folder / "plugin"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path), **more}


def saying(**status: Any) -> str:
    return f"cat <<'END'\n{json.dumps({'kind': 'ExecCredential', 'status': status})}\nEND"


async def test_it_returns_a_token_with_its_end(tmp_path: Path) -> None:
    signed = await sign_in(
        plugin(tmp_path, saying(token="t", expirationTimestamp="2030-01-02T03:04:05Z")), {}, timeout=10
    )
    assert (signed.token, signed.expires and signed.expires.isoformat()) == ("t", "2030-01-02T03:04:05+00:00")


async def test_it_returns_a_certificate(tmp_path: Path) -> None:
    signed = await sign_in(
        plugin(tmp_path, saying(clientCertificateData="c", clientKeyData="k")), {}, timeout=scaled(10)
    )
    assert signed == ExecCredential(certificate="c", key="k")


async def test_a_plugin_gets_arguments_environment_and_the_cluster(tmp_path: Path) -> None:
    script = f'echo "$1 $COLOR $KUBERNETES_EXEC_INFO" > {tmp_path}/seen\n' + saying(token="t")
    options = {"args": ["login"], "env": [{"name": "COLOR", "value": "red"}], "provideClusterInfo": True}
    await sign_in(plugin(tmp_path, script, **options), {"server": "https://x", "secret": 1}, timeout=scaled(10))
    argument, color, info = (tmp_path / "seen").read_text().split(" ", 2)
    assert (argument, color) == ("login", "red")
    assert json.loads(info)["spec"] == {"interactive": False, "cluster": {"server": "https://x"}}


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'run: cloud login' >&2; exit 3", 'plugin" ended with exit code 3: run: cloud login'),
        ("exit 1", "ended with exit code 1: it printed nothing"),
        ("echo SECRET", "returned neither a token nor a certificate"),
        ("echo '[]'", "returned neither"),
        (saying(), "returned neither"),
        (saying(token="SECRET", expirationTimestamp="soon"), "returned neither"),
        (saying(clientCertificateData="SECRET"), "returned neither"),
    ],
)
async def test_a_plugin_that_fails_is_quoted_only_where_it_complains(tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(CredentialsError, match=message) as caught:
        await sign_in(plugin(tmp_path, script), {}, timeout=scaled(10))
    assert "SECRET" not in str(caught.value)


async def test_a_missing_plugin_comes_with_the_hint_how_to_install_it() -> None:
    missing = {"apiVersion": "v1", "command": "no-such-plugin", "installHint": "Get it at https://example"}
    with pytest.raises(KubeconfigError, match="No such file or directory; Get it at https://example"):
        await sign_in(missing, {}, timeout=scaled(10))


async def test_a_plugin_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 30 & echo $! > {tmp_path}/child; wait"
    with pytest.raises(CredentialsError, match=r"did not answer within 0.5 s"):
        await sign_in(plugin(tmp_path, script), {}, timeout=0.5)
    stat_of_child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    assert not stat_of_child.exists() or stat_of_child.read_text().split()[2] == "Z"

"""The Vault agent injector, by the annotations of vault-k8s 1.7; the secrets that it writes are made up."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from kubelocal.injection.injector import add, annotations_of, compact, template
from kubelocal.types import Manifest

__all__ = ["inject"]

PREFIX = "vault.hashicorp.com/"
IMAGE = "hashicorp/vault:1.20.1"
SECRETS = "/vault/secrets"
CONFIG = "/home/vault/config.json"
# The real one has no exec: Alpine's shell replaces itself by its last command, this machine's may not.
SCRIPT = f"echo ${{VAULT_CONFIG?}} | base64 -d > {CONFIG} && exec vault agent -config={CONFIG}"


def inject(pod: Manifest, namespace: Manifest) -> Manifest:
    """Inject where the pod's annotations ask for it."""
    annotations = {
        name.removeprefix(PREFIX): value for name, value in annotations_of(pod).items() if name.startswith(PREFIX)
    }
    if (
        annotations.get("agent-inject", "").lower() not in ("true", "1", "t")
        or annotations.get("agent-inject-status") == "injected"
    ):
        return pod
    only = annotations.get("agent-pre-populate-only") == "true"
    first = only or annotations.get("agent-pre-populate", "true") != "false"
    init = _agent(annotations, "vault-agent-init", "home-init", leaves=True)
    agent = _agent(annotations, "vault-agent", "home-sidecar", leaves=False)
    inits = [init["agent"]] if first else []
    early = annotations.get("agent-init-first") == "true"
    return add(
        _with_secrets(pod, annotations),
        annotations=init["annotations"],
        volumes=init["volumes"] if only else agent["volumes"],
        init_first=inits if early else (),
        init_last=() if early else inits,
        last=() if only else [agent["agent"]],
    )


def _agent(annotations: Mapping[str, str], name: str, home: str, *, leaves: bool) -> Any:
    config: dict[str, Any] = {"exit_after_auth": leaves, "template": list(_secret_files(annotations))}
    if annotations.get("agent-enable-quit") == "true" and not leaves:
        address = f"127.0.0.1:{annotations.get('agent-cache-listener-port', '8200')}"
        api = {"enable_quit": True}
        config["listener"] = [{"tcp": {"address": address, "tls_disable": True, "agent_api": api}}]
    scope = {
        "name": name,
        "home": home,
        "script": SCRIPT,
        "sidecar": None if leaves else True,
        "image": annotations.get("agent-image", IMAGE),
        "secrets": annotations.get("secret-volume-path", SECRETS),
        "config": base64.b64encode(compact(config).encode()).decode(),
    }
    return template("vault")(scope)


def _secret_files(annotations: Mapping[str, str]) -> Any:
    for key, path in annotations.items():
        if key.startswith("agent-inject-secret-"):
            name = key.removeprefix("agent-inject-secret-")
            folder = annotations.get(f"secret-volume-path-{name}", annotations.get("secret-volume-path", SECRETS))
            file = annotations.get(f"agent-inject-file-{name}", name)
            yield {
                "destination": f"{folder}/{file}",
                "contents": f"path: {path}\nvalue: made up by the local cluster\n",
            }


def _with_secrets(pod: Manifest, annotations: Mapping[str, str]) -> Manifest:
    """Mount the volume of secrets into the user's containers."""
    mount = {"name": "vault-secrets", "mountPath": annotations.get("secret-volume-path", SECRETS)}
    chosen = (
        annotations.get("agent-inject-containers", "").split(",")
        if annotations.get("agent-inject-containers")
        else None
    )
    spec = dict(pod["spec"])
    spec["containers"] = [
        {**container, "volumeMounts": [*(container.get("volumeMounts") or ()), mount]}
        if not chosen or container["name"] in chosen
        else container
        for container in spec["containers"]
    ]
    return {**pod, "spec": spec}

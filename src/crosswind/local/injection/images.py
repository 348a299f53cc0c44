"""The images of sidecars, as the local image table sees them: which program plays what."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SIDECAR_IMAGES", "SidecarImage", "install"]


@dataclass(frozen=True)
class SidecarImage:
    """One image: its entry point, and whether the machine's own commands are in it (the real one has a shell)."""

    entrypoint: tuple[str, ...]
    machine: bool = False


SIDECAR_IMAGES: dict[str, SidecarImage] = {
    "*istio/proxyv2*": SidecarImage(("pilot-agent",), machine=True),
    "*istio/proxyv2*-distroless": SidecarImage(("pilot-agent",)),
    "*linkerd/proxy-init*": SidecarImage(("done",)),
    "*linkerd/proxy:*": SidecarImage(("linkerd",)),
    "*hashicorp/vault*": SidecarImage(("vault",), machine=True),
    "*cloud-sql-proxy*": SidecarImage(("cloud-sql-proxy",)),
    "*cloudsql-docker/gce-proxy*": SidecarImage(("cloud-sql-proxy-v1",)),
    "*gcs-fuse-csi-driver-sidecar-mounter*": SidecarImage(("gcsfuse",)),
    "*consul-dataplane*": SidecarImage(("consul-dataplane",)),
    "*kuma-dp*": SidecarImage(("kuma-dp",)),
    "*dapr/daprd*": SidecarImage(("daprd",)),
    "*aws-appmesh-envoy*": SidecarImage(("appmesh-envoy",), machine=True),
    "*envoyproxy/envoy-distroless*": SidecarImage(("osm-envoy",)),
    "*envoyproxy/envoy:*": SidecarImage(("envoy",), machine=True),
    "*fluent-bit*": SidecarImage(("fluent-bit",)),
    "*fluent/fluentd*": SidecarImage(("fluentd",), machine=True),
    "*opentelemetry-collector*": SidecarImage(("otel-collector",)),
    "*datadog/agent*": SidecarImage(("datadog-agent",), machine=True),
    "*crosswind/sidecar*": SidecarImage(("sidecar",)),
}
"""By shell-style pattern of the whole image name; of several that match, the longest counts."""

COMMANDS = ("linkerd-await", *{image.entrypoint[0]: "" for image in SIDECAR_IMAGES.values()})


def install(folder: Path, *, ready_after: float) -> None:
    """Write one executable per command into a folder, to be put first in the PATH of these images.

    ``ready_after``: seconds until a sidecar is ready. The interpreter itself runs them, not the virtual environment's
    link to it, because they need nothing of the environment.
    """
    python = os.path.realpath(sys.executable)
    program = Path(__file__).with_name("program.py")
    folder.mkdir(parents=True, exist_ok=True)
    for command in COMMANDS:
        script = folder / command
        run = shlex.join([python, "-I", "-S", str(program), command])
        ready = f"CROSSWIND_READY_AFTER=${{CROSSWIND_READY_AFTER:-{ready_after}}}"
        script.write_text(f'#!/bin/sh\n{ready} exec {run} "$@"\n')
        script.chmod(0o755)

"""The images of sidecars for the local image table: which program plays what."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from kubelocal.settings import LocalImage

__all__ = ["READY_AFTER", "sidecar_images"]

READY_AFTER = "CROSSWIND_READY_AFTER"
"""The variable from which a played sidecar reads after how many seconds it is ready."""

PLAYED: dict[str, tuple[str, bool]] = {
    "*istio/proxyv2*": ("pilot-agent", True),
    "*istio/proxyv2*-distroless": ("pilot-agent", False),
    "*linkerd/proxy-init*": ("done", False),
    "*linkerd/proxy:*": ("linkerd", False),
    "*linkerd/debug*": ("tshark", True),
    "*hashicorp/vault*": ("vault", True),
    "*alloydb-auth-proxy*": ("alloydb-auth-proxy", False),
    "*cloud-sql-proxy*": ("cloud-sql-proxy", False),
    "*cloudsql-docker/gce-proxy*": ("cloud-sql-proxy-v1", False),
    "*gcs-fuse-csi-driver-sidecar-mounter*": ("gcsfuse", False),
    "*gcs-fuse-csi-driver-metadata-prefetch*": ("gcsfuse-prefetch", False),
    "*consul-dataplane*": ("consul-dataplane", False),
    "*kuma-dp*": ("kuma-dp", False),
    "*kumahq/kuma-init*": ("done", False),
    "*dapr/daprd*": ("daprd", False),
    "*aws-appmesh-envoy*": ("appmesh-envoy", True),
    "*envoyproxy/envoy-distroless*": ("osm-envoy", False),
    "*envoyproxy/envoy:*": ("envoy", True),
    "*tailscale/tailscale*": ("containerboot", True),
    "*workload-identity/proxy:*": ("azwi-proxy", False),
    "*/pgbouncer:*": ("pgbouncer", True),
    "*fluent-bit*": ("fluent-bit", False),
    "*fluent/fluentd*": ("fluentd", True),
    "*opentelemetry-collector*": ("otel-collector", False),
    "*aws-otel-collector*": ("otel-collector", False),
    "*splunk-otel-collector*": ("otel-collector", False),
    "*beats/filebeat*": ("filebeat", True),
    "*aws-xray-daemon*": ("xray", False),
    "*cloudwatch-agent*": ("start-amazon-cloudwatch-agent", False),
    "*datadog/agent*": ("datadog-agent", True),
    "*git-sync/git-sync*": ("git-sync", True),
    "*timberio/vector*": ("vector", True),
    "*timberio/vector*-distroless*": ("vector", False),
    "*crosswind/sidecar*": ("sidecar", False),
}
"""By pattern of the image's name: the command that plays it, and whether the real image has a shell."""

CLIENTS = ("linkerd-await",)
FOLDERS = (str(Path(__file__).parent), sys.base_prefix)
"""What the programs read at their start."""


def sidecar_images(folder: Path, *, ready_after: float) -> dict[str, LocalImage]:
    """Write one executable per command into a folder, and return the images that have it first in their PATH.

    ``ready_after``: seconds until a sidecar is ready. The interpreter itself runs them, not the virtual environment's
    link to it, because they need nothing of the environment.
    """
    python = os.path.realpath(sys.executable)
    program = Path(__file__).with_name("sidecar_program.py")
    folder.mkdir(parents=True, exist_ok=True)
    for command in {*CLIENTS, *(command for command, _ in PLAYED.values())}:
        script = folder / command
        # Python handles INT from its start, and would exit with 130 where a real program still ignores it.
        deaf = "" if command in CLIENTS else "trap '' INT\n"
        script.write_text(f'#!/bin/sh\n{deaf}exec {shlex.join([python, "-I", "-S", str(program), command])} "$@"\n')
        script.chmod(0o755)
    environment = {READY_AFTER: str(ready_after)}
    return {
        pattern: LocalImage((str(folder),), shell, environment, (command,), visible=(str(folder), *FOLDERS))
        for pattern, (command, shell) in PLAYED.items()
    }

"""What the API server says to an object: kubelocal's decoding, defaults and validation, without a server."""

from __future__ import annotations

import copy
import json
from typing import Any

from kubelocal.codec.decoder import decode
from kubelocal.codec.kinds import KINDS
from kubelocal.codec.status_errors import StatusError
from kubelocal.registry.defaults import apply_defaults
from kubelocal.registry.validation import validate


def refusal(manifest: dict[str, Any]) -> str:
    """Return why the API server refuses an object, or the pods of a Job; "" if it accepts it."""
    if manifest["kind"] == "Job":  # its selector is the API server's
        template = manifest["spec"]["template"]
        metadata = {**template["metadata"], "name": manifest["metadata"]["name"]}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    kind = KINDS[manifest["kind"]]
    try:
        decoded, _ = decode(kind, json.dumps(manifest).encode(), strict="Strict")
    except StatusError as error:
        return str(error)
    decoded = copy.deepcopy(decoded)
    apply_defaults(kind, decoded)
    return "; ".join(f"{cause.field}: {cause.message}" for cause in validate(kind, decoded))

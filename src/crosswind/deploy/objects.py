"""A rendered object with its file and reason, and the names, labels and YAML form that all objects share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from crosswind.deploy.value_sections import SecretKey
from crosswind.deploy.values import Values
from crosswind.types import Json, Manifest

__all__ = [
    "RenderedObject",
    "as_yaml",
    "digest",
    "file_text",
    "identity",
    "labels",
    "named",
    "new",
    "secret_env",
    "selector",
]


@dataclass(frozen=True, slots=True)
class RenderedObject:
    """``path``: relative, with slashes. ``reason``: one sentence on the object's purpose, a comment in its file."""

    path: str
    reason: str
    manifest: Manifest


def named(values: Values, part: str) -> str:
    """Return the name of an object of the deployment."""
    return f"{values.name}-{part}"


def selector(values: Values, component: str) -> dict[str, str]:
    """Return the labels that select one component's pods. They never change: a Deployment's selector is immutable."""
    return {"app.kubernetes.io/instance": values.name, "app.kubernetes.io/component": component}


def labels(values: Values, component: str) -> dict[str, str]:
    """Return the labels of a component's objects. Istio takes the workload's name from ``app.kubernetes.io/name``."""
    return {
        "app.kubernetes.io/name": f"airflow-{component}",
        **selector(values, component),
        "app.kubernetes.io/part-of": "airflow",
        "app.kubernetes.io/version": values.airflow_version,
        "app.kubernetes.io/managed-by": "crosswind",
    }


def new(
    values: Values, kind: str, name: str, component: str, *, namespace: str | None = None, **content: Json
) -> Manifest:
    """Return a namespaced object; the default is the deployment's namespace. ``kind`` is ``apiVersion/Kind``."""
    api_version, _, short = kind.rpartition("/")
    metadata = {"name": name, "namespace": namespace or values.namespace, "labels": labels(values, component)}
    return {"apiVersion": api_version, "kind": short, "metadata": metadata, **content}


def secret_env(variable: str, secret: SecretKey) -> Manifest:
    """Return an environment variable whose value is in a Secret."""
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}}


def digest(content: Json, length: int = 16) -> str:
    """Return a hexadecimal digest of ``content`` of the given length."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def identity(manifest: Mapping[str, Json]) -> tuple[str, str, str]:
    """Return kind, namespace ("" for cluster-scoped objects) and name."""
    metadata = manifest["metadata"]
    return str(manifest["kind"]), str(metadata.get("namespace", "")), str(metadata["name"])


def file_text(rendered: RenderedObject) -> str:
    """Return the file of an object: its reason as a comment, then the object."""
    return f"# {rendered.reason}\n{as_yaml(rendered.manifest)}"


def as_yaml(content: Json) -> str:
    """Return YAML without anchors, with keys in the given order and block scalars for text of several lines."""
    return yaml.dump(content, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=1000)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)
_Plain.add_representer(tuple, lambda dumper, items: dumper.represent_list(items))

"""Secrets that the External Secrets operator fetches. A Secret without ``remote`` is created by the user."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import RenderedObject, new
from crosswind.deploy.value_sections import GitDags, SecretKey, SecretStore
from crosswind.deploy.values import Values
from crosswind.types import Manifest

__all__ = ["external_secrets"]

_KIND = "external-secrets.io/v1/ExternalSecret"


def external_secrets(values: Values) -> Iterator[RenderedObject]:
    """Yield an ExternalSecret for each Secret that is fetched."""
    store = values.secrets.store
    if store is None:
        return
    for name, keys in _by_name(values).items():
        data = [{"secretKey": key.key, "remoteRef": _remote(key)} for key in keys]
        reason = f"Fetches Secret {name} from {store.name}, so that no manifest contains it."
        yield RenderedObject(f"secrets/{name}.yaml", reason, _manifest(values, store, name, {"data": data}))
    if isinstance(values.dags, GitDags) and values.dags.secret and values.dags.remote:
        content = {"dataFrom": [{"extract": {"key": values.dags.remote}}]}
        for namespace in values.namespaces:
            name = values.dags.secret
            place = "" if namespace == values.namespace else f"{namespace}/"
            reason = f"Fetches the credentials of the DAG repository from {store.name}."
            yield RenderedObject(
                f"secrets/{place}{name}.yaml", reason, _manifest(values, store, name, content, namespace=namespace)
            )


def _by_name(values: Values) -> dict[str, list[SecretKey]]:
    keys_by_name: dict[str, list[SecretKey]] = {}
    for field in ("database", "fernet_key", "api_secret_key", "jwt_secret"):
        key: SecretKey = getattr(values.secrets, field)
        if key.remote:
            keys_by_name.setdefault(key.name, []).append(key)
    return keys_by_name


def _remote(key: SecretKey) -> Manifest:
    assert key.remote is not None
    return {"key": key.remote, **({"property": key.property} if key.property else {})}


def _manifest(
    values: Values, store: SecretStore, name: str, content: Manifest, *, namespace: str | None = None
) -> Manifest:
    spec = {
        "refreshInterval": store.refresh,
        "secretStoreRef": {"kind": store.kind, "name": store.name},
        "target": {"name": name, "creationPolicy": "Owner"},
        **content,
    }
    return new(values, _KIND, name, "secrets", namespace=namespace, spec=spec)

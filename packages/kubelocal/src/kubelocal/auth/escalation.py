"""Keeps users from granting rights that they do not hold, by roles and bindings that they write.

Source: ``pkg/registry/rbac/*/policybased`` and ``pkg/registry/rbac/validation`` of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubelocal.auth.bootstrap_roles import MASTERS, RBAC
from kubelocal.auth.rbac import Authorizer
from kubelocal.auth.users import User
from kubelocal.codec.status_errors import forbidden
from kubelocal.registry.generic_registry import Guard
from kubelocal.types import Manifest

__all__ = ["escalation_guard"]

ROLES, BINDINGS = ("Role", "ClusterRole"), ("RoleBinding", "ClusterRoleBinding")
GRANTING = ("rules", "aggregationRule", "roleRef", "subjects")
EVERYTHING: tuple[Manifest, ...] = (
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    {"nonResourceURLs": ["*"], "verbs": ["*"]},
)
AGGREGATION_REFUSED = "must have cluster-admin privileges to use the aggregationRule"


def escalation_guard(authorizer: Authorizer, user: User, kind: str, name: str) -> Guard | None:
    """Return what checks a role or binding of this user, from its new and old state; None where nothing is to check.

    ``name``: as the request's path names it, "" in a POST: a right to escalate one role does not let a user create it.
    The guard raises 403 for rights that the user does not hold, 404 for a binding to a missing role.
    """
    if kind not in (*ROLES, *BINDINGS) or MASTERS in user.groups:
        return None

    def guard(new: Manifest, old: Manifest | None) -> None:
        if old is not None and _grants_the_same(new, old):
            return
        if kind in ROLES:
            _check_role(authorizer, user, new, old, name)
        else:
            _check_binding(authorizer, user, new)

    return guard


def _grants_the_same(new: Manifest, old: Manifest) -> bool:
    """Whether a change grants nothing. A label may have an aggregated role take up the rules of a ClusterRole."""
    labels = [(state["metadata"].get("labels") or {}) if state["kind"] == "ClusterRole" else {} for state in (new, old)]
    return labels[0] == labels[1] and all(new.get(field) == old.get(field) for field in GRANTING)


def _check_role(authorizer: Authorizer, user: User, new: Manifest, old: Manifest | None, name: str) -> None:
    kind, namespace = new["kind"], new["metadata"].get("namespace", "")
    if authorizer.allowed(user, "escalate", RBAC, f"{kind.lower()}s", "", namespace, name):
        return
    _check_rules(authorizer, user, new, new.get("rules") or ())
    # An aggregation can gather anything, and to take it away may keep a role from being tightened.
    aggregates = _is_aggregated(new) or (old is not None and _is_aggregated(old))
    if aggregates and authorizer.missing(user, EVERYTHING, namespace):
        raise forbidden(kind, new["metadata"]["name"], AGGREGATION_REFUSED)


def _is_aggregated(role: Manifest) -> bool:
    return bool((role.get("aggregationRule") or {}).get("clusterRoleSelectors"))


def _check_binding(authorizer: Authorizer, user: User, binding: Manifest) -> None:
    reference, namespace = binding["roleRef"], binding["metadata"].get("namespace", "")
    plural = f"{reference['kind'].lower()}s"
    if not authorizer.allowed(user, "bind", RBAC, plural, "", namespace, reference["name"]):
        _check_rules(authorizer, user, binding, authorizer.rules_of(reference, namespace))


def _check_rules(authorizer: Authorizer, user: User, granting: Manifest, rules: Iterable[Manifest]) -> None:
    metadata = granting["metadata"]
    if missing := authorizer.missing(user, rules, metadata.get("namespace", "")):
        attempt = f'user "{user.username}" (groups={_list(user.groups)}) is attempting to grant RBAC permissions'
        lines = "\n".join(sorted(map(_words, _compacted(missing))))
        raise forbidden(granting["kind"], metadata["name"], f"{attempt} not currently held:\n{lines}")


def _compacted(rules: Iterable[Manifest]) -> list[Manifest]:
    """Join the verbs of rules that differ in nothing else and name no objects."""
    joined: dict[tuple[str, str], Manifest] = {}
    others = []
    for rule in rules:
        if "resources" not in rule or "resourceNames" in rule:
            others.append(rule)
            continue
        key = (rule["apiGroups"][0], rule["resources"][0])
        verbs = joined[key]["verbs"] if key in joined else []
        joined[key] = {**rule, "verbs": [*verbs, *rule["verbs"]]}
    return [*others, *joined.values()]


def _words(rule: Manifest) -> str:
    fields = ("apiGroups", "resources", "nonResourceURLs", "resourceNames", "verbs")
    names = {"apiGroups": "APIGroups", "nonResourceURLs": "NonResourceURLs", "resourceNames": "ResourceNames"}
    parts = (f"{names.get(field, field.capitalize())}:{_list(rule[field])}" for field in fields if rule.get(field))
    return f"{{{', '.join(parts)}}}"


def _list(words: Sequence[str]) -> str:
    """Write a list as Go's %q does."""
    return f"[{' '.join(f'{chr(34)}{word}{chr(34)}' for word in words)}]"

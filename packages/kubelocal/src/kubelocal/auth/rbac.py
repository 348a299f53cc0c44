"""Role-based access control by the cluster's roles and bindings.

Source: ``plugin/pkg/auth/authorizer/rbac`` of Kubernetes 1.36.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kubelocal.auth.bootstrap_roles import MASTERS
from kubelocal.auth.users import User
from kubelocal.codec.status_errors import StatusError
from kubelocal.interfaces import Registry
from kubelocal.storage.selectors import matches_labels
from kubelocal.types import Manifest

__all__ = ["Authorizer"]


@dataclass(frozen=True, slots=True)
class AccessAttributes:
    """The action to decide on: a verb on a resource, or on a path that is not a resource."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


class Authorizer:
    """Decides by the present roles and bindings in the registry; ``system:masters`` may do anything."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def allowed(
        self, user: User, verb: str, group: str, resource: str, subresource: str, namespace: str, name: str
    ) -> bool:
        """Whether a user may use a verb on a resource; ``namespace`` "": cluster-wide, ``name`` "": all."""
        return self._decide(user, AccessAttributes(verb, group, resource, subresource, namespace, name))

    def allowed_path(self, user: User, verb: str, path: str) -> bool:
        """Whether a user may use a verb on a path that is not a resource, such as ``/version``."""
        return self._decide(user, AccessAttributes(verb, path=path))

    def rules(self, user: User, namespace: str) -> Iterator[Manifest]:
        """Yield the rules that bindings of the namespace and of the whole cluster grant to a user."""
        for binding, within in self._bindings(namespace):
            if any(_is(user, subject, within) for subject in binding.get("subjects", ())):
                yield from self._rules(binding["roleRef"], within)

    def missing(self, user: User, rules: Iterable[Manifest], namespace: str) -> list[Manifest]:
        """Return what a user lacks of some rules, as rules of one verb on one resource or path each."""
        held = list(self.rules(user, namespace))
        parts = (part for rule in rules for part in _broken_down(rule))
        return [part for part, question in parts if not any(_covers(rule, question) for rule in held)]

    def rules_of(self, reference: Manifest, namespace: str) -> Sequence[Manifest]:
        """Return the rules of the role that a binding of this namespace refers to; raise 404 for a missing one."""
        kind = reference["kind"]
        role = self._registry.get(kind, namespace if kind == "Role" else "", reference["name"])
        return self._aggregated(role, set()) if role.get("aggregationRule") else role.get("rules") or ()

    def _decide(self, user: User, question: AccessAttributes) -> bool:
        return MASTERS in user.groups or any(_covers(rule, question) for rule in self.rules(user, question.namespace))

    def _bindings(self, namespace: str) -> Iterator[tuple[Manifest, str]]:
        for binding in self._registry.list("ClusterRoleBinding"):
            yield binding, ""
        if namespace:
            for binding in self._registry.list("RoleBinding", namespace):
                yield binding, namespace

    def _rules(self, reference: Manifest, namespace: str) -> Sequence[Manifest]:
        try:
            return self.rules_of(reference, namespace)
        except StatusError:
            return ()

    def _aggregated(self, role: Manifest, seen: set[str]) -> list[Manifest]:
        """Return the rules of a ClusterRole and of those that its selectors find, which may be aggregated themselves.

        Read at each question: so they are never behind the roles, as those are that a controller writes.
        ``seen``: the names that have been followed, because two roles may select each other.
        """
        seen.add(role["metadata"]["name"])
        selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
        if not selectors:
            return list(role.get("rules") or ())
        return [
            rule
            for other in self._registry.list("ClusterRole")
            if other["metadata"]["name"] not in seen and _selected(other, selectors)
            for rule in self._aggregated(other, seen)
        ]


def _selected(role: Manifest, selectors: Sequence[Manifest]) -> bool:
    labels = role["metadata"].get("labels") or {}
    return any(matches_labels(selector, labels) for selector in selectors)


def _is(user: User, subject: Manifest, namespace: str) -> bool:
    name = subject["name"]
    match subject["kind"]:
        case "User":
            return bool(user.username == name)
        case "Group":
            return name in user.groups
    return user.username == f"system:serviceaccount:{subject.get('namespace') or namespace}:{name}"


def _covers(rule: Manifest, question: AccessAttributes) -> bool:
    if not _has(rule.get("verbs", ()), question.verb):
        return False
    if question.path:
        return any(_path_matches(pattern, question.path) for pattern in rule.get("nonResourceURLs", ()))
    names = rule.get("resourceNames")
    return (
        _has(rule.get("apiGroups", ()), question.group)
        and _has_resource(rule.get("resources", ()), question)
        and (not names or question.name in names)
    )


def _broken_down(rule: Manifest) -> Iterator[tuple[Manifest, AccessAttributes]]:
    """Yield the smallest rules that a rule consists of, each with the question that only a rule covering it answers."""
    verbs, names = rule.get("verbs") or (), rule.get("resourceNames") or ("",)
    groups, resources = rule.get("apiGroups") or (), rule.get("resources") or ()
    for group, resource, verb, name in itertools.product(groups, resources, verbs, names):
        part = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
        plural, _, subresource = resource.partition("/")
        attributes = AccessAttributes(verb, group, plural, subresource, name=name)
        yield (part | {"resourceNames": [name]} if name else part), attributes
    for path, verb in itertools.product(rule.get("nonResourceURLs") or (), verbs):
        yield {"nonResourceURLs": [path], "verbs": [verb]}, AccessAttributes(verb, path=path)


def _has(listed: Sequence[str], value: str) -> bool:
    return value in listed or "*" in listed


def _has_resource(listed: Sequence[str], question: AccessAttributes) -> bool:
    if not question.subresource:
        return _has(listed, question.resource)
    return _has(listed, f"{question.resource}/{question.subresource}") or f"*/{question.subresource}" in listed


def _path_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))

"""Reviews: who am I, and may I; answered and forgotten."""

from __future__ import annotations

from crosswind.local.access import User
from crosswind.local.authorization import Authorizer
from crosswind.local.kinds import Kind
from crosswind.local.statuses import Cause, bad_request, invalid
from crosswind.types import Manifest

__all__ = ["review"]


def review(kind: Kind, manifest: Manifest, user: User, authorizer: Authorizer) -> Manifest:
    """Return a review with its status filled in; raise 422 for one that asks nothing."""
    answer = {**manifest, "metadata": {**(manifest.get("metadata") or {}), "creationTimestamp": None}}
    if kind.kind == "SelfSubjectReview":
        told = {"username": user.username, "uid": user.uid, "groups": list(user.groups), "extra": user.extra}
        return {**answer, "status": {"userInfo": {key: value for key, value in told.items() if value}}}
    spec = manifest.get("spec") or {}
    if kind.kind == "SelfSubjectRulesReview":
        return {**answer, "spec": spec, "status": _rules(spec.get("namespace", ""), user, authorizer)}
    if kind.kind == "SubjectAccessReview":
        user = User(spec.get("user", ""), tuple(spec.get("groups") or ()))
        if not user.username and not user.groups:
            told_wrong = 'Invalid value: "": at least one of user or group must be specified'
            raise invalid(kind.kind, "", [Cause("FieldValueInvalid", told_wrong, "spec.user")])
    return {**answer, "spec": spec, "status": {"allowed": _allowed(kind, spec, user, authorizer)}}


def _rules(namespace: str, user: User, authorizer: Authorizer) -> Manifest:
    if not namespace:
        raise bad_request("no namespace on request")
    rules = list(authorizer.rules(user, namespace))
    paths = [rule for rule in rules if "nonResourceURLs" in rule]
    return {
        "resourceRules": [rule for rule in rules if "resources" in rule],
        "nonResourceRules": [{"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]} for rule in paths],
        "incomplete": False,
    }


def _allowed(kind: Kind, spec: Manifest, user: User, authorizer: Authorizer) -> bool:
    asked, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if bool(asked) == bool(path):
        told = "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise invalid(kind.kind, "", [Cause("FieldValueInvalid", told, "spec.resourceAttributes")])
    if path:
        return authorizer.allowed_path(user, path.get("verb", ""), path.get("path", ""))
    assert asked is not None
    keys = ("verb", "group", "resource", "subresource", "namespace", "name")
    return authorizer.allowed(user, *(asked.get(key, "") for key in keys))

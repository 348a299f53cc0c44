"""SelfSubjectReview, SubjectAccessReview and their kin: answered, never stored."""

from __future__ import annotations

from kubelocal.auth.rbac import Authorizer
from kubelocal.auth.users import User
from kubelocal.codec.kinds import Kind
from kubelocal.codec.status_errors import Cause, bad_request, invalid
from kubelocal.types import Manifest

__all__ = ["review"]


def review(kind: Kind, manifest: Manifest, user: User, authorizer: Authorizer) -> Manifest:
    """Return a review with its status; raise 422 for one without a subject or a question."""
    answer = {**manifest, "metadata": {**(manifest.get("metadata") or {}), "creationTimestamp": None}}
    if kind.kind == "SelfSubjectReview":
        user_info = {"username": user.username, "uid": user.uid, "groups": list(user.groups), "extra": user.extra}
        return {**answer, "status": {"userInfo": {key: value for key, value in user_info.items() if value}}}
    spec = manifest.get("spec") or {}
    if kind.kind == "SelfSubjectRulesReview":
        return {**answer, "spec": spec, "status": _rules(spec.get("namespace", ""), user, authorizer)}
    if kind.kind == "SubjectAccessReview":
        user = User(spec.get("user", ""), tuple(spec.get("groups") or ()))
        if not user.username and not user.groups:
            missing_subject = 'Invalid value: "": at least one of user or group must be specified'
            raise invalid(kind.kind, "", [Cause("FieldValueInvalid", missing_subject, "spec.user")])
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
    resource_attributes, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if bool(resource_attributes) == bool(path):
        detail = "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise invalid(kind.kind, "", [Cause("FieldValueInvalid", detail, "spec.resourceAttributes")])
    if path:
        return authorizer.allowed_path(user, path.get("verb", ""), path.get("path", ""))
    assert resource_attributes is not None
    keys = ("verb", "group", "resource", "subresource", "namespace", "name")
    return authorizer.allowed(user, *(resource_attributes.get(key, "") for key in keys))

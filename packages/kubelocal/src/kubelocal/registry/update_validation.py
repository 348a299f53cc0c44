"""Validation of updates: the fields that may not change, with Kubernetes' messages.

Source: ``Validate*Update`` in ``pkg/apis/*/validation`` of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from kubelocal.codec import field_errors
from kubelocal.codec.kinds import Kind
from kubelocal.codec.status_errors import Cause
from kubelocal.registry.validation import validate
from kubelocal.types import Json, Manifest

__all__ = ["validate_update"]

Rule: TypeAlias = Callable[[Manifest, Manifest], Iterator[Cause]]
"""Maps an old and a new object to the causes of invalid changes."""

IMMUTABLE_FIELD_MESSAGE = "field is immutable"
ADD_OR_REMOVE = "pod updates may not add or remove containers"
POD_UPDATE_MESSAGE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
CHANGEABLE = frozenset({"activeDeadlineSeconds", "tolerations", "schedulingGates"})
WHILE_GATED = frozenset({"nodeSelector", "affinity"})
WHILE_SUSPENDED = frozenset({"nodeSelector", "affinity", "tolerations", "schedulingGates"})


def validate_update(kind: Kind, old: Manifest, new: Manifest, subresource: str = "") -> list[Cause]:
    """Return the causes why ``old`` may not become ``new`` at a subresource; both are defaulted.

    ``validate`` checks ``new`` itself, except at ``ephemeralcontainers``, where this function does.
    """
    if subresource == "ephemeralcontainers":
        return [*_ephemeral_containers(old, new), *validate(kind, new)]
    causes = list(_finalizers(old["metadata"], new["metadata"]))
    if not subresource and (rule := RULES.get(kind.kind)):
        causes += rule(old, new)
    return causes


def _finalizers(old: Manifest, new: Manifest) -> Iterator[Cause]:
    added = set(new.get("finalizers", ())) - set(old.get("finalizers", ()))
    if "deletionTimestamp" in old and added:
        shown = ", ".join(f'"{name}"' for name in sorted(added))
        detail = (
            f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{shown}}}"
        )
        yield field_errors.forbidden("metadata.finalizers", detail)


def _fixed(*paths: str, detail: str = IMMUTABLE_FIELD_MESSAGE) -> Rule:
    """Return the rule that these fields are immutable; a path is fields joined by dots."""

    def rule(old: Manifest, new: Manifest) -> Iterator[Cause]:
        for path in paths:
            if _at(old, path) != (value := _at(new, path)):
                yield field_errors.invalid(path, value, detail)

    return rule


def _at(manifest: Manifest, path: str) -> Json:
    value: Json = manifest
    for field in path.split("."):
        value = (value or {}).get(field)
    return value


def _service(old: Manifest, new: Manifest) -> Iterator[Cause]:
    """Keep the cluster IP of a Service, also in a PUT that omits it."""
    for field in ("clusterIP", "clusterIPs"):
        if not new["spec"].get(field) and old["spec"].get(field):
            new["spec"][field] = old["spec"][field]
    yield from _fixed("spec.clusterIP")(old, new)


# ---------------------------------------------------------------------------------------------- jobs


def _job(old: Manifest, new: Manifest) -> Iterator[Cause]:
    fields = ("selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")
    yield from _fixed(*(f"spec.{field}" for field in fields))(old, new)
    was, now = old["spec"], new["spec"]
    elastic = was.get("completionMode") == "Indexed" and now.get("completions") == now.get("parallelism")
    if was.get("completions") != now.get("completions") and not elastic:
        yield field_errors.invalid("spec.completions", now.get("completions"), IMMUTABLE_FIELD_MESSAGE)
    unstarted = was.get("suspend") and not old.get("status", {}).get("startTime")
    if _template(was["template"], bool(unstarted)) != _template(now.get("template", {}), bool(unstarted)):
        yield field_errors.invalid("spec.template", now.get("template"), IMMUTABLE_FIELD_MESSAGE)


def _template(template: Manifest, unstarted: bool) -> Manifest:
    """Return the immutable part of a Job's template: scheduling fields may change before the Job starts (KEP-2926)."""
    if not unstarted:
        return template
    return {key: value for key, value in template.get("spec", {}).items() if key not in WHILE_SUSPENDED}


# ---------------------------------------------------------------------------------------------- pods


def _pod(old: Manifest, new: Manifest) -> Iterator[Cause]:
    was, now = old["spec"], new["spec"]
    counts = [
        field_errors.forbidden(f"spec.{field}", ADD_OR_REMOVE)
        for field in ("containers", "initContainers")
        if len(was.get(field, ())) != len(now.get(field, ()))
    ]
    if counts:
        yield from counts
        return
    yield from _deadline(was.get("activeDeadlineSeconds"), now.get("activeDeadlineSeconds"))
    yield from _tolerations(was.get("tolerations", []), now.get("tolerations", []))
    gates = [gate["name"] for gate in was.get("schedulingGates", ())]
    for gate in now.get("schedulingGates", ()):
        if gate.get("name") not in gates:
            detail = f'only deletion is allowed, but found new scheduling gate "{gate.get("name")}"'
            yield field_errors.forbidden("spec.schedulingGates", detail)
    before, after = (_rest(spec, bool(gates)) for spec in (was, now))
    if before != after:
        changed = sorted(field for field in before.keys() | after.keys() if before.get(field) != after.get(field))
        yield field_errors.forbidden(
            "spec", f"{POD_UPDATE_MESSAGE}\nchanged: {', '.join(f'spec.{field}' for field in changed)}"
        )


def _deadline(was: int | None, now: int | None) -> Iterator[Cause]:
    field = "spec.activeDeadlineSeconds"
    if was is not None and now is None:
        yield field_errors.invalid(field, None, "must not update from a positive integer to nil value")
    elif was is not None and now is not None and now > was:
        yield field_errors.invalid(field, now, "must be less than or equal to previous value")


def _tolerations(was: list[Manifest], now: list[Manifest]) -> Iterator[Cause]:
    kept = [_without(toleration, "tolerationSeconds") for toleration in now]
    if any(_without(toleration, "tolerationSeconds") not in kept for toleration in was):
        yield field_errors.forbidden(
            "spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"
        )


def _rest(spec: Manifest, gated: bool) -> Manifest:
    """Return the immutable part of a pod's spec: all but a few fields and the images."""
    free = CHANGEABLE | WHILE_GATED if gated else CHANGEABLE
    rest = {key: value for key, value in spec.items() if key not in free}
    for field in ("containers", "initContainers"):
        if field in rest:
            rest[field] = [_without(container, "image") for container in rest[field]]
    if rest.get("terminationGracePeriodSeconds", 0) < 0:
        rest["terminationGracePeriodSeconds"] = 1
    return rest


def _without(value: Manifest, field: str) -> Manifest:
    return {key: item for key, item in value.items() if key != field}


def _ephemeral_containers(old: Manifest, new: Manifest) -> Iterator[Cause]:
    field = "spec.ephemeralContainers"
    now = {container.get("name"): container for container in new["spec"].get("ephemeralContainers", ())}
    for container in old["spec"].get("ephemeralContainers", ()):
        name = container["name"]
        if name not in now:
            yield field_errors.forbidden(field, f'existing ephemeral containers "{name}" may not be removed\n')
        elif now[name] != container:
            yield field_errors.forbidden(field, f'existing ephemeral containers "{name}" may not be changed\n')


def _unless_immutable(*fields: str, rule: Rule | None = None) -> Rule:
    """Return the rule that ``immutable``, once set, and then these fields do not change (KEP-1412)."""

    def judge(old: Manifest, new: Manifest) -> Iterator[Cause]:
        if rule:
            yield from rule(old, new)
        if not old.get("immutable"):
            return
        detail = "field is immutable when `immutable` is set"
        if not new.get("immutable"):
            yield field_errors.forbidden("immutable", detail)
        for field in fields:
            if old.get(field) != new.get(field):
                yield field_errors.forbidden(field, detail)

    return judge


RULES: dict[str, Rule] = {
    "ConfigMap": _unless_immutable("data", "binaryData"),
    "Secret": _unless_immutable("data", rule=_fixed("type")),
    "Job": _job,
    "Pod": _pod,
    "RoleBinding": _fixed("roleRef", detail="cannot change roleRef"),
    "ClusterRoleBinding": _fixed("roleRef", detail="cannot change roleRef"),
    "ResourceQuota": _fixed("spec.scopes"),
    "DaemonSet": _fixed("spec.selector"),
    "Deployment": _fixed("spec.selector"),
    "ReplicaSet": _fixed("spec.selector"),
    "StatefulSet": _fixed("spec.selector", "spec.serviceName", "spec.podManagementPolicy", "spec.volumeClaimTemplates"),
    "Service": _service,
}

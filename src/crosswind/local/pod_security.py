"""Pod Security admission: the labels ``pod-security.kubernetes.io/{enforce,warn}`` of a namespace and what they do.

``audit`` is judged by nobody: there is no audit log. Source: ``k8s.io/pod-security-admission`` of Kubernetes 1.36.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crosswind.local import causes
from crosswind.local.pod_security_checks import BASELINE, PRIVILEGED, RESTRICTED, Violation, violations
from crosswind.local.seams import Registry
from crosswind.local.statuses import Cause, forbidden, invalid
from crosswind.types import Manifest

__all__ = ["Level", "Policy", "admit", "read_policy"]

PREFIX = "pod-security.kubernetes.io/"
LEVELS = (PRIVILEGED, BASELINE, RESTRICTED)
LATEST = "latest"
MODES = ("enforce", "audit", "warn")
TEMPLATES = {
    **dict.fromkeys(("DaemonSet", "Deployment", "Job", "ReplicaSet", "StatefulSet"), ("spec", "template")),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
NEWEST = 999  # a minor version after all that is known


@dataclass(frozen=True, slots=True)
class Level:
    """A level of the standards at a version: "latest" or, for example, "v1.30"."""

    level: str = PRIVILEGED
    version: str = LATEST

    def __str__(self) -> str:
        return f"{self.level}:{self.version}"

    def violations(self, metadata: Manifest, spec: Manifest) -> list[Violation]:
        """Return what a pod violates."""
        minor = NEWEST if self.version == LATEST else min(int(self.version[len("v1.") :][:4]), NEWEST)
        return violations(self.level, minor, metadata, spec)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a namespace's labels ask for."""

    enforce: Level
    warn: Level
    wrong: tuple[Cause, ...] = ()


def read_policy(labels: Manifest) -> Policy:
    """Read a namespace's labels; a wrong level enforces ``restricted`` and warns of nothing."""
    wrong = list[Cause]()
    found = {mode: _read_level(mode, labels, wrong) for mode in MODES}
    enforce, warn = found["enforce"], found["warn"]
    if f"{PREFIX}warn" not in labels and LEVELS.index(enforce.level) > LEVELS.index(warn.level):
        warn = Level(enforce.level, warn.version if f"{PREFIX}warn-version" in labels else enforce.version)
    return Policy(enforce, warn, tuple(wrong))


def _read_level(mode: str, labels: Manifest, wrong: list[Cause]) -> Level:
    """Read the labels of a mode; append what is wrong with them."""
    level, version = labels.get(PREFIX + mode, PRIVILEGED), labels.get(f"{PREFIX}{mode}-version", LATEST)
    if level not in LEVELS:
        wrong.append(_wrong(PREFIX + mode, level, f"must be one of {', '.join(LEVELS)}"))
        level = RESTRICTED if mode == "enforce" else PRIVILEGED
    if version != LATEST and not re.fullmatch(r"v1\.(0|[1-9][0-9]*)", version):
        wrong.append(_wrong(f"{PREFIX}{mode}-version", version, 'must be "latest" or "v1.x"'))
        version = LATEST
    return Level(level, version)


def _wrong(label: str, value: str, told: str) -> Cause:
    return causes.invalid(f"metadata.labels[{label}]", value, told)


def admit(new: Manifest, registry: Registry, old: Manifest | None = None) -> Sequence[str]:
    """Refuse (403) a pod that its namespace forbids, (422) a namespace with wrong labels; return the warnings."""
    kind = new["kind"]
    if kind == "Namespace":
        return _admit_namespace(new, registry, old)
    if kind == "Pod":
        return _admit_pod(new, registry, old)
    if kind in TEMPLATES:
        return _admit_template(new, registry)
    return ()


def _policy_of(manifest: Manifest, registry: Registry) -> Policy:
    namespace = registry.get("Namespace", "", manifest["metadata"]["namespace"])
    return read_policy(namespace["metadata"].get("labels") or {})


def _admit_pod(pod: Manifest, registry: Registry, old: Manifest | None) -> Sequence[str]:
    if old is not None and _images(pod) == _images(old):
        return ()
    policy = _policy_of(pod, registry)
    if found := policy.enforce.violations(pod["metadata"], pod["spec"]):
        why = f'violates PodSecurity "{policy.enforce}": {_details(found)}'
        raise forbidden("Pod", pod["metadata"].get("name", ""), why)
    return _warned(policy, pod["metadata"], pod["spec"])


def _images(pod: Manifest) -> list[tuple[str, str]]:
    """Return what an update of a pod can change that matters here: containers that are added, and images."""
    fields = ("initContainers", "containers", "ephemeralContainers")
    return [(one.get("name", ""), one.get("image", "")) for field in fields for one in pod["spec"].get(field, ())]


def _admit_template(workload: Manifest, registry: Registry) -> Sequence[str]:
    template: Manifest = workload
    for field in TEMPLATES[workload["kind"]]:
        template = template.get(field) or {}
    return _warned(_policy_of(workload, registry), template.get("metadata") or {}, template.get("spec") or {})


def _warned(policy: Policy, metadata: Manifest, spec: Manifest) -> Sequence[str]:
    found = policy.warn.violations(metadata, spec)
    return [f'would violate PodSecurity "{policy.warn}": {_details(found)}'] if found else ()


def _details(found: Iterable[Violation]) -> str:
    return ", ".join(f"{one.reason} ({one.detail})" if one.detail else one.reason for one in found)


def _admit_namespace(new: Manifest, registry: Registry, old: Manifest | None) -> Sequence[str]:
    policy = read_policy(new["metadata"].get("labels") or {})
    before = read_policy((old or {}).get("metadata", {}).get("labels") or {})
    if policy.wrong and (old is None or policy.wrong != before.wrong):
        raise invalid("Namespace", new["metadata"]["name"], policy.wrong)
    if old is None or not _is_tightened(before.enforce, policy.enforce):
        return ()
    return _violated_by_present(new["metadata"]["name"], policy.enforce, registry.list("Pod", new["metadata"]["name"]))


def _is_tightened(before: Level, after: Level) -> bool:
    """Whether pods that were fine may violate what is enforced now."""
    relaxed = before.version == after.version and LEVELS.index(after.level) < LEVELS.index(before.level)
    return after not in (before, Level(PRIVILEGED, after.version)) and not relaxed


def _violated_by_present(namespace: str, level: Level, pods: Iterable[Manifest]) -> Sequence[str]:
    """Say which pods that are there violate a level that begins to be enforced; they go on."""
    names: dict[str, list[str]] = {}
    for pod in pods:
        if found := level.violations(pod["metadata"], pod["spec"]):
            names.setdefault(", ".join(one.reason for one in found), []).append(pod["metadata"]["name"])
    if not names:
        return ()
    head = f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "{level}"'
    return [head, *sorted(f"{_several(sorted(violating))}: {reasons}" for reasons, violating in names.items())]


def _several(names: Sequence[str]) -> str:
    others = len(names) - 1
    return names[0] if not others else f"{names[0]} (and {others} other {'pod' if others == 1 else 'pods'})"

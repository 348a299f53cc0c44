"""Pod Security admission by a namespace's labels ``pod-security.kubernetes.io/{enforce,warn}``.

``audit`` has no effect, because there is no audit log. Source: ``k8s.io/pod-security-admission`` of Kubernetes 1.36.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kubelocal.admission.pod_security_standards import BASELINE, PRIVILEGED, RESTRICTED, Violation, violations
from kubelocal.codec import field_errors
from kubelocal.codec.status_errors import Cause, forbidden, invalid
from kubelocal.interfaces import Registry
from kubelocal.types import Manifest

__all__ = ["Level", "Policy", "admit", "read_policy"]

PREFIX = "pod-security.kubernetes.io/"
LEVELS = (PRIVILEGED, BASELINE, RESTRICTED)
LATEST = "latest"
MODES = ("enforce", "audit", "warn")
TEMPLATES = {
    **dict.fromkeys(("DaemonSet", "Deployment", "Job", "ReplicaSet", "StatefulSet"), ("spec", "template")),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
NEWEST = 999  # above every minor version


@dataclass(frozen=True, slots=True)
class Level:
    """A level of the standards at a version: "latest" or, for example, "v1.30"."""

    level: str = PRIVILEGED
    version: str = LATEST

    def __str__(self) -> str:
        return f"{self.level}:{self.version}"

    def violations(self, metadata: Manifest, spec: Manifest) -> list[Violation]:
        """Return the checks that a pod violates."""
        minor = NEWEST if self.version == LATEST else min(int(self.version[len("v1.") :][:4]), NEWEST)
        return violations(self.level, minor, metadata, spec)


@dataclass(frozen=True, slots=True)
class Policy:
    """The levels that a namespace's labels set."""

    enforce: Level
    warn: Level
    wrong: tuple[Cause, ...] = ()


def read_policy(labels: Manifest) -> Policy:
    """Read a namespace's labels; an invalid level enforces ``restricted`` without warnings."""
    wrong = list[Cause]()
    levels = {mode: _read_level(mode, labels, wrong) for mode in MODES}
    enforce, warn = levels["enforce"], levels["warn"]
    if f"{PREFIX}warn" not in labels and LEVELS.index(enforce.level) > LEVELS.index(warn.level):
        warn = Level(enforce.level, warn.version if f"{PREFIX}warn-version" in labels else enforce.version)
    return Policy(enforce, warn, tuple(wrong))


def _read_level(mode: str, labels: Manifest, wrong: list[Cause]) -> Level:
    """Read the labels of a mode; append the causes of invalid ones."""
    level, version = labels.get(PREFIX + mode, PRIVILEGED), labels.get(f"{PREFIX}{mode}-version", LATEST)
    if level not in LEVELS:
        wrong.append(_wrong(PREFIX + mode, level, f"must be one of {', '.join(LEVELS)}"))
        level = RESTRICTED if mode == "enforce" else PRIVILEGED
    if version != LATEST and not re.fullmatch(r"v1\.(0|[1-9][0-9]*)", version):
        wrong.append(_wrong(f"{PREFIX}{mode}-version", version, 'must be "latest" or "v1.x"'))
        version = LATEST
    return Level(level, version)


def _wrong(label: str, value: str, detail: str) -> Cause:
    return field_errors.invalid(f"metadata.labels[{label}]", value, detail)


def admit(new: Manifest, registry: Registry, old: Manifest | None = None) -> Sequence[str]:
    """Refuse (403) a pod that its namespace forbids and (422) a namespace with invalid labels; return the warnings."""
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
    if violations := policy.enforce.violations(pod["metadata"], pod["spec"]):
        why = f'violates PodSecurity "{policy.enforce}": {_details(violations)}'
        raise forbidden("Pod", pod["metadata"].get("name", ""), why)
    return _warned(policy, pod["metadata"], pod["spec"])


def _images(pod: Manifest) -> list[tuple[str, str]]:
    """Return the parts of a pod that an update can change and the checks read: added containers and images."""
    fields = ("initContainers", "containers", "ephemeralContainers")
    return [(item.get("name", ""), item.get("image", "")) for field in fields for item in pod["spec"].get(field, ())]


def _admit_template(workload: Manifest, registry: Registry) -> Sequence[str]:
    template: Manifest = workload
    for field in TEMPLATES[workload["kind"]]:
        template = template.get(field) or {}
    return _warned(_policy_of(workload, registry), template.get("metadata") or {}, template.get("spec") or {})


def _warned(policy: Policy, metadata: Manifest, spec: Manifest) -> Sequence[str]:
    violations = policy.warn.violations(metadata, spec)
    return [f'would violate PodSecurity "{policy.warn}": {_details(violations)}'] if violations else ()


def _details(violations: Iterable[Violation]) -> str:
    return ", ".join(f"{check.reason} ({check.detail})" if check.detail else check.reason for check in violations)


def _admit_namespace(new: Manifest, registry: Registry, old: Manifest | None) -> Sequence[str]:
    policy = read_policy(new["metadata"].get("labels") or {})
    before = read_policy((old or {}).get("metadata", {}).get("labels") or {})
    if policy.wrong and (old is None or policy.wrong != before.wrong):
        raise invalid("Namespace", new["metadata"]["name"], policy.wrong)
    if old is None or not _is_tightened(before.enforce, policy.enforce):
        return ()
    return _violated_by_present(new["metadata"]["name"], policy.enforce, registry.list("Pod", new["metadata"]["name"]))


def _is_tightened(before: Level, after: Level) -> bool:
    """Whether pods that passed before may violate the newly enforced level."""
    relaxed = before.version == after.version and LEVELS.index(after.level) < LEVELS.index(before.level)
    return after not in (before, Level(PRIVILEGED, after.version)) and not relaxed


def _violated_by_present(namespace: str, level: Level, pods: Iterable[Manifest]) -> Sequence[str]:
    """Return warnings about existing pods that violate a newly enforced level; they keep running."""
    names: dict[str, list[str]] = {}
    for pod in pods:
        if violations := level.violations(pod["metadata"], pod["spec"]):
            names.setdefault(", ".join(check.reason for check in violations), []).append(pod["metadata"]["name"])
    if not names:
        return ()
    head = f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "{level}"'
    return [head, *sorted(f"{_several(sorted(violating))}: {reasons}" for reasons, violating in names.items())]


def _several(names: Sequence[str]) -> str:
    others = len(names) - 1
    return names[0] if not others else f"{names[0]} (and {others} other {'pod' if others == 1 else 'pods'})"

"""What a look at a cluster means for a deployment: facts in, findings with their mend out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from crosswind.deploy import meshes
from crosswind.deploy.references import Reference
from crosswind.deploy.values import Values
from crosswind.deploy.values_file import shared_namespace
from crosswind.pods.causes import why, why_refused
from crosswind.types import Manifest

__all__ = ["OLDEST", "Facts", "Finding", "findings"]

OLDEST = (1, 29)
"""The first Kubernetes that has native sidecars switched on."""

_ISTIO_OLDEST = (1, 19)


@dataclass(frozen=True, slots=True)
class Finding:
    """``level`` is ok, warn or fail. ``mend`` is "" where there is nothing to do."""

    level: str
    check: str
    what: str
    mend: str = ""


@dataclass(frozen=True)
class Facts:
    """What was seen. ``unseen`` says what could not be looked at, and why; such parts are empty."""

    version: tuple[int, int] | None = None
    kubelets: Mapping[str, str] = field(default_factory=dict)
    """Version by node."""
    namespaces: Mapping[str, Manifest | None] = field(default_factory=dict)
    referred: Mapping[Reference, Manifest | None] = field(default_factory=dict)
    """What the manifests refer to and do not make."""
    keys: Mapping[Reference, frozenset[str]] = field(default_factory=dict)
    """The keys that each Secret must have."""
    unserved: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Kinds that the manifests have and the cluster does not serve, with their files."""
    denied: Sequence[str] = ()
    """Permissions that are missing: who may not do what, where."""
    asked: int = 0
    """How many permissions were asked for."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Namespaces that refuse a worker's pod: the server's answer, "" for none."""
    quotas: Sequence[tuple[str, str, float]] = ()
    """Namespace, resource and the used part, from 0 to 1."""
    pods: Sequence[Manifest] = ()
    control_planes: Sequence[Manifest] = ()
    """Deployments of the mesh's control plane."""
    execution: tuple[int, str] | None = None
    """Status and body that the execution API's health answers, 0 and the reason if it does not; None: no pod of it."""
    unseen: Mapping[str, str] = field(default_factory=dict)


def findings(values: Values, facts: Facts, *, known: bool = True) -> list[Finding]:
    """Return all findings; ``known`` is False where there is no values file, only a namespace."""
    found = [*_server(facts), *_namespaces(values, facts), *_permissions(facts), *_quotas(facts), *_pods(facts)]
    if known:
        found += [*_kinds(facts), *_mesh(values, facts), *_injected(values, facts), *_referred(facts)]
        found += [*_template(facts)]
        found += [*_image(values, facts), *_execution(facts)]
    if known and (warning := shared_namespace(values)):
        what, _, mend = warning.partition(". Add ")
        found.append(Finding("warn", "workers", what, f"add {mend}"))
    found += [Finding("warn", check, f"could not be looked at: {reason}") for check, reason in facts.unseen.items()]
    return found


def _text(version: tuple[int, int]) -> str:
    return ".".join(str(part) for part in version)


def _server(facts: Facts) -> Iterator[Finding]:
    if facts.version is None:
        yield Finding("warn", "server", "tells no version", f"make sure that it is {_text(OLDEST)} or later")
    elif facts.version < OLDEST:
        what = f"Kubernetes is {_text(facts.version)}"
        yield Finding("fail", "server", what, f"upgrade to {_text(OLDEST)} or later")
    else:
        yield Finding("ok", "server", f"Kubernetes {_text(facts.version)}")
    old = [node for node, version in facts.kubelets.items() if (_version(version) or OLDEST) < OLDEST]
    if old:
        mend = f"upgrade them to {_text(OLDEST)} or later, or say mesh.sidecars: ordinary"
        yield Finding("fail", "nodes", f"{', '.join(sorted(old))} know no native sidecars", mend)


def _version(text: str) -> tuple[int, int] | None:
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _namespaces(values: Values, facts: Facts) -> Iterator[Finding]:
    for name, namespace in facts.namespaces.items():
        check = f"namespace {name}"
        if namespace is None:
            level, mend = ("warn", "apply makes it") if values.create_namespaces else ("fail", "make it")
            yield Finding(level, check, "is not there", mend)
            continue
        problems = [*_labels(values, namespace["metadata"].get("labels") or {})]
        yield from (Finding(level, check, what, mend) for level, what, mend in problems)
        if not problems:
            yield Finding("ok", check, "is there")


def _labels(values: Values, labels: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    injected = labels.get("istio-injection")
    if values.mesh.kind == "istio" and injected == "disabled":
        yield "fail", "has the label istio-injection=disabled, which wins over pods", "remove the label"
    if values.mesh.kind == "none" and (injected == "enabled" or "istio.io/rev" in labels):
        yield "warn", "has Istio sidecars injected, which the values do not know", "say mesh: {kind: istio}"
    enforced = labels.get("pod-security.kubernetes.io/enforce", "privileged")
    if values.mesh.kind != "none" and not values.mesh.cni and enforced != "privileged":
        mend = "install the mesh's CNI plug-in (mesh.cni: true), or enforce privileged"
        yield "fail", f"enforces {enforced} pods, and sidecars without a CNI plug-in need more", mend


def _permissions(facts: Facts) -> Iterator[Finding]:
    for told in facts.denied:
        yield Finding("fail", "permissions", told, "apply rbac/ of the manifests, or ask who administers the cluster")
    if facts.asked and not facts.denied:
        yield Finding("ok", "permissions", f"all {facts.asked} that were asked for are there")


def _quotas(facts: Facts) -> Iterator[Finding]:
    for namespace, resource, used in facts.quotas:
        if used >= 0.9:
            what = f"{used:.0%} of {resource} is used in {namespace}"
            yield Finding("warn", "quota", what, "raise it, or lower core.parallelism: tasks wait when it is used up")
    if facts.quotas and all(used < 0.9 for _, _, used in facts.quotas):
        yield Finding("ok", "quota", "there is room")


def _pods(facts: Facts) -> Iterator[Finding]:
    for pod in facts.pods:
        statuses = pod.get("status", {})
        waiting = [
            one["state"]["waiting"].get("reason", "")
            for one in (*statuses.get("initContainerStatuses", ()), *statuses.get("containerStatuses", ()))
            if "waiting" in one.get("state", {})
        ]
        unscheduled = any(
            one["type"] == "PodScheduled" and one["status"] == "False" for one in statuses.get("conditions", ())
        )
        if unscheduled or set(waiting) - {"", "ContainerCreating", "PodInitializing"}:
            yield Finding("fail", f"pod {pod['metadata']['name']}", why(pod, base=pod["spec"]["containers"][0]["name"]))


def _mesh(values: Values, facts: Facts) -> Iterator[Finding]:
    kind = values.mesh.kind
    if kind == "none" or "mesh" in facts.unseen:
        return
    if not facts.control_planes:
        what = f"no control plane of {kind} was found in {kind}{'-system' if kind == 'istio' else ''}"
        yield Finding("fail", "mesh", what, "install it, or say mesh: {kind: none}")
        return
    version = _mesh_version(facts.control_planes[0])
    if kind == "istio" and values.mesh.sidecars == "native" and version and version < _ISTIO_OLDEST:
        what = f"Istio {_text(version)} makes no native sidecars"
        yield Finding("fail", "mesh", what, "upgrade it, or say mesh.sidecars: ordinary")
    else:
        yield Finding("ok", "mesh", f"{kind} {_text(version) if version else '(unknown version)'}")


def _injected(values: Values, facts: Facts) -> Iterator[Finding]:
    """Look for the sidecar in pods that asked for one: the injector may be off, or of another revision."""
    proxy = {"istio": "istio-proxy", "linkerd": "linkerd-proxy"}.get(values.mesh.kind, "")
    labels, annotations = meshes.pod_labels(values), meshes.pod_annotations(values)
    for pod in facts.pods if proxy else ():
        metadata, spec = pod["metadata"], pod["spec"]
        asked = labels.items() <= metadata.get("labels", {}).items()
        asked &= annotations.items() <= metadata.get("annotations", {}).items()
        if asked and proxy not in {one["name"] for one in (*spec.get("initContainers", ()), *spec["containers"])}:
            mend = "see to the mesh's injector (its webhook, and mesh.revision), then restart the pod"
            yield Finding(
                "fail", f"pod {metadata['name']}", f"asked {values.mesh.kind} for a sidecar and has none", mend
            )


def _image(values: Values, facts: Facts) -> Iterator[Finding]:
    """Compare the image with what runs; whether it can be pulled shows in pods that wait for it."""
    tag = values.image.rpartition("/")[2].partition(":")[2]
    if "@" not in values.image and tag in ("", "latest"):
        what = f"{values.image} may be another one on each node"
        yield Finding("warn", "image", what, "name a digest, or a tag that stays")
    known = {"api-server", "dag-processor", "migrations", "scheduler", "triggerer"}
    others = {
        f"{container['name']} in {pod['metadata']['name']} runs {container['image']}"
        for pod in facts.pods
        if pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        for container in pod["spec"]["containers"]
        if container["name"] in known and container["image"] != values.image
    }
    if others:
        yield Finding("warn", "image", "; ".join(sorted(others)), "apply the manifests, and wait for the rollout")


def _mesh_version(deployment: Manifest) -> tuple[int, int] | None:
    image = str(deployment["spec"]["template"]["spec"]["containers"][0].get("image", ""))
    return _version(image.rpartition(":")[2])


def _referred(facts: Facts) -> Iterator[Finding]:
    for reference, manifest in facts.referred.items():
        kind, namespace, name = reference
        check = f"{kind} {name}" + (f" in {namespace}" if namespace else "")
        if manifest is None:
            yield Finding("fail", check, "is not there, and pods wait for it", "make it (docs/deploy.md, Before)")
            continue
        missing = facts.keys.get(reference, frozenset()) - set(manifest.get("data") or {})
        phase = manifest.get("status", {}).get("phase")
        if missing:
            yield Finding("fail", check, f"has no key {', '.join(sorted(missing))}", "add it")
        elif kind == "PersistentVolumeClaim" and phase != "Bound":
            yield Finding("warn", check, f"is {phase or 'not bound'}", "see kubectl describe pvc")
        else:
            yield Finding("ok", check, "is there")


_SOURCES = {
    "external-secrets.io": "install the External Secrets operator, or make the Secrets and leave out secrets.store",
    "istio.io": "install Istio, or write mesh: {kind: none}",
    "monitoring.coreos.com": "install the Prometheus operator, or leave out metrics.alerts",
}
"""Who brings the kinds that a plain cluster does not have."""


def _kinds(facts: Facts) -> Iterator[Finding]:
    for kind, files in facts.unserved.items():
        mend = next((fix for group, fix in _SOURCES.items() if group in kind), "upgrade the cluster")
        yield Finding("fail", f"kind {kind}", f"is not served, and apply fails on {', '.join(files)}", mend)


def _template(facts: Facts) -> Iterator[Finding]:
    for namespace, refusal in facts.refusals.items():
        if refusal:
            yield Finding("fail", f"workers in {namespace}", why_refused(refusal))
        else:
            yield Finding("ok", f"workers in {namespace}", "would be taken by the server")


def _execution(facts: Facts) -> Iterator[Finding]:
    if "execution API" in facts.unseen:
        return
    if facts.execution is None:
        yield Finding("warn", "execution API", "no API server runs", "apply the manifests; without it no task runs")
        return
    status, told = facts.execution
    if status == 200:
        yield Finding("ok", "execution API", "answers")
    else:
        what = f"answers {status}" if status else "does not answer"
        yield Finding("fail", "execution API", f"{what}: {told[:200]}", "see the log of the API server's pod")

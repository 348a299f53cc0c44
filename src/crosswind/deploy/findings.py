"""Judges the facts that ``crosswind doctor`` has read from a cluster: each finding has its fix. Pure."""

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

__all__ = ["OLDEST", "ClusterFacts", "Finding", "findings"]

OLDEST = (1, 29)
"""The first version of Kubernetes in which native sidecars are on by default."""

_ISTIO_OLDEST = (1, 19)


@dataclass(frozen=True, slots=True)
class Finding:
    """``level`` is ok, warn or fail. ``fix`` is "" where nothing needs to change."""

    level: str
    check: str
    description: str
    fix: str = ""


@dataclass(frozen=True)
class ClusterFacts:
    """What the cluster answered. ``unseen`` names the checks that failed, and why; their facts are empty."""

    version: tuple[int, int] | None = None
    kubelets: Mapping[str, str] = field(default_factory=dict)
    """Version by node."""
    namespaces: Mapping[str, Manifest | None] = field(default_factory=dict)
    referred: Mapping[Reference, Manifest | None] = field(default_factory=dict)
    """The objects that the manifests refer to and do not create; None where the cluster does not have one."""
    keys: Mapping[Reference, frozenset[str]] = field(default_factory=dict)
    """The keys that each Secret must have."""
    unserved: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Kinds of the manifests that the cluster does not serve, with the files that contain them."""
    denied: Sequence[str] = ()
    """Missing permissions: the subject, the verb, the resource and the namespace."""
    checked: int = 0
    """How many permissions were checked."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """For each namespace of workers, why the API server refuses a worker's pod; "" if it accepts it."""
    quotas: Sequence[tuple[str, str, float]] = ()
    """Namespace, resource and the used fraction, from 0 to 1."""
    pods: Sequence[Manifest] = ()
    control_planes: Sequence[Manifest] = ()
    """Deployments of the mesh's control plane."""
    execution: tuple[int, str] | None = None
    """Status and body of the execution API's health endpoint; 0 and the reason if it fails; None without a pod."""
    bytecode: tuple[int, int] | None = None
    """How many of Airflow's modules have bytecode in the image, and how many there are; None without a pod."""
    unseen: Mapping[str, str] = field(default_factory=dict)


def findings(values: Values, facts: ClusterFacts, *, known: bool = True) -> list[Finding]:
    """Return all findings. ``known`` is False if the user gave a namespace and no values file."""
    results = [*_server(facts), *_namespaces(values, facts), *_permissions(facts), *_quotas(facts), *_pods(facts)]
    if known:
        results += [*_kinds(facts), *_mesh(values, facts), *_injected(values, facts), *_referred(facts)]
        results += [*_template(facts)]
        results += [*_image(values, facts), *_execution(facts), *_bytecode(values, facts), *_losses(values)]
    if known and (warning := shared_namespace(values)):
        description, _, fix = warning.partition(". Add ")
        results.append(Finding("warn", "workers", description, f"add {fix}"))
    results += [Finding("warn", check, f"could not be checked: {reason}") for check, reason in facts.unseen.items()]
    return results


def _text(version: tuple[int, int]) -> str:
    return ".".join(str(part) for part in version)


def _server(facts: ClusterFacts) -> Iterator[Finding]:
    if facts.version is None:
        yield Finding("warn", "server", "reports no version", f"make sure that it is {_text(OLDEST)} or later")
    elif facts.version < OLDEST:
        description = f"Kubernetes is {_text(facts.version)}"
        yield Finding("fail", "server", description, f"upgrade to {_text(OLDEST)} or later")
    else:
        yield Finding("ok", "server", f"Kubernetes {_text(facts.version)}")
    old = [node for node, version in facts.kubelets.items() if (_version(version) or OLDEST) < OLDEST]
    if old:
        fix = f"upgrade them to {_text(OLDEST)} or later, or write mesh.sidecars: ordinary"
        yield Finding("fail", "nodes", f"{', '.join(sorted(old))} have no native sidecars", fix)


def _version(text: str) -> tuple[int, int] | None:
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _namespaces(values: Values, facts: ClusterFacts) -> Iterator[Finding]:
    for name, namespace in facts.namespaces.items():
        check = f"namespace {name}"
        if namespace is None:
            level, fix = ("warn", "apply creates it") if values.create_namespaces else ("fail", "create it")
            yield Finding(level, check, "is not there", fix)
            continue
        problems = [*_labels(values, namespace["metadata"].get("labels") or {})]
        yield from (Finding(level, check, description, fix) for level, description, fix in problems)
        if not problems:
            yield Finding("ok", check, "is there")


def _labels(values: Values, labels: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    injected = labels.get("istio-injection")
    if values.mesh.kind == "istio" and injected == "disabled":
        yield "fail", "has the label istio-injection=disabled, which overrides the pods' labels", "remove the label"
    if values.mesh.kind == "none" and (injected == "enabled" or "istio.io/rev" in labels):
        yield "warn", "injects Istio sidecars, and the values name no mesh", "write mesh: {kind: istio}"
    enforced = labels.get("pod-security.kubernetes.io/enforce", "privileged")
    if values.mesh.kind != "none" and not values.mesh.cni and enforced != "privileged":
        fix = "install the mesh's CNI plug-in (mesh.cni: true), or enforce privileged"
        yield "fail", f"enforces {enforced} pods, and sidecars without a CNI plug-in need more rights", fix


def _permissions(facts: ClusterFacts) -> Iterator[Finding]:
    for denial in facts.denied:
        fix = "apply rbac/ of the manifests, or ask an administrator of the cluster"
        yield Finding("fail", "permissions", denial, fix)
    if facts.checked and not facts.denied:
        yield Finding("ok", "permissions", f"all {facts.checked} that were checked are granted")


def _quotas(facts: ClusterFacts) -> Iterator[Finding]:
    for namespace, resource, used in facts.quotas:
        if used >= 0.9:
            description = f"{used:.0%} of {resource} is used in {namespace}"
            fix = "raise it, or lower core.parallelism: tasks wait while a quota is exhausted"
            yield Finding("warn", "quota", description, fix)
    if facts.quotas and all(used < 0.9 for _, _, used in facts.quotas):
        yield Finding("ok", "quota", "has capacity left")


def _pods(facts: ClusterFacts) -> Iterator[Finding]:
    for pod in facts.pods:
        status = pod.get("status", {})
        waiting_reasons = {
            container["state"]["waiting"].get("reason", "")
            for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
            if "waiting" in container.get("state", {})
        }
        conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", ())}
        unscheduled = conditions.get("PodScheduled") == "False"
        if unscheduled or waiting_reasons - {"", "ContainerCreating", "PodInitializing"}:
            yield Finding("fail", f"pod {pod['metadata']['name']}", why(pod, base=pod["spec"]["containers"][0]["name"]))


def _mesh(values: Values, facts: ClusterFacts) -> Iterator[Finding]:
    kind = values.mesh.kind
    if kind == "none" or "mesh" in facts.unseen:
        return
    if not facts.control_planes:
        description = f"no control plane of {kind} was found in {kind}{'-system' if kind == 'istio' else ''}"
        yield Finding("fail", "mesh", description, "install it, or write mesh: {kind: none}")
        return
    version = _mesh_version(facts.control_planes[0])
    if kind == "istio" and values.mesh.sidecars == "native" and version and version < _ISTIO_OLDEST:
        description = f"Istio {_text(version)} injects no native sidecars"
        yield Finding("fail", "mesh", description, "upgrade it, or write mesh.sidecars: ordinary")
    else:
        yield Finding("ok", "mesh", f"{kind} {_text(version) if version else '(unknown version)'}")


def _injected(values: Values, facts: ClusterFacts) -> Iterator[Finding]:
    """Look for the sidecar in pods that request one: the injector may be off, or have another revision."""
    proxy = {"istio": "istio-proxy", "linkerd": "linkerd-proxy"}.get(values.mesh.kind, "")
    labels, annotations = meshes.pod_labels(values), meshes.pod_annotations(values)
    for pod in facts.pods if proxy else ():
        metadata, spec = pod["metadata"], pod["spec"]
        requested = labels.items() <= metadata.get("labels", {}).items()
        requested &= annotations.items() <= metadata.get("annotations", {}).items()
        containers = {container["name"] for container in (*spec.get("initContainers", ()), *spec["containers"])}
        if requested and proxy not in containers:
            fix = "check the mesh's injector (its webhook, and mesh.revision), then restart the pod"
            description = f"asked {values.mesh.kind} for a sidecar and has none"
            yield Finding("fail", f"pod {metadata['name']}", description, fix)


def _image(values: Values, facts: ClusterFacts) -> Iterator[Finding]:
    """Compare the image with those of running pods. Pods that cannot pull it are findings of ``_pods``."""
    tag = values.image.rpartition("/")[2].partition(":")[2]
    if "@" not in values.image and tag in ("", "latest"):
        description = f"{values.image} may be a different image on each node"
        yield Finding("warn", "image", description, "use a digest, or a tag that never moves")
    outdated = {
        f"{container['name']} in {pod['metadata']['name']} runs {container['image']}"
        for pod in filter(_is_running, facts.pods)
        for container in pod["spec"]["containers"]
        if container["name"] in _PROGRAMS and container["image"] != values.image
    }
    if outdated:
        yield Finding("warn", "image", "; ".join(sorted(outdated)), "apply the manifests, and wait for the rollout")


_PROGRAMS = {"api-server", "dag-processor", "migrations", "scheduler", "triggerer"}
"""Containers that run the image of the values."""


def _is_running(pod: Manifest) -> bool:
    return pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


def _bytecode(values: Values, facts: ClusterFacts) -> Iterator[Finding]:
    compiled, modules = facts.bytecode or (0, 0)
    if not modules:
        return
    if compiled * 2 >= modules or values.config.get("crosswind", {}).get("bytecode_volume"):
        yield Finding("ok", "bytecode", f"of {compiled:,} of Airflow's {modules:,} modules is in the image")
        return
    yield Finding(
        "warn",
        "bytecode",
        f"{values.image} has bytecode of {compiled:,} of Airflow's {modules:,} modules: imports take twice as long",
        "add to its Dockerfile RUN python -m compileall -q ~/.local/lib, or set [crosswind] bytecode_volume",
    )


def _losses(values: Values) -> Iterator[Finding]:
    """Report what keeps a pod that the cluster takes from costing no retry."""
    options = {name: str(value).strip().lower() for name, value in values.config.get("crosswind", {}).items()}
    without_shim = options.get("worker_shim") in _FALSE or options.get("workload_delivery") == "args"
    if without_shim and options.get("infra_retries") != "0":
        cause = "worker_shim is off" if options.get("worker_shim") in _FALSE else "workload_delivery is args"
        yield Finding(
            "warn",
            "losses",
            f"[crosswind] {cause}: workers store the failure that an eviction causes, which costs a retry",
            "remove the option, or set infra_retries to 0 (docs/guides/losses.md)",
        )


_FALSE = ("false", "f", "0", "no", "n", "off")


def _mesh_version(deployment: Manifest) -> tuple[int, int] | None:
    image = str(deployment["spec"]["template"]["spec"]["containers"][0].get("image", ""))
    return _version(image.rpartition(":")[2])


def _referred(facts: ClusterFacts) -> Iterator[Finding]:
    for reference, manifest in facts.referred.items():
        kind, namespace, name = reference
        check = f"{kind} {name}" + (f" in {namespace}" if namespace else "")
        if manifest is None:
            yield Finding("fail", check, "is not there, and pods wait for it", "create it (docs/guides/deploy.md)")
            continue
        missing = facts.keys.get(reference, frozenset()) - set(manifest.get("data") or {})
        phase = manifest.get("status", {}).get("phase")
        if missing:
            yield Finding("fail", check, f"has no key {', '.join(sorted(missing))}", "add it")
        elif kind == "PersistentVolumeClaim" and phase != "Bound":
            yield Finding("warn", check, f"is {phase or 'not bound'}", "read kubectl describe pvc")
        else:
            yield Finding("ok", check, "is there")


_KIND_FIXES = {
    "external-secrets.io": "install the External Secrets operator, or create the Secrets and leave out secrets.store",
    "istio.io": "install Istio, or write mesh: {kind: none}",
    "monitoring.coreos.com": "install the Prometheus operator, or leave out metrics.alerts",
}
"""How to get the kinds that a plain cluster does not serve, by API group."""


def _kinds(facts: ClusterFacts) -> Iterator[Finding]:
    for kind, files in facts.unserved.items():
        fix = next((fix for group, fix in _KIND_FIXES.items() if group in kind), "upgrade the cluster")
        yield Finding("fail", f"kind {kind}", f"is not served, and apply fails on {', '.join(files)}", fix)


def _template(facts: ClusterFacts) -> Iterator[Finding]:
    for namespace, refusal in facts.refusals.items():
        if refusal:
            yield Finding("fail", f"workers in {namespace}", why_refused(refusal))
        else:
            yield Finding("ok", f"workers in {namespace}", "the API server accepts their pods")


def _execution(facts: ClusterFacts) -> Iterator[Finding]:
    if "execution API" in facts.unseen:
        return
    if facts.execution is None:
        yield Finding("warn", "execution API", "no API server runs", "apply the manifests; without it no task runs")
        return
    status, body = facts.execution
    if status == 200:
        yield Finding("ok", "execution API", "answers")
    else:
        description = f"responds with {status}" if status else "does not answer"
        yield Finding("fail", "execution API", f"{description}: {body[:200]}", "read the log of the API server's pod")

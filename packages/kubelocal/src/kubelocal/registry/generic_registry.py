"""The generic registry: the verbs on objects with Kubernetes' rules, for the HTTP API and for the cluster's own parts.

Synchronous and in memory; every error is a ``StatusError``. Callers never change returned objects in place.
"""

from __future__ import annotations

import builtins
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import orjson

from kubelocal.codec.kinds import KINDS, Kind
from kubelocal.codec.status_errors import (
    Cause,
    StatusError,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
)
from kubelocal.interfaces import Registry
from kubelocal.registry.defaults import apply_defaults, apply_status_defaults
from kubelocal.registry.deletion import DeleteOptions, plan_deletion, shortened, timestamp
from kubelocal.registry.disruption_budgets import budget_refusal
from kubelocal.registry.event_recorder import Recorder, new_uid
from kubelocal.registry.update_validation import validate_update
from kubelocal.registry.validation import validate
from kubelocal.storage.selectors import Selector
from kubelocal.storage.store import Entry, Store
from kubelocal.storage.watch_stream import FeedSubscription
from kubelocal.types import Manifest

__all__ = ["Admitter", "ClusterRegistry", "Guard", "Mutator", "OwnershipUpdate"]

Mutator: TypeAlias = Callable[[Manifest, Registry], Manifest]
"""Mutates a new pod before validation and returns it."""

Admitter: TypeAlias = Callable[[Manifest, Registry, Manifest | None], Sequence[str]]
"""Validates an object: raises ``StatusError`` or returns warnings. The last argument is the old state, if any."""

Guard: TypeAlias = Callable[[Manifest, Manifest | None], None]
"""Checks an object for one request, before the admitters do: raises ``StatusError``. The second is the old state."""

OwnershipUpdate: TypeAlias = Callable[[Manifest, Manifest], Manifest]

LETTERS = "bcdfghjklmnpqrstvwxz2456789"
GENERATED_PREFIX = 58  # 63 characters, of which 5 are random
SYSTEM_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
PRESERVED_FIELDS = (*SYSTEM_FIELDS, "resourceVersion", "managedFields")
CLEARED_FIELDS = frozenset({*SYSTEM_FIELDS, "selfLink", "managedFields", "resourceVersion"})
# kinds whose metadata.generation counts changes of the spec
KINDS_WITH_GENERATION = frozenset({"CronJob", "DaemonSet", "Deployment", "Job", "Pod", "ReplicaSet", "StatefulSet"})
KEEPS_STATUS = frozenset({"Node"})  # kinds that may be created with a status
CREATED_BY_PUT = frozenset(
    {"Event", "Lease", "LimitRange", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Service"}
)
NEEDS_VERSION = frozenset({"Lease"})  # kinds whose PUT must name the resourceVersion that it replaces
# kinds whose deleted object a DELETE answers with; for all others it answers with a Status
KINDS_RETURNED_ON_DELETE = frozenset(
    {"Pod", "PersistentVolume", "PersistentVolumeClaim", "ServiceAccount", "ResourceQuota"}
)


class ClusterRegistry:
    """Implements ``interfaces.Registry``, and the operations that only the HTTP API needs.

    ``mutators`` run on each new pod, ``admitters`` on each new or changed object, both in order.
    ``clock``: seconds since 1970.
    """

    def __init__(
        self,
        store: Store,
        mutators: Sequence[Mutator] = (),
        admitters: Sequence[Admitter] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.clock = clock
        self._mutators = mutators
        self._admitters = admitters
        self._recorder = Recorder(store, clock)

    # reading

    def entry(self, kind: str, namespace: str, name: str) -> Entry:
        """Return an object's present state; raise 404 for an unknown one."""
        entry = self.store.get(kind, namespace, name)
        if entry is None:
            raise not_found(kind, name)
        return entry

    def get(self, kind: str, namespace: str, name: str) -> Manifest:
        """Return an object."""
        return self.entry(kind, namespace, name).object

    def list(self, kind: str, namespace: str | None = None) -> builtins.list[Manifest]:
        """Return all objects of a kind, of one namespace or (None) of all."""
        return [entry.object for entry in self.store.entries(kind, namespace)]

    def watch(self, kind: str, namespace: str | None = None) -> FeedSubscription:
        """Watch a kind: an ADDED for each existing object, then every change."""
        return FeedSubscription(self.store, kind, namespace)

    # creating

    def create(self, kind: str, namespace: str, manifest: Manifest) -> Manifest:
        """Default, validate, admit and store a new object; ``manifest`` is not changed."""
        return self.add(KINDS[kind], namespace, orjson.loads(orjson.dumps(manifest))).object

    def add(
        self,
        kind: Kind,
        namespace: str,
        manifest: Manifest,
        *,
        dry_run: bool = False,
        warnings: builtins.list[str] | None = None,
        own: Callable[[Manifest], None] | None = None,
        guard: Guard | None = None,
    ) -> Entry:
        """Do the same with an object that the caller gives up; ``dry_run`` stores nothing.

        ``warnings``: receives the admission warnings. ``own``: records the creator in the object, in place. ``guard``:
        whether this client may store it.
        """
        fresh = self._begin(kind, namespace, manifest)
        apply_defaults(kind, fresh)
        self._check_namespace(kind, namespace, fresh["metadata"].get("name", ""))
        # Mutators expect containers and names; a pod without them is refused by the validation below.
        if kind.kind == "Pod" and self._mutators and _is_named(fresh["spec"]):
            for mutate in self._mutators:
                fresh = mutate(fresh, self)
            apply_defaults(kind, fresh)
        name = fresh["metadata"].get("name", "")
        if causes := validate(kind, fresh):
            raise invalid(kind.kind, name, causes)
        if guard:
            guard(fresh, None)
        self._admit(fresh, None, warnings)
        # After admission, as in Kubernetes: a create of an existing name that is forbidden is 403, not 409.
        if self.store.get(kind.kind, namespace, name):
            raise already_exists(kind.kind, name)
        # Here, because nothing else runs regularly: the writer of an event makes room for it.
        if kind.kind == "Event":
            self._recorder.forget()
        if own:
            own(fresh)
        return Entry(fresh, 0) if dry_run else self.store.put(kind.kind, namespace, name, fresh)

    def _admit(self, new: Manifest, old: Manifest | None, warnings: builtins.list[str] | None) -> None:
        for admit in self._admitters:
            detail = admit(new, self, old)
            if warnings is not None:
                warnings += detail

    def _begin(self, kind: Kind, namespace: str, manifest: Manifest) -> Manifest:
        """Set the fields of a new object that only the system may set."""
        metadata = self._begin_metadata(kind, namespace, manifest.get("metadata") or {})
        fresh = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
        # PrepareForCreate of these kinds clears the status: only the subresource may write it.
        dropped = "status" if "status" in kind.parts and kind.kind not in KEEPS_STATUS else ""
        fresh |= {key: value for key, value in manifest.items() if key not in {*fresh, dropped}}
        if kind.kind in KINDS_WITH_GENERATION:
            metadata["generation"] = 1
            fresh.setdefault("spec", {})
        return fresh

    def _begin_metadata(self, kind: Kind, namespace: str, submitted: Manifest) -> Manifest:
        if submitted.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")  # 500 in Kubernetes
        metadata = {key: value for key, value in submitted.items() if key not in CLEARED_FIELDS}
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = self._generate(kind, namespace, metadata["generateName"])
        _place(kind, namespace, metadata)
        return metadata | {"uid": new_uid(), "creationTimestamp": timestamp(self.clock())}

    def _generate(self, kind: Kind, namespace: str, prefix: str) -> str:
        while True:
            # Kubernetes draws again too after a clash, eight times at most (KEP-4420).
            name = prefix[:GENERATED_PREFIX] + "".join(secrets.choice(LETTERS) for _ in range(5))
            if self.store.get(kind.kind, namespace, name) is None:
                return name

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.namespaced:
            return
        within = self.get("Namespace", "", namespace)
        # The namespace's content is being deleted: a new object would be deleted, or hold the deletion up.
        if "deletionTimestamp" in within["metadata"]:
            cause = Cause("NamespaceTerminating", f"namespace {namespace} is being terminated", "metadata.namespace")
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise forbidden(kind.kind, name, why, causes=[cause])

    # changing

    def update(
        self, kind: str, namespace: str, name: str, change: Callable[[Manifest], None], *, subresource: str = ""
    ) -> Manifest:
        """Apply ``change`` to a deep copy and store the result; an unchanged object is not stored."""
        old = self.entry(kind, namespace, name)
        new = old.copy()
        change(new)
        if subresource == "status":
            new = {**old.object, "metadata": dict(old.object["metadata"]), "status": new.get("status", {})}
        return self._settle(KINDS[kind], old, new).object

    def revise(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        make: Callable[[Manifest], Manifest],
        *,
        subresource: str = "",
        dry_run: bool = False,
        warnings: builtins.list[str] | None = None,
        own: OwnershipUpdate | None = None,
        guard: Guard | None = None,
    ) -> Entry:
        """Store the state that ``make`` returns for the present one, with the rules of a PUT or PATCH.

        ``make`` returns a fresh object. ``subresource``: "", status, ephemeralcontainers or finalize. ``own``: maps
        the old and new states to the new one with its field owners. ``guard``: as for ``add``.
        """
        old = self.entry(kind.kind, namespace, name)
        submitted = make(old.object)
        _check_identity(kind, old.object["metadata"], submitted.setdefault("metadata", {}))
        new = _combine(kind, old.object, submitted, subresource)
        if subresource in {"", "ephemeralcontainers"}:
            apply_defaults(kind, new)
        elif subresource == "status":
            apply_status_defaults(kind, new["status"])
        causes = validate_update(kind, old.object, new, subresource)
        if not subresource:
            causes = [*validate(kind, new), *causes]
        if causes:
            raise invalid(kind.kind, name, causes)
        if guard:
            guard(new, old.object)
        if subresource in {"", "ephemeralcontainers"}:
            self._admit(new, old.object, warnings)
        if own:
            new = own(old.object, new)
        return self._settle(kind, old, new, dry_run=dry_run)

    def replace(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        manifest: Manifest,
        *,
        subresource: str = "",
        dry_run: bool = False,
        warnings: builtins.list[str] | None = None,
        own: OwnershipUpdate | None = None,
        guard: Guard | None = None,
    ) -> tuple[Entry, bool]:
        """Handle a PUT; return the new state and whether it created the object, which a few kinds allow."""
        metadata = manifest.setdefault("metadata", {})
        if not metadata.get("name"):
            why = "was undeterminable: name must be provided"
            raise bad_request(f"the name of the object ({name} based on URL) {why}")
        _check_identity(kind, {"name": name, "namespace": namespace}, metadata)
        if kind.kind in CREATED_BY_PUT and not subresource and not self.store.get(kind.kind, namespace, name):
            return self.add(kind, namespace, manifest, dry_run=dry_run, warnings=warnings, guard=guard), True
        if kind.kind in NEEDS_VERSION and not metadata.get("resourceVersion"):
            detail = "Invalid value: 0: must be specified for an update"
            raise invalid(kind.kind, name, [Cause("FieldValueInvalid", detail, "metadata.resourceVersion")])
        entry = self.revise(
            kind,
            namespace,
            name,
            lambda _: manifest,
            subresource=subresource,
            dry_run=dry_run,
            warnings=warnings,
            own=own,
            guard=guard,
        )
        return entry, False

    def _settle(self, kind: Kind, old: Entry, new: Manifest, *, dry_run: bool = False) -> Entry:
        """Store a changed state; delete a terminating object that has no finalizers left."""
        # No new version, no event: a controller that writes an equal state must not wake itself for ever.
        if new == old.object:
            return old
        metadata = new["metadata"]
        if kind.kind in KINDS_WITH_GENERATION and new.get("spec") != old.object.get("spec"):
            metadata["generation"] = metadata.get("generation", 0) + 1
        if dry_run:
            return Entry(new, old.version)
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        if _released(kind, new):
            return self.store.delete(kind.kind, namespace, name, new)
        return self.store.put(kind.kind, namespace, name, new)

    def bind(self, namespace: str, name: str, binding: Manifest) -> None:
        """Bind a pod to the node of a Binding; raise 409 for a bound or terminating pod."""
        node = (binding.get("target") or {}).get("name")
        if not node:
            raise invalid("Binding", name, [Cause("FieldValueRequired", "Required value", "target.name")])
        if (kind := binding["target"].get("kind") or "Node") != "Node":
            detail = f'Unsupported value: "{kind}": supported values: "Node", "<empty>"'
            raise invalid("Binding", name, [Cause("FieldValueNotSupported", detail, "target.kind")])
        pod = self.get("Pod", namespace, name)
        if why := _unbindable(pod):
            raise conflict("pods/binding", name, f"pod {name} {why}")
        annotations = (binding.get("metadata") or {}).get("annotations") or {}
        self.update("Pod", namespace, name, lambda pod: _assign(pod, node, annotations, timestamp(self.clock())))

    def evict(self, namespace: str, name: str, options: DeleteOptions) -> None:
        """Evict a pod: set its DisruptionTarget condition, then delete it.

        A pod that has not started or has ended gets the condition too (``addConditionAndDeletePod`` in the API server's
        ``eviction.go``); only budgets do not count for it. Raises 429 if a disruption budget forbids it.
        """
        pod = self.get("Pod", namespace, name)
        # Only its checks count here: a failed precondition must be answered before the condition below is written.
        plan_deletion(KINDS["Pod"], pod, options, self.clock())
        live = pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        budgets = self.list("PodDisruptionBudget", namespace) if live else []
        if budgets and (refusal := budget_refusal(pod, budgets, self.list("Pod", namespace))):
            raise refusal
        if not options.dry_run:
            self.update(
                "Pod", namespace, name, lambda pod: _disrupt(pod, timestamp(self.clock())), subresource="status"
            )
            # Without the version: the update above has changed it.
            options = DeleteOptions(options.grace_period, options.uid)
        self.erase(KINDS["Pod"], namespace, name, options)

    # deleting

    def delete(
        self, kind: str, namespace: str, name: str, *, uid: str | None = None, grace_period: int | None = None
    ) -> Manifest | None:
        """Delete as over HTTP, dependents in the background; return the terminating object, None once deleted."""
        options = DeleteOptions(grace_period, uid or "", propagation="Background")
        entry, gone = self.erase(KINDS[kind], namespace, name, options)
        return None if gone else entry.object

    def erase(self, kind: Kind, namespace: str, name: str, options: DeleteOptions) -> tuple[Entry, bool]:
        """Delete an object; return its final or terminating state, and whether it is deleted."""
        old = self.entry(kind.kind, namespace, name)
        plan = plan_deletion(kind, old.object, options, self.clock())
        # A second DELETE without less grace changes nothing.
        if plan.state is old.object:
            return old, False
        if options.dry_run:
            return Entry(plan.state, old.version), plan.gone
        if plan.gone:
            return self.store.delete(kind.kind, namespace, name, plan.state), True
        return self.store.put(kind.kind, namespace, name, plan.state), False

    def erase_all(
        self, kind: Kind, namespace: str | None, selector: Selector, options: DeleteOptions
    ) -> builtins.list[Entry]:
        """Delete all matching objects; return their final or terminating states."""
        erased = []
        for entry in self.store.entries(kind.kind, namespace):
            metadata = entry.object["metadata"]
            if selector.matches(entry.object):
                # One object whose deletion is refused does not keep the others.
                with suppress(StatusError):
                    erased.append(self.erase(kind, metadata.get("namespace", ""), metadata["name"], options)[0])
        return erased

    def remove(self, kind: str, namespace: str, name: str, *, uid: str) -> None:
        """Remove a terminating object without finalizers: the last step of the component that ended it."""
        old = self.entry(kind, namespace, name)
        metadata = old.object["metadata"]
        if metadata["uid"] != uid:
            raise conflict(kind, name, f"the UID in the precondition ({uid}) does not match ({metadata['uid']})")
        state = {**old.object, "metadata": dict(metadata)}
        if metadata.get("deletionGracePeriodSeconds"):
            # Watchers read in the last event that the grace is over.
            state = shortened(old.object, 0)
        if not metadata.get("finalizers"):
            self.store.delete(kind, namespace, name, state)
        elif state != old.object:
            self.store.put(kind, namespace, name, state)

    # events

    def record(
        self,
        about: Manifest,
        reason: str,
        message: str,
        *,
        warning: bool = False,
        component: str = "kubelet",
        field_path: str = "",
    ) -> None:
        """Store an Event about an object, or increment the count of an equal one; none in a terminating namespace."""
        reference = _reference(about, field_path)
        namespace = self.store.get("Namespace", "", reference.get("namespace") or "default")
        if namespace and "deletionTimestamp" not in namespace.object["metadata"]:
            kind = "Warning" if warning else "Normal"
            source = {"component": component}
            if component == "kubelet" and (node := about.get("spec", {}).get("nodeName")):
                source["host"] = node
            self._recorder.record(reference, reason, message, kind, source)


def _is_named(pod_spec: Manifest) -> bool:
    """Whether a pod has containers, and each of its containers and volumes a name."""
    named = [part for field in ("containers", "initContainers", "volumes") for part in pod_spec.get(field, ())]
    return bool(pod_spec.get("containers")) and all(part.get("name") for part in named)


def _place(kind: Kind, namespace: str, metadata: Manifest) -> None:
    submitted = metadata.pop("namespace", "")
    if not kind.namespaced:
        return
    if submitted and submitted != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    metadata["namespace"] = namespace


def _check_identity(kind: Kind, old: Manifest, submitted: Manifest) -> None:
    """Raise 400 or 409 unless a body is about the object that its path names."""
    name, namespace = old["name"], old.get("namespace", "")
    if submitted.get("name") != name:
        raise bad_request(
            f"the name of the object ({submitted.get('name', '')}) does not match the name on the URL ({name})"
        )
    if kind.namespaced and submitted.get("namespace", namespace) != namespace:
        other = submitted["namespace"]
        raise bad_request(
            f"the namespace of the object ({other}) does not match the namespace on the URL ({namespace})"
        )
    if (uid := submitted.get("uid")) and uid != old.get("uid", uid):
        raise conflict(
            kind.kind, name, f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['uid']}"
        )
    version = submitted.get("resourceVersion")
    if version and version not in {"0", old.get("resourceVersion", version)}:
        raise conflict(kind.kind, name)


def _combine(kind: Kind, old: Manifest, submitted: Manifest, subresource: str) -> Manifest:
    """Return the next state: the part that this subresource changes from ``submitted``, all else from ``old``."""
    if subresource == "ephemeralcontainers":
        added = submitted.get("spec", {}).get("ephemeralContainers", [])
        spec = {**old["spec"], "ephemeralContainers": orjson.loads(orjson.dumps(added))}
        return {**old, "metadata": dict(old["metadata"]), "spec": spec}
    if subresource == "finalize":
        return {**old, "metadata": dict(old["metadata"]), "spec": submitted.get("spec", {})}
    metadata = {key: value for key, value in submitted["metadata"].items() if key not in CLEARED_FIELDS}
    metadata |= {key: old["metadata"][key] for key in PRESERVED_FIELDS if key in old["metadata"]}
    if submitted["metadata"].get("managedFields") == [{}]:  # a client's request to reset the field owners
        metadata.pop("managedFields", None)
    if kind.namespaced:
        metadata["namespace"] = old["metadata"]["namespace"]
    if subresource == "status":
        return {**old, "metadata": metadata, "status": submitted.get("status", {})}
    new = {"kind": kind.kind, "apiVersion": kind.api_version, **submitted, "metadata": metadata}
    if "spec" in old:  # held by value in Go, so a missing one equals an empty one
        new.setdefault("spec", {})
    if "status" in kind.parts:
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    return new


def _released(kind: Kind, manifest: Manifest) -> bool:
    metadata = manifest["metadata"]
    if "deletionTimestamp" not in metadata or metadata.get("finalizers"):
        return False
    if kind.kind == "Namespace":
        return not manifest.get("spec", {}).get("finalizers")
    return not metadata.get("deletionGracePeriodSeconds")


def _unbindable(pod: Manifest) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "is being deleted, cannot be assigned to a host"
    if node := pod["spec"].get("nodeName"):
        return f'is already assigned to node "{node}"'
    return "has non-empty .spec.schedulingGates" if pod["spec"].get("schedulingGates") else ""


def _assign(pod: Manifest, node: str, annotations: dict[str, str], now: str) -> None:
    pod["spec"]["nodeName"] = node
    if annotations:
        pod["metadata"]["annotations"] = {**pod["metadata"].get("annotations", {}), **annotations}
    _set_condition(pod, {"type": "PodScheduled", "status": "True", "lastTransitionTime": now})


def _disrupt(pod: Manifest, now: str) -> None:
    detail = {"reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}
    _set_condition(pod, {"type": "DisruptionTarget", "status": "True", **detail, "lastTransitionTime": now})


def _set_condition(pod: Manifest, condition: dict[str, str]) -> None:
    others = [other for other in pod["status"].get("conditions", []) if other["type"] != condition["type"]]
    pod["status"]["conditions"] = [*others, {"lastProbeTime": None, **condition}]


def _reference(about: Manifest, field_path: str) -> Manifest:
    metadata = about["metadata"]
    reference = {
        "kind": about["kind"],
        "namespace": metadata.get("namespace", ""),
        "name": metadata["name"],
        "uid": metadata["uid"],
        "apiVersion": about["apiVersion"],
        "resourceVersion": metadata.get("resourceVersion", ""),
        "fieldPath": field_path,
    }
    return {key: value for key, value in reference.items() if value}

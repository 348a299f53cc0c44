"""The verbs on objects, with Kubernetes' rules: what the API serves and what the cluster's own parts call.

Synchronous and in memory; every refusal is a ``StatusError``. Objects handed out are never to be changed in place.
"""

from __future__ import annotations

import builtins
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import orjson

from crosswind.local.defaults import apply_defaults
from crosswind.local.deleting import DeleteOptions, plan_deletion, shortened, timestamp
from crosswind.local.kinds import KINDS, Kind
from crosswind.local.recording import Recorder, new_uid
from crosswind.local.seams import Registry
from crosswind.local.selectors import Selector
from crosswind.local.statuses import (
    Cause,
    StatusError,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
)
from crosswind.local.store import Entry, Store
from crosswind.local.updates import validate_update
from crosswind.local.validation import validate
from crosswind.local.watching import FeedSubscription
from crosswind.types import Manifest

__all__ = ["Admitter", "ClusterRegistry", "Mutator", "Owning"]

Mutator: TypeAlias = Callable[[Manifest, Registry], Manifest]
"""Changes a new pod, given with its namespace, before it is validated; returns it."""

Admitter: TypeAlias = Callable[[Manifest, Registry, Manifest | None], Sequence[str]]
"""Refuses an object by a ``StatusError`` or returns warnings; given with its state before, None for a new one."""

Owning: TypeAlias = Callable[[Manifest, Manifest], Manifest]

LETTERS = "bcdfghjklmnpqrstvwxz2456789"
GENERATED_PREFIX = 58  # a name of 63, of which 5 are random
SYSTEM = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
CARRIED = (*SYSTEM, "resourceVersion", "managedFields")
NOT_GIVEN = frozenset({*SYSTEM, "selfLink", "managedFields", "resourceVersion"})
# kinds whose metadata.generation counts the changes of their spec
COUNTED = frozenset({"CronJob", "DaemonSet", "Deployment", "Job", "Pod", "ReplicaSet", "StatefulSet"})
KEEPS_STATUS = frozenset({"Node"})  # kinds that are created with their status
CREATED_BY_PUT = frozenset(
    {"Event", "Lease", "LimitRange", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Service"}
)
NEEDS_VERSION = frozenset({"Lease"})  # kinds of which a PUT must tell the version that it replaces
RETURNED = frozenset({"Pod", "PersistentVolume", "PersistentVolumeClaim", "ServiceAccount", "ResourceQuota"})


class ClusterRegistry:
    """``seams.Registry``, and what the HTTP API needs beyond it.

    ``mutators`` run on each new pod, in order; ``admitters`` are asked about each new or changed object.
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
        """Return an object's present state; raise 404 if there is none."""
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
        """Follow a kind: an ADDED for each object that is there, then every change."""
        return FeedSubscription(self.store, kind, namespace)

    # creating

    def create(self, kind: str, namespace: str, manifest: Manifest) -> Manifest:
        """Default, validate, admit and store a new object; ``manifest`` is left as it is."""
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
    ) -> Entry:
        """Do the same with an object of the registry's own, which it changes; with ``dry_run`` nothing is kept.

        ``warnings``: takes what admission has to say about the object. ``own``: notes in it, in place, who made it.
        """
        fresh = self._begin(kind, namespace, manifest)
        apply_defaults(kind, fresh)
        self._check_namespace(kind, namespace, fresh["metadata"].get("name", ""))
        # a pod without containers or names is refused below, and is none that a mutator could understand
        if kind.kind == "Pod" and self._mutators and _is_named(fresh["spec"]):
            for mutate in self._mutators:
                fresh = mutate(fresh, self)
            apply_defaults(kind, fresh)
        name = fresh["metadata"].get("name", "")
        if causes := validate(kind, fresh):
            raise invalid(kind.kind, name, causes)
        self._admit(fresh, None, warnings)
        if self.store.get(kind.kind, namespace, name):
            raise already_exists(kind.kind, name)
        if kind.kind == "Event":
            self._recorder.forget()
        if own:
            own(fresh)
        return Entry(fresh, 0) if dry_run else self.store.put(kind.kind, namespace, name, fresh)

    def _admit(self, new: Manifest, old: Manifest | None, warnings: builtins.list[str] | None) -> None:
        for admit in self._admitters:
            told = admit(new, self, old)
            if warnings is not None:
                warnings += told

    def _begin(self, kind: Kind, namespace: str, manifest: Manifest) -> Manifest:
        """Give a new object what the system alone decides."""
        metadata = self._begin_metadata(kind, namespace, manifest.get("metadata") or {})
        fresh = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
        dropped = "status" if "status" in kind.parts and kind.kind not in KEEPS_STATUS else ""
        fresh |= {key: value for key, value in manifest.items() if key not in {*fresh, dropped}}
        if kind.kind in COUNTED:
            metadata["generation"] = 1
            fresh.setdefault("spec", {})
        return fresh

    def _begin_metadata(self, kind: Kind, namespace: str, given: Manifest) -> Manifest:
        if given.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")  # 500 in Kubernetes
        metadata = {key: value for key, value in given.items() if key not in NOT_GIVEN}
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = self._generate(kind, namespace, metadata["generateName"])
        _place(kind, namespace, metadata)
        return metadata | {"uid": new_uid(), "creationTimestamp": timestamp(self.clock())}

    def _generate(self, kind: Kind, namespace: str, prefix: str) -> str:
        while True:
            name = prefix[:GENERATED_PREFIX] + "".join(secrets.choice(LETTERS) for _ in range(5))
            if self.store.get(kind.kind, namespace, name) is None:
                return name

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.namespaced:
            return
        within = self.get("Namespace", "", namespace)
        if "deletionTimestamp" in within["metadata"]:
            cause = Cause("NamespaceTerminating", f"namespace {namespace} is being terminated", "metadata.namespace")
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise forbidden(kind.kind, name, why, causes=[cause])

    # changing

    def update(
        self, kind: str, namespace: str, name: str, change: Callable[[Manifest], None], *, subresource: str = ""
    ) -> Manifest:
        """Let ``change`` work on a deep copy and store the outcome; nothing happens when it changed nothing."""
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
        own: Owning | None = None,
    ) -> Entry:
        """Store what ``make`` makes of the present state, with the rules of a PUT or PATCH.

        ``make`` returns a fresh object. ``subresource``: "", status, ephemeralcontainers or finalize. ``own``: from
        the old and the new state to the new one with its fields' owners.
        """
        old = self.entry(kind.kind, namespace, name)
        given = make(old.object)
        _check_identity(kind, old.object["metadata"], given.setdefault("metadata", {}))
        new = _combine(kind, old.object, given, subresource)
        if subresource in {"", "ephemeralcontainers"}:
            apply_defaults(kind, new)
        causes = validate_update(kind, old.object, new, subresource)
        if not subresource:
            causes = [*validate(kind, new), *causes]
        if causes:
            raise invalid(kind.kind, name, causes)
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
        own: Owning | None = None,
    ) -> tuple[Entry, bool]:
        """Do a PUT; return the new state and whether the object is a new one (a few kinds are created so)."""
        metadata = manifest.setdefault("metadata", {})
        if not metadata.get("name"):
            why = "was undeterminable: name must be provided"
            raise bad_request(f"the name of the object ({name} based on URL) {why}")
        _check_identity(kind, {"name": name, "namespace": namespace}, metadata)
        if kind.kind in CREATED_BY_PUT and not subresource and not self.store.get(kind.kind, namespace, name):
            return self.add(kind, namespace, manifest, dry_run=dry_run, warnings=warnings), True
        if kind.kind in NEEDS_VERSION and not metadata.get("resourceVersion"):
            told = "Invalid value: 0: must be specified for an update"
            raise invalid(kind.kind, name, [Cause("FieldValueInvalid", told, "metadata.resourceVersion")])
        entry = self.revise(
            kind,
            namespace,
            name,
            lambda _: manifest,
            subresource=subresource,
            dry_run=dry_run,
            warnings=warnings,
            own=own,
        )
        return entry, False

    def _settle(self, kind: Kind, old: Entry, new: Manifest, *, dry_run: bool = False) -> Entry:
        """Store a changed state; an object that is marked and held no longer goes with it."""
        if new == old.object:
            return old
        metadata = new["metadata"]
        if kind.kind in COUNTED and new.get("spec") != old.object.get("spec"):
            metadata["generation"] = metadata.get("generation", 0) + 1
        if dry_run:
            return Entry(new, old.version)
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        if _released(kind, new):
            return self.store.delete(kind.kind, namespace, name, new)
        return self.store.put(kind.kind, namespace, name, new)

    def bind(self, namespace: str, name: str, binding: Manifest) -> None:
        """Put a pod on the node that a Binding names; raise 409 when it has one or is being deleted."""
        node = (binding.get("target") or {}).get("name")
        if not node:
            raise invalid("Binding", name, [Cause("FieldValueRequired", "Required value", "target.name")])
        if (kind := binding["target"].get("kind") or "Node") != "Node":
            told = f'Unsupported value: "{kind}": supported values: "Node", "<empty>"'
            raise invalid("Binding", name, [Cause("FieldValueNotSupported", told, "target.kind")])
        pod = self.get("Pod", namespace, name)
        if why := _unbindable(pod):
            raise conflict("pods/binding", name, f"pod {name} {why}")
        annotations = (binding.get("metadata") or {}).get("annotations") or {}
        self.update("Pod", namespace, name, lambda pod: _assign(pod, node, annotations, timestamp(self.clock())))

    def evict(self, namespace: str, name: str, options: DeleteOptions) -> None:
        """Evict a pod: mark why, then delete it."""
        pod = self.get("Pod", namespace, name)
        plan_deletion(KINDS["Pod"], pod, options, self.clock())
        live = pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        if live and not options.dry_run:
            self.update(
                "Pod", namespace, name, lambda pod: _disrupt(pod, timestamp(self.clock())), subresource="status"
            )
            options = DeleteOptions(options.grace_period, options.uid)
        self.erase(KINDS["Pod"], namespace, name, options)

    # deleting

    def delete(
        self, kind: str, namespace: str, name: str, *, uid: str | None = None, grace_period: int | None = None
    ) -> Manifest | None:
        """Delete as over HTTP, dependents in the background; return the object, or None if it is gone."""
        options = DeleteOptions(grace_period, uid or "", propagation="Background")
        entry, gone = self.erase(KINDS[kind], namespace, name, options)
        return None if gone else entry.object

    def erase(self, kind: Kind, namespace: str, name: str, options: DeleteOptions) -> tuple[Entry, bool]:
        """Delete an object; return its last or marked state, and whether it is gone."""
        old = self.entry(kind.kind, namespace, name)
        plan = plan_deletion(kind, old.object, options, self.clock())
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
        """Delete all objects that match; return their last or marked states."""
        erased = []
        for entry in self.store.entries(kind.kind, namespace):
            metadata = entry.object["metadata"]
            if selector.matches(entry.object):
                with suppress(StatusError):
                    erased.append(self.erase(kind, metadata.get("namespace", ""), metadata["name"], options)[0])
        return erased

    def remove(self, kind: str, namespace: str, name: str, *, uid: str) -> None:
        """Take a marked object away, unless finalizers hold it: the last word of who ended it."""
        old = self.entry(kind, namespace, name)
        metadata = old.object["metadata"]
        if metadata["uid"] != uid:
            raise conflict(kind, name, f"the UID in the precondition ({uid}) does not match ({metadata['uid']})")
        state = {**old.object, "metadata": dict(metadata)}
        if metadata.get("deletionGracePeriodSeconds"):
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
        """Store an Event about an object, counting repeats up; none where the namespace is gone or going."""
        reference = _reference(about, field_path)
        namespace = self.store.get("Namespace", "", reference.get("namespace") or "default")
        if namespace and "deletionTimestamp" not in namespace.object["metadata"]:
            kind = "Warning" if warning else "Normal"
            source = {"component": component}
            if component == "kubelet" and (node := about.get("spec", {}).get("nodeName")):
                source["host"] = node
            self._recorder.record(reference, reason, message, kind, source)


def _is_named(pod_spec: Manifest) -> bool:
    """Tell whether a pod has containers, and each of its containers and volumes a name."""
    named = [part for field in ("containers", "initContainers", "volumes") for part in pod_spec.get(field, ())]
    return bool(pod_spec.get("containers")) and all(part.get("name") for part in named)


def _place(kind: Kind, namespace: str, metadata: Manifest) -> None:
    given = metadata.pop("namespace", "")
    if not kind.namespaced:
        return
    if given and given != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    metadata["namespace"] = namespace


def _check_identity(kind: Kind, old: Manifest, given: Manifest) -> None:
    """Raise unless a body speaks of the object that its address names."""
    name, namespace = old["name"], old.get("namespace", "")
    if given.get("name") != name:
        raise bad_request(
            f"the name of the object ({given.get('name', '')}) does not match the name on the URL ({name})"
        )
    if kind.namespaced and given.get("namespace", namespace) != namespace:
        told = (
            f"the namespace of the object ({given['namespace']}) does not match the namespace on the URL ({namespace})"
        )
        raise bad_request(told)
    if (uid := given.get("uid")) and uid != old.get("uid", uid):
        raise conflict(
            kind.kind, name, f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['uid']}"
        )
    version = given.get("resourceVersion")
    if version and version not in {"0", old.get("resourceVersion", version)}:
        raise conflict(kind.kind, name)


def _combine(kind: Kind, old: Manifest, given: Manifest, subresource: str) -> Manifest:
    """Return the next state: from ``given`` what this address changes, from ``old`` all else."""
    if subresource == "ephemeralcontainers":
        added = given.get("spec", {}).get("ephemeralContainers", [])
        spec = {**old["spec"], "ephemeralContainers": orjson.loads(orjson.dumps(added))}
        return {**old, "metadata": dict(old["metadata"]), "spec": spec}
    if subresource == "finalize":
        return {**old, "metadata": dict(old["metadata"]), "spec": given.get("spec", {})}
    metadata = {key: value for key, value in given["metadata"].items() if key not in NOT_GIVEN}
    metadata |= {key: old["metadata"][key] for key in CARRIED if key in old["metadata"]}
    if given["metadata"].get("managedFields") == [{}]:  # how a client asks to forget the owners
        metadata.pop("managedFields", None)
    if kind.namespaced:
        metadata["namespace"] = old["metadata"]["namespace"]
    if subresource == "status":
        return {**old, "metadata": metadata, "status": given.get("status", {})}
    new = {"kind": kind.kind, "apiVersion": kind.api_version, **given, "metadata": metadata}
    if "spec" in old:  # held by value in Go, so that none is an empty one
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
    told = {"reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}
    _set_condition(pod, {"type": "DisruptionTarget", "status": "True", **told, "lastTransitionTime": now})


def _set_condition(pod: Manifest, condition: dict[str, str]) -> None:
    others = [one for one in pod["status"].get("conditions", []) if one["type"] != condition["type"]]
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

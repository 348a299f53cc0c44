"""What the security contexts of pod and container come to: user, groups, capabilities, owners of volumes. Pure.

After ``pkg/securitycontext``, ``pkg/kubelet/kuberuntime/security_context.go`` and containerd's defaults.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from kubelocal.kubelet.environment import ContainerConfigError
from kubelocal.kubelet.pod_volumes import Ownership
from kubelocal.settings import LocalImage
from kubelocal.types import Manifest

__all__ = ["Identity", "Powers", "field_of", "identity_of", "not_applied", "ownership_of"]

# fmt: off
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)
"""By number, as in ``linux/capability.h``."""

DEFAULT = frozenset((
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
))
"""What containerd leaves to a container that asks for nothing."""
# fmt: on


@dataclass(frozen=True, slots=True)
class Powers:
    """What the kubelet can do here.

    ``identities``: containers may run as ``any`` user, as ``one`` user under any number, or as the kubelet's ``own``.
    ``uid``, ``gid``, ``groups``: the kubelet's ids. ``mounts``: it can mount. ``why``: why not more, for an event.
    """

    identities: Literal["any", "one", "own"]
    mounts: bool
    uid: int = 0
    gid: int = 0
    groups: frozenset[int] = frozenset()
    why: str = ""

    @property
    def ids(self) -> dict[str, int]:
        """The kubelet's user and group, by the fields that ask for one."""
        return {"runAsUser": self.uid, "runAsGroup": self.gid}


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom a container runs. ``capabilities``: the numbers of those that it may have."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: tuple[int, ...]
    no_new_privileges: bool

    def message(self, powers: Powers) -> dict[str, Any]:
        """Return the launcher's fields."""
        how = "set" if powers.identities == "any" else "keep"
        if powers.identities == "one" and (self.uid or self.gid):  # as 0 it runs anyway
            how = "map"
        return {
            "how": how,
            "uid": self.uid,
            "gid": self.gid,
            "groups": list(self.groups),
            "capabilities": list(self.capabilities),
            "noNewPrivileges": self.no_new_privileges,
        }


def field_of(pod: Manifest, container: Manifest, name: str) -> Any:
    """Return a field of the container's security context, else of the pod's, else None."""
    own = (container.get("securityContext") or {}).get(name)
    return (pod["spec"].get("securityContext") or {}).get(name) if own is None else own


def identity_of(pod: Manifest, container: Manifest, image: LocalImage) -> Identity:
    """Return as whom a container runs. Raises ``ContainerConfigError``: as root, although that is ruled out."""
    user, group = field_of(pod, container, "runAsUser"), field_of(pod, container, "runAsGroup")
    if field_of(pod, container, "runAsNonRoot"):
        user = _not_root(pod, container, user, image)
    common = pod["spec"].get("securityContext") or {}
    further = [*(common.get("supplementalGroups") or ()), *_given(common.get("fsGroup"))]
    gid = int(group or 0)
    own = container.get("securityContext") or {}
    return Identity(
        uid=int(user or 0),
        gid=gid,
        groups=tuple(sorted({gid, *map(int, further)})),
        capabilities=_capabilities(own),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False and not own.get("privileged"),
    )


def _not_root(pod: Manifest, container: Manifest, user: int | None, image: LocalImage) -> int:
    metadata = pod["metadata"]
    where = f'(pod: "{metadata["name"]}_{metadata["namespace"]}({metadata["uid"]})", container: {container["name"]})'
    if user == 0:
        raise ContainerConfigError(f"container's runAsUser breaks non-root policy {where}")
    if user is None and image.user == 0:
        raise ContainerConfigError(f"container has runAsNonRoot and image will run as root {where}")
    return image.user if user is None else user


def _given(value: int | None) -> list[int]:
    return [] if value is None else [value]


def _capabilities(context: Manifest) -> tuple[int, ...]:
    if context.get("privileged"):
        return tuple(range(len(CAPABILITIES)))
    requested = context.get("capabilities") or {}
    added, dropped = _names(requested.get("add")), _names(requested.get("drop"))
    kept = set(CAPABILITIES) if "ALL" in added else set() if "ALL" in dropped else set(DEFAULT)
    kept = (kept | added) - dropped
    return tuple(number for number, name in enumerate(CAPABILITIES) if name in kept)


def _names(listed: Iterable[str] | None) -> set[str]:
    names = {name.upper().removeprefix("CAP_") for name in listed or ()}
    if unknown := sorted(names - {*CAPABILITIES, "ALL"}):
        raise ContainerConfigError(f'unknown capability "CAP_{unknown[0]}"')
    return names


def ownership_of(pod: Manifest, powers: Powers) -> Ownership:
    """Return who owns the files of a pod's volumes: its fsGroup, and of tokens the one user of all its containers."""
    if powers.identities != "any":
        return Ownership()
    common = pod["spec"].get("securityContext") or {}
    containers = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())]
    users = {field_of(pod, container, "runAsUser") for container in containers}
    return Ownership(
        group=common.get("fsGroup"),
        user=users.pop() if len(users) == 1 else None,
        on_root_mismatch=common.get("fsGroupChangePolicy") == "OnRootMismatch",
    )


def not_applied(pod: Manifest, container: Manifest, identity: Identity, powers: Powers) -> str:
    """Return which settings of a container this machine does not let the kubelet apply, and why; "" for none."""
    missing = [*_lacking_ids(pod, container, identity, powers), *_lacking_guards(pod, container, powers)]
    if not missing:
        return ""
    why = f" ({powers.why})" if powers.why else ""
    return f"Container {container['name']} runs without what its pod asks for: {'; '.join(missing)}{why}"


def _lacking_ids(pod: Manifest, container: Manifest, identity: Identity, powers: Powers) -> list[str]:
    """Return the users and groups that the container asks for and does not get."""
    if powers.identities == "any":
        return []
    requested, have = list[tuple[str, int | None, int]](), frozenset((identity.gid,))
    if powers.identities == "own":
        requested = [(name, field_of(pod, container, name), own) for name, own in powers.ids.items()]
        have = powers.groups | {powers.gid}
    common = pod["spec"].get("securityContext") or {}
    groups = [("fsGroup", group) for group in _given(common.get("fsGroup"))]
    groups += [("supplementalGroups", group) for group in common.get("supplementalGroups") or ()]
    unmet = [f"{name} {requested_id}" for name, requested_id, own in requested if requested_id not in (None, own)]
    return [*unmet, *(f"{name} {group}" for name, group in groups if group not in have)]


def _lacking_guards(pod: Manifest, container: Manifest, powers: Powers) -> list[str]:
    """Return the other settings that are not applied; that the runtime's default profiles are not is documented."""
    own = container.get("securityContext") or {}
    profiles = {
        name: (field_of(pod, container, name) or {}).get("type") for name in ("seccompProfile", "appArmorProfile")
    }
    unmet = {
        "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") and not powers.mounts,
        **{name: kind == "Localhost" for name, kind in profiles.items()},
        "seLinuxOptions": field_of(pod, container, "seLinuxOptions"),
        # each container has process ids of its own, or without namespaces those of the machine
        "shareProcessNamespace": pod["spec"].get("shareProcessNamespace"),
        "hostPID": pod["spec"].get("hostPID") and powers.mounts,
        "hostUsers false": pod["spec"].get("hostUsers") is False and powers.identities != "one",
        # in a user namespace capabilities apply to that namespace; without one an ordinary user has none
        "privileged": own.get("privileged") and powers.identities != "any",
    }
    return [name for name, is_unmet in unmet.items() if is_unmet]

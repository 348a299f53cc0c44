"""The Pod Security Standards, check by check, with the messages of Kubernetes.

Source: ``k8s.io/pod-security-admission/policy`` of Kubernetes 1.36 and the standards' page in its documentation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from kubelocal.types import Json, Manifest

__all__ = ["BASELINE", "CHECKS", "PRIVILEGED", "RESTRICTED", "Check", "Violation", "violations"]

PRIVILEGED, BASELINE, RESTRICTED = "privileged", "baseline", "restricted"

NET_BIND = "NET_BIND_SERVICE"
CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
PROFILES = frozenset({"RuntimeDefault", "Localhost"})
SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t"})
SELINUX_TYPES_31 = SELINUX_TYPES | {"container_engine_t"}
SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_syncookies",
    }
)
SYSCTLS_27 = SYSCTLS | {"net.ipv4.ip_local_reserved_ports"}
SYSCTLS_29 = SYSCTLS_27 | frozenset(
    {
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
    }
)
SYSCTLS_32 = SYSCTLS_29 | {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class Violation:
    """A failed check; ``reason`` names it, ``detail`` the fields."""

    reason: str
    detail: str


Judge: TypeAlias = Callable[[Manifest, Manifest], Violation | None]
"""Maps a pod's metadata and spec to a violation."""


@dataclass(frozen=True, slots=True)
class Check:
    """A check of a level. ``since``: judges by the minor version from which each holds, the lowest first.

    ``overrides``: the baseline check that is left out where this one is made.
    """

    name: str
    level: str
    since: Sequence[tuple[int, Judge]]
    overrides: str = ""

    def at(self, minor: int) -> Judge | None:
        """Return the function for a version; None before the check existed."""
        return next((judge for least, judge in reversed(self.since) if least <= minor), None)


def violations(level: str, minor: int, metadata: Manifest, spec: Manifest) -> list[Violation]:
    """Return the checks of a level that a pod fails, in Kubernetes' order."""
    judged = (judge(metadata, spec) for judge in _judges(level, minor))
    return [violation for violation in judged if violation]


@cache
def _judges(level: str, minor: int) -> Sequence[Judge]:
    """Return the checks of a level at a version; restricted checks replace baseline ones."""
    levels = {PRIVILEGED: (), BASELINE: (BASELINE,), RESTRICTED: (BASELINE, RESTRICTED)}[level]
    checks = [check for check in CHECKS if check.level in levels and check.at(minor)]
    replaced = {check.overrides for check in checks}
    ordered = sorted(checks, key=lambda check: (check.level != BASELINE, check.name))
    judges = (check.at(minor) for check in ordered if check.name not in replaced)
    return [judge for judge in judges if judge]


# ------------------------------------------------------------------------------------------------------------- words


def _quoted(texts: Iterable[str]) -> str:
    return ", ".join(json.dumps(text, ensure_ascii=False) for text in texts)


def _many(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _named(containers: Sequence[str]) -> str:
    return f"{_many('container', len(containers))} {_quoted(containers)}"


def _setters(pod: bool, containers: Sequence[str]) -> str:
    return " and ".join([*(["pod"] if pod else []), *([_named(containers)] if containers else [])])


def _uses(containers: Sequence[str]) -> str:
    return f"{_named(containers)} {'uses' if len(containers) == 1 else 'use'}"


# ----------------------------------------------------------------------------------------------------------- reading


def _containers(spec: Manifest) -> Iterator[Manifest]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


def _context(holder: Manifest, *path: str) -> Json:
    """Read a field of the security context of a pod's spec or of a container."""
    value: Json = holder.get("securityContext")
    for field in path:
        value = (value or {}).get(field)
    return value


def _failing(spec: Manifest, fails: Callable[[Manifest], bool]) -> list[str]:
    return [container.get("name", "") for container in _containers(spec) if fails(container)]


def _is_windows(spec: Manifest) -> bool:
    return bool((spec.get("os") or {}).get("name") == "windows")


def _unless_windows(judge: Judge) -> Judge:
    return lambda metadata, spec: None if _is_windows(spec) else judge(metadata, spec)


def _unless_own_users(judge: Judge) -> Judge:
    """Relax a check for a pod with a user namespace of its own (KEP-127)."""
    return lambda metadata, spec: None if spec.get("hostUsers") is False else judge(metadata, spec)


# ---------------------------------------------------------------------------------------------------------- baseline


def _app_armor(metadata: Manifest, spec: Manifest) -> Violation | None:
    def is_bad(holder: Manifest) -> bool:
        profile = _context(holder, "appArmorProfile")
        return profile is not None and profile.get("type") not in PROFILES

    holders = [holder for holder in (spec, *_containers(spec)) if is_bad(holder)]
    annotations = _app_armor_annotations(metadata)
    setters = [_setters(is_bad(spec), _failing(spec, is_bad))] if holders else []
    setters += [_many("annotation", len(annotations))] if annotations else []
    values = [*sorted({_context(holder, "appArmorProfile").get("type", "") for holder in holders}), *annotations]
    detail = f"{' and '.join(setters)} must not set AppArmor profile type to {_quoted(values)}"
    return Violation(_many("forbidden AppArmor profile", len(values)), detail) if setters else None


def _app_armor_annotations(metadata: Manifest) -> list[str]:
    values_set = {key: text for key, text in (metadata.get("annotations") or {}).items() if key.startswith(APPARMOR)}
    bad = {key: text for key, text in values_set.items() if text not in ("", "runtime/default")}
    return sorted(f"{key}={json.dumps(text)}" for key, text in bad.items() if not text.startswith("localhost/"))


def _added(container: Manifest, allowed: Iterable[str]) -> set[str]:
    return set(_context(container, "capabilities", "add") or ()) - set(allowed)


def _adding(spec: Manifest, allowed: Iterable[str]) -> str:
    """Say which containers add capabilities that are not allowed."""
    bad = _failing(spec, lambda container: bool(_added(container, allowed)))
    names = sorted({name for container in _containers(spec) for name in _added(container, allowed)})
    return f"{_named(bad)} must not include {_quoted(names)} in securityContext.capabilities.add" if bad else ""


def _default_capabilities(metadata: Manifest, spec: Manifest) -> Violation | None:
    detail = _adding(spec, CAPABILITIES)
    return Violation("non-default capabilities", detail) if detail else None


def _host_namespaces(metadata: Manifest, spec: Manifest) -> Violation | None:
    violations = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return Violation("host namespaces", ", ".join(violations)) if violations else None


def _host_paths(metadata: Manifest, spec: Manifest) -> Violation | None:
    names = [volume["name"] for volume in spec.get("volumes") or () if "hostPath" in volume]
    return Violation("hostPath volumes", f"{_many('volume', len(names))} {_quoted(names)}") if names else None


def _host_ports(metadata: Manifest, spec: Manifest) -> Violation | None:
    def ports(container: Manifest) -> list[str]:
        return [str(port["hostPort"]) for port in container.get("ports") or () if port.get("hostPort")]

    bad = _failing(spec, lambda container: bool(ports(container)))
    host_ports = sorted({port for container in _containers(spec) for port in ports(container)})
    return (
        Violation("hostPort", f"{_uses(bad)} {_many('hostPort', len(host_ports))} {', '.join(host_ports)}")
        if bad
        else None
    )


def _probe_hosts(metadata: Manifest, spec: Manifest) -> Violation | None:
    def hosts(container: Manifest) -> set[str]:
        hooks = [(container.get("lifecycle") or {}).get(hook) for hook in ("postStart", "preStop")]
        probes = [container.get(probe) for probe in ("livenessProbe", "readinessProbe", "startupProbe")]
        ways = [(handler or {}).get(way) or {} for handler in (*probes, *hooks) for way in ("httpGet", "tcpSocket")]
        return {way["host"] for way in ways if way.get("host")}

    bad = sorted(_failing(spec, lambda container: bool(hosts(container))))
    probe_hosts = sorted({host for container in _containers(spec) for host in hosts(container)})
    detail = f"{_uses(bad)} {_many('probe or lifecycle host', len(probe_hosts))} {_quoted(probe_hosts)}"
    return Violation("probe or lifecycle host", detail) if bad else None


def _privileged(metadata: Manifest, spec: Manifest) -> Violation | None:
    bad = _failing(spec, lambda container: bool(_context(container, "privileged")))
    return Violation("privileged", f"{_named(bad)} must not set securityContext.privileged=true") if bad else None


def _proc_mount(metadata: Manifest, spec: Manifest) -> Violation | None:
    def is_bad(container: Manifest) -> bool:
        return _context(container, "procMount") not in (None, "Default")

    bad = _failing(spec, is_bad)
    proc_mounts = sorted({_context(container, "procMount") for container in _containers(spec) if is_bad(container)})
    detail = f"{_named(bad)} must not set securityContext.procMount to {_quoted(proc_mounts)}"
    return Violation("procMount", detail) if bad else None


def _selinux(types: frozenset[str]) -> Judge:
    def judge(metadata: Manifest, spec: Manifest) -> Violation | None:
        def options(holder: Manifest) -> Manifest:
            return _context(holder, "seLinuxOptions") or {}

        def is_bad(holder: Manifest) -> bool:
            values_set = options(holder)
            return values_set.get("type", "") not in types or bool(values_set.get("user") or values_set.get("role"))

        holders = [holder for holder in (spec, *_containers(spec)) if is_bad(holder)]
        if not holders:
            return None
        bad_types = sorted({options(holder).get("type", "") for holder in holders} - types)
        data = [f"{_many('type', len(bad_types))} {_quoted(bad_types)}"] if bad_types else []
        values_set = [options(holder) for holder in holders]
        data += [
            f"{field} may not be set"
            for field in ("user", "role")
            if any(options_set.get(field) for options_set in values_set)
        ]
        setters = _setters(is_bad(spec), _failing(spec, is_bad))
        return Violation("seLinuxOptions", f"{setters} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}")

    return judge


def _seccomp_annotations(metadata: Manifest, spec: Manifest) -> Violation | None:
    annotations = metadata.get("annotations") or {}
    keys = [SECCOMP_POD, *(f"{SECCOMP_CONTAINER}{container.get('name', '')}" for container in _containers(spec))]
    violations = sorted(
        {
            f"{key}={json.dumps(annotations[key])}"
            for key in keys
            if key in annotations
            and annotations[key] not in ("runtime/default", "docker/default")
            and not annotations[key].startswith("localhost/")
        }
    )
    detail = f"forbidden {_many('annotation', len(violations))} {', '.join(violations)}"
    return Violation("seccompProfile", detail) if violations else None


def _seccomp(required: bool) -> Judge:
    """Make the judge of seccomp profiles; restricted pods must have one."""

    def judge(metadata: Manifest, spec: Manifest) -> Violation | None:
        def is_bad(holder: Manifest) -> bool:
            profile = _context(holder, "seccompProfile")
            return profile is not None and profile.get("type") not in PROFILES

        holders = [holder for holder in (spec, *_containers(spec)) if is_bad(holder)]
        if holders:
            values = sorted({_context(holder, "seccompProfile", "type") or "" for holder in holders})
            setters = _setters(is_bad(spec), _failing(spec, is_bad))
            detail = f"{setters} must not set securityContext.seccompProfile.type to {_quoted(values)}"
            return Violation("seccompProfile", detail)
        if not required or _context(spec, "seccompProfile"):
            return None
        bare = _failing(spec, lambda container: _context(container, "seccompProfile") is None)
        detail = (
            f'pod or {_named(bare)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        )
        return Violation("seccompProfile", detail) if bare else None

    return judge


def _sysctls(allowed: frozenset[str]) -> Judge:
    def judge(metadata: Manifest, spec: Manifest) -> Violation | None:
        values_set = [sysctl.get("name", "") for sysctl in _context(spec, "sysctls") or ()]
        bad = [name for name in values_set if name not in allowed]
        return Violation("forbidden sysctls", ", ".join(bad)) if bad else None

    return judge


def _host_process(metadata: Manifest, spec: Manifest) -> Violation | None:
    def is_bad(holder: Manifest) -> bool:
        return bool(_context(holder, "windowsOptions", "hostProcess"))

    setters = _setters(is_bad(spec), _failing(spec, is_bad))
    detail = f"{setters} must not set securityContext.windowsOptions.hostProcess=true"
    return Violation("hostProcess", detail) if setters else None


# -------------------------------------------------------------------------------------------------------- restricted


def _privilege_escalation(metadata: Manifest, spec: Manifest) -> Violation | None:
    bad = _failing(spec, lambda container: _context(container, "allowPrivilegeEscalation") is not False)
    detail = f"{_named(bad)} must set securityContext.allowPrivilegeEscalation=false"
    return Violation("allowPrivilegeEscalation != false", detail) if bad else None


def _few_capabilities(metadata: Manifest, spec: Manifest) -> Violation | None:
    keeping = _failing(spec, lambda container: "ALL" not in (_context(container, "capabilities", "drop") or ()))
    detail = [f'{_named(keeping)} must set securityContext.capabilities.drop=["ALL"]'] if keeping else []
    detail += [adding] if (adding := _adding(spec, {NET_BIND})) else []
    return Violation("unrestricted capabilities", "; ".join(detail)) if detail else None


def _volume_types(metadata: Manifest, spec: Manifest) -> Violation | None:
    bad = [volume for volume in spec.get("volumes") or () if not volume.keys() & VOLUMES]
    types = sorted({next((field for field in volume if field != "name"), "unknown") for volume in bad})
    names = _quoted(volume["name"] for volume in bad)
    detail = f"{_many('volume', len(bad))} {names} {'uses' if len(bad) == 1 else 'use'}"
    detail += f" {_many('restricted volume type', len(types))} {_quoted(types)}"
    return Violation("restricted volume types", detail) if bad else None


def _non_root(metadata: Manifest, spec: Manifest) -> Violation | None:
    reason, own = "runAsNonRoot != true", _context(spec, "runAsNonRoot")
    bad = _failing(spec, lambda container: _context(container, "runAsNonRoot") is False)
    if own is False or bad:
        return Violation(reason, f"{_setters(own is False, bad)} must not set securityContext.runAsNonRoot=false")
    bare = [] if own else _failing(spec, lambda container: _context(container, "runAsNonRoot") is None)
    detail = f"pod or {_named(bare)} must set securityContext.runAsNonRoot=true"
    return Violation(reason, detail) if bare else None


def _root_user(metadata: Manifest, spec: Manifest) -> Violation | None:
    def is_root(holder: Manifest) -> bool:
        user = _context(holder, "runAsUser")
        return user is not None and user == 0

    setters = _setters(is_root(spec), _failing(spec, is_root))
    return Violation("runAsUser=0", f"{setters} must not set runAsUser=0") if setters else None


CHECKS = (
    Check(
        "allowPrivilegeEscalation",
        RESTRICTED,
        ((8, _privilege_escalation), (25, _unless_windows(_privilege_escalation))),
    ),
    Check("appArmorProfile", BASELINE, ((0, _app_armor),)),
    Check("capabilities_baseline", BASELINE, ((0, _default_capabilities),)),
    Check(
        "capabilities_restricted",
        RESTRICTED,
        ((22, _few_capabilities), (25, _unless_windows(_few_capabilities))),
        overrides="capabilities_baseline",
    ),
    Check("hostNamespaces", BASELINE, ((0, _host_namespaces),)),
    Check("hostPathVolumes", BASELINE, ((0, _host_paths),)),
    Check("hostPorts", BASELINE, ((0, _host_ports),)),
    Check("hostProbesAndHostLifecycle", BASELINE, ((34, _probe_hosts),)),
    Check("privileged", BASELINE, ((0, _privileged),)),
    Check("procMount", BASELINE, ((0, _proc_mount), (35, _unless_own_users(_proc_mount)))),
    Check("procMount_restricted", RESTRICTED, ((35, _proc_mount),), overrides="procMount"),
    Check("restrictedVolumes", RESTRICTED, ((0, _volume_types),), overrides="hostPathVolumes"),
    Check("runAsNonRoot", RESTRICTED, ((0, _non_root), (35, _unless_own_users(_non_root)))),
    Check("runAsUser", RESTRICTED, ((23, _root_user), (35, _unless_own_users(_root_user)))),
    Check(
        "seLinuxOptions",
        BASELINE,
        ((0, _selinux(SELINUX_TYPES)), (31, _selinux(SELINUX_TYPES | {"container_engine_t"}))),
    ),
    Check("seccompProfile_baseline", BASELINE, ((0, _seccomp_annotations), (19, _seccomp(required=False)))),
    Check(
        "seccompProfile_restricted",
        RESTRICTED,
        ((19, _seccomp(required=True)), (25, _unless_windows(_seccomp(required=True)))),
        overrides="seccompProfile_baseline",
    ),
    Check(
        "sysctls",
        BASELINE,
        ((0, _sysctls(SYSCTLS)), (27, _sysctls(SYSCTLS_27)), (29, _sysctls(SYSCTLS_29)), (32, _sysctls(SYSCTLS_32))),
    ),
    Check("windowsHostProcess", BASELINE, ((0, _host_process),)),
)
"""All checks, with the versions in which they changed."""

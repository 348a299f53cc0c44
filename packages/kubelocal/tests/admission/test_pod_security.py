"""The Pod Security Standards: each check, its words and versions, and what a namespace's labels do."""

from __future__ import annotations

from typing import Any

import pytest

from kubelocal.admission import pod_security
from kubelocal.admission.pod_security_standards import violations
from kubelocal.codec.kinds import KINDS
from kubelocal.codec.status_errors import StatusError
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.store import Store

PREFIX = "pod-security.kubernetes.io/"
GOOD_CONTAINER = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
GOOD_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def good(name: str = "a", **security: Any) -> dict[str, Any]:
    return {"name": name, "image": "x", "securityContext": {**GOOD_CONTAINER, **security}}


def spec(*containers: dict[str, Any], security: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    given = list(containers) or [good()]
    return {"containers": given, "securityContext": {**GOOD_POD, **(security or {})}, **more}


def bare(name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "x", **fields}


def said(level: str, pod: dict[str, Any], minor: int = 36, **annotations: str) -> list[str]:
    metadata = {"annotations": {key.replace("__", "/"): text for key, text in annotations.items()}}
    return [f"{one.reason} ({one.detail})" for one in violations(level, minor, metadata, pod)]


@pytest.mark.parametrize(
    ("pod", "message"),
    [
        (spec(good(privileged=True)), 'privileged (container "a" must not set securityContext.privileged=true)'),
        (spec(hostPID=True, hostNetwork=True), "host namespaces (hostNetwork=true, hostPID=true)"),
        (spec(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), 'hostPath volumes (volume "v")'),
        (
            spec(bare("a", ports=[{"hostPort": 80}]), bare("b", ports=[{"hostPort": 90}])),
            'hostPort (containers "a", "b" use hostPorts 80, 90)',
        ),
        (
            spec(good(capabilities={"add": ["SYS_ADMIN", "CHOWN"]})),
            'non-default capabilities (container "a" must not include "SYS_ADMIN" in securityContext.capabilities.add)',
        ),
        (
            spec(good(procMount="Unmasked")),
            'procMount (container "a" must not set securityContext.procMount to "Unmasked")',
        ),
        (
            spec(security={"seccompProfile": {"type": "Unconfined"}}),
            'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
        (
            spec(good(seLinuxOptions={"type": "spc_t", "user": "u"}), security={"seLinuxOptions": {"role": "r"}}),
            'seLinuxOptions (pod and container "a" set forbidden securityContext.seLinuxOptions: type "spc_t"; user may'
            " not be set; role may not be set)",
        ),
        (
            spec(security={"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            spec(good(appArmorProfile={"type": "Unconfined"})),
            'forbidden AppArmor profile (container "a" must not set AppArmor profile type to "Unconfined")',
        ),
        (
            spec(good(windowsOptions={"hostProcess": True})),
            'hostProcess (container "a" must not set securityContext.windowsOptions.hostProcess=true)',
        ),
        (
            spec(bare(livenessProbe={"httpGet": {"host": "h"}}, lifecycle={"preStop": {"tcpSocket": {"host": "g"}}})),
            'probe or lifecycle host (container "a" uses probe or lifecycle hosts "g", "h")',
        ),
    ],
)
def test_baseline_forbids_what_reaches_the_node(pod: dict[str, Any], message: str) -> None:
    assert said("baseline", pod) == [message]
    assert said("privileged", pod) == []


@pytest.mark.parametrize(
    ("pod", "message"),
    [
        (
            spec(good(allowPrivilegeEscalation=None)),
            'allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false)',
        ),
        (
            spec(good(capabilities={"add": ["NET_BIND_SERVICE", "CHOWN"]})),
            'unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]; container "a"'
            ' must not include "CHOWN" in securityContext.capabilities.add)',
        ),
        (
            spec(
                volumes=[
                    {"name": "v", "hostPath": {"path": "/"}},
                    {"name": "n", "nfs": {}},
                    {"name": "e", "emptyDir": {}},
                ]
            ),
            'restricted volume types (volumes "v", "n" use restricted volume types "hostPath", "nfs")',
        ),
        (
            spec(good("a"), good("b"), security={"runAsNonRoot": None}),
            'runAsNonRoot != true (pod or containers "a", "b" must set securityContext.runAsNonRoot=true)',
        ),
        (
            spec(good(runAsNonRoot=False), security={"runAsNonRoot": False}),
            'runAsNonRoot != true (pod and container "a" must not set securityContext.runAsNonRoot=false)',
        ),
        (spec(good(runAsUser=0), security={"runAsUser": 1}), 'runAsUser=0 (container "a" must not set runAsUser=0)'),
        (
            spec(security={"seccompProfile": None}),
            'seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or'
            ' "Localhost")',
        ),
    ],
)
def test_restricted_wants_the_least_privileges(pod: dict[str, Any], message: str) -> None:
    assert said("restricted", pod) == [message]


def test_a_good_pod_violates_nothing_and_init_containers_count() -> None:
    assert said("restricted", spec(initContainers=[good("init")])) == []
    [message] = said(
        "restricted", spec(good("main"), initContainers=[bare("init", securityContext={"privileged": True})])
    )[:1]
    assert message.startswith('privileged (container "init"')


def test_checks_have_versions() -> None:
    bare_pod = spec(bare(), security={"runAsNonRoot": None, "seccompProfile": None})
    assert [one.partition(" (")[0] for one in said("restricted", bare_pod, 5)] == ["runAsNonRoot != true"]
    assert len(said("restricted", bare_pod, 22)) == 4
    root = spec(security={"runAsUser": 0})
    assert (said("restricted", root, 22), len(said("restricted", root, 23))) == ([], 1)
    assert said("restricted", {**root, "hostUsers": False}) == []
    sysctl = spec(security={"sysctls": [{"name": "net.ipv4.tcp_rmem"}]})
    assert (len(said("baseline", sysctl, 31)), said("baseline", sysctl, 32)) == (1, [])
    old = 'seccompProfile (forbidden annotation container.seccomp.security.alpha.kubernetes.io/a="unconfined")'
    assert said("baseline", spec(), 18, **{"container.seccomp.security.alpha.kubernetes.io__a": "unconfined"}) == [old]


# labels


@pytest.fixture
def registry() -> ClusterRegistry:
    return ClusterRegistry(Store(), admitters=[pod_security.admit])


def namespace(registry: ClusterRegistry, **labels: str) -> None:
    marked = {PREFIX + key.replace("_", "-"): value for key, value in labels.items()}
    registry.create("Namespace", "", {"metadata": {"name": "ns", "labels": marked}})


def make(registry: ClusterRegistry, pod: dict[str, Any], name: str = "p") -> list[str]:
    warnings: list[str] = []
    registry.add(pod_kind(), "ns", {"metadata": {"name": name}, "spec": pod}, warnings=warnings)
    return warnings


def pod_kind() -> Any:
    return KINDS["Pod"]


LOOSE = {"containers": [bare()]}


def test_enforce_refuses_a_pod_naming_level_and_version(registry: ClusterRegistry) -> None:
    namespace(registry, enforce="restricted", enforce_version="v1.24")
    with pytest.raises(StatusError) as refused:
        make(registry, LOOSE)
    assert refused.value.code == 403
    assert str(refused.value).startswith(
        'pods "p" is forbidden: violates PodSecurity "restricted:v1.24": allowPrivilege'
    )
    assert make(registry, spec()) == []


def test_warn_warns_of_pods_and_templates(registry: ClusterRegistry) -> None:
    namespace(registry, warn="restricted")
    assert make(registry, LOOSE)[0].startswith(
        'would violate PodSecurity "restricted:latest": allowPrivilegeEscalation'
    )
    assert make(registry, spec(), "good") == []
    template = {"metadata": {"labels": {"a": "b"}}, "spec": LOOSE}
    workload = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    warnings: list[str] = []
    registry.add(KINDS["Deployment"], "ns", {"metadata": {"name": "d"}, "spec": workload}, warnings=warnings)
    assert len(warnings) == 1


def test_warn_follows_enforce_unless_it_is_set(registry: ClusterRegistry) -> None:
    read = pod_security.read_policy
    assert str(read({PREFIX + "enforce": "baseline", PREFIX + "enforce-version": "v1.30"}).warn) == "baseline:v1.30"
    assert str(read({PREFIX + "enforce": "baseline", PREFIX + "warn": "privileged"}).warn) == "privileged:latest"
    assert str(read({}).enforce) == "privileged:latest"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"enforce": "strict"},
            'metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one',
        ),
        ({"warn": ""}, "must be one of privileged, baseline, restricted"),
        ({"enforce_version": "1.30"}, 'must be "latest" or "v1.x"'),
        ({"audit_version": "v1.030"}, 'must be "latest" or "v1.x"'),
    ],
)
def test_wrong_labels_are_refused(registry: ClusterRegistry, labels: dict[str, str], message: str) -> None:
    with pytest.raises(StatusError) as refused:
        namespace(registry, **labels)
    assert (refused.value.code, message in str(refused.value)) == (422, True)


def test_a_stricter_label_warns_of_pods_that_are_there(registry: ClusterRegistry) -> None:
    namespace(registry)
    for name in ("p", "q"):
        make(registry, LOOSE, name)
    make(registry, {**LOOSE, "hostPID": True}, "r")

    def label(level: str, **more: str) -> list[str]:
        warnings: list[str] = []
        labels = {PREFIX + "enforce": level, **{PREFIX + key: text for key, text in more.items()}}

        def change(old: dict[str, Any]) -> dict[str, Any]:
            return {**old, "metadata": {**old["metadata"], "labels": labels}}

        registry.revise(KINDS["Namespace"], "", "ns", change, warnings=warnings)
        return warnings

    head, *pods = label("restricted")
    assert head == 'existing pods in namespace "ns" violate the new PodSecurity enforce level "restricted:latest"'
    rest = "allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile"
    assert pods == [f"p (and 1 other pod): {rest}", f"r: host namespaces, {rest}"]
    assert label("restricted") == []
    assert label("baseline") == []
    with pytest.raises(StatusError):
        label("none")


def test_a_running_pod_may_be_labelled_but_not_given_another_image(registry: ClusterRegistry) -> None:
    namespace(registry)
    make(registry, LOOSE)
    labels = {PREFIX + "enforce": "restricted"}
    registry.update("Namespace", "", "ns", lambda ns: ns["metadata"].__setitem__("labels", labels))

    def relabel(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "metadata": {**old["metadata"], "labels": {"a": "b"}}}

    def other_image(old: dict[str, Any]) -> dict[str, Any]:
        [one] = old["spec"]["containers"]
        return {
            **old,
            "metadata": dict(old["metadata"]),
            "spec": {**old["spec"], "containers": [{**one, "image": "y"}]},
        }

    registry.revise(pod_kind(), "ns", "p", relabel)
    with pytest.raises(StatusError, match="violates PodSecurity"):
        registry.revise(pod_kind(), "ns", "p", other_image)

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelocal.codec import decoder
from kubelocal.codec.kinds import KINDS
from kubelocal.registry import defaults, validation

BASE = {"name": "base", "image": "a"}
INVALID, REQUIRED, DUPLICATE = "FieldValueInvalid", "FieldValueRequired", "FieldValueDuplicate"
UNSUPPORTED, FORBIDDEN, NOT_FOUND, TOO_LONG = (
    "FieldValueNotSupported",
    "FieldValueForbidden",
    "FieldValueNotFound",
    "FieldValueTooLong",
)


def made(kind, manifest):
    checked, _ = decoder.check(KINDS[kind], copy.deepcopy(manifest), strict="Strict")
    defaults.apply_defaults(KINDS[kind], checked)
    return validation.validate(KINDS[kind], checked)


def pod(meta=None, base=None, **spec):
    return {
        "metadata": {"name": "p", "namespace": "ns", **(meta or {})},
        "spec": {"containers": [{**BASE, **(base or {})}], **spec},
    }


def job(**spec):
    return {"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {"containers": [BASE], **spec}}}}


def named(kind, /, **rest):
    return {"metadata": {"name": "x", "namespace": "ns"}, **rest}


PODS = [
    (pod(meta={"name": "Upper"}), [(INVALID, "metadata.name", "a lowercase RFC 1123 subdomain must consist of")]),
    (pod(meta={"name": "a" * 254}), [(INVALID, "metadata.name", "must be no more than 253 bytes")]),
    (pod(meta={"name": ""}), [(REQUIRED, "metadata.name", "Required value: name or generateName is required")]),
    (pod(meta={"labels": {"a": "x" * 64}}), [(INVALID, "metadata.labels", "must be no more than 63 bytes")]),
    (pod(meta={"labels": {"a": "a b"}}), [(INVALID, "metadata.labels", "a valid label must be an empty string")]),
    (pod(meta={"labels": {"a/b/c": "a"}}), [(INVALID, "metadata.labels", "a qualified name must consist of")]),
    (pod(meta={"labels": {"/c": "a"}}), [(INVALID, "metadata.labels", "prefix part must be non-empty")]),
    (pod(meta={"annotations": {"a b": ""}}), [(INVALID, "metadata.annotations", "name part must consist of")]),
    (
        pod(meta={"annotations": {"a": "x" * (256 << 10)}}),
        [(TOO_LONG, "metadata.annotations", "Too long: may not be more")],
    ),
    (
        pod(
            volumes=[
                {"name": "v", "downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "status.podIP"}}]}}
            ]
        ),
        [(UNSUPPORTED, "spec.volumes[0].downwardAPI.items[0].fieldRef.fieldPath", "supported values: ")],
    ),
    (
        pod(
            volumes=[
                {"name": "v", "downwardAPI": {"items": [{"path": "x", "resourceFieldRef": {"resource": "limits.cpu"}}]}}
            ]
        ),
        [(REQUIRED, "spec.volumes[0].downwardAPI.items[0].resourceFieldRef.containerName", "Required value")],
    ),
    (
        pod(
            volumes=[
                {
                    "name": "v",
                    "projected": {
                        "sources": [
                            {"secret": {"name": "s", "items": [{"key": "a", "path": "x"}]}},
                            {"serviceAccountToken": {"path": "x"}},
                        ]
                    },
                }
            ]
        ),
        [(INVALID, "spec.volumes[0].projected", "conflicting duplicate paths")],
    ),
    (
        pod(base={"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}}),
        [
            (
                INVALID,
                "spec.containers[0].securityContext",
                "`allowPrivilegeEscalation` to false and `privileged` to true",
            )
        ],
    ),
    (
        pod(base={"securityContext": {"capabilities": {"add": ["CAP_SYS_ADMIN"]}, "allowPrivilegeEscalation": False}}),
        [(INVALID, "spec.containers[0].securityContext", "and `capabilities.Add` CAP_SYS_ADMIN")],
    ),
    (pod(containers=[]), [(REQUIRED, "spec.containers", "Required value")]),
    ({"metadata": {"name": "p"}}, [(REQUIRED, "spec.containers", "Required value")]),
    (pod(base={"name": ""}), [(REQUIRED, "spec.containers[0].name", "Required value")]),
    (pod(base={"name": "a.b"}), [(INVALID, "spec.containers[0].name", 'Invalid value: "a.b": must not contain dots')]),
    (pod(base={"name": "x" * 64}), [(INVALID, "spec.containers[0].name", "must be no more than 63 bytes")]),
    (pod(base={"image": ""}), [(REQUIRED, "spec.containers[0].image", "Required value")]),
    (
        pod(base={"image": " a"}),
        [(INVALID, "spec.containers[0].image", "must not have leading or trailing whitespace")],
    ),
    (pod(containers=[BASE, BASE]), [(DUPLICATE, "spec.containers[1].name", 'Duplicate value: "base"')]),
    (pod(initContainers=[BASE]), [(DUPLICATE, "spec.initContainers[0].name", 'Duplicate value: "base"')]),
    (
        pod(restartPolicy="Sometimes"),
        [
            (
                UNSUPPORTED,
                "spec.restartPolicy",
                'Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"',
            )
        ],
    ),
    (pod(base={"imagePullPolicy": "Often"}), [(UNSUPPORTED, "spec.containers[0].imagePullPolicy", '"Often"')]),
    (
        pod(base={"volumeMounts": [{"name": "nosuch", "mountPath": "/x"}]}),
        [(NOT_FOUND, "spec.containers[0].volumeMounts[0].name", 'Not found: "nosuch"')],
    ),
    (
        pod(base={"volumeMounts": [{"name": "v", "mountPath": "/x"}] * 2}, volumes=[{"name": "v"}]),
        [(INVALID, "spec.containers[0].volumeMounts[1].mountPath", 'Invalid value: "/x": must be unique')],
    ),
    (
        pod(base={"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "../y"}]}, volumes=[{"name": "v"}]),
        [(INVALID, "spec.containers[0].volumeMounts[0].subPath", "must not contain '..'")],
    ),
    (pod(volumes=[{"name": "v"}, {"name": "v"}]), [(DUPLICATE, "spec.volumes[1].name", 'Duplicate value: "v"')]),
    (
        pod(volumes=[{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]),
        [(FORBIDDEN, "spec.volumes[0].secret", "Forbidden: may not specify more than 1 volume type")],
    ),
    (pod(volumes=[{"name": "v", "secret": {}}]), [(REQUIRED, "spec.volumes[0].secret.secretName", "Required value")]),
    (
        pod(volumes=[{"name": "v", "configMap": {"name": "c", "defaultMode": 512}}]),
        [(INVALID, "spec.volumes[0].configMap.defaultMode", "must be a number between 0 and 0777 (octal)")],
    ),
    (
        pod(volumes=[{"name": "v", "secret": {"secretName": "s", "items": [{"key": "k", "path": "/a"}]}}]),
        [(INVALID, "spec.volumes[0].secret.items[0].path", "must be a relative path")],
    ),
    (
        pod(volumes=[{"name": "v", "secret": {"secretName": "s", "items": [{"key": "k", "path": "..data/a"}]}}]),
        [(INVALID, "spec.volumes[0].secret.items[0].path", "must not start with '..'")],
    ),
    (
        pod(volumes=[{"name": "v", "hostPath": {"path": "/tmp/../etc"}}]),
        [(INVALID, "spec.volumes[0].hostPath.path", "must not contain '..'")],
    ),
    (
        pod(volumes=[{"name": "v", "hostPath": {"path": "/", "type": "Odd"}}]),
        [(UNSUPPORTED, "spec.volumes[0].hostPath.type", 'Unsupported value: "Odd"')],
    ),
    (pod(base={"env": [{"name": "A=B"}]}), [(INVALID, "spec.containers[0].env[0].name", "other than '='")]),
    (pod(base={"env": [{"name": ""}]}), [(REQUIRED, "spec.containers[0].env[0].name", "Required value")]),
    (
        pod(base={"env": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
        [(INVALID, "spec.containers[0].env[0].valueFrom", "may not be specified when `value` is not empty")],
    ),
    (
        pod(base={"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nosuch"}}}]}),
        [(UNSUPPORTED, "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath", 'Unsupported value: "spec.nosuch"')],
    ),
    (
        pod(base={"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}),
        [(REQUIRED, "spec.containers[0].env[0].valueFrom.secretKeyRef.key", "Required value")],
    ),
    (pod(base={"envFrom": [{}]}), [(INVALID, "spec.containers[0].envFrom[0]", "must specify one of: `configMapRef`")]),
    (
        pod(base={"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}),
        [
            (
                INVALID,
                "spec.containers[0].resources.requests",
                'Invalid value: "2": must be less than or equal to cpu limit of 1',
            )
        ],
    ),
    (
        pod(base={"resources": {"requests": {"cpu": "-1"}}}),
        [(INVALID, "spec.containers[0].resources.requests[cpu]", "must be greater than or equal to 0")],
    ),
    (
        pod(base={"ports": [{"containerPort": 70000}]}),
        [(INVALID, "spec.containers[0].ports[0].containerPort", "must be between 1 and 65535, inclusive")],
    ),
    (
        pod(base={"readinessProbe": {}}),
        [(REQUIRED, "spec.containers[0].readinessProbe", "must specify a handler type")],
    ),
    (
        pod(base={"livenessProbe": {"exec": {"command": ["a"]}, "successThreshold": 2}}),
        [(INVALID, "spec.containers[0].livenessProbe.successThreshold", "must be 1")],
    ),
    (
        pod(base={"readinessProbe": {"httpGet": {"port": "no good"}}}),
        [(INVALID, "spec.containers[0].readinessProbe.httpGet.port", "must contain only alpha-numeric characters")],
    ),
    (
        pod(initContainers=[{"name": "i", "image": "a", "readinessProbe": {"exec": {"command": ["a"]}}}]),
        [
            (
                FORBIDDEN,
                "spec.initContainers[0].readinessProbe",
                "may not be set for init containers without restartPolicy",
            )
        ],
    ),
    (
        pod(ephemeralContainers=[{"name": "e", "image": "a"}]),
        [(FORBIDDEN, "spec.ephemeralContainers", "Forbidden: cannot be set on create")],
    ),
    (
        pod(activeDeadlineSeconds=0),
        [(INVALID, "spec.activeDeadlineSeconds", "must be between 1 and 2147483647, inclusive")],
    ),
    (
        pod(terminationGracePeriodSeconds=-1),
        [(INVALID, "spec.terminationGracePeriodSeconds", "must be greater than or equal to 0")],
    ),
    (
        pod(tolerations=[{"operator": "Equal"}]),
        [(INVALID, "spec.tolerations[0].operator", "operator must be Exists when")],
    ),
    (
        pod(
            affinity={
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "In"}]}]
                    }
                }
            }
        ),
        [
            (
                REQUIRED,
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]"
                ".matchExpressions[0].values",
                "must be specified when `operator` is 'In' or 'NotIn'",
            )
        ],
    ),
    (
        pod(base={"securityContext": {"runAsUser": -1}}),
        [(INVALID, "spec.containers[0].securityContext.runAsUser", "must be")],
    ),
]
OTHERS = [
    (
        "Node",
        named("Node", spec={"taints": [{"key": "a", "value": "x y"}, {"effect": "Never"}]}),
        [
            (REQUIRED, "spec.taints[0].effect", "Required value"),
            (INVALID, "spec.taints[0].value", "a valid label must be"),
            (UNSUPPORTED, "spec.taints[1].effect", '"NoSchedule", "PreferNoSchedule", "NoExecute"'),
            (INVALID, "spec.taints[1].key", "name part must be non-empty"),
        ],
    ),
    (
        "ResourceQuota",
        named("ResourceQuota", spec={"scopes": ["Often"], "scopeSelector": {"matchExpressions": [{}]}}),
        [
            (INVALID, "spec.scopes[0]", "unsupported scope"),
            (INVALID, "spec.scopeSelector.matchExpressions[0].scopeName", "unsupported scope"),
            (INVALID, "spec.scopeSelector.matchExpressions[0].operator", "not a valid selector operator"),
        ],
    ),
    *(
        (
            "ResourceQuota",
            named("ResourceQuota", spec={"hard": {resource: "1", "pods": "1"}, "scopes": [scope]}),
            [(INVALID, "spec.scopes", "unsupported scope applied to resource")],
        )
        for scope, resource in (
            ("NotTerminating", "services"),
            ("PriorityClass", "requests.storage"),
            ("NotBestEffort", "limits.ephemeral-storage"),
            ("BestEffort", "cpu"),
        )
    ),
    (
        "ResourceQuota",
        named(
            "ResourceQuota",
            spec={
                "hard": {"secrets": "1"},
                "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]},
            },
        ),
        [(INVALID, "spec.scopeSelector.matchExpressions[0].scopeName", "unsupported scope applied to resource")],
    ),
    (
        "ResourceQuota",
        named("ResourceQuota", spec={"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}),
        [(INVALID, "spec.scopes", "conflicting scopes")],
    ),
    *(
        (
            "ResourceQuota",
            named("ResourceQuota", spec={"scopeSelector": {"matchExpressions": [expression]}}),
            [(reason, f"spec.scopeSelector.matchExpressions[0].{field}", words)],
        )
        for expression, reason, field, words in (
            ({"scopeName": "PriorityClass", "operator": "In"}, REQUIRED, "values", "must be at least one value"),
            (
                {"scopeName": "PriorityClass", "operator": "Exists", "values": ["x"]},
                INVALID,
                "values",
                "must be no value when",
            ),
            ({"scopeName": "BestEffort", "operator": "DoesNotExist"}, INVALID, "operator", "must be 'Exist' when"),
        )
    ),
    (
        "ConfigMap",
        named("ConfigMap", data={"a b": "1"}),
        [(INVALID, "data[a b]", "a valid config key must consist of")],
    ),
    (
        "ConfigMap",
        named("ConfigMap", data={"a": "x" * (1 << 20), "b": "x"}),
        [(TOO_LONG, "", "may not be more than 1048576")],
    ),
    (
        "ConfigMap",
        named("ConfigMap", data={"a": "1"}, binaryData={"a": "/w=="}),
        [(INVALID, "data[a]", "duplicate of key")],
    ),
    (
        "Secret",
        named("Secret", stringData={"a": "x" * ((1 << 20) + 1)}),
        [(TOO_LONG, "data", "may not be more than 1048576")],
    ),
    (
        "Secret",
        named("Secret", type="kubernetes.io/dockerconfigjson"),
        [(REQUIRED, "data[.dockerconfigjson]", "Required value")],
    ),
    (
        "Job",
        job(restartPolicy="Always"),
        [(REQUIRED, "spec.template.spec.restartPolicy", 'Required value: valid values: "OnFailure", "Never"')],
    ),
    (
        "Job",
        {**job(restartPolicy="Never"), "spec": {**job(restartPolicy="Never")["spec"], "backoffLimit": -1}},
        [(INVALID, "spec.backoffLimit", "must be greater than or equal to 0")],
    ),
    (
        "Job",
        job(restartPolicy="Never", containers=[{"name": "", "image": "a"}]),
        [(REQUIRED, "spec.template.spec.containers[0].name", "Required value")],
    ),
    (
        "Event",
        named("Event", involvedObject={"kind": "Pod", "namespace": "elsewhere"}),
        [(INVALID, "involvedObject.namespace", "does not match event.namespace")],
    ),
    (
        "Lease",
        named("Lease", spec={"leaseDurationSeconds": 0}),
        [(INVALID, "spec.leaseDurationSeconds", "greater than 0")],
    ),
    (
        "Namespace",
        named("Namespace") | {"metadata": {"name": "a.b"}},
        [(INVALID, "metadata.name", "must not contain dots")],
    ),
    (
        "Role",
        named("Role", rules=[{"verbs": ["get"], "resources": ["pods"]}]),
        [(REQUIRED, "rules[0].apiGroups", "resource rules")],
    ),
    (
        "RoleBinding",
        named("RoleBinding", kind="RoleBinding", roleRef={"kind": "Odd", "name": "r"}),
        [(UNSUPPORTED, "roleRef.kind", 'supported values: "Role", "ClusterRole"')],
    ),
]


def seen(found):
    return [(cause.reason, cause.field) for cause in found]


@pytest.mark.parametrize(("manifest", "wanted"), PODS)
def test_a_wrong_pod_is_refused_at_the_field(manifest, wanted):
    found = made("Pod", manifest)
    assert seen(found) == [(reason, field) for reason, field, _ in wanted]
    for cause, (_, _, words) in zip(found, wanted, strict=True):
        assert words in cause.message


@pytest.mark.parametrize(("kind", "manifest", "wanted"), OTHERS)
def test_a_wrong_object_is_refused_at_the_field(kind, manifest, wanted):
    found = made(kind, manifest)
    assert seen(found) == [(reason, field) for reason, field, _ in wanted]
    for cause, (_, _, words) in zip(found, wanted, strict=True):
        assert words in cause.message


@pytest.mark.parametrize(
    "manifest",
    [
        pod(),
        pod(meta={"name": "a" * 253, "labels": {"a": "x" * 63, "example.com/b": "", "c": "A-b_c.1"}}),
        pod(meta={"name": "1.digit", "annotations": {"A/b": "any text: ümläuts\nand lines"}}),
        pod(base={"env": [{"name": "a.b-c", "value": "1"}, {"name": "1", "value": ""}]}),
        pod(
            initContainers=[
                {"name": "s", "image": "a", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}}
            ]
        ),
        pod(base={"resources": {"limits": {"nvidia.com/gpu": "1"}}}),
        pod(volumes=[{"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]),
        pod(
            volumes=[
                {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
            ]
        ),
        pod(
            tolerations=[
                {"operator": "Exists"},
                {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 3},
            ]
        ),
        job(restartPolicy="Never") | {"kind": "Job"},
        *(
            {
                "kind": "ResourceQuota",
                **named("ResourceQuota", spec={"hard": dict.fromkeys(hard, "1"), "scopes": scopes}),
            }
            for hard, scopes in (
                (["pods", "requests.cpu", "count/jobs.batch", "example.com/gpu"], ["NotBestEffort", "Terminating"]),
                (["pods"], ["BestEffort", "NotTerminating"]),
                (["services", "requests.storage"], []),
            )
        ),
    ],
)
def test_a_right_manifest_has_no_causes(manifest):
    assert made(manifest.get("kind", "Pod"), manifest) == []


names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


@given(names, st.dictionaries(names, names, max_size=4), st.lists(names, min_size=1, max_size=4, unique=True))
def test_well_formed_names_are_never_refused(name, labels, containers):
    manifest = pod(meta={"name": name, "labels": labels}, containers=[{"name": c, "image": "a"} for c in containers])
    assert made("Pod", manifest) == []


LABELLED = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
CHOSEN = {"matchLabels": {"a": "b"}}


@pytest.mark.parametrize(
    ("kind", "spec", "field", "words"),
    [
        ("Deployment", {"selector": {}}, "spec.selector", "empty selector is invalid"),
        (
            "ReplicaSet",
            {"selector": {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}},
            "spec.template.metadata.labels",
            "`selector` does not match template `labels`",
        ),
        ("StatefulSet", {"template": {"metadata": LABELLED["metadata"]}}, "spec.template.spec.containers", "Required"),
        (
            "StatefulSet",
            {"volumeClaimTemplates": [{"spec": {"accessModes": ["a"]}}]},
            "spec.volumeClaimTemplates[0].metadata.name",
            "Required value",
        ),
        ("Deployment", {"strategy": {"type": "Odd"}}, "spec.strategy.type", "Unsupported value"),
        (
            "Deployment",
            {"strategy": {"rollingUpdate": {"maxSurge": "many"}}},
            "spec.strategy.rollingUpdate.maxSurge",
            "a valid percent string must be a numeric string followed by an ending '%'",
        ),
        (
            "Deployment",
            {"strategy": {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": 0}}},
            "spec.strategy.rollingUpdate.maxUnavailable",
            "may not be 0 when `maxSurge` is 0",
        ),
        (
            "DaemonSet",
            {"updateStrategy": {"rollingUpdate": {"maxUnavailable": -1}}},
            "spec.updateStrategy.rollingUpdate.maxUnavailable",
            "must be greater than or equal to 0",
        ),
    ],
)
def test_what_a_controller_could_not_carry_out_is_refused(kind, spec, field, words):
    found = made(kind, named(kind, spec={"selector": CHOSEN, "template": LABELLED, **spec}))
    assert [(cause.field, words in cause.message) for cause in found] == [(field, True)], found


def test_a_cron_job_has_a_schedule_a_known_zone_and_a_short_name():
    spec = {
        "schedule": "x",
        "timeZone": "Mars/Base",
        "concurrencyPolicy": "Odd",
        "jobTemplate": {"spec": {"template": {}}},
    }
    manifest = named("CronJob", spec=spec) | {"metadata": {"name": "c" * 53}}
    fields = {cause.field for cause in made("CronJob", manifest)}
    assert {"spec.schedule", "spec.timeZone", "spec.concurrencyPolicy", "metadata.name"} <= fields

"""An object of each kind that the cluster serves, with the parts in which rules, defaults and controllers look."""

from __future__ import annotations

from typing import Any

LABELS = {"app": "x"}
SELECTOR = {"matchLabels": LABELS, "matchExpressions": [{"key": "app", "operator": "In", "values": ["x"]}]}
PROBE = {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 5}
POD_SPEC: dict[str, Any] = {
    "restartPolicy": "Never",
    "serviceAccountName": "default",
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]
            }
        },
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": SELECTOR, "topologyKey": "host"}]
        },
    },
    "schedulingGates": [{"name": "example.com/a"}],
    "securityContext": {
        "runAsUser": 5,
        "fsGroup": 6,
        "supplementalGroups": [7],
        "sysctls": [{"name": "kernel.shm_rmid_forced", "value": "0"}],
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "imagePullSecrets": [{"name": "pull"}],
    "initContainers": [{"name": "first", "image": "busybox", "restartPolicy": "Always", "startupProbe": PROBE}],
    "containers": [
        {
            "name": "base",
            "image": "busybox:1",
            "command": ["sleep", "5"],
            "args": ["$(A)"],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ],
            "envFrom": [{"configMapRef": {"name": "c"}}],
            "ports": [{"name": "web", "containerPort": 80}],
            "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "2Mi"}},
            "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "a/b"}],
            "securityContext": {
                "runAsUser": 5,
                "privileged": False,
                "allowPrivilegeEscalation": False,
                "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
                "seLinuxOptions": {"type": "container_t"},
            },
            "livenessProbe": PROBE,
            "readinessProbe": PROBE,
            "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
        }
    ],
    "volumes": [
        {"name": "v", "emptyDir": {"sizeLimit": "1Mi"}},
        {"name": "s", "secret": {"secretName": "s", "items": [{"key": "k", "path": "a/b"}]}},
        {"name": "h", "hostPath": {"path": "/tmp"}},
        {
            "name": "p",
            "projected": {
                "sources": [
                    {"configMap": {"name": "c", "items": [{"key": "k", "path": "c"}]}},
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
                    {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                ]
            },
        },
    ],
}
PLAIN_SPEC = {"containers": [{"name": "base", "image": "busybox:1"}]}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": PLAIN_SPEC}
JOB_SPEC = {
    "backoffLimit": 2,
    "completions": 2,
    "parallelism": 1,
    "podFailurePolicy": {
        "rules": [{"action": "FailJob", "onExitCodes": {"containerName": "base", "operator": "In", "values": [1]}}]
    },
    "template": {"metadata": {"labels": LABELS}, "spec": {**PLAIN_SPEC, "restartPolicy": "Never"}},
}
CLAIM_SPEC = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
WORKLOAD = {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": TEMPLATE}
RULE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
ROLE_REF = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
SUBJECTS = [{"kind": "ServiceAccount", "name": "default", "namespace": "ns"}]
BACKEND = {"service": {"name": "web", "port": {"number": 80}}}
ASKED = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "ns"}}
PATH_LIST = [{"path": "/", "pathType": "Prefix", "backend": BACKEND}]
LIMIT = {
    "type": "Container",
    "default": {"memory": "64Mi"},
    "defaultRequest": {"memory": "1Mi"},
    "max": {"memory": "8Gi"},
    "min": {"cpu": "0"},
    "maxLimitRequestRatio": {"memory": "1000"},
}

EXAMPLES: dict[str, dict[str, Any]] = {
    "AuthorizationPolicy": {"spec": {"rules": [{}]}},
    "ClusterRole": {"rules": [RULE], "aggregationRule": {"clusterRoleSelectors": [SELECTOR]}},
    "ClusterRoleBinding": {"roleRef": ROLE_REF, "subjects": SUBJECTS},
    "ConfigMap": {"data": {"a": "1"}, "binaryData": {"b": "MQ=="}},
    "CronJob": {"spec": {"schedule": "*/5 * * * *", "timeZone": "UTC", "jobTemplate": {"spec": JOB_SPEC}}},
    "DaemonSet": {"spec": {"selector": {"matchLabels": LABELS}, "template": TEMPLATE}},
    "Deployment": {"spec": {**WORKLOAD, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}},
    "EndpointSlice": {
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}],
        "ports": [{"name": "web", "port": 80, "protocol": "TCP"}],
    },
    "Event": {
        "involvedObject": {"kind": "Pod", "name": "x", "namespace": "ns"},
        "reason": "R",
        "message": "m",
        "source": {"component": "c"},
        "firstTimestamp": "2030-01-02T03:04:05Z",
        "eventTime": "2030-01-02T03:04:05.000000Z",
        "series": {"count": 2, "lastObservedTime": "2030-01-02T03:04:05.000000Z"},
    },
    "ExternalSecret": {"spec": {"data": [{}]}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
    "PrometheusRule": {"spec": {"groups": [{"name": "g", "rules": [{"alert": "A", "expr": "1", "for": "5m"}]}]}},
    "ValidatingAdmissionPolicy": {"spec": {"failurePolicy": "Fail", "validations": [{"expression": "true"}]}},
    "ValidatingAdmissionPolicyBinding": {"spec": {"policyName": "p", "validationActions": ["Deny"]}},
    "Ingress": {"spec": {"rules": [{"host": "a.example", "http": {"paths": PATH_LIST}}], "tls": [{"hosts": ["a"]}]}},
    "Job": {"spec": JOB_SPEC},
    "Lease": {"spec": {"holderIdentity": "h", "leaseDurationSeconds": 5, "renewTime": "2030-01-02T03:04:05.000000Z"}},
    "LimitRange": {"spec": {"limits": [LIMIT, {"type": "Pod", "max": {"memory": "64Gi"}}]}},
    "Namespace": {"spec": {"finalizers": ["kubernetes"]}},
    "NetworkPolicy": {
        "spec": {
            "podSelector": SELECTOR,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {}, "namespaceSelector": SELECTOR}], "ports": [{"port": 80}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}],
        }
    },
    "Node": {
        "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": {"cpu": "1", "memory": "1Gi", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        },
    },
    "PeerAuthentication": {"spec": {"mtls": {"mode": "STRICT"}}},
    "PersistentVolume": {
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/tmp"},
            "claimRef": {"name": "x", "namespace": "ns"},
        }
    },
    "PersistentVolumeClaim": {"spec": CLAIM_SPEC},
    "Pod": {"spec": POD_SPEC},
    "PodDisruptionBudget": {"spec": {"minAvailable": "50%", "selector": SELECTOR}},
    "PriorityClass": {"value": 5, "description": "d"},
    "ReplicaSet": {"spec": WORKLOAD},
    "ResourceQuota": {"spec": {"hard": {"pods": "50", "requests.cpu": "9"}, "scopes": ["NotTerminating"]}},
    "Role": {"rules": [RULE]},
    "RoleBinding": {"roleRef": ROLE_REF, "subjects": SUBJECTS},
    "Secret": {"type": "Opaque", "data": {"a": "MQ=="}, "stringData": {"b": "2"}},
    "SelfSubjectAccessReview": {"spec": ASKED},
    "SelfSubjectReview": {},
    "SelfSubjectRulesReview": {"spec": {"namespace": "ns"}},
    "Service": {
        "spec": {"selector": LABELS, "ports": [{"name": "web", "port": 80, "targetPort": "web"}], "type": "ClusterIP"}
    },
    "ServiceAccount": {"secrets": [{"name": "s"}], "imagePullSecrets": [{"name": "pull"}]},
    "ServiceEntry": {"spec": {"hosts": ["a.example"]}},
    "StatefulSet": {
        "spec": {
            **WORKLOAD,
            "serviceName": "x",
            "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": CLAIM_SPEC}],
        }
    },
    "StorageClass": {"provisioner": "example.com/p", "parameters": {"a": "b"}},
    "SubjectAccessReview": {"spec": {**ASKED, "user": "u", "groups": ["g"]}},
    "VirtualService": {"spec": {"http": [{"route": [{}]}]}},
}
"""What a user may send of each kind, without its metadata."""

import copy

import pytest

from kubelocal.codec import decoder
from kubelocal.codec.kinds import KINDS
from kubelocal.registry import defaults


def defaulted(kind, manifest):
    filled, _ = decoder.check(KINDS[kind], manifest, strict="Strict")
    defaults.apply_defaults(KINDS[kind], filled)
    return filled


def pod(base=None, **spec):
    return {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "base", "image": "a:1", **(base or {})}], **spec},
    }


def test_a_bare_pod_is_filled_in():
    filled = defaulted("Pod", pod())
    assert filled["spec"] == {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "enableServiceLinks": True,
        "containers": [
            {
                "name": "base",
                "image": "a:1",
                "imagePullPolicy": "IfNotPresent",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
    }
    assert filled["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


def test_what_is_given_stays():
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "enableServiceLinks": False}
    filled = defaulted(
        "Pod", pod({"imagePullPolicy": "Never", "terminationMessagePolicy": "FallbackToLogsOnError"}, **spec)
    )
    assert filled["spec"] | spec == filled["spec"]
    assert filled["spec"]["containers"][0]["imagePullPolicy"] == "Never"
    assert filled["spec"]["containers"][0]["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_defaulting_twice_changes_nothing():
    volumes = [{"name": "s", "secret": {"secretName": "s"}}, {"name": "e"}]
    once = defaulted(
        "Pod", pod({"resources": {"limits": {"cpu": "1"}}, "readinessProbe": {"httpGet": {"port": 1}}}, volumes=volumes)
    )
    twice = copy.deepcopy(once)
    defaults.apply_defaults(KINDS["Pod"], twice)
    assert twice == once


def test_objects_share_no_default():
    one, two = defaulted("Pod", pod()), defaulted("Pod", pod())
    one["spec"]["securityContext"]["runAsUser"] = 1
    one["spec"]["containers"][0]["resources"]["limits"] = {}
    one["status"]["phase"] = "Running"
    assert two == defaulted("Pod", pod())


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1.2", "IfNotPresent"),
        ("host:5000/a", "Always"),
        ("host:5000/a:1", "IfNotPresent"),
        (f"a@sha256:{'0' * 64}", "IfNotPresent"),
        (f"a:1@sha256:{'0' * 64}", "IfNotPresent"),
        ("", "Always"),
    ],
)
def test_the_pull_policy_depends_on_the_tag(image, policy):
    assert defaults.pull_policy(image) == policy


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ([{}], "BestEffort"),
        ([{"requests": {"cpu": "1"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable"),
        ([{"limits": {"cpu": "1"}}], "Burstable"),
        ([{"requests": {"cpu": "0"}}], "BestEffort"),
        ([{"limits": {"nvidia.com/gpu": "1"}}], "BestEffort"),
    ],
)
def test_the_qos_class_follows_from_requests_and_limits(resources, wanted):
    containers = [{"name": f"c{i}", "image": "a", "resources": one} for i, one in enumerate(resources)]
    assert defaulted("Pod", pod(containers=containers))["status"]["qosClass"] == wanted


def test_defaults_reach_down():
    base = {
        "ports": [{"containerPort": 80}],
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0},
    }
    volumes = [
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0}},
        {"name": "e"},
        {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
    ]
    spec = defaulted("Pod", pod(base, volumes=volumes))["spec"]
    container = spec["containers"][0]
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert container["readinessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert spec["volumes"] == [
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0}},
        {"name": "e", "emptyDir": {}},
        {
            "name": "p",
            "projected": {
                "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}],
                "defaultMode": 420,
            },
        },
    ]


def test_limits_become_requests():
    resources = {"limits": {"cpu": "0.5", "memory": "1024Mi"}, "requests": {"cpu": "100m"}}
    filled = defaulted("Pod", pod({"resources": resources}))["spec"]["containers"][0]["resources"]
    assert filled == {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}}


def test_a_secrets_plain_text_becomes_data():
    secret = defaulted(
        "Secret", {"metadata": {"name": "s"}, "data": {"a": "MQ==", "b": "MQ=="}, "stringData": {"b": "zwei"}}
    )
    assert secret["data"] == {"a": "MQ==", "b": "endlaQ=="}
    assert secret["type"] == "Opaque"
    assert "stringData" not in secret


def test_a_job_knows_its_pods_by_its_uid():
    template = {"metadata": {"labels": {"mine": "yes"}}, "spec": pod(restartPolicy="Never")["spec"]}
    job = defaulted("Job", {"metadata": {"name": "j", "uid": "u"}, "spec": {"template": template}})
    uid, name = "controller-uid", "job-name"
    assert job["spec"]["selector"] == {"matchLabels": {f"batch.kubernetes.io/{uid}": "u"}}
    assert job["spec"]["template"]["metadata"]["labels"] == {
        "mine": "yes",
        uid: "u",
        name: "j",
        f"batch.kubernetes.io/{uid}": "u",
        f"batch.kubernetes.io/{name}": "j",
    }
    assert job["metadata"]["labels"] == {"mine": "yes"}
    wanted = {"backoffLimit": 6, "parallelism": 1, "completions": 1, "completionMode": "NonIndexed", "suspend": False}
    assert job["spec"] | wanted == job["spec"]
    assert job["spec"]["template"]["spec"]["dnsPolicy"] == "ClusterFirst"


@pytest.mark.parametrize(
    ("spec", "completions"), [({}, 1), ({"parallelism": 2}, None), ({"completions": 3}, 3), ({"parallelism": 0}, None)]
)
def test_a_jobs_completions_depend_on_its_parallelism(spec, completions):
    job = defaulted("Job", {"metadata": {"name": "j"}, "spec": {"template": {}, **spec}})
    assert job["spec"].get("completions") == completions


def test_a_namespace_is_active_and_labelled_with_its_name():
    namespace = defaulted("Namespace", {"metadata": {"name": "n", "labels": {"a": "b"}}})
    assert namespace["metadata"]["labels"] == {"a": "b", "kubernetes.io/metadata.name": "n"}
    assert namespace["spec"]["finalizers"] == ["kubernetes"]
    assert namespace["status"] == {"phase": "Active"}

"""Fragments of pods in the values file: what the API server would refuse is an error with its line and fix."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import kubernetes_validate
import pytest
import yaml
from deployments import COMBINATIONS, NAMES, containers, pods

from api_validation import refusal
from crosswind.deploy.explanations import explain, required_keys
from crosswind.deploy.references import pod_spec
from crosswind.deploy.tree import render
from crosswind.deploy.values_file import read_values
from crosswind.errors import ConfigError

IMAGE = "image: example.com/airflow:1\n"
SECRET = "has DB_PASSWORD with a literal value and the name of a secret"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "scheduler:\n  env:\n  - {name: FOO, value: 5}\n  - {name: BAR, value: true}\n",
            [
                "v.yaml:4: scheduler.env[0].value is 5; put it into quotes",
                "v.yaml:5: scheduler.env[1].value is true; put it into quotes",
            ],
        ),
        (
            "scheduler: {env: [{value: x}]}\n",
            ["v.yaml:2: scheduler.env[0].name is missing; write name: with a value"],
        ),
        (
            "scheduler: {env: [{name: D, value: 2026-01-02}]}\n",
            ["v.yaml:2: scheduler.env[0].value is 2026-01-02; put it into quotes"],
        ),
        ("pods: {env: [{name: A, value: [x]}]}\n", ["v.yaml:2: pods.env[0].value is a list; write text"]),
        (
            "pods: {env: [{name: A, valuefrom: {}}]}\n",
            ["v.yaml:2: pods.env[0].valuefrom is not a field of Kubernetes; write valueFrom"],
        ),
        ("pods: {env: [{name: DB_PASSWORD, value: 12345}]}\n", [f"v.yaml:2: pods.env {SECRET}; refer to a Secret by"]),
        (
            "workers: {admissionPolicy: true}\npods: {volumes: [{name: a, configMap: x}]}\n",
            ["v.yaml:3: pods.volumes[0].configMap is 'x'; write a mapping of fields"],
        ),
        (
            "migrations: {env: [{name: A, valueFrom: 5}]}\n",
            ["v.yaml:2: migrations.env[0].valueFrom is 5; write a mapping of fields"],
        ),
        (
            "migrations:\n  env:\n  - name: A\n    valueFrom:\n      secretKeyRef: {key: k}\n",
            ["v.yaml:6: migrations.env[0].valueFrom.secretKeyRef.name is missing; write name: with a value"],
        ),
        (
            "triggerer: {volumes: [{name: a, secret: {items: [{key: k}]}}]}\n",
            [
                "v.yaml:2: triggerer.volumes[0].secret.items[0].path is missing; write path: with a value",
                "v.yaml:2: triggerer.volumes[0].secret.secretName is missing; write secretName: with a value",
            ],
        ),
        (
            "workers: {volumes: [{name: a, persistentVolumeClaim: {claimName: 5}}]}\n",
            ["v.yaml:2: workers.volumes[0].persistentVolumeClaim.claimName is 5; put it into quotes"],
        ),
        (
            "workers: {volumeMounts: [{name: a, mountPath: /a, readOnly: 'true'}]}\n",
            ["v.yaml:2: workers.volumeMounts[0].readOnly is 'true'; write true or false, without quotes"],
        ),
        (
            "pods: {volumeMounts: [{name: a}]}\n",
            ["v.yaml:2: pods.volumeMounts[0].mountPath is missing; write mountPath: with a value"],
        ),
        (
            "pods: {tolerations: [{key: spot, value: true, tolerationSeconds: '30'}]}\n",
            [
                "v.yaml:2: pods.tolerations[0].value is true; put it into quotes",
                "v.yaml:2: pods.tolerations[0].tolerationSeconds is '30'; write a whole number, without quotes",
            ],
        ),
        (
            "workers: {resources: {requests: {cpu: true, memory: 1GB}, limits: 5}}\n",
            [
                "v.yaml:2: workers.resources.requests.cpu is true; write a quantity, such as 500m or 2Gi",
                "v.yaml:2: workers.resources.requests.memory is '1GB'; write a quantity, such as 500m or 2Gi",
                "v.yaml:2: workers.resources.limits is 5; write a mapping",
            ],
        ),
        (
            "apiServer: {affinity: {nodeAffinity: [x], podAntiAfinity: {}}}\n",
            [
                "v.yaml:2: apiServer.affinity.nodeAffinity is a list; write a mapping of fields",
                "v.yaml:2: apiServer.affinity.podAntiAfinity is not a field of Kubernetes; write podAntiAffinity",
            ],
        ),
        (
            "reaper: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: "
            "[{topologyKey: zone, labelSelector: {matchLabels: {app: 5}}}]}}}\n",
            [
                "v.yaml:2: reaper.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]"
                ".labelSelector.matchLabels.app is 5; put it into quotes"
            ],
        ),
        (
            "pods: {volumes: [{name: x, future: "
            "{since: 2024-01-01, of: !!set {a, b}, data: !!binary aGk=, rate: .nan}}]}\n",
            [
                "v.yaml:2: pods.volumes[0].future.since is 2024-01-01; put it into quotes",
                "v.yaml:2: pods.volumes[0].future.of is a set; write text or a list",
                "v.yaml:2: pods.volumes[0].future.data is binary data; write text or a list",
                "v.yaml:2: pods.volumes[0].future.rate is nan, which JSON cannot represent; write a number",
            ],
        ),
        (
            "scheduler: {affinity: {future: {1: a}}}\n",
            ["v.yaml:2: scheduler.affinity.future has the field 1, which is not text; put it into quotes"],
        ),
        ("pgbouncer: {env: [5]}\n", ["v.yaml:2: pgbouncer.env[0] is a number; write a mapping"]),
        (
            'database: {cidrs: ["10.0.0.300/99"]}\n',
            [
                "v.yaml:2: database.cidrs[0] is '10.0.0.300/99', which is not a range of addresses; "
                "write one such as 10.0.0.0/16"
            ],
        ),
        (
            "network: {kubernetesApi: [10.0.0.1/33]}\n",
            ["v.yaml:2: network.kubernetesApi[0] is '10.0.0.1/33', which is"],
        ),
        (
            "database: {cidrs: [10.0.0.0/255.0.0.0]}\n",
            ["v.yaml:2: database.cidrs[0] is '10.0.0.0/255.0.0.0', which is"],
        ),
        ("logs: {to: volume, volume: {size: 10K}}\n", ["v.yaml:2: logs.volume.size is '10K'; string should match"]),
        (
            "scheduler: {resources: {requests: {cpu: 2, memroy: 1Gi}, limits: {cpu: 1500m}}}\n",
            [
                "v.yaml:2: scheduler.resources.requests.memroy is not a resource; write memory",
                "v.yaml:2: scheduler.resources.requests.cpu is 2, above the limit '1500m'; lower it, or raise the",
            ],
        ),
        (
            "scheduler: {resources: {limits: {cpu: '-1'}}}\n",
            ["v.yaml:2: scheduler.resources.limits.cpu is '-1'; write 0 or more"],
        ),
        (
            "workers: {resources: {requests: {nvidia.com/gpu: 1}}}\n",
            ["v.yaml:2: workers.resources.limits.nvidia.com/gpu is missing beside the request, to which it must be"],
        ),
        (
            "pods: {env: [{name: A=B, value: x}, {name: C, valueFrom: {}}]}\n",
            [
                "v.yaml:2: pods.env[0].name is text; use printable ASCII characters without '='",
                "v.yaml:2: pods.env[1].valueFrom has no content; write one of configMapKeyRef, fieldRef",
            ],
        ),
        (
            "pods: {env: [{name: A, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}\n",
            ["v.yaml:2: pods.env[0] has value and valueFrom; keep one of them"],
        ),
        (
            "pods: {volumes: [{name: Ca_X, emptyDir: {}}, {name: b, emptyDir: {}, configMap: {name: x}}]}\n",
            [
                "v.yaml:2: pods.volumes[0].name is 'Ca_X'; use at most 63 lower-case letters",
                "v.yaml:2: pods.volumes[1] has emptyDir and configMap; keep one of them",
            ],
        ),
        (
            "pods: {tolerations: [{key: a, operator: Exist}]}\n",
            ["v.yaml:2: pods.tolerations[0].operator is 'Exist'; write Exists"],
        ),
        (
            "reaper: {nodeSelector: {a b: c, d: e f}, annotations: {a b: c}}\n",
            [
                "v.yaml:2: reaper.nodeSelector has the key 'a b'; use letters, digits",
                "v.yaml:2: reaper.nodeSelector.d is 'e f'; use at most 63 letters",
                "v.yaml:2: reaper.annotations has the key 'a b'; use letters, digits",
            ],
        ),
        (
            "metrics: {alerts: true, alertLabels: {a b: c, d: e f}}\nweb: {annotations: {a b: c}}\n",
            [
                "v.yaml:3: web.annotations has the key 'a b'; use letters, digits",
                "v.yaml:2: metrics.alertLabels has the key 'a b'; use letters, digits",
                "v.yaml:2: metrics.alertLabels.d is 'e f'; use at most 63 letters",
            ],
        ),
        (
            "secrets: {database: {name: a, key: a/b c}, jwtSecret: {name: a, key: ..}}\n",
            [
                "v.yaml:2: secrets.database.key is text; string should match",
                "v.yaml:2: secrets.jwtSecret.key is text; string should match",
            ],
        ),
        ("metrics: {image: ' a b'}\n", ["v.yaml:2: metrics.image is ' a b'; string should match pattern"]),
        ("airflowVersion: 3.3.2.\n", ["v.yaml:2: airflowVersion is '3.3.2.'; string should match pattern"]),
        (
            "pods: {volumes: [{name: logs, emptyDir: {}}], volumeMounts: [{name: logs, mountPath: /tmp/}]}\n",
            [
                "v.yaml:2: pods.volumes[0].name is 'logs' a second time (migrations/job.yaml); give each volume its",
                "v.yaml:2: pods.volumeMounts[0].mountPath is '/tmp/' a second time (migrations/job.yaml); give",
            ],
        ),
        (
            "pods: {volumes: [{name: a, emptyDir: {}}]}\nscheduler:\n  volumes:\n  - {name: a, emptyDir: {}}\n",
            ["v.yaml:5: scheduler.volumes[0].name is 'a' a second time (scheduler/deployment.yaml); give each volume"],
        ),
        (
            "workers: {volumes: [{name: tmp, emptyDir: {}}]}\n",
            ["v.yaml:2: workers.volumes[0].name is 'tmp' a second time (workers/pod-template.yaml); give each volume"],
        ),
        (
            "dags: {source: pvc, volume: {claim: x}, path: /opt/airflow/logs}\n",
            ["v.yaml:2: dags.path is '/opt/airflow/logs' a second time (dag-processor/deployment.yaml); give"],
        ),
        (
            "scheduler: {volumeMounts: [{name: nope, mountPath: /x}]}\n",
            ["v.yaml:2: scheduler.volumeMounts[0].name is 'nope', which is no volume of the pod (scheduler/"],
        ),
        (
            "pods: {volumes: [{name: ca, hostPath: {path: /etc/ssl}}]}\n",
            ["v.yaml:2: pods.volumes[0].hostPath is refused by Pod Security's level restricted (migrations/job.yaml)"],
        ),
        ("database: {host: a..b}\n", ["v.yaml:2: database.host is 'a..b', which is not a host name; write"]),
    ],
)
def test_what_the_api_server_would_refuse_is_an_error_with_its_line_and_fix(text: str, messages: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_values(IMAGE + text, "v.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == len(messages), caught.value
    for line, message in zip(lines, messages, strict=True):
        assert line.startswith(message)


def test_a_secret_that_is_written_as_a_number_is_not_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        read_values(f"{IMAGE}pods: {{env: [{{name: DB_PASSWORD, value: 31337}}]}}\n", "v.yaml")
    assert "31337" not in str(caught.value)


ACCEPTED = """
image: example.com/airflow:1
database: {cidrs: [10.0.0.0/16, "2001:db8::/32", 0.0.0.0/0, "::/0"]}
pods:
  env:
  - {name: A, value: "5"}
  - {name: EMPTY}
  - {name: NULLS, value: null, valueFrom: {fieldRef: {fieldPath: metadata.name}, secretKeyRef: null}}
  - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1}}}
  - {name: SORT_KEY, value: id, plain: true}
  tolerations: [{operator: Exists}, {key: spot, value: "true", effect: NoExecute, tolerationSeconds: 30}]
  volumes:
  - {name: nothing}
  - {name: no-source, secret: null}
  - {name: scratch, emptyDir: {sizeLimit: 2}}
  - {name: files, configMap: {name: files, defaultMode: 0440, optional: true, items: [{key: a, path: b, mode: 420}]}}
  - name: all
    projected:
      sources: [{secret: {name: s}}, {serviceAccountToken: {path: token, expirationSeconds: 600}}]
  - name: claim
    ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}
  volumeMounts: [{name: scratch, mountPath: /scratch, readOnly: false, subPath: x}]
workers:
  resources:
    requests: {cpu: 0.5, memory: 1e9, ephemeral-storage: 1073741824, nvidia.com/gpu: 1}
    limits: {cpu: .5, memory: null, nvidia.com/gpu: 1}
  volumes: [{name: later, aNewSource: {of: a newer Kubernetes}}]
scheduler:
  resources: {requests: {cpu: 250m, memory: 1.5Gi}, limits: null}
  affinity:
    nodeAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 1
        preference: {matchExpressions: [{key: spot, operator: In, values: ["true"]}]}
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - {topologyKey: zone, labelSelector: {matchLabels: {app: x}}}
"""


def test_what_kubernetes_accepts_is_rendered_without_nulls() -> None:
    values = read_values(ACCEPTED, "v.yaml")
    objects = render(values)
    assert list(explain(values, objects))
    assert required_keys(values, objects)
    text = json.dumps([rendered.manifest for rendered in objects])
    assert "null" not in text.replace("/dev/null", "")
    for rendered in objects:
        kubernetes_validate.validate(rendered.manifest, "1.36", strict=True)
        assert not refusal(rendered.manifest)
    (scheduler,) = (r.manifest for r in objects if r.path == "scheduler/deployment.yaml")
    spec = pod_spec(scheduler)
    assert spec is not None
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["no-source"] == {"name": "no-source"}
    variables = {variable["name"]: variable for variable in containers({"spec": spec})[-1]["env"]}
    assert variables["NULLS"] == {"name": "NULLS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    assert variables["SORT_KEY"] == {"name": "SORT_KEY", "value": "id"}


FRAGMENTS: dict[str, Any] = yaml.safe_load(ACCEPTED)


@pytest.mark.parametrize("part", ["migrations", "triggerer", "dagProcessor", "apiServer", "reaper", "pgbouncer"])
def test_each_component_takes_the_fragments_of_all_pods(part: str) -> None:
    content = {"image": "a", part: {**FRAGMENTS["pods"], "resources": FRAGMENTS["workers"]["resources"]}}
    assert read_values(yaml.safe_dump(content), "v.yaml")


@pytest.mark.parametrize(
    "text", ["createNamespaces: false", "mesh: {kind: istio, cni: false}", "mesh: {kind: linkerd, cni: false}"]
)
def test_a_volume_of_the_node_is_accepted_where_pod_security_is_not_enforced(text: str) -> None:
    volumes = "pods: {volumes: [{name: ca, hostPath: {path: /etc/ssl}}]}\n"
    assert read_values(f"{IMAGE}{volumes}{text}\n", "v.yaml")


def test_pgbouncer_mounts_the_volumes_of_all_pods() -> None:
    text = f"{IMAGE}pods: {{volumes: [{{name: ca, emptyDir: {{}}}}], volumeMounts: [{{name: ca, mountPath: /ca}}]}}\n"
    objects = render(read_values(f"{text}pgbouncer: {{config: c}}\n", "v.yaml"))
    (pgbouncer,) = (rendered.manifest for rendered in objects if rendered.path == "pgbouncer/deployment.yaml")
    assert not refusal(pgbouncer)
    assert {"name": "ca", "mountPath": "/ca"} in containers(pgbouncer["spec"]["template"])[0]["volumeMounts"]


@pytest.mark.parametrize("name", [*NAMES, *COMBINATIONS])
def test_the_api_server_accepts_each_pod(name: str) -> None:
    refusals = {pod["metadata"]["name"]: refusal(pod) for pod in pods(name)}
    assert not any(refusals.values()), refusals


@pytest.mark.parametrize(("namespace", "refused"), [("default", False), ("airflow", True)])
def test_only_a_namespace_that_is_labelled_refuses_a_volume_of_its_node(namespace: str, refused: bool) -> None:
    text = f"image: a\nnamespace: {namespace}\nscheduler: {{volumes: [{{name: ca, hostPath: {{path: /etc/ssl}}}}]}}\n"
    with pytest.raises(ConfigError, match="refused by Pod Security") if refused else contextlib.nullcontext():
        read_values(text, "v.yaml")

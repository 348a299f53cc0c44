from __future__ import annotations

from traceback import format_exception

import pytest

from crosswind.deploy.explanations import missing_objects
from crosswind.deploy.tree import render
from crosswind.deploy.values_file import read_values, shared_namespace
from crosswind.errors import ConfigError

IMAGE = "image: example.com/airflow:1\n"
DAGS_OF_A_CLASS = "dags: {source: pvc, volume: {storageClass: efs-sc}}\n"
SHARED_LOGS = ("{claim: my-logs}", "{efs: {fileSystem: fs-0a}}")
"""Volumes of logs that every namespace can have."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imag: a\n", "v.yaml:1: image is missing; write image: with a value"),
        ("imag: a\n", "v.yaml:1: imag is no known key; write image"),
        (
            IMAGE + "workers:\n  replicas: 2\n  namespace: x\n",
            "v.yaml:4: workers.namespace is no known key; write namespaces",
        ),
        (IMAGE + "api_server: {}\n", "v.yaml:2: api_server is no known key; write apiServer"),
        (IMAGE + "qqq: {}\n", "v.yaml:2: qqq is no known key; there are name, namespace, "),
        (
            IMAGE + "dags:\n  source: git-sync\n  repo: x\n  perod: 3s\n",
            "v.yaml:5: dags.perod is no known key; write period",
        ),
        (IMAGE + "dags: {source: git-sync}\n", "v.yaml:2: dags.repo is missing; write repo: with a value"),
        (
            IMAGE + "dags: {source: gitsync}\n",
            "v.yaml:2: dags has no known source; there are image, pvc, git-sync, bundle",
        ),
        (
            IMAGE + "logs: {volume: {}}\n",
            "v.yaml:2: logs has no known to; there are archive, volume, remote, none",
        ),
        (
            IMAGE + "logs: {to: volume, volume: {claim: x, storageClass: y}}\n",
            "v.yaml:2: logs.volume has claim and storageClass; keep one of them",
        ),
        (IMAGE + "logs: {to: volume, volume: {siz: 1Gi}}\n", "v.yaml:2: logs.volume.siz is no known key; write size"),
        (
            IMAGE + "apiServer: {replicas: two}\n",
            "v.yaml:2: apiServer.replicas is 'two'; input should be a valid integer",
        ),
        (IMAGE + "apiServer: {replicas: true}\n", "v.yaml:2: apiServer.replicas is true; write a number"),
        (IMAGE + "database: {port: true}\n", "v.yaml:2: database.port is true; write a number"),
        (IMAGE + "mesh: {kind: isto}\n", "v.yaml:2: mesh.kind is 'isto'; input should be 'none', 'istio' or 'linkerd'"),
        (IMAGE + "name: Airflow\n", "v.yaml:2: name is 'Airflow'; "),
        (IMAGE + IMAGE, "v.yaml:2: image is given twice; keep one of them"),
        (
            IMAGE + "config: {core: {fernet_key: x}}\n",
            "v.yaml:2: config has [core] fernet_key, which is secret; put it into a Secret and refer to it",
        ),
        (
            IMAGE + "secrets: {jwtSecret: {name: a, key: b, remote: c}}\n",
            "v.yaml:1: the file names remote secrets but no secrets.store; name the store that has them",
        ),
        (
            IMAGE + "secrets: {store: {name: s}, jwtSecret: {name: a, key: b, remote: c}}\n"
            "dags: {source: bundle, repo: x, secret: a, remote: d}\n",
            "v.yaml:1: the file fetches secrets.jwtSecret and dags.secret into one Secret; write another name for one",
        ),
        (
            IMAGE + "secrets: {store: {name: s}, jwtSecret: {name: a, key: b, remote: c}, "
            "fernetKey: {name: a, key: b, remote: d}}\n",
            "v.yaml:1: the file fetches secrets.fernetKey and secrets.jwtSecret into one key of one Secret; write ",
        ),
        pytest.param(
            IMAGE + f"config: {{crosswind: {{queues: '{'[' * 50_000}'}}}}\n",
            "v.yaml:1: the file has [crosswind] queues that are not valid JSON: nested too deeply; use fewer levels",
            id="nested queues",
        ),
        pytest.param(
            IMAGE + f"config: {{core: {{x_kwargs: '{'[' * 50_000}'}}}}\n",
            "v.yaml:2: config has [core] x_kwargs, which is secret",
            id="nested arguments",
        ),
        (IMAGE + "web: {auth: simple}\n", "v.yaml:1: the file has web.auth simple, whose passwords "),
        (IMAGE + "mesh: {gateway: a/b}\n", "v.yaml:1: the file has mesh.gateway, which needs "),
        (
            IMAGE + "workers: {namespaces: [other]}\nlogs: {to: volume}\n",
            "v.yaml:1: the file needs one volume in several namespaces, which a storage class cannot provide",
        ),
        *(
            (
                IMAGE + DAGS_OF_A_CLASS + f"logs: {{to: volume, volume: {logs}}}\nworkers: {{namespaces: [w1]}}\n",
                "v.yaml:1: the file needs one volume in several namespaces, which a storage class cannot provide",
            )
            for logs in SHARED_LOGS
        ),
        (IMAGE + "namespace: kube-system\n", "v.yaml:2: namespace has namespace kube-system, but kube- is reserved"),
        (
            IMAGE + "workers: {namespaces: [kube-public]}\n",
            "v.yaml:2: workers.namespaces[0] has namespace kube-public, but kube- is reserved",
        ),
        (
            IMAGE + 'config: {crosswind: {queues: \'{"a": {"namespace": "kube-system"}}\'}}\n',
            "v.yaml:1: the file has namespace kube-system, but kube- is reserved",
        ),
        ("- 1\n", "v.yaml:1: the file is a list; write a mapping with image"),
        ("", "v.yaml: the file is empty; crosswind init writes one to begin with"),
        ("a: [", "v.yaml:2: not readable as YAML: "),
        (IMAGE + "---\n" + IMAGE, "v.yaml:2: the file holds more than one YAML document; keep the values"),
    ],
)
def test_a_problem_is_reported_with_its_line_and_fix(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_values(text, "v.yaml")
    assert any(line.startswith(message) for line in str(caught.value).splitlines()), caught.value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("secrets: {fernetKey: hunter2}", "secrets.fernetKey is text; write a mapping with name, key"),
        (
            "secrets: {database: 'postgresql://u:hunter2@h/db'}",
            "secrets.database is text; write a mapping with name, key",
        ),
        (
            "secrets: [hunter2]",
            "secrets is a list; write a mapping with keys such as database, fernetKey, apiSecretKey",
        ),
        (
            "web: {admin: {email: a@b.c, password: hunter2}}",
            "web.admin.password is text; write a mapping with name, key",
        ),
        ("web: {admin: hunter2}", "web.admin is text; write a mapping with email, password"),
        ("web: {fabConfig: [hunter2]}", "web.fabConfig is a list; write text"),
        ("pods: {env: {DB_PASSWORD: hunter2}}", "pods.env is a mapping; write a list"),
        ("pods: {env: [DB_PASSWORD=hunter2]}", "pods.env[0] is text; write a mapping"),
        (
            "pods: {env: [{name: A, valueFrom: {secretKeyRef: hunter2}}]}",
            "pods.env[0].valueFrom.secretKeyRef is text; write a mapping of fields",
        ),
        ("config: {core: hunter2}", "config.core is text; write a mapping"),
        ("config: {core: {a: [hunter2]}}", "config.core.a is a list; write text, a number, true or false"),
        ("config: {core: {a: null}}", "config.core.a is empty; leave it out"),
        ("config: {core: {1: hunter2}}", "config.core[1] is a key that is not text; put it into quotes"),
        ("dags: hunter2", "dags is text; write a mapping with source"),
        ("dags: {source: bundle, repo: x, secret: Hunter2_hunter2}", "dags.secret is text; string should match "),
        ("logs: {to: remote, url: 'S3://u:hunter2@b'}", "logs.url is text; string should match pattern "),
        ("pods:", "pods is empty; leave it out"),
        ("web: {admin: {email: a@b.c, password: }}", "web.admin.password is empty; write a mapping with name, key"),
        ("imagePullSecrets: hunter2", "imagePullSecrets is text; write a list"),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_line_that_repeats_no_secret(values: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_values(f"{IMAGE}{values}\n", "v.yaml")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"v.yaml:2: {message}")
    assert "hunter2" not in "".join(format_exception(caught.value))


@pytest.mark.parametrize(
    "text",
    [
        "reaper: {namespaces: [a, a]}",
        "workers: {namespaces: [a, a]}",
        "secrets: {store: {name: s}, jwtSecret: {name: a, key: b, remote: c}, fernetKey: {name: a, key: b, remote: c}}",
        f"config: {{dag_processor: {{dag_bundle_config_list: '{'[' * 50_000}'}}}}",
    ],
    ids=lambda text: text[:40],
)
def test_repeated_and_unreadable_parts_do_not_stop_the_rendering(text: str) -> None:
    objects = [rendered.path for rendered in render(read_values(f"{IMAGE}{text}\n", "v.yaml"))]
    assert len(objects) == len({*objects})


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_values("imag: a\nworkers: {x: 1}\nmesh: {kind: no}\n", "v.yaml")
    assert len(str(caught.value).splitlines()) == 4


def test_only_the_image_must_be_given() -> None:
    assert read_values(IMAGE, "v.yaml").namespace == "airflow"


@pytest.mark.parametrize(
    ("text", "namespaces"),
    [
        (IMAGE, ("airflow-workers",)),
        (IMAGE + "name: flow\nnamespace: data\n", ("data-workers",)),
        (IMAGE + "workers: {namespaces: [a, b]}\n", ("a", "b")),
        (IMAGE + "workers: {namespaces: [airflow]}\n", ("airflow",)),
        ("# One deployment of Airflow. All keys: docs/deploy.md. Then:\n" + IMAGE, ("airflow",)),
        (IMAGE + "logs: {to: volume, volume: {storageClass: nfs}}\n", ("airflow",)),
        (IMAGE + "logs: {to: volume, volume: {claim: logs}}\n", ("airflow-workers",)),
        (IMAGE + DAGS_OF_A_CLASS, ("airflow",)),
    ],
)
def test_workers_are_apart_from_airflows_secrets_unless_an_earlier_file_or_a_volume_keeps_them_there(
    text: str, namespaces: tuple[str, ...]
) -> None:
    values = read_values(text, "v.yaml")
    assert values.worker_namespaces == namespaces
    warned = "workers: {namespaces: [airflow-workers]}" in shared_namespace(values)
    assert warned is (namespaces == ("airflow",))
    assert values.with_workers_apart(False).worker_namespaces[0] in (*namespaces, values.namespace)


@pytest.mark.parametrize("logs", SHARED_LOGS)
def test_the_volume_of_dags_keeps_workers_beside_it_whatever_volume_the_logs_have(logs: str) -> None:
    values = read_values(IMAGE + DAGS_OF_A_CLASS + f"logs: {{to: volume, volume: {logs}}}\n", "v.yaml")
    claims = [
        manifest["metadata"]["namespace"]
        for manifest in (rendered.manifest for rendered in render(values))
        if manifest["kind"] == "PersistentVolumeClaim" and manifest["metadata"]["name"] == "airflow-dags"
    ]
    assert values.worker_namespaces == ("airflow",)
    assert claims == ["airflow"]


def test_the_namespace_that_every_cluster_has_is_not_restricted_for_the_pods_of_others() -> None:
    values = read_values(IMAGE + "namespace: default\n", "v.yaml")
    objects = render(values)
    manifests = [rendered.manifest for rendered in objects]
    assert [m["metadata"]["name"] for m in manifests if m["kind"] == "Namespace"] == ["default-workers"]
    assert ("Namespace", "", "default") not in missing_objects(values, objects)


@pytest.mark.parametrize("length", [55, 56, 63])
def test_a_long_namespace_gives_workers_one_of_their_own(length: int) -> None:
    def workers_of(name: str) -> str:
        return read_values(f"{IMAGE}namespace: {name}\n", "v.yaml").worker_namespaces[0]

    assert len(workers_of("n" * length)) <= 63
    assert workers_of("n" * length) != workers_of("n" * (length - 1) + "m")

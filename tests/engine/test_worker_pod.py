from __future__ import annotations

import copy
import json
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswind.engine.worker_pod import (
    WorkerSettings,
    WorkerTask,
    check_template,
    check_worker,
    worker_name,
    worker_namespace,
    worker_pod,
)
from crosswind.engine.workload_secrets import InlineWorkload, SecretWorkload, mounted_workload
from crosswind.errors import OverrideError, TemplateError
from crosswind.pods.templates import parse_template
from crosswind.sidecars.native import NATIVE_ANNOTATION
from deadlines import untraced

TEMPLATE = parse_template(
    """
apiVersion: v1
kind: Pod
metadata:
  name: worker
  labels: {team: data}
spec:
  containers:
    - name: base
      image: apache/airflow:3.3.2
      env:
        - {name: AIRFLOW_HOME, value: /opt/airflow}
      volumeMounts:
        - {name: logs, mountPath: /opt/airflow/logs}
    - name: shipper
      image: fluent/fluent-bit:4
  volumes:
    - name: logs
      emptyDir: {}
""",
    "template",
)
TASK = WorkerTask(
    "orders",
    "load",
    "manual__2026-01-01T00:00:00+00:00",
    2,
    "0f8fad5b-d9cb-469f-a165-70867728950e",
    executor_id="5",
    airflow_version="3.3.2",
)
SETTINGS = WorkerSettings(namespace="airflow", server_version=(1, 36))
SECRET = SecretWorkload("crosswind-1", "key-1")


def _worker(
    template: dict = TEMPLATE, override: dict | None = None, settings: WorkerSettings = SETTINGS, **task: object
) -> dict:
    return worker_pod(template, override, replace(TASK, **task), settings, SECRET)


def _container(pod: dict, name: str = "base") -> dict:
    return next(container for container in pod["spec"]["containers"] if container["name"] == name)


def _override(**container: object) -> dict:
    return {"spec": {"containers": [{"name": "base", **container}]}}


def _template(**changes: object) -> dict:
    template = copy.deepcopy(TEMPLATE)
    for path, value in changes.items():
        section, field = path.split("__")
        target = _container(template) if section == "base" else template[section]
        target[field] = value
    return template


def test_the_worker_runs_airflows_own_command_on_the_file_from_the_secret() -> None:
    pod = _worker()
    base = _container(pod)
    assert base["args"] == [
        "python",
        "-m",
        "airflow.sdk.execution_time.execute_workload",
        "--json-path",
        "/run/crosswind/workload.json",
    ]
    assert "command" not in base
    assert base["volumeMounts"][-1] == {"name": "crosswind-workload", "mountPath": "/run/crosswind", "readOnly": True}
    assert pod["spec"]["volumes"][-1]["secret"]["items"] == [{"key": "key-1", "path": "workload.json"}]
    assert "volumeMounts" not in _container(pod, "shipper"), "no other container sees the token"


SHIMMED = SecretWorkload("crosswind-1", "key-1", shim=True)


def _shimmed(template: dict = TEMPLATE, override: dict | None = None, settings: WorkerSettings = SETTINGS) -> dict:
    return worker_pod(template, override, TASK, settings, SHIMMED)


def _described(pod: dict) -> dict:
    """What the pod says about itself to the shim."""
    variables = {variable["name"]: variable.get("value") for variable in _container(pod)["env"]}
    return json.loads(variables.get("CROSSWIND_WORKER", "{}"))


def test_the_shim_lies_beside_the_workload_and_runs_it() -> None:
    pod = _shimmed()
    assert _container(pod)["args"] == [
        "python",
        "/run/crosswind/worker.py",
        "--json-path",
        "/run/crosswind/workload.json",
    ]
    assert pod["spec"]["volumes"][-1]["secret"]["items"] == [
        {"key": "key-1", "path": "workload.json"},
        {"key": "worker.py", "path": "worker.py"},
    ]
    assert mounted_workload(pod) == SHIMMED
    assert _described(pod) == {}


@pytest.mark.parametrize(
    ("override", "described"),
    [
        ({"spec": {"terminationGracePeriodSeconds": 600}}, {"grace": 600}),
        ({"spec": {"terminationGracePeriodSeconds": 30}}, {}),
        (_override(terminationMessagePath="/tmp/said"), {"message": "/tmp/said"}),
        (_override(terminationMessagePath="/dev/termination-log"), {}),
        (_override(terminationMessagePolicy="FallbackToLogsOnError"), {"fallback": True}),
        (_override(terminationMessagePolicy="File"), {}),
    ],
)
def test_the_shim_gets_from_the_finished_pod_what_it_cannot_see(override: dict, described: dict) -> None:
    assert _described(_shimmed(override=override)) == described


WITH_CACHE = replace(SETTINGS, bytecode_volume="bytecode")
CACHE = {"name": "bytecode", "image": {"reference": "registry/bytecode:1"}}


def test_bytecode_is_mounted_read_only_where_the_pod_has_the_volume() -> None:
    pod = _shimmed(_template(spec__volumes=[CACHE]), settings=WITH_CACHE)
    mount = {"name": "bytecode", "mountPath": "/run/crosswind-bytecode", "readOnly": True}
    assert mount in _container(pod)["volumeMounts"]
    assert _described(pod) == {"bytecode": "/run/crosswind-bytecode"}


def test_bytecode_that_the_author_mounts_stays_where_it_is() -> None:
    own = [{"name": "bytecode", "mountPath": "/cache"}]
    pod = _shimmed(_template(spec__volumes=[CACHE], base__volumeMounts=own), settings=WITH_CACHE)
    assert [mount for mount in _container(pod)["volumeMounts"] if mount["name"] == "bytecode"] == own
    assert _described(pod) == {"bytecode": "/cache"}


def test_without_the_volume_or_the_shim_there_is_no_bytecode() -> None:
    assert _described(_shimmed(settings=WITH_CACHE)) == {}
    pod = worker_pod(_template(spec__volumes=[CACHE]), None, TASK, WITH_CACHE, SECRET)
    assert all(mount["name"] != "bytecode" for mount in _container(pod)["volumeMounts"])


def test_a_template_without_the_volume_for_bytecode_is_refused_at_start() -> None:
    with pytest.raises(TemplateError, match="bytecode_volume is bytecode, and the template has no such volume"):
        check_template(TEMPLATE, WITH_CACHE)
    check_template(_template(spec__volumes=[CACHE]), WITH_CACHE)


def test_the_workload_may_be_in_the_arguments() -> None:
    pod = worker_pod(TEMPLATE, None, TASK, SETTINGS, InlineWorkload('{"token": "x"}'))
    assert _container(pod)["args"][-2:] == ["--json-string", '{"token": "x"}']
    assert pod["spec"]["volumes"] == TEMPLATE["spec"]["volumes"]


def test_the_command_of_the_template_is_kept() -> None:
    assert _container(_worker(_template(base__command=["tini", "--"])))["command"] == ["tini", "--"]


def test_the_stock_executors_environment_is_set_and_none_of_it_is_secret() -> None:
    env = _container(_worker())["env"]
    assert env == [
        {"name": "AIRFLOW_HOME", "value": "/opt/airflow"},
        {"name": "AIRFLOW_IS_K8S_EXECUTOR_POD", "value": "True"},
    ]


def test_the_templates_environment_wins_over_the_configured_one() -> None:
    settings = replace(SETTINGS, environment={"AIRFLOW_HOME": "/other", "NEW": "1"})
    env = {item["name"]: item["value"] for item in _container(_worker(settings=settings))["env"]}
    assert (env["AIRFLOW_HOME"], env["NEW"]) == ("/opt/airflow", "1")


def test_name_labels_and_annotations_identify_the_task() -> None:
    metadata = _worker(map_index=3, ti_id="01-ti", labels={"crosswind/scheduler": "a"})["metadata"]
    assert metadata["name"] == "orders-load-0f8fad5b-d9cb-469f-a165-70867728950e" == worker_name(TASK)
    assert metadata["labels"] == {
        "team": "data",
        "app.kubernetes.io/name": "airflow-worker",
        "dag_id": "orders",
        "task_id": "load",
        "run_id": "manual__2026-01-01T0000000000-daff4c10d",
        "try_number": "2",
        "map_index": "3",
        "kubernetes_executor": "True",
        "airflow-worker": "5",
        "airflow_version": "3.3.2",
        "crosswind/queue": "default",
        "crosswind/scheduler": "a",
    }
    assert (
        metadata["annotations"].items()
        >= {
            "dag_id": "orders",
            "task_id": "load",
            "run_id": TASK.run_id,
            "try_number": "2",
            "map_index": "3",
            "task_instance_id": "01-ti",
        }.items()
    )


def test_an_override_cannot_take_a_pods_identity() -> None:
    override = {
        "metadata": {"name": "mine", "labels": {"dag_id": "other", "mine": "1"}, "annotations": {"task_id": "x"}}
    }
    metadata = _worker(override=override)["metadata"]
    assert metadata["name"] == worker_name(TASK)
    assert (metadata["labels"]["dag_id"], metadata["labels"]["mine"]) == ("orders", "1")
    assert metadata["annotations"]["task_id"] == "load"


@pytest.mark.parametrize(
    ("template", "override", "namespace"),
    [
        (None, None, "airflow"),
        ("data", None, "data"),
        ("data", "team", "team"),
        (None, "team", "team"),
        ("placeholder-name-dont-delete", None, "airflow"),
        ("data", "", "data"),
    ],
)
def test_the_namespace_is_the_overrides_then_the_templates_then_the_configured(
    template: str | None, override: str | None, namespace: str
) -> None:
    pod = _template(metadata__namespace=template) if template else TEMPLATE
    on_top = {"metadata": {"namespace": override}} if override is not None else None
    assert worker_namespace(pod, on_top, SETTINGS) == namespace
    assert _worker(pod, on_top)["metadata"]["namespace"] == namespace


@pytest.mark.parametrize(
    ("template", "override", "configured", "image"),
    [
        ("apache/airflow:3.3.2", None, "configured:1", "apache/airflow:3.3.2"),
        ("apache/airflow:3.3.2", "mine:1", "configured:1", "mine:1"),
        ("dummy_image", None, "configured:1", "configured:1"),
        ("placeholder-name-dont-delete", "mine:1", None, "mine:1"),
    ],
)
def test_the_image_is_the_overrides_then_the_templates_then_the_configured(
    template: str, override: str | None, configured: str | None, image: str
) -> None:
    on_top = _override(image=override) if override else None
    pod = _worker(_template(base__image=template), on_top, replace(SETTINGS, image=configured))
    assert _container(pod)["image"] == image


def test_a_placeholder_image_without_a_configured_one_is_refused_at_start() -> None:
    with pytest.raises(
        TemplateError, match=r"t\.yaml: container base has the placeholder image 'dummy_image'.*worker_cont"
    ):
        check_template(_template(base__image="dummy_image"), SETTINGS, "t.yaml")


def test_an_invalid_label_of_the_template_is_refused_at_start() -> None:
    with pytest.raises(TemplateError, match=r"metadata.labels\[team\] is 'a b', which Kubernetes refuses"):
        check_template(_template(metadata__labels={"team": "a b"}), SETTINGS)


def test_restart_policy_is_never_unless_the_author_sets_one() -> None:
    assert _worker()["spec"]["restartPolicy"] == "Never"
    assert _worker(override={"spec": {"restartPolicy": "OnFailure"}})["spec"]["restartPolicy"] == "OnFailure"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (_override(image=""), "container base no longer has an image; give it an image, or omit image"),
        (
            {"spec": {"containers": [{"name": "bse", "env": []}]}},
            "container 'bse' has no image; to add a sidecar give it one, to change a container of the template use its "
            "name (base, shipper)",
        ),
        ({"spec": {"initContainers": [{"name": "base", "image": "x"}]}}, "two containers named 'base'; rename one"),
        ({"metadata": {"labels": {"owner": "a" * 64}}}, "metadata.labels.owner is 'aaa"),
        ("base", "pod_override: the document is text, not a Pod"),
    ],
)
def test_an_override_after_which_the_pod_cannot_run_is_refused(override: dict, message: str) -> None:
    with pytest.raises(OverrideError) as caught:
        _worker(override=override)
    assert message in str(caught.value)


def test_a_pod_that_lost_base_in_a_mutation_hook_is_refused() -> None:
    with pytest.raises(OverrideError, match="no longer has a container named base"):
        check_worker({"metadata": {}, "spec": {"containers": [{"name": "main", "image": "x"}]}})


NATIVE = {"metadata": {"annotations": {NATIVE_ANNOTATION: "true"}}}


@pytest.mark.parametrize(
    ("configured", "annotation", "version", "native"),
    [
        (False, None, (1, 36), False),
        (True, None, (1, 36), True),
        (True, None, (1, 28), False),
        (True, None, None, False),
        (True, "false", (1, 36), False),
        (False, "true", (1, 29), True),
        (False, "shipper, other", (1, 29), True),
        (False, "other", (1, 29), False),
    ],
)
def test_declared_sidecars_become_native_only_on_request_and_if_the_server_supports_it(
    configured: bool, annotation: str | None, version: tuple[int, int] | None, native: bool
) -> None:
    override = {"metadata": {"annotations": {NATIVE_ANNOTATION: annotation}}} if annotation else None
    spec = _worker(override=override, settings=replace(SETTINGS, native_sidecars=configured, server_version=version))[
        "spec"
    ]
    shipper = {"name": "shipper", "image": "fluent/fluent-bit:4"}
    assert spec.get("initContainers", []) == ([{**shipper, "restartPolicy": "Always"}] if native else [])
    assert (shipper in spec["containers"]) is not native


def test_a_sidecar_of_the_override_becomes_native_after_the_init_containers() -> None:
    override = NATIVE | {
        "spec": {"initContainers": [{"name": "sync", "image": "s"}], "containers": [{"name": "x", "image": "x"}]}
    }
    spec = _worker(override=override)["spec"]
    assert [c["name"] for c in spec["initContainers"]] == ["sync", "shipper", "x"]
    assert [c["name"] for c in spec["containers"]] == ["base"]


def test_injectors_are_asked_for_native_sidecars_unless_the_author_has_set_the_annotation() -> None:
    istio, linkerd = "sidecar.istio.io/nativeSidecar", "config.linkerd.io/proxy-enable-native-sidecar"
    assert _worker()["metadata"]["annotations"].items() >= {istio: "true", linkerd: "true"}.items()
    override = {"metadata": {"annotations": {istio: "false"}}}
    assert _worker(override=override)["metadata"]["annotations"][istio] == "false"
    for settings in (replace(SETTINGS, ask_native=()), replace(SETTINGS, server_version=None)):
        assert not {istio, linkerd} & _worker(settings=settings)["metadata"]["annotations"].keys()


def test_building_changes_neither_template_nor_override() -> None:
    override = _override(env=[{"name": "A", "value": "b"}]) | NATIVE
    before = json.dumps([TEMPLATE, override])
    first = _worker(override=override)
    assert _worker(override=override) == first
    assert json.dumps([TEMPLATE, override]) == before


@given(st.text(min_size=1, max_size=250), st.text(min_size=1, max_size=250), st.text(max_size=250))
def test_no_label_or_name_is_ever_longer_than_63(dag: str, task: str, run: str) -> None:
    metadata = _worker(dag_id=dag, task_id=task, run_id=run)["metadata"]
    assert max(map(len, [metadata["name"], *metadata["labels"].values()])) <= 63


def test_a_worker_pod_is_built_in_a_tenth_of_a_millisecond() -> None:
    def once() -> float:
        begin = time.process_time()  # the load of other processes does not count
        for _ in range(100):
            _worker()
        return (time.process_time() - begin) / 100

    with untraced():
        assert min(once() for _ in range(20)) < 0.0001

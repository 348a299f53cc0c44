import time

import pytest

from kubelocal.api import printers
from kubelocal.codec.kinds import KINDS


def ago(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))


def rows(kind, *objects):
    shown = printers.table(KINDS[kind], objects, "7", False)
    names = [column["name"] for column in shown["columnDefinitions"]]
    return [dict(zip(names, row["cells"], strict=True)) for row in shown["rows"]]


def named(**parts):
    return {"metadata": {"name": "x", "namespace": "ns", "creationTimestamp": ago(30 * 3600)}, **parts}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-0.5, "0s"),
        (119, "119s"),
        (120, "2m"),
        (123, "2m3s"),
        (599, "9m59s"),
        (600, "10m"),
        (10799, "179m"),
        (10800, "3h"),
        (11400, "3h10m"),
        (8 * 3600, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (52 * 3600, "2d4h"),
        (8 * 86400, "8d"),
        (400 * 86400, "400d"),
        (730 * 86400, "2y"),
        (735 * 86400, "2y5d"),
        (3000 * 86400, "8y"),
    ],
)
def test_durations_are_written_as_kubectl_does(seconds, text):
    assert printers.human_duration(seconds) == text


def running(name, ready=True, restarts=0):
    return {"name": name, "ready": ready, "started": True, "restartCount": restarts, "state": {"running": {}}}


def ended(name, code=0, reason="Completed", **more):
    state = {"terminated": {"exitCode": code, "reason": reason, **more}}
    return {"name": name, "ready": False, "restartCount": 0, "state": state}


def waits(name, reason=""):
    return {"name": name, "ready": False, "restartCount": 0, "state": {"waiting": {"reason": reason} if reason else {}}}


def pod(*statuses, init=(), native=(), phase="Running", conditions=(), deleted=False, **status):
    spec = {
        "containers": [{"name": one["name"]} for one in statuses] or [{"name": "base"}],
        "initContainers": [
            {"name": one["name"], **({"restartPolicy": "Always"} if one["name"] in native else {})} for one in init
        ],
    }
    manifest = named(spec=spec, status={"phase": phase, "conditions": list(conditions), **status})
    if statuses:
        manifest["status"]["containerStatuses"] = list(statuses)
    if init:
        manifest["status"]["initContainerStatuses"] = list(init)
    if deleted:
        manifest["metadata"]["deletionTimestamp"] = ago(0)
    return manifest


READY = ({"type": "Ready", "status": "True"},)
INITIALIZED = ({"type": "Initialized", "status": "True"},)


@pytest.mark.parametrize(
    ("manifest", "ready", "status"),
    [
        (pod(phase="Pending"), "0/1", "Pending"),
        (pod(waits("base", "ContainerCreating"), phase="Pending"), "0/1", "ContainerCreating"),
        (pod(waits("base", "ErrImagePull"), phase="Pending"), "0/1", "ErrImagePull"),
        (pod(running("base")), "1/1", "Running"),
        (pod(ended("base"), phase="Succeeded"), "0/1", "Completed"),
        (pod(ended("base", 3, "Error"), phase="Failed"), "0/1", "Error"),
        (pod(ended("base", 137, "", signal=9), phase="Failed"), "0/1", "Signal:9"),
        (pod(ended("base", 3, ""), phase="Failed"), "0/1", "ExitCode:3"),
        (pod(waits("base", "CrashLoopBackOff")), "0/1", "CrashLoopBackOff"),
        (pod(ended("base"), running("side")), "1/2", "NotReady"),
        (pod(ended("base"), running("side"), conditions=READY), "1/2", "Running"),
        (pod(phase="Failed", reason="Evicted"), "0/1", "Evicted"),
        (pod(running("base"), deleted=True), "1/1", "Terminating"),
        (pod(ended("base"), phase="Succeeded", deleted=True), "0/1", "Completed"),
        (pod(running("base"), reason="NodeLost", deleted=True), "1/1", "Unknown"),
        (pod(waits("base"), init=(running("one"), waits("two")), phase="Pending"), "0/1", "Init:0/2"),
        (pod(waits("base"), init=(ended("one"), waits("two", "PodInitializing")), phase="Pending"), "0/1", "Init:1/2"),
        (pod(waits("base"), init=(ended("one", 5, "Error"),), phase="Pending"), "0/1", "Init:Error"),
        (pod(waits("base"), init=(waits("one", "CrashLoopBackOff"),), phase="Pending"), "0/1", "Init:CrashLoopBackOff"),
        (pod(running("base"), init=(running("side"),), native=("side",), conditions=INITIALIZED), "2/2", "Running"),
        (
            pod(
                waits("base", "PodInitializing"),
                init=(running("side"), waits("two")),
                native=("side",),
                phase="Pending",
            ),
            "1/2",
            "Init:1/2",
        ),
        (
            pod(
                phase="Pending", conditions=({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"},)
            ),
            "0/1",
            "SchedulingGated",
        ),
    ],
)
def test_a_pods_state_is_one_word(manifest, ready, status):
    (row,) = rows("Pod", manifest)
    assert (row["Ready"], row["Status"]) == (ready, status)


def test_a_pods_restarts_tell_when_the_last_was():
    one = running("base", restarts=2) | {"lastState": {"terminated": {"finishedAt": ago(30 * 3600)}}}
    (row,) = rows("Pod", pod(one))
    assert row["Restarts"] == "2 (30h ago)"
    assert rows("Pod", pod(running("base")))[0]["Restarts"] == "0"


def test_a_table_has_columns_versions_and_metadata():
    shown = printers.table(KINDS["Pod"], [pod(running("base"), podIP="10.0.0.1")], "7", False)
    assert (shown["kind"], shown["apiVersion"], shown["metadata"]) == (
        "Table",
        "meta.k8s.io/v1",
        {"resourceVersion": "7"},
    )
    columns = [(column["name"], column["priority"]) for column in shown["columnDefinitions"]]
    assert columns[:6] == [("Name", 0), ("Ready", 0), ("Status", 0), ("Restarts", 0), ("Age", 0), ("IP", 1)]
    (row,) = shown["rows"]
    assert row["object"]["kind"] == "PartialObjectMetadata"
    assert row["object"]["metadata"]["name"] == "x"
    assert row["cells"][4:] == ["30h", "10.0.0.1", "<none>", "<none>", "<none>"]


JOB = {
    "spec": {"completions": 1, "parallelism": 1, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}
}


@pytest.mark.parametrize(
    ("kind", "manifest", "cells"),
    [
        (
            "Node",
            named(
                spec={"unschedulable": True},
                status={"conditions": list(READY), "nodeInfo": {"kubeletVersion": "v1.36.2"}},
            ),
            {"Status": "Ready,SchedulingDisabled", "Roles": "<none>", "Version": "v1.36.2", "Internal-IP": "<none>"},
        ),
        ("Namespace", named(status={"phase": "Active"}), {"Status": "Active", "Age": "30h"}),
        ("Secret", named(type="Opaque", data={"a": "MQ=="}), {"Type": "Opaque", "Data": 1}),
        ("ConfigMap", named(data={"a": "1"}, binaryData={"b": "MQ=="}), {"Data": 2}),
        ("ServiceAccount", named(), {"Secrets": 0}),
        ("Lease", named(spec={"holderIdentity": "me"}), {"Holder": "me"}),
        ("Job", named(**JOB, status={}), {"Status": "Running", "Completions": "0/1", "Duration": "", "Images": "i"}),
        (
            "Job",
            named(
                **JOB,
                status={
                    "succeeded": 1,
                    "startTime": "2030-01-01T00:00:00Z",
                    "completionTime": "2030-01-01T00:00:09Z",
                    "conditions": [{"type": "Complete", "status": "True"}],
                },
            ),
            {"Status": "Complete", "Completions": "1/1", "Duration": "9s"},
        ),
        (
            "Event",
            named(
                involvedObject={"kind": "Pod", "name": "p"},
                reason="Started",
                message="m",
                type="Normal",
                lastTimestamp=ago(5),
                firstTimestamp=ago(70),
                count=3,
                source={"component": "kubelet", "host": "n"},
            ),
            {"Object": "pod/p", "Reason": "Started", "Source": "kubelet, n", "Count": 3, "Type": "Normal"},
        ),
        (
            "PersistentVolumeClaim",
            named(
                spec={"volumeName": "v", "storageClassName": "s", "volumeMode": "Filesystem"},
                status={"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]},
            ),
            {"Status": "Bound", "Volume": "v", "Capacity": "1Gi", "Access Modes": "RWO", "VolumeMode": "Filesystem"},
        ),
        ("Role", named(), {"Name": "x"}),
    ],
)
def test_other_kinds_have_columns_of_their_own(kind, manifest, cells):
    (row,) = rows(kind, manifest)
    assert row | cells == row


@pytest.mark.parametrize("kind", [kind.kind for kind in KINDS.values() if kind.stored])
def test_a_bare_object_of_every_kind_has_a_row(kind):
    bare = named(spec={"template": {}}, roleRef={"kind": "Role", "name": "r"})
    (row,) = rows(kind, bare)
    assert row["Name"] == "x"

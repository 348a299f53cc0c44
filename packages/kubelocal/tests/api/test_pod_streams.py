from __future__ import annotations

from typing import Any

import pytest

from kubelocal.api.pod_streams import container_of, flag, log_options, log_problem, outcome, start_failure
from kubelocal.api.port_forward import read_ports
from kubelocal.api.stream_channels import COMMAND_PROTOCOLS, choose
from kubelocal.codec.status_errors import StatusError
from kubelocal.interfaces import PodLogOptions


def pod(*regular: str, init: tuple[str, ...] = (), **states: dict[str, Any]) -> dict[str, Any]:
    spec = {"containers": [{"name": n} for n in regular], "initContainers": [{"name": n} for n in init]}
    return {"metadata": {"name": "p"}, "spec": spec, "status": {"containerStatuses": [{"name": "base", **states}]}}


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["v5.channel.k8s.io", "v4.channel.k8s.io"], "v5.channel.k8s.io"),
        (["v9.channel.k8s.io", "v4.channel.k8s.io"], "v4.channel.k8s.io"),
        (["channel.k8s.io", "v4.base64.channel.k8s.io"], None),
        ([], None),
    ],
)
def test_first_known_protocol_is_spoken(offered: list[str], chosen: str | None) -> None:
    assert choose(offered, COMMAND_PROTOCOLS) == chosen


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("", True), ("0", False), ("False", False)])
def test_flags_are_read_as_the_api_server_does(text: str, value: bool) -> None:
    assert flag({"tty": text}, "tty") is value
    assert flag({}, "tty") is False


@pytest.mark.parametrize(("name", "found"), [("", "base"), ("base", "base"), ("init", "init")])
def test_container_is_the_named_or_the_only_regular_one(name: str, found: str) -> None:
    assert container_of(pod("base", init=("init",)), name) == found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "a container name must be specified for pod p, choose one of: [init base side]"),
        ("nosuch", "container nosuch is not valid for pod p"),
    ],
)
def test_unclear_container_is_a_bad_request(name: str, message: str) -> None:
    with pytest.raises(StatusError) as refused:
        container_of(pod("base", "side", init=("init",)), name)
    assert (refused.value.code, str(refused.value)) == (400, message)


ENDED = {"terminated": {"exitCode": 1, "containerID": "x://1"}}
WORDS = 'container "base" in pod "p"'


@pytest.mark.parametrize(
    ("states", "previous", "problem"),
    [
        ({"state": {"running": {}}}, False, None),
        ({"state": ENDED}, False, None),
        ({"state": {"terminated": {"exitCode": 128}}}, False, f"{WORDS} is terminated"),
        ({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ENDED}, False, None),
        ({"state": {"waiting": {"reason": "PodInitializing"}}}, False, f"{WORDS} is waiting to start: PodInitializing"),
        (
            {"state": {"waiting": {"reason": "ErrImagePull"}}},
            False,
            f"{WORDS} is waiting to start: image can't be pulled",
        ),
        ({"state": {}}, False, f"{WORDS} is waiting to start - no logs yet"),
        ({"state": {"running": {}}}, True, f"previous terminated {WORDS} not found"),
        ({"state": {"running": {}}, "lastState": ENDED}, True, None),
    ],
)
def test_log_is_there_once_a_container_has_started(states: dict[str, Any], previous: bool, problem: str | None) -> None:
    assert log_problem(pod("base", **states), "base", previous=previous) == problem


def test_log_options_are_read() -> None:
    query = {"follow": "true", "tailLines": "0", "sinceTime": "2026-01-01T00:00:00Z", "timestamps": "1"}
    read = log_options(query)
    assert read == PodLogOptions(follow=True, timestamps=True, tail_lines=0, since_time="2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ({"tailLines": "-1"}, 422, "tailLines"),
        ({"limitBytes": "0"}, 422, "limitBytes"),
        ({"sinceSeconds": "0"}, 422, "sinceSeconds"),
        ({"tailLines": "many"}, 400, None),
        ({"sinceTime": "yesterday"}, 400, None),
        ({"sinceSeconds": "1", "sinceTime": "2026-01-01T00:00:00Z"}, 422, None),
    ],
)
def test_wrong_log_options_are_refused(query: dict[str, str], code: int, field: str | None) -> None:
    with pytest.raises(StatusError) as refused:
        log_options(query)
    causes = refused.value.status.get("details", {}).get("causes", [{}])
    assert (refused.value.code, causes[0].get("field")) == (code, field)


def test_exit_code_is_told_as_clients_read_it() -> None:
    assert outcome(0) == {"metadata": {}, "status": "Success"}
    failed = outcome(3)
    assert (failed["reason"], failed["details"]["causes"]) == (
        "NonZeroExitCode",
        [{"reason": "ExitCode", "message": "3"}],
    )


def test_command_that_is_not_there_has_no_exit_code() -> None:
    status = start_failure(["nosuch"], FileNotFoundError())
    assert (status["code"], status["reason"]) == (500, "InternalError")
    assert 'exec: "nosuch": executable file not found in $PATH' in status["message"]


@pytest.mark.parametrize(("values", "ports"), [(["80"], [80]), (["80,81", "82"], [80, 81, 82])])
def test_ports_are_read(values: list[str], ports: list[int]) -> None:
    assert read_ports(values) == ports


@pytest.mark.parametrize("values", [[], ["web"], ["70000"], ["0"], ["80,"], ["-1"]])
def test_wrong_ports_are_refused(values: list[str]) -> None:
    with pytest.raises(ValueError, match="port"):
        read_ports(values)

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deadlines import scaled
from kubelocal.injection import sidecar_images, sidecar_program
from kubelocal.injection.sidecar_program import PROGRAMS, parse_options, seconds

PROGRAM = str(Path(sidecar_program.__file__))
ADDRESSES = (f"127.77.{os.getpid() % 200 + 1}.{number}" for number in itertools.count(1))
Start = Callable[..., "Running"]


class Running:
    """A sidecar's process at an address of its own."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.address = next(ADDRESSES)
        own = {"POD_IP": self.address, "CROSSWIND_READY_AFTER": "0"}
        command = [sys.executable, "-I", "-S", PROGRAM, *arguments]
        self.process = subprocess.Popen(command, env=own | environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        assert self.process.stdout.readline().endswith("is up\n")

    def ask(self, request: str) -> tuple[int, str]:
        method, port, path = request.split()
        connection = http.client.HTTPConnection(self.address, int(port), timeout=scaled(10))
        try:
            connection.request(method, path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", PROGRAM, *arguments]
        return subprocess.run(command, env={"POD_IP": self.address}, capture_output=True, text=True, timeout=scaled(20))

    def ended(self) -> int:
        return self.process.wait(timeout=scaled(10))


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Running] = []

    def run(*arguments: str, **environment: str) -> Running:
        started.append(Running(arguments, environment))
        return started[-1]

    yield run
    for one in started:
        one.process.kill()
        one.process.communicate()


ENABLED = {"LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED": "true"}
SQL = ("cloud-sql-proxy", "--quitquitquit", "--health-check", "instance")
CONVERSATIONS = {
    "istio agent": (
        ("pilot-agent", "proxy", "sidecar"),
        {},
        ["GET 15021 /healthz/ready 200", "GET 15020 /quitquitquit 405", "POST 15020 /drain 200", "GET 15020 /none 404"],
        "POST 15020 /quitquitquit 200",
    ),
    "istio moved": (
        ("pilot-agent", "proxy", "sidecar"),
        {"PROXY_CONFIG": '{"statusPort": 15555}'},
        ["GET 15555 /healthz/ready 200"],
        "POST 15555 /quitquitquit 200",
    ),
    "istio's envoy": (
        ("pilot-agent", "proxy"),
        {},
        ["GET 15000 /quitquitquit 400", "GET 15000 /ready 200"],
        "POST 15000 /quitquitquit 200",
    ),
    "linkerd": (("linkerd",), ENABLED, ["GET 4191 /ready 200", "GET 4191 /shutdown 405"], "POST 4191 /shutdown 200"),
    "cloud sql": (SQL, {}, ["GET 9090 /readiness 200", "GET 9090 /liveness 200"], "GET 9091 /quitquitquit 200"),
    "cloud sql moved": (
        ("cloud-sql-proxy", "--admin-port=9999"),
        {"CSQL_PROXY_QUITQUITQUIT": "true"},
        [],
        "POST 9999 /quitquitquit 200",
    ),
    "consul": (
        ("consul-dataplane", "-graceful-port", "20601", "-shutdown-grace-period-seconds=0"),
        {},
        ["GET 21000 /ready 200"],
        "PUT 20601 /graceful_shutdown 200",
    ),
    "kuma": (("kuma-dp",), {}, ["GET 9902 /ready 200"], "POST 9901 /quitquitquit 200"),
    "dapr": (
        ("daprd", "--dapr-graceful-shutdown-seconds", "0"),
        {},
        ["GET 3500 /v1.0/healthz 204", "GET 3500 /v1.0/shutdown 405"],
        "POST 3500 /v1.0/shutdown 204",
    ),
    "envoy": (("envoy",), {}, ["GET 9901 /quitquitquit 400"], "POST 9901 /quitquitquit 200"),
    "app mesh": (("appmesh-envoy",), {"ENVOY_ADMIN_ACCESS_PORT": "9902"}, [], "POST 9902 /quitquitquit 200"),
}


@pytest.mark.parametrize("case", CONVERSATIONS)
def test_sidecars_answer_and_leave_with_0_when_asked(case: str, start: Start) -> None:
    arguments, environment, requests, farewell = CONVERSATIONS[case]
    sidecar = start(*arguments, **environment)
    for request in (*requests, farewell):
        line, _, code = request.rpartition(" ")
        assert (line, sidecar.ask(line)[0]) == (line, int(code))
    assert sidecar.ended() == 0


TERMS = {
    "linkerd": (("linkerd",), 0),
    "cloud-sql-proxy": (("cloud-sql-proxy",), 143),
    "cloud-sql-proxy, zero": (("cloud-sql-proxy", "--exit-zero-on-sigterm"), 0),
    "cloud-sql-proxy-v1": (("cloud-sql-proxy-v1",), 0),
    "fluent-bit": (("fluent-bit",), 0),
    "fluentd": (("fluentd",), 143),
    "otel-collector": (("otel-collector",), 0),
}


@pytest.mark.parametrize("case", TERMS)
def test_sidecars_end_on_term_as_the_real_ones(case: str, start: Start) -> None:
    arguments, code = TERMS[case]
    sidecar = start(*arguments)
    sidecar.process.send_signal(signal.SIGTERM)
    assert sidecar.ended() == code


def test_istio_drains_before_it_ends_on_term(start: Start) -> None:
    sidecar = start("pilot-agent", "proxy", PROXY_CONFIG='{"terminationDrainDuration": "300ms"}')
    begin = time.monotonic()
    sidecar.process.send_signal(signal.SIGTERM)
    assert sidecar.ended() == 0
    assert time.monotonic() - begin >= 0.3


def test_istio_says_503_until_it_is_ready_and_wait_waits_for_that(start: Start) -> None:
    sidecar = start("pilot-agent", "proxy", CROSSWIND_READY_AFTER="0.3")
    assert sidecar.ask("GET 15021 /healthz/ready")[0] == 503
    assert sidecar.run("pilot-agent", "wait").returncode == 0
    assert sidecar.ask("GET 15021 /healthz/ready")[0] == 200


def test_linkerd_names_the_missing_permission_in_its_404(start: Start) -> None:
    sidecar = start("linkerd")
    assert sidecar.ask("POST 4191 /shutdown") == (404, "shutdown endpoint is not enabled\n")
    assert sidecar.process.poll() is None


def test_linkerd_waits_for_open_connections(start: Start) -> None:
    sidecar = start("linkerd", **ENABLED)
    with socket.create_connection((sidecar.address, 4140)) as connection:
        connection.sendall(b"hello")
        assert sidecar.ask("POST 4191 /shutdown")[0] == 200
        with pytest.raises(subprocess.TimeoutExpired):
            sidecar.process.wait(timeout=0.3)
    assert sidecar.ended() == 0


def test_only_loopback_may_ask_to_quit() -> None:
    istio = PROGRAMS["istio"]
    sidecar = sidecar_program.Sidecar(istio, dict(istio.options), "", 0)
    endpoints = sidecar.endpoints["0.0.0.0", 15020]
    assert sidecar.answer("POST", "/quitquitquit", endpoints, inside=False)[0] == 403
    assert sidecar.end is None
    assert sidecar.answer("POST", "/quitquitquit", endpoints, inside=True)[0] == 200
    assert sidecar.end


def test_a_port_whose_endpoints_are_all_disabled_refuses_connections(start: Start) -> None:
    sidecar = start("cloud-sql-proxy")
    with pytest.raises(ConnectionRefusedError):
        sidecar.ask("POST 9091 /quitquitquit")


def test_own_clients_ask_their_sidecars_to_quit(start: Start) -> None:
    istio, sql, linkerd = start("pilot-agent", "proxy"), start(*SQL), start("linkerd", **ENABLED)
    assert istio.run("pilot-agent", "request", "--debug-port=15020", "POST", "quitquitquit").stdout == "OK"
    assert sql.run("cloud-sql-proxy", "shutdown").returncode == 0
    wrapped = linkerd.run("linkerd-await", "--shutdown", "--", sys.executable, "-c", "raise SystemExit(3)")
    assert wrapped.returncode == 3
    assert start("linkerd").run("linkerd-await", "--timeout=2m", "--port=4191").returncode == 0
    assert [istio.ended(), sql.ended(), linkerd.ended()] == [0, 0, 0]


def test_vault_writes_secrets_then_ends_or_stays(tmp_path: Path, start: Start) -> None:
    config = {"template": [{"destination": str(tmp_path / "secrets" / "db"), "contents": "x"}]}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config | {"exit_after_auth": True}))
    init = subprocess.run(
        [sys.executable, "-I", "-S", PROGRAM, "vault", "agent", f"-config={file}"], timeout=scaled(20)
    )
    assert init.returncode == 0
    assert (tmp_path / "secrets" / "db").read_text() == "x"
    file.write_text(json.dumps(config | {"listener": [{"tcp": {"address": "127.0.0.1:8300"}}]}))
    agent = start("vault", "agent", f"-config={file}")
    assert agent.ask("POST 8300 /agent/v1/quit")[0] == 200
    assert agent.ended() == 0


def test_installed_commands_play_every_image(tmp_path: Path) -> None:
    table = sidecar_images.sidecar_images(tmp_path, ready_after=0)
    assert {image.entrypoint[0] for image in table.values()} < {file.name for file in tmp_path.iterdir()}
    assert all(image.path == (str(tmp_path),) for image in table.values())
    assert subprocess.run(["done", "--anything"], env={"PATH": str(tmp_path)}, timeout=scaled(20)).returncode == 0


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("100ms", 0.1), ("5s", 5), ("2m", 120)])
def test_durations_are_read_as_go_writes_them(text: str, value: float) -> None:
    assert seconds(text) == value


def test_unknown_flags_are_left_alone() -> None:
    options = parse_options(PROGRAMS["cloud-sql-proxy"], ["--port", "5432", "--quitquitquit=false", "db"], {})
    assert options == PROGRAMS["cloud-sql-proxy"].options

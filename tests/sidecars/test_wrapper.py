"""The wrapper among sidecars that run as processes; each test has a loopback address of its own."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crosswind.sidecars.catalog import KNOWN
from crosswind.sidecars.scripts import helm_values, shell
from crosswind.sidecars.wrapper import ReadyEndpoint, WrapSettings, quit_endpoints, request
from deadlines import scaled
from kubelocal.injection import sidecar_program

ADDRESSES = (f"127.88.{os.getpid() % 200 + 1}.{number}" for number in itertools.count(1))
PR_SET_CHILD_SUBREAPER = 36
TWENTY_SECONDS = "n=0; while [ $n -lt 400 ]; do sleep 0.05; n=$((n+1)); done"  # ends by itself when a test fails
WRAP = [sys.executable, "-m", "crosswind", "wrap"]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def address() -> str:
    return next(ADDRESSES)


@pytest.fixture
def start(address: str) -> Iterator[Start]:
    """Start a sidecar and return its process, once it listens."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, ready_after: float = 0, **environment: str) -> subprocess.Popen[str]:
        own = {"POD_IP": address, "CROSSWIND_READY_AFTER": str(ready_after)}
        command = [sys.executable, "-I", "-S", str(sidecar_program.__file__), *arguments]
        started.append(subprocess.Popen(command, env=own | environment, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline().endswith("is up\n")
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wrap(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*WRAP, "--address", address, *arguments], capture_output=True, text=True, timeout=scaled(25))


ISTIO = ("pilot-agent", "proxy", "sidecar")
READY = "import sys,urllib.request as u; u.urlopen('http://%s:15021/healthz/ready'); sys.exit(5)"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["no-such-command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_the_commands_exit_code_is_the_wrappers(address: str, command: list[str], code: int) -> None:
    assert wrap(address, "--mesh", "none", "--", *command).returncode == code


def test_every_known_sidecar_that_listens_is_requested_to_quit(address: str, start: Start) -> None:
    sidecars = [
        start(*ISTIO),
        start("linkerd", LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED="true"),
        start("cloud-sql-proxy", "--quitquitquit"),
        start("daprd", "--dapr-graceful-shutdown-seconds", "0"),
        start("consul-dataplane", "-shutdown-grace-period-seconds=0"),
        start("envoy"),
    ]
    assert wrap(address, "--", "true").returncode == 0
    assert [process.wait(scaled(5)) for process in sidecars] == [0] * len(sidecars)


def test_without_a_mesh_it_neither_hangs_nor_complains(address: str) -> None:
    began = time.monotonic()
    done = wrap(address, "--", "sh", "-c", "exit 4")
    assert (done.returncode, done.stderr) == (4, "")
    assert time.monotonic() - began < scaled(10)


@pytest.mark.parametrize("after", ["before the command", "after the command"])
def test_messages_that_nobody_can_read_change_no_exit_code(address: str, after: str) -> None:
    sidecars = {"before the command": ["--mesh", "istio"], "after the command": ["--mesh", "none", "--quit", ":1/x"]}
    command = [
        *WRAP,
        "--address",
        address,
        *sidecars[after],
        "--wait-timeout",
        "0.2",
        "--",
        "sh",
        "-c",
        "echo ran; exit 7",
    ]
    reader, writer = os.pipe()
    os.close(reader)
    closed = "import os, sys; os.close(2); os.execv(sys.argv[1], sys.argv[1:])"
    with open("/dev/full", "w") as full:
        for prefix, stderr in (([], full), ([], writer), ([sys.executable, "-c", closed], None)):
            done = subprocess.run(
                [*prefix, *command], stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=scaled(25), check=False
            )
            assert (done.returncode, done.stdout) == (7, "ran\n")
    os.close(writer)


def test_a_parent_that_ignores_its_children_does_not_hang_the_wrapper(address: str) -> None:
    ignore = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [*WRAP, "--address", address, "--mesh", "none", "--", "sh", "-c", "exit 3"]
    done = subprocess.run([sys.executable, "-c", ignore, *command], timeout=scaled(25), check=False)
    assert done.returncode == 3


@pytest.mark.parametrize("missing", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH])
def test_an_address_that_the_pod_does_not_have_is_no_sidecar(missing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod without IPv6, as AWS' CNI can make it."""
    connect = socket.create_connection

    def without_ipv6(target: tuple[str, int], **options: Any) -> socket.socket:
        if ":" in target[0]:
            raise OSError(missing, os.strerror(missing))
        return connect(target, **options)

    monkeypatch.setattr(socket, "create_connection", without_ipv6)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nothing = ReadyEndpoint("istio", "GET", free.getsockname()[1], "/ready")
        with pytest.raises(ConnectionRefusedError):
            request("localhost", nothing)


def test_a_named_mesh_that_does_not_come_is_waited_for_and_reported(address: str) -> None:
    done = wrap(address, "--mesh", "istio", "--wait-timeout", "0.3", "--", "true")
    assert done.returncode == 0
    assert re.search(r"istio is not there after \d\.\d s; running the command anyway", done.stderr)
    assert "istio could not be asked to quit: it does not answer" in done.stderr


def test_a_refusal_is_reported_and_not_retried(address: str, start: Start) -> None:
    start("linkerd")
    began = time.monotonic()
    done = wrap(address, "--mesh", "linkerd", "--", "true")
    assert time.monotonic() - began < scaled(10)
    assert "linkerd could not be asked to quit: it answered 404" in done.stderr


def test_further_sidecars_quit_by_requests_of_the_user(address: str, start: Start) -> None:
    proxy = start("envoy", "--admin-port", "9876")
    assert wrap(address, "--mesh", "none", "--quit", ":9876/quitquitquit", "--", "true").returncode == 0
    assert proxy.wait(scaled(5)) == 0


@pytest.mark.parametrize("value", ["quitquitquit", ":0/quit", ":99999/quit", "post :1/x"])
def test_a_request_of_another_form_is_refused(address: str, value: str) -> None:
    done = wrap(address, "--quit", value, "--", "true")
    assert done.returncode == 2
    assert "is not of the form ':PORT/PATH'" in done.stderr


def popen(address: str, *arguments: str, adopts: bool = False) -> subprocess.Popen[str]:
    libc = ctypes.CDLL(None)

    def adopt() -> None:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)

    return subprocess.Popen(
        [*WRAP, "--address", address, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=adopt if adopts else None,  # process 1 adopts orphans by itself
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(address: str, number: signal.Signals) -> None:
    script = f"trap 'exit 9' TERM INT HUP USR1; echo up; {TWENTY_SECONDS}"
    with popen(address, "--mesh", "none", "--", "sh", "-c", script) as wrapper:
        assert wrapper.stdout is not None
        assert wrapper.stdout.readline() == "up\n"
        wrapper.send_signal(number)
        assert wrapper.wait(scaled(10)) == 9


def test_a_command_that_a_signal_ends_gives_its_number(address: str) -> None:
    with popen(address, "--mesh", "none", "--", "sh", "-c", "echo up; exec sleep 20") as wrapper:
        assert wrapper.stdout is not None
        wrapper.stdout.readline()
        wrapper.terminate()
        assert wrapper.wait(scaled(10)) == 143


def test_a_signal_before_the_command_starts_ends_the_wait_and_the_sidecars(address: str, start: Start) -> None:
    proxy = start(*ISTIO, ready_after=60)
    with popen(address, "--", "echo", "ran") as wrapper:
        for _ in range(200):  # until it has blocked its signals, a signal ends it
            status = Path(f"/proc/{wrapper.pid}/status").read_text()
            blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
            if blocked >> (signal.SIGTERM - 1) & 1:
                break
            time.sleep(0.02)
        wrapper.terminate()
        assert wrapper.wait(scaled(10)) == 143
        assert wrapper.stdout is not None
        assert wrapper.stdout.read() == ""
    assert proxy.wait(scaled(5)) == 0


def test_orphans_are_reaped(address: str) -> None:
    script = "sh -c 'sleep 0.1 & echo $!'; sleep 0.3; echo slept; read line; exit 0"
    with popen(address, "--mesh", "none", "--", "sh", "-c", script, adopts=True) as wrapper:
        assert wrapper.stdout is not None
        orphan = int(wrapper.stdout.readline())
        assert wrapper.stdout.readline() == "slept\n"
        for _ in range(100):
            if not Path(f"/proc/{orphan}").exists():
                break
            time.sleep(0.02)
        assert not Path(f"/proc/{orphan}").exists()
        wrapper.kill()


def test_only_the_standard_library_and_click_are_loaded() -> None:
    code = "import sys, crosswind.cli.wrap; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=scaled(20), check=True
    ).stdout
    assert not [name for name in ("airflow", "aiohttp", "rich", "yaml", "pydantic", "asyncio") if f"'{name}'" in loaded]


def test_a_sidecar_with_an_owner_is_not_asked_unless_named() -> None:
    assert "kuma" not in {endpoint.sidecar for endpoint in quit_endpoints(["auto"])}
    assert {endpoint.sidecar for endpoint in quit_endpoints(["kuma"])} == {"kuma"}


def test_helpers_quit_before_the_mesh() -> None:
    order = [endpoint.sidecar for endpoint in quit_endpoints(["auto"], KNOWN)]
    assert order.index("vault") < order.index("istio")
    assert order.index("cloud-sql") < order.index("linkerd")


# The same as a shell script

SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"]}
TOOLS = ["curl", "wget", "busybox wget", "busybox nc", "bash"]


@pytest.fixture
def script(tmp_path: Path, address: str) -> Callable[..., list[str]]:
    """Return a command line for the script whose PATH holds only a tool and the programs that the command needs."""

    def make(tool: str, kind: str, **settings: Any) -> list[str]:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in ("sleep", "date", "sh", "true", "timeout", *(("cat", "bash") if tool == "bash" else ())):
            (folder / name).symlink_to(str(shutil.which(name)))
        if tool not in ("", "bash"):
            source, _, applet = tool.partition(" ")
            if shutil.which(source) is None:
                pytest.skip(f"there is no {source} here")
            (folder / (applet or source)).symlink_to(str(shutil.which(source)))
        if shutil.which(SHELLS[kind][0]) is None:
            pytest.skip(f"there is no {kind} here")
        file = tmp_path / "wrap.sh"
        file.write_text(shell(WrapSettings(address=address, **settings)))
        words = [str(shutil.which(SHELLS[kind][0])), *SHELLS[kind][1:]]
        return ["env", "-i", f"PATH={folder}", *words, str(file)]

    return make


@pytest.mark.parametrize("kind", SHELLS)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 9), (signal.SIGINT, 9), (signal.SIGHUP, 143)])
def test_the_script_passes_signals_on(
    script: Callable[..., list[str]], kind: str, number: signal.Signals, code: int
) -> None:
    text = f"trap 'exit 9' TERM; trap 'exit 143' HUP; echo up; {TWENTY_SECONDS}"
    command = [*script("curl", kind, meshes=("none",)), "sh", "-c", text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrapper:
        assert wrapper.stdout is not None
        assert wrapper.stdout.readline() == "up\n"
        wrapper.send_signal(number)
        assert wrapper.wait(scaled(10)) == code


@pytest.mark.parametrize("kind", SHELLS)
def test_the_script_hands_its_input_to_the_command(script: Callable[..., list[str]], kind: str) -> None:
    command = [*script("curl", kind, meshes=("none",)), "sh", "-c", "read line; echo got $line"]
    done = subprocess.run(command, input="it\n", capture_output=True, text=True, timeout=scaled(20))
    assert done.stdout == "got it\n"


@pytest.mark.parametrize("kind", SHELLS)
def test_the_script_reports_missing_programs(script: Callable[..., list[str]], kind: str) -> None:
    done = subprocess.run(
        [*script("", kind, meshes=("none",)), "true"], capture_output=True, text=True, timeout=scaled(20)
    )
    assert done.returncode == 0
    assert "no curl, wget, nc or bash" in done.stderr or kind == "busybox"  # busybox has them built in


def test_the_charts_values_keep_its_arguments() -> None:
    import yaml

    values = yaml.safe_load(helm_values(WrapSettings(meshes=("istio",))))
    assert list(values) == ["migrateDatabaseJob", "createUserJob"]
    for job in values.values():
        assert list(job) == ["command"]
        assert job["command"] == ["crosswind", "wrap", "--wait-timeout", "60", "--mesh", "istio", "--", "/entrypoint"]


# One table of behaviours for both forms

FORMS = ["python", "dash with curl", "dash with bash", "dash with busybox wget", "busybox with wget"]
FORMS += ["busybox with busybox nc"]  # each shell and each tool
Form = Callable[..., list[str]]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, address: str, script: Callable[..., list[str]]) -> Form:
    """Return the wrapper's command line in one of its forms, with settings."""
    kind, _, tool = str(request.param).partition(" with ")

    def make(*, meshes: tuple[str, ...] = ("auto",), look: int = 2, wait_timeout: int = 20) -> list[str]:
        if kind != "python":
            return script(tool, kind, meshes=meshes, look=look, wait_timeout=wait_timeout)
        words = [*WRAP, "--address", address, "--look", str(look), "--wait-timeout", str(wait_timeout)]
        return [*words, *(word for name in meshes for word in ("--mesh", name)), "--"]

    return make


def run(command: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=scaled(25))


def later(seconds: float, begin: Callable[[], subprocess.Popen[str]]) -> Callable[[], subprocess.Popen[str]]:
    """Start a sidecar after a delay, as the kubelet starts containers that are listed later; wait for its start."""
    begun: list[subprocess.Popen[str]] = []
    timer = threading.Timer(seconds, lambda: begun.append(begin()))
    timer.start()

    def process() -> subprocess.Popen[str]:
        timer.join()
        return begun[0]

    return process


def test_the_command_starts_when_the_mesh_is_ready_and_the_mesh_ends_after_it(
    address: str, start: Start, form: Form
) -> None:
    proxy = start(*ISTIO, ready_after=3.5)  # longer than the wrapper looks for sidecars
    done = run(form(), sys.executable, "-c", READY % address)
    assert (done.returncode, done.stderr) == (5, "")
    assert proxy.wait(scaled(5)) == 0


def test_the_command_starts_when_the_last_of_several_sidecars_is_ready(address: str, start: Start, form: Form) -> None:
    first = start("cloud-sql-proxy", "--quitquitquit", "--health-check", f"--http-address={address}")
    second = start(*ISTIO, ready_after=2.5)
    done = run(form(), sys.executable, "-c", READY % address)
    assert (done.returncode, done.stderr) == (5, "")
    assert (first.wait(scaled(5)), second.wait(scaled(5))) == (0, 0)


def test_a_sidecar_that_begins_after_another_is_ready_is_waited_for_and_ends(
    address: str, start: Start, form: Form
) -> None:
    first = start("cloud-sql-proxy", "--quitquitquit", "--health-check", f"--http-address={address}")
    second = later(1.0, lambda: start(*ISTIO, ready_after=1.0))
    done = run(form(look=4), sys.executable, "-c", READY % address)
    assert (done.returncode, done.stderr) == (5, "")
    assert (first.wait(scaled(5)), second().wait(scaled(5))) == (0, 0)


def test_a_named_sidecar_is_waited_for_however_late_it_begins(address: str, start: Start, form: Form) -> None:
    proxy = later(2.5, lambda: start(*ISTIO))
    done = run(form(meshes=("istio",)), sys.executable, "-c", READY % address)
    assert (done.returncode, done.stderr) == (5, "")
    assert proxy().wait(scaled(5)) == 0


def test_a_sidecar_that_begins_after_the_command_has_ended_ends_too(start: Start, form: Form) -> None:
    proxy = later(
        1.5, lambda: start("cloud-sql-proxy", "--quitquitquit")
    )  # it has no health check, so it is not waited for
    assert run(form(look=4), "sh", "-c", "exit 3").returncode == 3
    assert proxy().wait(scaled(5)) == 0


def test_a_sidecar_that_is_never_ready_delays_the_command_and_ends(start: Start, form: Form) -> None:
    proxy = start(*ISTIO, ready_after=60)
    done = run(form(look=1, wait_timeout=2), "sh", "-c", "exit 4")
    assert done.returncode == 4
    assert "istio" in done.stderr
    assert "running the command anyway" in done.stderr
    assert proxy.wait(scaled(5)) == 0


def test_a_sidecar_that_refuses_to_quit_is_named(start: Start, form: Form) -> None:
    start("linkerd")  # its shutdown endpoint is off
    done = run(form(), "true")
    assert done.returncode == 0
    assert re.search("could not be asked to quit.*404", done.stderr)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_while_it_waits_ends_the_sidecars_and_the_command_never_runs(
    address: str, start: Start, form: Form, number: signal.Signals, code: int
) -> None:
    proxy = start(*ISTIO, ready_after=60)
    with subprocess.Popen(
        [*form(look=3, wait_timeout=60), "echo", "ran"], stdout=subprocess.PIPE, text=True
    ) as wrapper:
        assert proxy.stdout is not None
        handled = "SigBlk:" if "crosswind" in str(wrapper.args) else "SigCgt:"
        for _ in range(500):  # until it waits: before that, a signal ends it
            if _mask(wrapper.pid, handled) >> (number - 1) & 1:
                break
            time.sleep(0.02)
        wrapper.send_signal(number)
        assert wrapper.wait(scaled(15)) == code
        assert wrapper.stdout is not None
        assert wrapper.stdout.read() == ""
    assert proxy.wait(scaled(5)) == 0


def _mask(pid: int, name: str) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition(name)[2].split()[0], 16)

"""``crosswind top``: its screen as golden files, its keys as values, and the command in a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.task_pods import NOW, pods, task_pod

from crosswind.cli.pod_description import describe_pod, description_lines
from crosswind.cli.terminal import KeyParser
from crosswind.cli.text_table import ansi, cell_width, cut_line, plain
from crosswind.cli.top_frame import Frame, frame_lines, list_rows, shown_lines
from crosswind.cli.top_view import Action, Page, View, press, visible_pods
from crosswind.pods.pod_summary import PodSummary, summarise
from crosswind.testing import Cluster, serve_in_thread
from deadlines import scaled
from kubelocal.settings import LocalSettings

GOLDEN = Path(__file__).parent / "golden"
FLEET = [pod for pod in map(summarise, pods()) if pod.kind != "warm"]
SMALL = Frame("kind-kind", "namespace airflow", False, 80, 24, NOW, warm=1)
LARGE = replace(SMALL, width=160, height=50)


def screen(view: View, frame: Frame = SMALL, fleet: list[PodSummary] = FLEET, page: int | None = None) -> str:
    lines = [] if page is None else description_lines(describe_pod(pods()[page], NOW), NOW, frame.width)
    shown = shown_lines(view.page, lines, frame.width) if view.page else []
    drawn = [plain(line) for line in frame_lines(frame, view, fleet, visible_pods(fleet, view), shown)]
    assert len(drawn) <= frame.height
    assert max(map(cell_width, drawn)) <= frame.width
    return "\n".join(drawn)


def same(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text + "\n")
    assert text + "\n" == path.read_text()


def test_the_screen_fits_80_by_24() -> None:
    same("top-80x24.txt", screen(View()))


@pytest.mark.parametrize("width", [1, 5, 20, 79, 300])
@pytest.mark.parametrize("height", [1, 2, 5, 24])
def test_a_terminal_of_any_size_is_drawn(width: int, height: int) -> None:
    frame = replace(SMALL, width=width, height=height)
    description = description_lines(describe_pod(pods()[8], NOW), NOW, width)
    asks = View(confirming=frozenset({FLEET[0].uid}))
    for view in (View(), View(help=True), View(page=Page("t", wraps=True)), asks, View(typing=True, search="x")):
        page = shown_lines(view.page, description, width) if view.page else []
        for line in frame_lines(frame, view, FLEET, visible_pods(FLEET, view), page):
            assert cell_width(plain(cut_line(line, width))) <= width


def test_a_large_screen_shows_more_columns() -> None:
    same("top-160x50.txt", screen(View(), LARGE))


def test_a_description_opens_over_the_list() -> None:
    same("top-describe.txt", screen(View(page=Page("airflow/sales")), page=4))


def test_help_names_every_key() -> None:
    text = screen(View(help=True))
    same("top-help.txt", text)


def test_a_broken_connection_and_an_empty_fleet_are_named() -> None:
    assert "not up to date: connection refused" in screen(View(), replace(SMALL, trouble="connection refused"))
    assert "no pod of an Airflow task in namespace airflow" in screen(View(), fleet=[])
    assert "reading the pods" in screen(View(), replace(SMALL, listed=False), [])
    assert "no pod matches" in screen(View(search="nothing"))


def test_the_cursor_stays_visible_in_a_long_list() -> None:
    fleet = [summarise(task_pod(number, task_id=f"task{number}", phase="Running")) for number in range(500)]
    ordered = visible_pods(fleet, View(sort="task"))
    for at in (0, 250, 499):
        view = View(sort="task", selected=ordered[at].uid)
        rows = frame_lines(SMALL, view, fleet, ordered, [])
        assert [ordered[at].task in plain(row) for row in rows if any("reverse" in style for _, style in row)] == [True]


def keys(view: View, *pressed: str, fleet: list[PodSummary] = FLEET) -> tuple[View, Action]:
    action = Action.NONE
    for key in pressed:
        view, action = press(view, key, visible_pods(fleet, view), 18, 100)
    return view, action


def test_keys_move_the_cursor_within_the_list() -> None:
    ordered = visible_pods(FLEET, View())
    assert keys(View(), "down", "j", "up")[0].selected == ordered[1].uid
    assert keys(View(), "G")[0].selected == ordered[-1].uid
    assert keys(View(), "G", "down", "g", "k")[0].selected == ordered[0].uid
    assert keys(View(), "down", fleet=[])[0].selected == ""


def test_the_cursor_follows_its_pod_and_keeps_its_row_when_the_pod_goes() -> None:
    view, _ = keys(View(), "down", "down")
    chosen = visible_pods(FLEET, view)[2]
    assert view.selected == chosen.uid
    left = [pod for pod in FLEET if pod.uid != chosen.uid]
    described, action = press(view, "d", visible_pods(left, view), 18)
    assert (action, described.selected) == (Action.DESCRIBE, visible_pods(left, view)[2].uid)


def test_a_filter_is_typed_and_ended() -> None:
    view, _ = keys(View(), "/", *"billing !oom", "backspace", "enter")
    assert {pod.task_id for pod in visible_pods(FLEET, view)} == {"checks.totals", "export"}
    assert view.search == "billing !oo"
    assert visible_pods(FLEET, keys(view, "escape")[0]) == visible_pods(FLEET, View())
    assert keys(View(), "/", "q", "é")[0].search == "qé"


def test_only_faults_leaves_out_healthy_pods() -> None:
    faults = visible_pods(FLEET, keys(View(), "f")[0])
    assert {pod.state for pod in faults} == {"failed", "pending", "succeeded"}
    assert all(pod.sidecars_running for pod in faults if pod.state == "succeeded")


def test_a_deletion_needs_a_yes() -> None:
    asked, action = keys(View(), "down", "ctrl-d")
    assert action is Action.NONE
    assert "Delete? y/N" in screen(asked)
    assert keys(asked, "n")[1] is Action.NONE
    assert keys(asked, "n")[0].confirming == frozenset()
    assert keys(asked, "y")[1] is Action.DELETE


def test_marked_pods_are_deleted_together() -> None:
    view, _ = keys(View(), " ", "down", " ")
    assert "2 marked" in screen(view)
    asked, _ = keys(view, "x")
    assert "2 pods. Tasks will fail or be retried. Delete? y/N" in screen(asked)
    ordered = visible_pods(FLEET, View())
    assert asked.confirming == {ordered[0].uid, ordered[2].uid}
    assert keys(view, "escape")[0].marked == frozenset()
    assert keys(view, "up", " ")[0].marked == {ordered[0].uid}


@pytest.mark.parametrize(
    ("key", "sort", "reverse"), [("A", "age", False), ("S", "state", True), ("s", "age", False), ("r", "state", True)]
)
def test_keys_change_the_order(key: str, sort: str, reverse: bool) -> None:
    view, _ = keys(View(), key)
    assert (view.sort, view.reverse) == (sort, reverse)


@pytest.mark.parametrize(
    ("key", "action"),
    [
        ("q", Action.QUIT),
        ("ctrl-c", Action.QUIT),
        ("enter", Action.DESCRIBE),
        ("l", Action.LOGS),
        ("p", Action.PREVIOUS_LOGS),
        ("y", Action.YAML),
        ("0", Action.NAMESPACES),
        ("z", Action.NONE),
    ],
)
def test_keys_ask_for_actions(key: str, action: Action) -> None:
    assert keys(View(), key)[1] is action
    assert keys(View(), key, fleet=[])[1] is (action if key in ("q", "0", "ctrl-c") else Action.NONE)


def test_a_page_scrolls_filters_and_closes() -> None:
    view = View(page=Page("x"))
    assert keys(view, "G")[0].page == Page("x", at=82, at_end=True)
    assert keys(view, "pagedown", "up")[0].page == Page("x", at=16)
    assert keys(view, "/", "a", "enter")[0].page == Page("x", search="a")
    closed, action = keys(view, "escape")
    assert (closed.page, action) == (None, Action.CLOSE_PAGE)
    assert keys(view, "q")[1] is Action.CLOSE_PAGE


def test_long_lines_of_a_page_wrap_when_asked() -> None:
    lines = [[("x" * 25, "")], [("y", "red")]]
    assert [plain(line) for line in shown_lines(Page("", wraps=True), lines, 10)] == ["x" * 10, "x" * 10, "x" * 5, "y"]
    assert shown_lines(Page("", search="y"), lines, 10) == [lines[1]]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[6~j", ["up", "pagedown", "j"]),
        (b"\x1b", ["escape"]),
        (b"\x04\r\x7f", ["ctrl-d", "enter", "backspace"]),
        ("é日".encode(), ["é", "日"]),
        (b"\x1b[99;99X", []),
    ],
)
def test_bytes_of_a_terminal_are_keys(data: bytes, expected: list[str]) -> None:
    assert list(KeyParser().feed(data)) == expected


def test_a_character_may_come_in_two_reads() -> None:
    parser = KeyParser()
    assert [*parser.feed("é".encode()[:1]), *parser.feed("é".encode()[1:])] == ["é"]


def test_styles_end_with_their_text() -> None:
    assert ansi([("a", "bold red"), ("b", "")]) == "\x1b[1;31ma\x1b[0mb"
    assert ansi([("a", "bold red")], colours=False) == "\x1b[1ma\x1b[0m"


# --- in a terminal ----------------------------------------------------------------------------------------------------


class Screen:
    """A command in a pseudo-terminal; knows the text that it has drawn."""

    def __init__(self, arguments: list[str], columns: int = 80, lines: int = 24) -> None:
        self.master, slave = pty.openpty()
        self.resize(columns, lines)
        command = [sys.executable, "-m", "crosswind", *arguments]
        environment = os.environ | {"TERM": "xterm-256color"}
        environment.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.drawn = ""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        if hasattr(self, "process"):
            self.process.send_signal(signal.SIGWINCH)

    def press(self, keys: str) -> None:
        self.drawn = ""
        os.write(self.master, keys.encode())

    def shows(self, pattern: str) -> str:
        """Wait until the command has drawn a text; return all that it drew since the last key."""
        end = time.monotonic() + scaled(10)
        while not re.search(pattern, self.drawn):
            ready, _, _ = select.select([self.master], [], [], end - time.monotonic())
            assert ready, f"{pattern} was not drawn: {self.drawn!r}"
            with contextlib.suppress(OSError):  # EIO: the command has ended
                self.drawn += os.read(self.master, 65536).decode(errors="replace")
        return self.drawn

    def exit_code(self) -> int:
        return self.process.wait(scaled(10))


@pytest.fixture(scope="module")
def fleet_cluster() -> Iterator[Cluster]:
    with serve_in_thread(LocalSettings(simulate=1, simulated_start=3600)) as cluster:
        yield cluster


@pytest.fixture
def top(fleet_cluster: Cluster) -> Iterator[Screen]:
    screen = Screen(["top", "--kubeconfig", str(fleet_cluster.kubeconfig)])
    yield screen
    if screen.process.poll() is None:
        screen.process.kill()
        screen.process.wait()
    os.close(screen.master)


def create(cluster: Cluster, number: int) -> None:
    import asyncio

    from crosswind.kube.client import Client
    from crosswind.kube.resources import PODS
    from crosswind.settings import KubeSettings

    async def do() -> None:
        async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
            pod = task_pod(number, task_id=f"live{number}")
            del pod["metadata"]["uid"], pod["metadata"]["resourceVersion"], pod["metadata"]["creationTimestamp"]
            pod["metadata"]["namespace"] = "default"
            del pod["spec"]["nodeName"]
            await client.create(PODS, pod)

    asyncio.run(do())


def test_pods_appear_are_described_deleted_and_the_terminal_is_left_as_it_was(
    top: Screen, fleet_cluster: Cluster
) -> None:
    before = termios.tcgetattr(top.master)
    top.shows("no pod of an Airflow task in namespace default")
    create(fleet_cluster, 1)
    top.shows(r"sales\.live1")
    top.press("d")
    top.shows("Containers")
    top.press("\x1b")
    top.shows(r"sales\.live1")
    top.resize(160, 50)
    top.shows("RESTARTS")
    top.press("0")
    top.shows("all namespaces")
    top.shows(r"sales\.live1")
    top.press("\x04")
    top.shows("Delete\\? y/N")
    top.press("y")
    top.shows("deleted")
    top.press("q")
    assert top.exit_code() == 0
    top.shows(r"\x1b\[\?1049l")
    assert termios.tcgetattr(top.master)[3] == before[3]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGHUP, 130)])
def test_a_signal_restores_the_terminal(top: Screen, number: signal.Signals, code: int) -> None:
    top.shows("pods|pod ")
    top.process.send_signal(number)
    assert top.exit_code() == code
    top.shows(r"\x1b\[\?1049l")


def test_ctrl_c_quits(top: Screen) -> None:
    top.shows("default")
    top.press("\x03")
    assert top.exit_code() == 0


def test_without_a_terminal_it_prints_the_screen_once(fleet_cluster: Cluster) -> None:
    command = [sys.executable, "-m", "crosswind", "top", "--kubeconfig", str(fleet_cluster.kubeconfig)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "namespace default" in done.stdout


def test_rows_leave_space_for_head_and_foot() -> None:
    assert list_rows(24) == 18

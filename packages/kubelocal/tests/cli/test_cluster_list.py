"""Local clusters with names: in the background, listed, stopped, and in the user's own kubeconfig."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deadlines import scaled
from kubelocal.cli.cluster_list import ClusterEntry, ClusterList, clusters_folder
from kubelocal.owned_paths import Owner

pytestmark = pytest.mark.timeout(120)

WORK = """\
# mine
apiVersion: v1
kind: Config
current-context: work
clusters: [{name: work, cluster: {server: "https://work.example"}}]
contexts:
- {name: work, context: {cluster: work, user: work}}
users: [{name: work, user: {token: abc}}]
preferences: {colors: true}
"""


class Shell:
    """Runs ``kubelocal`` with a home folder of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / ".kube" / "config"
        kept = {key: value for key, value in os.environ.items() if key not in ("KUBECONFIG", "XDG_STATE_HOME")}
        self.environment = {**kept, "HOME": str(home)}

    def __call__(self, *arguments: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "kubelocal", *map(str, arguments)]
        env = {**self.environment, **environment}
        ran = subprocess.run(
            line, capture_output=True, text=True, timeout=scaled(90), check=False, env=env, cwd=self.home
        )
        assert ran.returncode == code, ran.stderr + ran.stdout
        return ran

    def up(self, name: str, *arguments: object) -> dict[str, Any]:
        message = self("up", "--name", name, "--detach", "--simulate", "1", "--output", "json", *arguments)
        facts: dict[str, Any] = json.loads(message.stdout)
        return facts

    def names(self) -> dict[str, str]:
        return {one["name"]: one["status"] for one in json.loads(self("list", "--output", "json").stdout)}

    def contexts(self) -> list[str]:
        config = yaml.safe_load(self.config.read_text())
        return [one["name"] for key in ("clusters", "users", "contexts") for one in config[key]]


@pytest.fixture
def kubelocal(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    shell.config.parent.mkdir()
    yield shell
    for entry in ClusterList(clusters_folder({"XDG_STATE_HOME": str(tmp_path / ".local" / "state")})).entries():
        if entry.is_alive:
            os.kill(entry.owner.pid, signal.SIGKILL)


def test_a_cluster_in_the_background_is_listed_used_and_stopped(kubelocal: Shell) -> None:
    facts = kubelocal.up("one")
    listed = json.loads(kubelocal("list", "--output", "json").stdout)
    assert [(one["name"], one["pid"], one["url"]) for one in listed] == [("one", facts["pid"], facts["url"])]
    assert "Running" in kubelocal("list").stdout
    config = yaml.safe_load(kubelocal("kubeconfig", "one").stdout)
    assert config["clusters"][0]["cluster"]["server"] == facts["url"]
    assert config["current-context"] == "crosswind-one"
    again = kubelocal("up", "--name", "one", "--detach", code=2)
    assert f"one runs already, with process id {facts['pid']}" in again.stderr
    assert kubelocal("stop", "one").stdout == "one has ended\n"
    assert not Path(f"/proc/{facts['pid']}").exists() or not Owner(facts["pid"], 0).is_alive
    assert not Path(facts["kubeconfig"]).exists()
    assert kubelocal.names() == {}
    assert not [*clusters_folder({"XDG_STATE_HOME": str(kubelocal.home / ".local" / "state")}).iterdir()]


def test_clusters_without_names_are_listed_too(kubelocal: Shell) -> None:
    line = [sys.executable, "-m", "kubelocal", "up", "--simulate", "1", "--output", "json"]
    for name in ("local", "local-2"):
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=kubelocal.environment) as process:
            assert process.stdout
            assert json.loads(process.stdout.readline())["name"] == "local"
            if name == "local":
                with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=kubelocal.environment) as second:
                    assert second.stdout
                    assert json.loads(second.stdout.readline())["name"] == "local-2"
                    assert kubelocal.names() == {"local": "Running", "local-2": "Running"}
                    message = kubelocal("stop", "--all").stdout
                    assert message == "local has ended\nlocal-2 has ended\n"
                    assert second.wait(scaled(30)) == 0
            else:
                kubelocal("stop")
            assert process.wait(scaled(30)) == 0
    assert kubelocal.names() == {}


def test_what_fails_in_the_background_is_said_in_front(kubelocal: Shell) -> None:
    (kubelocal.home / "taken").write_text("mine")
    ran = kubelocal("up", "--name", "one", "--detach", "--kubeconfig", "taken", code=2)
    assert ran.stderr.startswith(f"kubelocal: {kubelocal.home}/taken is there and was not written by kubelocal")
    assert len(ran.stderr.splitlines()) == 1
    assert kubelocal.names() == {}


def test_merge_adds_one_context_and_stop_removes_it(kubelocal: Shell) -> None:
    kubelocal.config.write_text(WORK)
    kubelocal.config.chmod(0o640)
    kubelocal.up("one")
    message = kubelocal("kubeconfig", "one", "--merge").stdout
    assert message.startswith(
        f"context crosswind-one added to {kubelocal.config}; use it: kubectl --context crosswind-one"
    )
    assert kubelocal.contexts() == ["work", "crosswind-one"] * 3
    assert yaml.safe_load(kubelocal.config.read_text())["current-context"] == "work"
    assert stat.S_IMODE(kubelocal.config.stat().st_mode) == 0o640
    assert kubelocal.config.with_name("config.bak").read_text() == WORK
    nodes = ["kubectl", "--kubeconfig", kubelocal.config, "--context", "crosswind-one", "get", "nodes", "-o", "name"]
    ran = subprocess.run(nodes, capture_output=True, text=True, timeout=scaled(30), check=True)
    assert ran.stdout.startswith("node/")
    kubelocal("kubeconfig", "one", "--merge", "--switch")
    assert yaml.safe_load(kubelocal.config.read_text())["current-context"] == "crosswind-one"
    kubelocal("stop", "one")
    assert yaml.safe_load(kubelocal.config.read_text()) == yaml.safe_load(WORK)
    left = sorted(path.name for path in kubelocal.config.parent.iterdir())
    assert left == ["config", "config.bak"], "no lock, no temporary file, one backup"


def test_merge_goes_to_the_first_file_of_kubeconfig_and_makes_it(kubelocal: Shell) -> None:
    kubelocal.up("one")
    first, second = kubelocal.home / "new" / "first", kubelocal.home / "second"
    second.write_text(WORK)
    kubelocal("kubeconfig", "one", "--merge", KUBECONFIG=f"{first}{os.pathsep}{second}")
    assert second.read_text() == WORK
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    config = yaml.safe_load(first.read_text())
    assert "current-context" not in config
    kubelocal("stop", "one")  # which does not know of KUBECONFIG
    assert yaml.safe_load(first.read_text())["contexts"] == []


def test_contexts_of_a_cluster_go_when_it_ends_by_itself_or_is_started_anew_after_a_crash(kubelocal: Shell) -> None:
    kubelocal.config.write_text(WORK)
    kubelocal.up("one")
    kubelocal("kubeconfig", "one", "--merge")
    pid = json.loads(kubelocal("list", "--output", "json").stdout)[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    while kubelocal.names() != {"one": "Died"}:
        pass
    assert kubelocal.contexts() == ["work", "crosswind-one"] * 3
    assert "had already died" in kubelocal("stop", "one").stdout
    assert kubelocal.contexts() == ["work"] * 3
    facts = kubelocal.up("one")
    kubelocal("kubeconfig", "one", "--merge")
    os.kill(facts["pid"], signal.SIGTERM)
    while kubelocal.names():
        pass
    assert kubelocal.contexts() == ["work"] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is left as it is: it is not YAML"),
        ("- 1", "is left as it is: it is not a kubeconfig"),
        ("contexts: 1", "is left as it is: it is not a kubeconfig"),
        (
            "contexts: [{name: crosswind-one, context: {cluster: mine}}]",
            "is left as it is: it has a context crosswind-one that kubelocal has not made",
        ),
    ],
)
def test_a_kubeconfig_that_cannot_be_merged_into_stays_as_it_is(kubelocal: Shell, text: str, message: str) -> None:
    kubelocal.config.write_text(text)
    kubelocal.up("one")
    assert f"{kubelocal.config} {message}" in kubelocal("kubeconfig", "one", "--merge", code=2).stderr
    assert [(path.name, path.read_text()) for path in kubelocal.config.parent.iterdir()] == [("config", text)]
    kubelocal("stop", "one")


def test_a_link_to_the_kubeconfig_stays_one(kubelocal: Shell) -> None:
    target = kubelocal.home / "dotfiles"
    target.write_text(WORK)
    kubelocal.config.symlink_to(target)
    kubelocal.up("one")
    kubelocal("kubeconfig", "one", "--merge")
    assert kubelocal.config.is_symlink()
    assert "crosswind-one" in target.read_text()


def test_merge_waits_for_kubectls_lock_and_keeps_backups_of_others(kubelocal: Shell) -> None:
    kubelocal.config.write_text(WORK)
    lock = kubelocal.config.with_name("config.lock")
    lock.touch()
    kubelocal.config.with_name("config.bak").write_text("mine")
    kubelocal.up("one")
    timer = threading.Timer(0.5, lock.unlink)
    timer.start()
    kubelocal("kubeconfig", "one", "--merge")
    timer.join()
    assert kubelocal.config.with_name("config.bak").read_text() == "mine"
    assert kubelocal.config.with_name("config.bak.2").read_text() == WORK


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "../x", "a" * 41, "-a"])
def test_a_name_that_is_none_is_refused(kubelocal: Shell, name: str) -> None:
    assert "is not a valid cluster name" in kubelocal("up", "--name", name, code=2).stderr
    assert "is not a valid cluster name" in kubelocal("up", "--detach", "--name", name, code=2).stderr


def test_a_cluster_that_does_not_run_is_said_with_those_that_do(kubelocal: Shell) -> None:
    refused = kubelocal("stop", "two", code=2).stderr
    assert "there is no local cluster two; none is running; start one with: kubelocal up" in refused
    kubelocal.up("one")
    for command in (("stop", "two"), ("kubeconfig", "two"), ("kubeconfig", "two", "--merge")):
        assert "there is no local cluster two; there are: one" in kubelocal(*command, code=2).stderr
    assert "--switch requires --merge" in kubelocal("kubeconfig", "one", "--switch", code=2).stderr


@pytest.mark.parametrize("theirs", ["mine", ""])
def test_a_file_that_is_not_ours_in_the_list_stays(tmp_path: Path, theirs: str) -> None:
    clusters = ClusterList(tmp_path)
    (tmp_path / "one.json").write_text(theirs)
    (tmp_path / "two.json").symlink_to(tmp_path / "one.json")
    (tmp_path / "three.json").mkdir()
    assert clusters.entries() == []
    for name in ("one", "two", "three"):
        with pytest.raises(Exception, match=r"was not written by|is a link|is a folder"):
            clusters.put(ClusterEntry(name, Owner.this_process()))
        clusters.take_off(name)
    assert (tmp_path / "one.json").read_text() == theirs


@pytest.mark.parametrize(
    ("shell", "begin"), [("bash", "_kubelocal_completion()"), ("zsh", "#compdef"), ("fish", "func")]
)
def test_completion_scripts_name_the_command(shell: str, begin: str) -> None:
    line = [sys.executable, "-m", "kubelocal", "completion", shell]
    message = subprocess.run(line, capture_output=True, text=True, timeout=scaled(30), check=True).stdout
    assert message.lstrip().startswith(begin)
    assert f"_KUBELOCAL_COMPLETE={shell}_complete" in message


def test_commands_and_names_of_clusters_are_completed(kubelocal: Shell) -> None:
    kubelocal.up("one")

    def completed(words: str, count: int) -> list[str]:
        env = {"_KUBELOCAL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        line = [Path(sys.executable).with_name("kubelocal")]
        ran = subprocess.run(
            line, capture_output=True, text=True, timeout=scaled(30), check=True, env={**kubelocal.environment, **env}
        )
        return ran.stdout.split()

    assert "plain,completion" in completed("kubelocal comp", 1)
    assert completed("kubelocal stop o", 2) == ["plain,one"]

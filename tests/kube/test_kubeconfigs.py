from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from crosswind.errors import KubeconfigError
from crosswind.kube import kubeconfigs

CONFIG: dict[str, Any] = {
    "current-context": "one",
    "contexts": [
        {"name": "one", "context": {"cluster": "c", "user": "u"}},
        {"name": "two", "context": {"cluster": "c", "user": "u", "namespace": "airflow"}},
    ],
    "clusters": [{"name": "c", "cluster": {"server": "https://one:6443"}}],
    "users": [{"name": "u", "user": {"token": "SECRET"}}],
}


def written(folder: Path, document: object, name: str = "config") -> str:
    path = folder / name
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return str(path)


def test_the_current_context_is_the_default(tmp_path: Path) -> None:
    chosen = kubeconfigs.read(written(tmp_path, CONFIG), None)
    assert (chosen.context, chosen.namespace, chosen.cluster["server"]) == ("one", "default", "https://one:6443")


def test_a_named_context_wins_and_brings_its_namespace(tmp_path: Path) -> None:
    chosen = kubeconfigs.read(written(tmp_path, CONFIG), "two")
    assert (chosen.context, chosen.namespace) == ("two", "airflow")


def test_kubeconfig_variable_may_list_files_and_the_first_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**CONFIG, "current-context": "two", "clusters": [{"name": "c", "cluster": {"server": "https://other"}}]}
    paths = [written(tmp_path, CONFIG, "a"), str(tmp_path / "not-there"), written(tmp_path, other, "b")]
    monkeypatch.setenv("KUBECONFIG", ":".join(paths))
    chosen = kubeconfigs.read(None, None)
    assert (chosen.paths, chosen.context, chosen.cluster["server"]) == (
        (paths[0], paths[2]),
        "one",
        "https://one:6443",
    )


def test_home_is_the_last_place_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(KubeconfigError, match=f"there is no kubeconfig at {tmp_path}/.kube/config; set KUBECONFIG"):
        kubeconfigs.read(None, None)


def without(key: str, **change: Any) -> dict[str, Any]:
    return {**{k: v for k, v in CONFIG.items() if k != key}, **change}


def served(url: str) -> dict[str, Any]:
    return {**CONFIG, "clusters": [{"name": "c", "cluster": {"server": url}}]}


@pytest.mark.parametrize(
    ("document", "context", "message"),
    [
        (CONFIG, "three", r'config has no context "three" \(there are: one, two\)'),
        (without("current-context"), None, r"has no current-context; name the context to use \(there are: one, two\)"),
        ({"contexts": [], "clusters": None}, None, r"has no current-context; .* \(there is none at all\)"),
        (without("clusters"), None, r'context "one" points to the cluster "c", which does not exist'),
        (without("users", users=[{"name": "v", "user": {}}]), None, r'points to the user "u", .* \(v\)'),
        (without("clusters", clusters=[{"name": "c", "cluster": {}}]), None, r'cluster "c" has no server; it must be'),
        (served("127.0.0.1:6443"), None, 'has the server "127.0.0.1:6443"; it must be "https://HOST:PORT"'),
        (served("https://"), None, 'has the server "https://"'),
        (served("https://h:65536"), None, 'has the server "https://h:65536"'),
        (without("clusters", clusters=[{"cluster": {}}]), None, "each of clusters must have a name"),
        (without("users", users=[{"name": "u", "user": "SECRET"}]), None, "and a mapping user"),
        (without("users", users={"u": "SECRET"}), None, "is not a kubeconfig: it needs the lists"),
        ("just words SECRET", None, "is not a kubeconfig: it needs the lists"),
        ("", None, r"has no current-context; .* \(there is none at all\)"),
        ("users:\n- {name: u, token: SECRET\nx: [", None, r"config:3: not readable as YAML"),
        ("a: b: SECRET", None, r"config:1: not readable as YAML: mapping values are not allowed"),
    ],
)
def test_an_error_names_the_file_and_holds_no_secret(
    tmp_path: Path, document: object, context: str | None, message: str
) -> None:
    with pytest.raises(KubeconfigError, match=message) as caught:
        kubeconfigs.read(written(tmp_path, document), context)
    assert str(tmp_path) in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_folder_in_place_of_a_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="cannot be read: it is a directory"):
        kubeconfigs.read(str(tmp_path), None)


def test_the_user_is_not_shown() -> None:
    assert "SECRET" not in repr(kubeconfigs.choose_context([("x", CONFIG)], None))

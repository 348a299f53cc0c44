"""Every block of code in the documentation works: it is parsed, and checked against what it addresses."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from airflow.configuration import conf
from tests.docs.pages import FENCE, PAGES, ROOT, Block, blocks, inline_commands

from crosswind.deploy.values_file import read_values
from crosswind.provider import get_provider_info
from crosswind.sidecars.user_catalog import parse_sidecars
from crosswind.tasks.model import FolderSettings, TaskFile

LANGUAGES = {"bash", "yaml", "python", "ini", "dockerfile", "text"}
COMMANDS = {"crosswind": "crosswind.cli", "kubelocal": "kubelocal.cli"}
PROGRAMS = {
    *("cat", "cd", "chmod", "chromium", "eval", "export", "for", "helm", "issues", "mkdir", "python", "printf"),
    *("checkov", "do", "done", "docker", "echo", "git", "pip", "pytest", "sudo", "then", "fi", "if"),
}
"""Programs that a block may call without a check of their options."""


def each(checked: list[Block]) -> Any:
    return pytest.mark.parametrize("block", checked, ids=[block.name for block in checked])


def test_every_block_names_its_language() -> None:
    assert [block.name for block in blocks() if block.language not in LANGUAGES] == []


def test_no_command_hides_in_an_indented_block() -> None:
    """An indented block is output; a command belongs in a block that names its language, so that it is checked."""
    hidden = re.compile(r"^\n {4,}(?:kubectl|crosswind|kubelocal|make|pip|python) .*$", re.MULTILINE)
    pages = {page: FENCE.sub("", page.read_text()) for page in PAGES}
    assert [(page.name, match[0].strip()) for page, text in pages.items() for match in hidden.finditer(text)] == []


# --- shell ------------------------------------------------------------------------------------------------------------


def statements(script: str) -> Iterator[list[str]]:
    """Yield the simple commands of a shell script as words. Documents (<<END) and comments are left out."""
    script = re.sub(r"<<-?'?(\w+)'?.*?^\1$", "", script, flags=re.MULTILINE | re.DOTALL)
    script = script.replace("\\\n", " ")
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()<>")
        lexer.whitespace_split = True
        command: list[str] = []
        for word in lexer:
            if set(word) <= set("|&;()"):
                yield command
                command = []
            else:
                command.append(word)
        yield command


def without_variables(command: list[str]) -> list[str]:
    while command and re.match(r"^[A-Z_]+=", command[0]):
        command = command[1:]
    return command


def check_command(command: list[str]) -> None:
    """Check a command of ours: it exists, and takes these options. Values in capitals are the reader's."""
    program = Path(command[0]).name
    main = importlib.import_module(COMMANDS[program]).main
    context, command_object = click.Context(main, info_name=program), main
    words = command[1:]
    while isinstance(command_object, click.Group) and words and not words[0].startswith("-"):
        inner = command_object.get_command(context, words[0])
        assert inner is not None, f"no command {words[0]} in {context.command_path}"
        command_object, context, words = inner, click.Context(inner, info_name=words[0], parent=context), words[1:]
    if "…" in " ".join(words) or "--help" in words:
        return
    try:
        command_object.make_parser(context).parse_args(list(words))
    except click.UsageError as error:
        if isinstance(error, click.MissingParameter):
            return
        raise AssertionError(f"{' '.join(command)}: {error.format_message()}") from error


def check_statement(command: list[str]) -> None:
    command = without_variables(command)
    if not command:
        return
    program = Path(command[0]).name
    if program in COMMANDS:
        check_command(command)
    elif program == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert {word for word in command[1:] if "=" not in word and not word.startswith(".venv/")} <= targets
    elif program == "kubectl":
        check_kubectl(command)
    else:
        assert program in PROGRAMS or command[0] in PROGRAMS, f"what is {command[0]}?"


def check_kubectl(command: list[str]) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    words = iter(command[1:])
    verb = next(word for word in words if not (word in ("-n", "--context") and next(words)))
    assert subprocess.run([kubectl, verb, "--help"], capture_output=True, check=False).returncode == 0, verb


@each(blocks("bash"))
def test_shell(block: Block) -> None:
    parsed = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert parsed.returncode == 0, parsed.stderr
    for command in statements(block.text):
        check_statement(command)


@each(inline_commands())
def test_a_command_in_the_prose(block: Block) -> None:
    words = block.text.split(" ")
    if "…" in block.text:
        words = words[: next(index for index, word in enumerate(words) if "…" in word)]
    if len(words) > 1:
        check_command([word.strip("[]") for word in words])


@pytest.mark.parametrize("text", ["crosswind rendre x", "crosswind render --nonsense x", "make nonsense", "nonsense"])
def test_a_wrong_command_is_noticed(text: str) -> None:
    (command,) = statements(text)
    with pytest.raises(AssertionError):
        check_statement(command)


# --- YAML -------------------------------------------------------------------------------------------------------------


def check_kubernetes(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.33", strict=True)


def check_local_settings(document: dict[str, Any]) -> None:
    settings = importlib.import_module("kubelocal.settings").LocalSettings
    assert set(document) <= set(settings.__dataclass_fields__)


def check_injected(document: dict[str, Any]) -> None:
    assert all({"when", "container"} <= set(sidecar) for sidecar in document["sidecars"])


def check_stages(document: dict[str, Any]) -> None:
    importlib.import_module("kubelocal.simulation.stages").read_stages(document, "page")


def check_precommit(document: dict[str, Any]) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    known = {hook["id"] for hook in hooks}
    assert {hook["id"] for repo in document["repos"] for hook in repo["hooks"]} <= known


def check_helm(document: dict[str, Any]) -> None:
    from crosswind.deploy.helm import helm_values

    ours = helm_values(read_values("image: x\n", "page"))
    assert set(document) <= set(yaml.safe_load(ours) if isinstance(ours, str) else ours)


KINDS: list[tuple[Callable[[dict[str, Any]], bool], Callable[[dict[str, Any]], object]]] = [
    (lambda it: "apiVersion" in it, check_kubernetes),
    (lambda it: "repos" in it, check_precommit),
    (lambda it: "stages" in it, check_stages),
    (lambda it: "sidecars" in it and "when" in it["sidecars"][0], check_injected),
    (lambda it: "sidecars" in it, lambda it: parse_sidecars(yaml.safe_dump(it), "page")),
    (lambda it: "images" in it, check_local_settings),
    (lambda it: "defaultAirflowTag" in it, check_helm),
    (lambda it: "image" in it, lambda it: read_values(yaml.safe_dump(it), "page")),
    (lambda it: "query" in it, TaskFile.model_validate),
    (lambda it: "run" in it, FolderSettings.model_validate),
]
"""What a document is known by, and what checks it."""


@each(blocks("yaml"))
def test_yaml(block: Block) -> None:
    for document in yaml.safe_load_all(block.text):
        assert isinstance(document, dict), "give the block a whole document"
        checks = [check for known_by, check in KINDS if known_by(document)]
        assert checks, f"a document that nothing checks: {sorted(document)}"
        checks[0](document)


# --- Python, settings, images -----------------------------------------------------------------------------------------


@each(blocks("python"))
def test_python(block: Block) -> None:
    compile(block.text, block.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")
        elif isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)


@each(blocks("ini"))
def test_settings(block: Block) -> None:
    parser = configparser.ConfigParser(inline_comment_prefixes=("#",), interpolation=None)
    parser.read_string(block.text)
    own = get_provider_info()["config"]["crosswind"]["options"]
    for section in parser.sections():
        for option in parser[section]:
            known = (
                option in own
                if section == "crosswind"
                else conf.has_option(section, option, lookup_from_deprecated=False)
            )
            assert known, f"[{section}] {option}"


@each(blocks("dockerfile"))
def test_images(block: Block) -> None:
    first, *others = [line.split()[0] for line in block.text.splitlines() if line.strip()]
    assert first == "FROM"
    assert set(others) <= {"COPY", "RUN", "USER", "ENV"}

"""Parses a container's command line into the words and flags that its program will see.

The kubelet expands references to variables (``$(NAME)``) in ``command`` and ``args``. Often these hold a whole script
after ``sh -c``, in which the shell expands other references (``$NAME``). References to values that only the cluster
knows (``valueFrom``, ``envFrom``) stay as they are written.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from crosswind.pods.fields import mappings, texts
from crosswind.types import Container, EnvVar

__all__ = ["command_line", "flag", "switch", "variables", "words"]

_SHELLS = {"sh", "ash", "bash", "dash", "ksh", "zsh", "busybox"}
_SCRIPT_OPTION = re.compile(r"-[a-zA-Z]*c")
_KUBELET_REFERENCE = re.compile(r"\$(?:\$|\(([A-Za-z_.][A-Za-z0-9_.-]*)\))")
"""``$$`` is ``$``, also without parentheses, as observed on Kubernetes 1.36."""
_SHELL_REFERENCE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}]*))?\})")


def variables(container: Container) -> dict[str, str]:
    """Return the container's variables that have a literal value, with references to earlier ones expanded."""
    values: dict[str, str] = {}
    declared: list[EnvVar] = mappings(container.get("env"))
    for variable in declared:
        if isinstance(value := variable.get("value"), str):
            values[str(variable.get("name"))] = _expanded(value, values)
    return values


def words(container: Container) -> list[str]:
    """Return the words of the command line; a script after ``sh -c`` is split into its own words."""
    env = variables(container)
    command = [*texts(container.get("command")), *texts(container.get("args"))]
    return list(_split([_expanded(word, env) for word in command], env))


def command_line(container: Container) -> str:
    """Return the words in one line, without the program's folder: ``cloud-sql-proxy --port 5432 p:r:i``."""
    return " ".join(word.rpartition("/")[2] if place == 0 else word for place, word in enumerate(words(container)))


def flag(words: Sequence[str], name: str) -> str | None:
    """Return the value of ``--name VALUE`` or ``--name=VALUE`` (one dash or two); None without the flag.

    The last one counts, as with Go's flag packages. A flag without a value gives "".
    """
    last_value = None
    for place, word in enumerate(words):
        option, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and option == name:
            following = words[place + 1] if place + 1 < len(words) else ""
            last_value = value if equals else "" if following.startswith("-") else following
    return last_value


def switch(words: Sequence[str], name: str) -> str | None:
    """Return the value of ``--name`` (``true``) or ``--name=VALUE``; None without the flag.

    A switch takes no word after it: in ``--quitquitquit project:region:db`` that word is the instance.
    """
    last_value = None
    for word in words:
        option, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and option == name:
            last_value = value if equals else "true"
    return last_value


def _expanded(text: str, env: Mapping[str, str]) -> str:
    def value(reference: re.Match[str]) -> str:
        return "$" if reference[0] == "$$" else env.get(reference[1], reference[0])

    return _KUBELET_REFERENCE.sub(value, text)


def _split(command: Sequence[str], env: Mapping[str, str]) -> Iterator[str]:
    in_shell = script_next = False
    for word in command:
        if script_next:
            yield from _script_words(word, env)
            in_shell = script_next = False
            continue
        yield word
        if word.rpartition("/")[2] in _SHELLS:
            in_shell = True
        elif in_shell and _SCRIPT_OPTION.fullmatch(word):
            script_next = True


def _script_words(script: str, env: Mapping[str, str]) -> Iterator[str]:
    def value(reference: re.Match[str]) -> str:
        return env.get(reference[1] or reference[2], reference[3] or reference[0])

    text = _SHELL_REFERENCE.sub(value, script.replace("\\\n", " "))
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        yield from list(lexer)
    except ValueError:  # an open quote: the container's own shell fails on it too
        yield from text.split()

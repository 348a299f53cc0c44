"""What a container's command line says: its words, as the container will see them, and the flags among them.

``command`` and ``args`` hold references to variables, which the kubelet expands (``$(NAME)``), and often a whole script
behind ``sh -c``, in which the shell expands others (``$NAME``). Values that only the cluster knows (``valueFrom``,
``envFrom``) stay as they are written.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from crosswind.types import Json

__all__ = ["command_line", "flag", "switch", "variables", "words"]

_SHELLS = {"sh", "ash", "bash", "dash", "ksh", "zsh", "busybox"}
_SCRIPT_OPTION = re.compile(r"-[a-zA-Z]*c")
_KUBELET_REFERENCE = re.compile(r"\$(?:\$|\(([A-Za-z_.][A-Za-z0-9_.-]*)\))")
"""``$$`` is ``$``, also without parentheses: seen on Kubernetes 1.36."""
_SHELL_REFERENCE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}]*))?\})")


def variables(container: Mapping[str, Json]) -> dict[str, str]:
    """Return the container's variables that have a literal value, references to earlier ones expanded."""
    found: dict[str, str] = {}
    for variable in container.get("env") or ():
        if isinstance(variable, Mapping) and isinstance(variable.get("value"), str):
            found[str(variable.get("name"))] = _expanded(variable["value"], found)
    return found


def words(container: Mapping[str, Json]) -> list[str]:
    """Return the words of the command line; a script behind ``sh -c`` is split into its own words."""
    env = variables(container)
    given = [str(word) for field in ("command", "args") for word in container.get(field) or ()]
    return list(_split([_expanded(word, env) for word in given], env))


def command_line(container: Mapping[str, Json]) -> str:
    """Return the words in one line, the program's folder left out: ``cloud-sql-proxy --port 5432 p:r:i``."""
    return " ".join(word.rpartition("/")[2] if place == 0 else word for place, word in enumerate(words(container)))


def flag(words: Sequence[str], name: str) -> str | None:
    """Return the value of ``--name VALUE`` or ``--name=VALUE`` (one dash or two); None without the flag.

    The last one counts, as with Go's flag packages. A flag without a value gives "".
    """
    found = None
    for place, word in enumerate(words):
        option, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and option == name:
            following = words[place + 1] if place + 1 < len(words) else ""
            found = value if equals else "" if following.startswith("-") else following
    return found


def switch(words: Sequence[str], name: str) -> str | None:
    """Return the value of ``--name`` (``true``) or ``--name=VALUE``; None without the flag.

    A switch takes no word after it: in ``--quitquitquit project:region:db`` that is the instance.
    """
    found = None
    for word in words:
        option, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and option == name:
            found = value if equals else "true"
    return found


def _expanded(text: str, env: Mapping[str, str]) -> str:
    def value(reference: re.Match[str]) -> str:
        return "$" if reference[0] == "$$" else env.get(reference[1], reference[0])

    return _KUBELET_REFERENCE.sub(value, text)


def _split(given: Sequence[str], env: Mapping[str, str]) -> Iterator[str]:
    in_shell = script_next = False
    for word in given:
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
    except ValueError:  # an open quote: the container fails as well
        yield from text.split()

"""The operator that runs a task's query, and its arguments with the placeholders of ``run`` filled in. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crosswind.tasks.folder_reader import TaskSource
from crosswind.tasks.model import POD_OPERATOR
from crosswind.tasks.placeholders import fill
from crosswind.types import Json

__all__ = ["operator_call", "text_too_long_for_a_pod"]

_COMMAND_LINE = ("cmds", "arguments", "env_vars")
"""Arguments of a pod operator in which the kubelet expands ``$(NAME)`` and ``$$``."""
_MAX_TEXT = 128 * 1024
"""Bytes of one argument or variable with its final NUL: Linux's MAX_ARG_STRLEN, see execve(2)."""


def operator_call(source: TaskSource) -> tuple[str, dict[str, Json], str | None]:
    """Return operator, arguments, and the image of the worker if the operator runs in it."""
    run, names = source.settings.run, _names(source)
    operator, arguments = _pattern(source)
    if _is_pod(operator):
        # Each doubled sign is one sign for the program: the kubelet finds no reference in a query, such as $$ or $(x).
        doubled = {name: text.replace("$", "$$") for name, text in names.items()}
        filled = {key: fill(value, doubled if key in _COMMAND_LINE else names) for key, value in arguments.items()}
    else:
        filled = fill(arguments, names)
    return operator, filled, source.task.image if run.operator else None


def text_too_long_for_a_pod(source: TaskSource) -> bool:
    """Return whether an argument or a variable of the task's pod is longer than Linux passes to a program."""
    operator, arguments = _pattern(source)
    if not _is_pod(operator):
        return False
    names = _names(source)
    parts = (fill(arguments.get(key), names) for key in _COMMAND_LINE)
    return any(len(text.encode()) >= _MAX_TEXT for part in parts for text in _texts(part))


def _pattern(source: TaskSource) -> tuple[str, dict[str, Json]]:
    """Return the operator of ``run`` and its arguments, with their placeholders."""
    run = source.settings.run
    if run.operator:
        return run.operator, run.arguments if isinstance(run.arguments, dict) else {}
    image = source.task.image or run.image
    pod = {"image": image, "cmds": run.command, "arguments": run.arguments, "env_vars": run.env}
    return POD_OPERATOR, {key: value for key, value in pod.items() if value}


def _is_pod(operator: str) -> bool:
    return operator.endswith(".KubernetesPodOperator")


def _names(source: TaskSource) -> Mapping[str, str]:
    settings = source.settings
    return {
        "task.id": source.task.id,
        # Airflow's operators treat text that ends in .sql or .sh as the name of a file; a line break prevents that.
        "task.query": source.sql.rstrip() + "\n",
        "task.query_path": source.query_path,
        "task.table": source.writes[0],
        "task.connection": settings.connection or "",
        "task.image": source.task.image or settings.run.image or "",
        "task.folder": source.folder,
    }


def _texts(value: Json) -> Iterator[str]:
    """Yield the arguments in a list, and the variables in a mapping as the program gets them: ``NAME=value``."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (f"{name}={item}" for name, item in value.items())
    for item in value if isinstance(value, list) else ():
        yield from _texts(item)

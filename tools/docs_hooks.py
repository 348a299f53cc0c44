"""mkdocs hooks: the reference of commands is written from the commands themselves, so that it cannot become stale.

A line ``<!-- commands: MODULE:ATTRIBUTE -->`` in a page is replaced by the help of that click command and of every
command below it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

import click

_PLACE = re.compile(r"^<!-- commands: ([\w.]+):(\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page; mkdocs calls this for each."""
    return _PLACE.sub(lambda mark: command_reference(mark[1], mark[2]), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Drop the double colons by which docstrings announce an example: Markdown shows them."""
    return html.replace("<p>::</p>\n", "").replace("::</p>", ":</p>")


def command_reference(module: str, attribute: str) -> str:
    """Return the Markdown of a click command and all commands below it, one section each."""
    command: click.Command = getattr(importlib.import_module(module), attribute)
    name = module.partition(".")[0]
    return "\n\n".join(_sections(command, click.Context(command, info_name=name)))


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _sections(inner, click.Context(inner, info_name=name, parent=context))
        return
    # click's own text keeps its line breaks; the title is the full command
    yield f"### {context.command_path}\n\n```text\n{command.get_help(context)}\n```"

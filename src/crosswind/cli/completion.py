"""``crosswind completion``: scripts by which shells complete commands, options and names of local clusters."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]

_HELP = """Print the completion script for a shell.

\b
bash, in ~/.bashrc:                    eval "$(crosswind completion bash)"
zsh, in ~/.zshrc, after compinit:      eval "$(crosswind completion zsh)"
fish, in ~/.config/fish/config.fish:   crosswind completion fish | source
"""


@click.command(help=_HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell."""
    completion_class = get_completion_class(shell)
    assert completion_class is not None  # click.Choice has checked the name
    click.echo(completion_class(ctx.find_root().command, {}, "crosswind", "_CROSSWIND_COMPLETE").source())

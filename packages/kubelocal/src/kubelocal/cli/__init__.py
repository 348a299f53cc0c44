"""The command ``kubelocal``; ``crosswind local`` has the same subcommands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from kubelocal.cli.commands import kubeconfig, list_, stop, up
from kubelocal.errors import KubelocalError, SettingError

__all__ = ["COMMANDS", "main"]

COMMANDS: tuple[click.Command, ...] = (up, list_, stop, kubeconfig)
"""The subcommands that a program which embeds kubelocal may offer under its own name."""


class _Group(click.Group):
    """Turns the package's own errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KubelocalError as error:
            click.echo(f"kubelocal: {error}", err=True)
            return ctx.exit(2 if isinstance(error, SettingError) else 1)


@click.group(cls=_Group, commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kubelocal")
def main() -> None:
    """A Kubernetes API on this machine: pods run as processes, without Docker.

    Exit codes: 0 done, 1 failed, 2 wrong use.
    """


_COMPLETION_HELP = """Print the completion script for a shell.

\b
bash, in ~/.bashrc:                    eval "$(kubelocal completion bash)"
zsh, in ~/.zshrc, after compinit:      eval "$(kubelocal completion zsh)"
fish, in ~/.config/fish/config.fish:   kubelocal completion fish | source
"""


@main.command(help=_COMPLETION_HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell."""
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(main, {}, "kubelocal", "_KUBELOCAL_COMPLETE").source())

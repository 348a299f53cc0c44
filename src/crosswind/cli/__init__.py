"""The command ``crosswind``: one file of this folder per command family, loaded when it is called."""

from __future__ import annotations

import importlib
import pkgutil

import click

from crosswind.errors import ConfigError, CrosswindError

__all__ = ["main"]


class _Families(click.Group):
    """Finds a command as the function of the same name in the module of the same name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(module.name for module in pkgutil.iter_modules(__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; our own errors become one line and an exit code."""
        try:
            return super().invoke(ctx)
        except CrosswindError as problem:
            click.echo(f"crosswind: {problem}", err=True)
            return ctx.exit(2 if isinstance(problem, ConfigError) else 1)
        except ModuleNotFoundError as problem:
            if (problem.name or "crosswind").startswith("crosswind"):
                raise
            click.echo(f"crosswind: {_missing(problem.name)}", err=True)
            return ctx.exit(2)


def _missing(package: str | None) -> str:
    where = "pip install '.[local]' in a checkout, or 'crosswind-VERSION-py3-none-any.whl[local]'"
    return f"this command needs Crosswind's extra local ({package} is not installed): {where}"


@click.command(cls=_Families, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="crosswind")
def main() -> None:
    """Airflow tasks in Kubernetes pods: fast, and under any service mesh.

    Exit codes: 0 done, 1 failed, 2 wrong use.
    """

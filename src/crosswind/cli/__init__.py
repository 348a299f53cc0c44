"""The command ``crosswind``: one module per subcommand, imported when that is called, so that ``--help`` stays fast."""

from __future__ import annotations

import errno
import importlib
import sys

import click

from crosswind.cli.standard_streams import discard_output, replace_closed
from crosswind.errors import ConfigError, CrosswindError

__all__ = ["main"]


_COMMANDS = (
    "completion",
    "demo",
    "doctor",
    "init",
    "local",
    "pods",
    "reap",
    "render",
    "sidecars",
    "tasks",
    "top",
    "wrap",
)
"""Each is a function of this name in the module of this name; other modules are shared by commands."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _LazyGroup(click.Group):
    """Imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. Errors that Crosswind or the system raises become one line and an exit code."""
        replace_closed()
        try:
            result: object = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except CrosswindError as error:
            click.echo(f"crosswind: {error}", err=True)
            return ctx.exit(2 if isinstance(error, ConfigError) else 1)
        except _kubelocal_errors() as error:
            click.echo(f"crosswind: {error}", err=True)
            return ctx.exit(2 if isinstance(error, sys.modules["kubelocal.errors"].SettingError) else 1)
        except ModuleNotFoundError as error:
            if (error.name or "crosswind").startswith("crosswind"):
                raise
            click.echo(f"crosswind: {_missing_package(error.name)}", err=True)
            return ctx.exit(2)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of a pipe has seen enough; click ends the process quietly
                raise
            click.echo(f"crosswind: {_system_error(error)}", err=True)
            return ctx.exit(1)


def _system_error(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    # Python drops what a full device did not accept, so that output may be the cause though none is left.
    if discard_output() or (error.filename is None and error.errno in _FULL):
        return f"the output cannot be written: {reason}; redirect it to another file"
    return f"{error.filename}: {reason}" if error.filename else reason


def _kubelocal_errors() -> tuple[type[Exception], ...]:
    """Return kubelocal's errors if a command has imported it; it is installed only with the extra ``local``."""
    module = sys.modules.get("kubelocal.errors")
    return (module.KubelocalError,) if module else ()


def _missing_package(module: str | None) -> str:
    package = (module or "").partition(".")[0]
    command = (
        "pip install packages/kubelocal '.[local]' in a checkout, or both wheels:"
        " kubelocal-VERSION-py3-none-any.whl 'crosswind-VERSION-py3-none-any.whl[local]'"
    )
    return f"this command needs Crosswind's extra local ({package} is not installed): {command}"


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="crosswind")
def main() -> None:
    """Airflow tasks in Kubernetes pods: fast, and under any service mesh.

    Exit codes: 0 done, 1 failed, 2 wrong use.
    """

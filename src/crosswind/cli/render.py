"""``crosswind render``: from a values file to manifests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from crosswind.errors import ConfigError

if TYPE_CHECKING:
    from crosswind.deploy.objects import Rendered

__all__ = ["render"]

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("values", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("-o", "--output", "folder", type=_FOLDER, help="Folder to write the tree to; printed by default.")
def render(values: str, folder: Path | None) -> None:
    """Write the Kubernetes manifests of the deployment that the file VALUES describes.

    One object per file, each with its reason as a comment: kubectl apply -f FOLDER --recursive. Files of an earlier
    run that are no longer needed are removed; others in the folder are left alone.
    """
    from crosswind.deploy import tree

    objects = rendered(values)
    if folder is None:
        click.echo(
            "---\n".join(text for path, text in tree.files(objects).items() if path != tree.KUSTOMIZATION), nl=False
        )
        return
    files = tree.files(objects)
    removed = _write(folder, files)
    click.echo(f"{len(objects)} objects written to {folder}" + (f", {removed} removed" if removed else ""))


def rendered(values: str) -> list[Rendered]:
    """Return all objects of a values file; "-" is standard input."""
    from crosswind.deploy import tree
    from crosswind.deploy.values_file import read_values

    try:
        with click.open_file(values, encoding="utf-8") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"cannot read {values}: {problem}") from problem
    return tree.render(read_values(text, values))


def _write(folder: Path, files: dict[str, str]) -> int:
    """Write the tree; return how many files of an earlier one were removed."""
    stale = [path for path in _earlier(folder) if path not in files]
    try:
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        for path in stale:
            (folder / path).unlink(missing_ok=True)
    except OSError as problem:
        raise ConfigError(f"cannot write to {folder}: {problem}") from problem
    return len(stale)


def _earlier(folder: Path) -> list[str]:
    """Return the files of the tree that is there: those that its list names."""
    import yaml

    from crosswind.deploy.tree import KUSTOMIZATION

    try:
        listed = yaml.safe_load((folder / KUSTOMIZATION).read_text(encoding="utf-8"))["resources"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []
    inside = folder.resolve()
    return [str(path) for path in listed if (folder / str(path)).resolve().is_relative_to(inside)]

"""``crosswind init``: writes a first values file."""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from crosswind.cli import output_files
from crosswind.cli.parameter_types import NamedPath
from crosswind.errors import ConfigError

__all__ = ["init"]

_DAGS = click.Choice(["image", "pvc", "git-sync", "bundle"])
_LOGS = click.Choice(["archive", "volume", "remote", "none"])
_MESHES = click.Choice(["none", "istio", "linkerd"])
# Option, question on a terminal, default, choices.
_QUESTIONS: tuple[tuple[str, str, str, click.Choice[str] | None], ...] = (
    ("image", "Image of Airflow 3.3 with crosswind", "", None),
    ("namespace", "Namespace", "airflow", None),
    ("database_secret", "Secret with the database's address (key connection)", "airflow-database", None),
    ("dags", "Where do DAG files come from", "image", _DAGS),
    ("repo", "Git repository", "https://git.example.com/dags.git", None),
    ("logs", "Where are logs kept", "archive", _LOGS),
    ("logs_url", "Address of the logs", "s3://example-bucket/airflow", None),
    ("mesh", "Service mesh", "none", _MESHES),
    ("host", "Host name of the UI, empty for none", "", None),
    ("aws_role", "AWS role of the workers, empty for none", "", None),
)


@click.command()
@click.option(
    "-o", "--output", default="values.yaml", show_default=True, type=NamedPath(dir_okay=False, path_type=Path)
)
@click.option("--force", is_flag=True, help="Replace an existing file; links are not followed.")
@click.option("--image", help="Image of Airflow 3.3 with crosswind.")
@click.option("--namespace", help="Namespace of all objects.")
@click.option("--database-secret", help="Secret with the database's address.")
@click.option("--dags", type=_DAGS, help="Where DAG files come from.")
@click.option("--repo", help="Git repository with the DAG files.")
@click.option("--logs", type=_LOGS, help="Where logs of tasks are kept.")
@click.option("--logs-url", help="Object store for the logs, such as s3://bucket/path.")
@click.option("--mesh", type=_MESHES, help="Service mesh.")
@click.option("--host", help="Host name of the UI.")
@click.option("--aws-role", help="AWS role of the workers (IRSA).")
def init(output: Path, force: bool, **options: str | None) -> None:
    """Write a commented values file for the common case.

    On a terminal, asks for the values that no option gives; elsewhere uses their defaults.
    """
    from crosswind.deploy.first_values import Answers, first_values
    from crosswind.deploy.values_file import read_values

    if os.path.lexists(output) and not force:
        raise ConfigError(f"{output} exists already; use --force to replace it, or --output for another file")
    answers = _answers(options, ask=sys.stdin.isatty())
    text = first_values(Answers(**{field.name: answers[field.name] for field in fields(Answers)}))
    read_values(text, str(output))
    # Another process may have created the file since the check: without --force no file may be replaced.
    output_files.write(output, text.encode(), output_files.FileMark("crosswind init", lambda content: force))
    click.echo(f"{output} written. Review it, then run: crosswind render {output} -o manifests/")


def _answers(options: dict[str, str | None], *, ask: bool) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for name, question, default, choices in _QUESTIONS:
        if (answer := options[name]) is None and ask and _matters(name, answers):
            answer = click.prompt(question, default=default if name != "image" else None, type=choices)
        answers[name] = default if answer is None and name not in ("repo", "logs_url") else answer or ""
    if not answers["image"]:
        raise click.UsageError("--image is missing: an image of Airflow 3.3 with crosswind")
    return answers


def _matters(name: str, answers: dict[str, Any]) -> bool:
    """Whether a question makes sense after the answers before it."""
    if name == "repo":
        return answers["dags"] in ("git-sync", "bundle")
    return name != "logs_url" or answers["logs"] == "remote"

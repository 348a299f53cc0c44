"""The values file that ``crosswind init`` writes: the common choices with a comment each, the others named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from crosswind.deploy.objects import as_yaml
from crosswind.deploy.values import Values
from crosswind.errors import ConfigError

__all__ = ["Answers", "first_values"]

_EXAMPLE_REPO = "https://git.example.com/dags.git"
_EXAMPLE_LOGS = "s3://example-bucket/airflow"


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to the questions of ``crosswind init``; "" is no answer."""

    image: str
    namespace: str = "airflow"
    database_secret: str = "airflow-database"  # noqa: S105 - a name
    dags: str = "image"
    repo: str = ""
    logs: str = "archive"
    logs_url: str = ""
    mesh: str = "none"
    host: str = ""
    aws_role: str = ""


_OPTIONS = {
    "image": ("image",),
    "namespace": ("namespace",),
    "database_secret": ("secrets", "database", "name"),
    "repo": ("dags", "repo"),
    "logs_url": ("logs", "url"),
    "host": ("web", "host"),
    "aws_role": ("workers", "awsRole"),
}
"""The place of each free answer in the values."""


def first_values(answers: Answers) -> str:
    """Return the text of a values file.

    Raises ``ConfigError`` with a line for each answer that cannot be used, with the option of ``crosswind init``.
    """
    values = _checked(answers)
    blocks = [
        "# A deployment of Airflow. All keys: docs/reference/deployment-values.md. Then:",
        "#   crosswind render values.yaml -o manifests/ && kubectl apply -f manifests/ --recursive",
        f"name: airflow  # prefix of each object's name\nnamespace: {_text(answers.namespace)}",
        f"# Airflow 3.3 with crosswind installed; best with a digest (name@sha256:...)\nimage: {_text(answers.image)}",
        _secrets(answers),
        _dags(answers),
        _logs(answers),
        _mesh(answers),
        _web(answers),
        _programs(answers, values.separate_namespace),
    ]
    return "\n".join(blocks) + "\n"


def _checked(answers: Answers) -> Values:
    """Return the answers as values, before they become text: the user has not seen the lines of a file yet."""
    content: dict[str, Any] = {"dags": {"source": answers.dags}, "logs": {"to": answers.logs}}
    if answers.dags in ("git-sync", "bundle"):
        content["dags"]["repo"] = answers.repo or _EXAMPLE_REPO
    if answers.logs == "remote":
        content["logs"]["url"] = answers.logs_url or _EXAMPLE_LOGS
    content |= {"image": answers.image, "namespace": answers.namespace}
    content["secrets"] = {"database": {"name": answers.database_secret, "key": "connection"}}
    content |= {"web": {"host": answers.host}} if answers.host else {}
    content |= {"workers": {"awsRole": answers.aws_role}} if answers.aws_role else {}
    try:
        return Values.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(_problems(error))) from None


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        ends = (problem["loc"][0], problem["loc"][-1]) if problem["loc"] else ()
        option = next((name for name, place in _OPTIONS.items() if (place[0], place[-1]) == ends), "")
        name = f"--{option.replace('_', '-')}" if option else ".".join(map(str, problem["loc"]))
        yield f"{name} {_description(problem)}"


def _description(problem: ErrorDetails) -> str:
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return f"is {problem['input']!r}; {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _text(text: str) -> str:
    return as_yaml(text).strip().removesuffix("\n...")


def _secrets(answers: Answers) -> str:
    return f"""\
# Existing Secrets: name, and key in it. docs/guides/deploy.md explains how to create them, or have them fetched.
secrets:
  database: {{name: {_text(answers.database_secret)}, key: connection}}  # postgresql+psycopg2://USER:PASSWORD@HOST/airflow
  fernetKey: {{name: airflow-secrets, key: fernet-key}}  # encrypts connections and variables
  apiSecretKey: {{name: airflow-secrets, key: api-secret-key}}  # signs requests for logs
  jwtSecret: {{name: airflow-secrets, key: jwt-secret}}  # signs the workers' tokens"""


def _dags(answers: Answers) -> str:
    repo = _text(answers.repo or _EXAMPLE_REPO)
    text = {
        "image": "  source: image\n  path: /opt/airflow/dags",
        "pvc": "  source: pvc\n  volume: {claim: dags}  # a claim in both namespaces, mounted by many nodes",
        "git-sync": f"  source: git-sync\n  repo: {repo}\n  ref: main\n  subdir: dags\n"
        "  # secret: dags-git  # for a private repository: keys username and password, or ssh and known_hosts",
        "bundle": f"  source: bundle\n  repo: {repo}\n  ref: main\n  subdir: dags\n"
        "  # secret: dags-git  # for a private repository: key connection",
    }[answers.dags]
    return f"# Where DAG files come from: image, pvc, git-sync, bundle (Airflow's Git bundle)\ndags:\n{text}"


def _logs(answers: Answers) -> str:
    text = {
        "archive": "  to: archive",
        "none": "  to: none",
        "volume": "  to: volume\n"
        "  volume: {claim: logs}  # a claim that exists in both namespaces, of one file system for many nodes; or efs",
        "remote": f"  to: remote\n  url: {_text(answers.logs_url or _EXAMPLE_LOGS)}",
    }[answers.logs]
    choices = "archive (metadata database), volume, remote (object store), none (only while the pod exists)"
    return f"# Where task logs are stored: {choices}\nlogs:\n{text}"


def _mesh(answers: Answers) -> str:
    sidecars = "\n  sidecars: native  # ordinary, if Kubernetes or the mesh does not support native sidecars"
    return f"# The service mesh: none, istio, linkerd\nmesh:\n  kind: {answers.mesh}" + (
        "" if answers.mesh == "none" else sidecars
    )


def _web(answers: Answers) -> str:
    if not answers.host:
        return "# web: {host: airflow.example.com, tlsSecret: airflow-tls, ingressClass: nginx}  # an Ingress"
    return f"web:\n  host: {_text(answers.host)}\n  # tlsSecret: airflow-tls\n  # ingressClass: nginx"


def _programs(answers: Answers, worker_namespace: str) -> str:
    role = (
        f"\n  awsRole: {_text(answers.aws_role)}"
        if answers.aws_role
        else "\n  # awsRole: arn:aws:iam::123456789012:role/airflow"
    )
    return f"""\
# Programs: replicas, resources, env, nodeSelector, tolerations, affinity, awsRole, ... for each
scheduler:
  replicas: 1
apiServer:
  replicas: 2
workers:
  namespaces: [{_text(worker_namespace)}]  # apart from Airflow's Secrets, which pods of its namespace can read
  resources: {{requests: {{cpu: 250m, memory: 1Gi}}, limits: {{memory: 1Gi}}}}{role}
# config: {{core: {{parallelism: 128}}}}  # further options of airflow.cfg"""

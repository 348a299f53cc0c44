"""The fields of task files and of ``crosswind.yaml``. The JSON Schemas are generated from these classes."""

from __future__ import annotations

import difflib
import keyword
import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from crosswind.tasks import placeholders
from crosswind.tasks.field_lines import FileFields, unstorable_texts
from crosswind.tasks.schedules import check_schedule

__all__ = [
    "MAX_ID",
    "External",
    "FolderSettings",
    "Resources",
    "RunSettings",
    "Sensor",
    "TaskFile",
    "errors_in",
    "json_schema",
]

SQL_OPERATOR = "airflow.providers.common.sql.operators.sql.SQLExecuteQueryOperator"
POD_OPERATOR = "crosswind.operators.KubernetesPodOperator"

_SQL_RUN = {"operator": SQL_OPERATOR, "arguments": {"sql": "${task.query}", "conn_id": "${task.connection}"}}
MAX_ID = 200
"""Characters of a task's id: Airflow allows 250, of which prefixes such as ``broken__`` take some."""
_CLASS = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$"
_SET_FOR_EACH_TASK = {
    "task_id": "write id in the task's file",
    "outlets": "write produces or appends in the task's file",
    "owner": "write the field owner",
    "retries": "write the field retries",
    "retry_delay": "write the field retry_delay",
}
"""Arguments that ``run.arguments`` cannot have, with what to write."""
_YEAR = 365 * 24 * 3600
_DATE = r"^\d{4}-\d{2}-\d{2}$"
_TASK_PLACEHOLDERS = frozenset(f"task.{name}" for name in placeholders.TASK_NAMES)

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$", max_length=MAX_ID)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
_MAX_NAME = 256
"""Characters of a pool or a queue in Airflow's database: PostgreSQL and MySQL refuse the whole run for a longer one."""
Name = Annotated[str, Field(min_length=1, max_length=_MAX_NAME)]
Tag = Annotated[str, Field(min_length=1, max_length=100)]
"""Airflow refuses the DAG for a longer one."""
_ABOVE_ZERO = r"([0-9]*[1-9][0-9]*(\.[0-9]+)?|[0-9]+\.[0-9]*[1-9][0-9]*)"
Cpu = Annotated[str, Field(pattern=f"^{_ABOVE_ZERO}m?$")]
Memory = Annotated[str, Field(pattern=f"^{_ABOVE_ZERO}(k|M|G|T|Ki|Mi|Gi|Ti)?$")]
_QUANTITIES: dict[tuple[int | str, ...], str] = {
    ("resources", "cpu"): "must be a number of CPUs above 0; write 2, 0.5 or 500m",
    ("resources", "memory"): "must be an amount of memory above 0; write 8Gi or 512Mi",
}
"""What a value must be, by its place: Kubernetes' own suffix ``m`` makes thousandths of a byte of memory."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Resources(_Strict):
    """The requests and limits of a task's container."""

    cpu: Cpu | Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="CPUs, such as 2 or 500m."
    )
    memory: Memory | None = Field(None, description="Memory, such as 2Gi.")

    def quantities(self) -> dict[str, str]:
        """Return the quantities that are set, in Kubernetes' notation."""
        return {name: str(value) for name, value in (("cpu", self.cpu), ("memory", self.memory)) if value is not None}


class _Overridable(_Strict):
    """The fields that both kinds of files have."""

    schedule: Text | None = Field("@daily", description="Cron expression or preset such as @hourly; null: never.")
    owner: Text = Field("airflow", description="The task's owner in Airflow.")
    retries: int = Field(1, ge=0, le=100, description="Retries after a failure.")
    resources: Resources | None = Field(None, description="Resources of the task's container.")
    pool: Name | None = Field(None, description="Airflow's pool.")
    queue: Name | None = Field(None, description="The executor's queue.")

    check_schedule = field_validator("schedule")(check_schedule)


class TaskFile(_Overridable):
    """A query that runs on a schedule, after the tasks that make the tables it reads."""

    id: Id = Field(description="Name of the task, unique among all task files.")
    query: Text = Field(description="Path of the SQL file, relative to this file.")
    tables: list[Text] = Field(description="Tables that the query reads; [] if none.")
    produces: Text | list[Text] | None = Field(
        None, description="Table or tables that it makes; by default those that the SQL creates."
    )
    appends: Text | list[Text] | None = Field(
        None, description="Shared tables that it adds to or cleans up, and does not make; other tasks may, too."
    )
    image: Text | None = Field(None, description="Image in which the task runs.")

    @field_validator("tables", "produces", "appends")
    @classmethod
    def check_tables(cls, names: str | list[str] | None) -> str | list[str] | None:
        """Refuse names that cannot be Airflow assets, as every table is one: they would stop the task's whole DAG."""
        for name in [names] if isinstance(names, str) else names or []:
            if not name.strip():
                raise ValueError("has a blank name; write the name of a table")
            if name.strip().lower().startswith("airflow:"):
                raise ValueError(f"has {name}, and Airflow reserves the scheme airflow; write another name")
        return names

    def appended(self) -> list[str]:
        """Return the tables of ``appends``."""
        return [self.appends] if isinstance(self.appends, str) else self.appends or []

    def produced(self) -> list[str]:
        """Return the tables of ``produces``."""
        return [self.produces] if isinstance(self.produces, str) else self.produces or []


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse names that cannot be keyword arguments, as ``crosswind tasks compile`` writes them, and long pools."""
    for name, value in arguments.items():
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"has the argument {name!r}, which is not a valid name of a Python argument")
        if name in _SET_FOR_EACH_TASK:
            raise ValueError(f"has the argument {name}, which Crosswind sets for each task; {_SET_FOR_EACH_TASK[name]}")
        if name in {"pool", "queue"} and isinstance(value, str) and len(value) > _MAX_NAME:
            raise ValueError(
                f"has a {name} of more than {_MAX_NAME} characters, which Airflow cannot store; shorten it"
            )


def _check_class(path: str) -> str:
    if any(map(keyword.iskeyword, path.split("."))):
        raise ValueError(f"is {path}, which contains a Python keyword and so cannot be the path of a class")
    return path


ClassPath = Annotated[str, Field(pattern=_CLASS), AfterValidator(_check_class)]


class RunSettings(_Strict):
    """How queries run: an operator with its arguments, or a pod with your own image."""

    operator: ClassPath | None = Field(None, description="Import path of the class.")
    image: Text | None = Field(None, description="Image of a pod, instead of an operator.")
    command: list[str] | None = Field(None, description="The pod's command; by default that of its image.")
    arguments: dict[str, Any] | list[str] | None = Field(
        None,
        description="The operator's arguments by name, or the pod's list, with placeholders such as ${task.query}.",
    )
    env: dict[str, str] | None = Field(None, description="Environment variables of the pod.")

    @model_validator(mode="after")
    def check(self) -> RunSettings:
        """Refuse keys that do not go together, and misspelt placeholders."""
        if (self.operator is None) == (self.image is None):
            raise ValueError("needs either operator or image")
        if self.operator and (self.command or self.env or isinstance(self.arguments, list)):
            raise ValueError("with operator takes arguments by name; command, env and a list belong to image")
        if self.image and isinstance(self.arguments, dict):
            raise ValueError("with image takes arguments as a list")
        if isinstance(self.arguments, dict):
            _check_arguments(self.arguments)
        texts = [self.image, self.command, self.arguments, self.env]
        if misspelt := placeholders.unknown(texts, _TASK_PLACEHOLDERS):
            raise ValueError(f"has {misspelt}; there are ${{task.…}} with {', '.join(placeholders.TASK_NAMES)}")
        return self


class Sensor(_Strict):
    """An operator that waits for a table that none of the task files makes."""

    operator: ClassPath
    arguments: dict[str, Any] = Field(default_factory=dict, description="By name, with the placeholder ${table}.")

    @model_validator(mode="after")
    def check(self) -> Sensor:
        """Refuse misspelt placeholders, and names that are none of Python's."""
        _check_arguments(self.arguments)
        if misspelt := placeholders.unknown(self.arguments, frozenset({"table"})):
            raise ValueError(f"has {misspelt}; there is ${{table}}")
        return self


class External(_Strict):
    """Tables that none of the task files makes. Patterns are like a shell's, such as ``raw.*``."""

    unknown: Literal["allow", "refuse"] = Field(
        "allow", description="Whether queries may read other tables than the listed ones."
    )
    tables: list[Text] = Field(default_factory=list, description="Patterns of tables that exist.")
    assets: list[Text] = Field(default_factory=list, description="Patterns of tables followed as Airflow assets.")
    sensor: Sensor | None = Field(None, description="Waits for each external table before it is read.")


class FolderSettings(_Overridable):
    """``crosswind.yaml``: settings of the task files in its folder and in the folders below."""

    run: RunSettings = Field(
        RunSettings.model_validate(_SQL_RUN),
        description="How queries run.",
    )
    connection: Text | None = Field(None, description="Airflow's connection: ${task.connection}.")
    start_date: Annotated[str, Field(pattern=_DATE)] = Field("2024-01-01", description="First day, in UTC.")
    catchup: bool = Field(False, description="Whether to run missed days.")
    retry_delay: int = Field(300, ge=0, le=_YEAR, description="Seconds between two attempts.")
    max_active_runs: int = Field(1, ge=1, le=10_000, description="Concurrent runs of a DAG.")
    tags: list[Tag] = Field(default_factory=list, description="The DAG's tags.")
    dag_id: Text = Field("${folder}", description="The DAG's id, with ${folder}, or ${first}, its first task's id.")
    group: Literal["folder", "connected"] = Field("folder", description="One DAG per folder, or per connected group.")
    follows: Literal["assets", "schedule", "both"] = Field(
        "assets", description="Whether a DAG that reads tables of other DAGs runs after these, by schedule, or both."
    )
    dialect: str = Field("", description="SQL dialect, by sqlglot's name, such as snowflake.")
    default_schema: str = Field("", description="Schema of unqualified tables: schema or catalog.schema.")
    inputs: Literal["warn", "error", "ignore"] = Field(
        "warn", description="Effect of differences between tables and the SQL."
    )
    external: External = Field(External.model_validate({}), description="Tables that no task makes.")

    @field_validator("start_date")
    @classmethod
    def check_start_date(cls, text: str) -> str:
        """Refuse dates that the calendar does not have."""
        date.fromisoformat(text)
        return text

    @field_validator("dag_id")
    @classmethod
    def check_dag_id(cls, text: str) -> str:
        """Refuse misspelt placeholders."""
        if misspelt := placeholders.unknown(text, frozenset({"folder", "first"})):
            raise ValueError(f"has {misspelt}; there are ${{folder}} and ${{first}}")
        return text


Model = TypeVar("Model", TaskFile, FolderSettings)


def json_schema(kind: Literal["task", "crosswind"]) -> dict[str, Any]:
    """Return the published JSON Schema of task files or of ``crosswind.yaml``."""
    model = TaskFile if kind == "task" else FolderSettings
    title = "Crosswind task file" if kind == "task" else "crosswind.yaml"
    schema = model.model_json_schema()
    if kind == "task":  # the defaults of these fields are the folder's settings
        for name in _Overridable.model_fields:
            schema["properties"][name].pop("default", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}


def errors_in(model: type[Model], content: FileFields) -> tuple[Model | None, list[tuple[int, str]]]:
    """Return the model of a file's fields, or None and the problems with their lines."""
    if problems := [*unstorable_texts(content)]:
        return None, problems
    try:
        return model.model_validate(content.fields), []
    except ValidationError as error:
        return None, sorted(set(_problems(error, model, content)))


def _problems(error: ValidationError, model: type[BaseModel], content: FileFields) -> Iterator[tuple[int, str]]:
    for details in error.errors(include_url=False, include_input=False):
        path = [str(part) for part in details["loc"]]
        while path and ".".join(path) not in content.lines and details["type"] != "missing":
            path.pop()  # pydantic adds the names of a union's branches
        place = ".".join(path)
        line = content.lines.get(place, content.lines.get(".".join(path[:-1]), 1))
        yield line, f"{place} {_description(details, path, model)}".strip()


_DESCRIPTIONS = {
    "string_type": "must be text; put it into quotes",
    "list_type": "must be a list, such as [orders, users]",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "model_type": "must be a group of fields",
    "dict_type": "must be a group of fields",
    "string_too_short": "is empty; write a value",
}


def _description(details: ErrorDetails, path: list[str], model: type[BaseModel]) -> str:
    kind = details["type"]
    if quantity := _QUANTITIES.get(details["loc"][:2]):
        return quantity
    if kind == "missing":
        example = " (tables: [] if it reads none)" if path == ["tables"] else ""
        return f"is missing; a task file needs id, query and tables{example}" if model is TaskFile else "is missing"
    if kind == "extra_forbidden":
        suggestions = difflib.get_close_matches(path[-1], model.model_fields, 1) if len(path) == 1 else []
        return f"is not a field; {f'did you mean {suggestions[0]}?' if suggestions else 'take it out'}"
    if kind == "string_pattern_mismatch" and path[-1] == "id":
        return "may have letters, digits, dots, dashes and underscores only"
    if kind == "string_too_long":
        return f"is longer than {details['ctx']['max_length']} characters; shorten it"
    if kind in {"less_than_equal", "greater_than_equal"}:
        (limit,) = details["ctx"].values()
        return f"must be {limit} or {'less' if kind == 'less_than_equal' else 'more'}"
    return _DESCRIPTIONS.get(kind) or re.sub(r"^Value error, ", "", details["msg"])

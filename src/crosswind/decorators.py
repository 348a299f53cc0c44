"""``@task.pod`` runs a Python function in a pod of its own image, which needs Python but not Airflow.

::

    @task.pod(image="python:3.12-slim", do_xcom_push=True)
    def double(number: int) -> int:
        return 2 * number
"""

from __future__ import annotations

import base64
import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.backcompat.backwards_compat_converters import convert_env_vars
from airflow.providers.common.compat.sdk import DecoratedOperator, TaskDecorator, task_decorator_factory
from kubernetes.client.models import V1EnvVar

from crosswind.errors import ConfigError
from crosswind.operators import KubernetesPodOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["DecoratedPodOperator", "pod_task"]

_SCRIPT_VARIABLE, _INPUT_VARIABLE = "CROSSWIND_SCRIPT", "CROSSWIND_INPUT"

_MAX_VARIABLE_BYTES = 131_000
"""Size of one environment variable: Linux accepts 131,072 bytes with its name (``MAX_ARG_STRLEN``)."""

# Without linecache a traceback would show no source lines: the interpreter reads them from a file.
_LOADER_SCRIPT = f"""\
import base64, linecache, os, traceback
text = base64.b64decode(os.environ.pop("{_SCRIPT_VARIABLE}")).decode()
linecache.cache["task.py"] = (len(text), None, text.splitlines(True), "task.py")
try:
    exec(compile(text, "task.py", "exec"))
except Exception:
    traceback.print_exc()
    raise SystemExit(1)
"""

_TASK_SCRIPT = """\
{source}
import base64 as _base64, json as _json, os as _os, {library} as _library
_input = _library.loads(_base64.b64decode(_os.environ.pop("{variable}")))
_result = {function}(*_input["args"], **_input["kwargs"])
if {push} and _result is not None:
    _os.makedirs("/airflow/xcom", exist_ok=True)
    with open("/airflow/xcom/return.json", "w") as _file:
        _json.dump(_result, _file)
"""


class DecoratedPodOperator(DecoratedOperator, KubernetesPodOperator):
    """The operator of a task that ``@task.pod`` decorates.

    ``use_dill``: serialise the arguments with dill, which the image must then have, in place of pickle.
    """

    custom_operator_name = "@task.pod"
    template_fields: Sequence[str] = tuple(
        {"op_args", "op_kwargs", *KubernetesPodOperator.template_fields} - {"cmds", "arguments"}
    )
    shallow_copy_attrs: Sequence[str] = ("python_callable",)

    def __init__(self, *, use_dill: bool = False, **kwargs: Any) -> None:
        self.use_dill = use_dill
        kwargs.setdefault("name", f"pod-{kwargs['python_callable'].__name__}")
        super().__init__(cmds=["python", "-c", _LOADER_SCRIPT], **kwargs)

    def execute(self, context: Context) -> Any:
        """Put the function and its arguments into the pod's environment, and run the pod."""
        library = importlib.import_module("dill" if self.use_dill else "pickle")
        script = _TASK_SCRIPT.format(
            source=self.get_python_source(),  # type: ignore[no-untyped-call]  # Airflow's gap
            library=library.__name__,
            variable=_INPUT_VARIABLE,
            function=self.python_callable.__name__,
            push=self.do_xcom_push,
        )
        arguments = library.dumps({"args": self.op_args, "kwargs": self.op_kwargs})
        self.env_vars = [
            *convert_env_vars(self.env_vars),
            _variable(_SCRIPT_VARIABLE, script.encode(), "the function's source"),
            _variable(_INPUT_VARIABLE, arguments, "the arguments"),
        ]
        return super().execute(context)


def _variable(name: str, content: bytes, description: str) -> V1EnvVar:
    text = base64.b64encode(content).decode()
    if len(text) > _MAX_VARIABLE_BYTES:
        limit = _MAX_VARIABLE_BYTES * 3 // 4  # base64 adds a third
        raise ConfigError(
            f"@task.pod: {description} take {len(content)} bytes, the limit is {limit}; pass a path instead"
        )
    return V1EnvVar(name=name, value=text)


def pod_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Run a function in a pod. Accepts the arguments of ``KubernetesPodOperator`` except commands and arguments.

    ``multiple_outputs``: push a returned dict as one XCom per key.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=DecoratedPodOperator,
        **kwargs,
    )

"""``@task.pod``: a Python function as a task in a pod of its own image, which needs Python and nothing of Airflow.

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

_SCRIPT, _INPUT = "CROSSWIND_SCRIPT", "CROSSWIND_INPUT"

_LONGEST = 131_000
"""Bytes of one variable: Linux takes 131,072 with the name (``MAX_ARG_STRLEN``)."""

_LOADER = f"""\
import base64, linecache, os, traceback
text = base64.b64decode(os.environ.pop("{_SCRIPT}")).decode()
linecache.cache["task.py"] = (len(text), None, text.splitlines(True), "task.py")
try:
    exec(compile(text, "task.py", "exec"))
except Exception:
    traceback.print_exc()  # with the lines of the source, which the interpreter itself would look for in a file
    raise SystemExit(1)
"""

_MAIN = """\
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
    """What ``@task.pod`` makes of a function.

    ``use_dill``: pickle the arguments with dill, which the image must have then.
    """

    custom_operator_name = "@task.pod"
    template_fields: Sequence[str] = tuple(
        {"op_args", "op_kwargs", *KubernetesPodOperator.template_fields} - {"cmds", "arguments"}
    )
    shallow_copy_attrs: Sequence[str] = ("python_callable",)

    def __init__(self, *, use_dill: bool = False, **kwargs: Any) -> None:
        self.use_dill = use_dill
        kwargs.setdefault("name", f"pod-{kwargs['python_callable'].__name__}")
        super().__init__(cmds=["python", "-c", _LOADER], **kwargs)

    def execute(self, context: Context) -> Any:
        """Put function and arguments into the pod's environment and run it."""
        library = importlib.import_module("dill" if self.use_dill else "pickle")
        script = _MAIN.format(
            source=self.get_python_source(),  # type: ignore[no-untyped-call]  # Airflow's gap
            library=library.__name__,
            variable=_INPUT,
            function=self.python_callable.__name__,
            push=self.do_xcom_push,
        )
        given = library.dumps({"args": self.op_args, "kwargs": self.op_kwargs})
        self.env_vars = [
            *convert_env_vars(self.env_vars),
            _variable(_SCRIPT, script.encode(), "the function's source"),
            _variable(_INPUT, given, "the arguments"),
        ]
        return super().execute(context)


def _variable(name: str, content: bytes, what: str) -> V1EnvVar:
    text = base64.b64encode(content).decode()
    if len(text) > _LONGEST:
        raise ConfigError(
            f"@task.pod: {what} take {len(content)} bytes, {_LONGEST * 3 // 4} are possible; pass a path instead"
        )
    return V1EnvVar(name=name, value=text)


def pod_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Run a function in a pod. Takes what ``KubernetesPodOperator`` takes, but commands and arguments.

    ``multiple_outputs``: a dict that is returned becomes one XCom for each key.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=DecoratedPodOperator,
        **kwargs,
    )

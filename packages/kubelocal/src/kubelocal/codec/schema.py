"""Types of the API's objects, read on first use from the installed package ``kubernetes``.

That package has one generated module per type with two tables, ``openapi_types`` and ``attribute_map``. The modules are
read as text: importing them costs two seconds and 100 MB, and a pod needs a tenth of them. The tables hold names and
types, but merge some types of Kubernetes; ``wire_fields`` knows these (quantities, bytes, 64-bit numbers, micro times).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from kubelocal.codec.wire_fields import form_of

__all__ = ["Field", "Struct", "Type", "describe", "parse_type", "struct", "type_of"]


@dataclass(frozen=True, slots=True)
class Type:
    """The type of a field. ``form``: list, map, struct, or a scalar.

    Scalars: string, bool, int32, int64, float, time (RFC 3339), micro (with six digits), quantity, bytes (base64), port
    (number or string), any. ``inner`` is the item's type of a list or map; ``name`` the struct's.
    """

    form: str
    inner: Type | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One field; ``name`` as in JSON."""

    name: str
    type: Type
    required: bool


@dataclass(frozen=True, slots=True)
class Struct:
    """One type; ``name`` as in the package, such as ``V1PodSpec``; ``go`` as Kubernetes' messages name it."""

    name: str
    go: str
    fields: dict[str, Field]


# the package's names of types that exist in several groups; all others are "V1" and the kind
KINDS = {"Event": "CoreV1Event", "TokenRequest": "AuthenticationV1TokenRequest"}
SCALARS = {"str": "string", "bool": "bool", "float": "float", "datetime": "time", "object": "any", "int": "int32"}


# custom resources: all their fields are kept as sent
CUSTOM = {
    "V1AuthorizationPolicy",
    "V1ExternalSecret",
    "V1PeerAuthentication",
    "V1PrometheusRule",
    "V1ServiceEntry",
    "V1VirtualService",
}
CUSTOM_FIELDS = {
    "apiVersion": Type("string"),
    "kind": Type("string"),
    "metadata": Type("struct", name="V1ObjectMeta"),
    "spec": Type("any"),
    "status": Type("any"),
}


def type_of(kind: str, group: str = "") -> Type:
    """Return the type of a kind; raises ``LookupError`` for one that the package lacks."""
    name = "EventsV1Event" if (kind, group) == ("Event", "events.k8s.io") else KINDS.get(kind, f"V1{kind}")
    struct(name)
    return Type("struct", name=name)


@cache
def struct(name: str) -> Struct:
    """Return a type by the package's name, such as ``V1Container``; raises ``LookupError`` for an unknown one."""
    if name in CUSTOM:
        return Struct(name, _go_name(name), {field: Field(field, kind, False) for field, kind in CUSTOM_FIELDS.items()})
    text = _source(name)
    types, names = _table(text, "openapi_types"), _table(text, "attribute_map")
    if set(types) != set(names):
        raise LookupError(f"cannot read the tables of {name} in the kubernetes package")
    required = set(re.findall(r"Invalid value for `(\w+)`, must not be `None`", text))
    fields = {
        json: Field(json, _field_type(name, json, types[python]), python in required) for python, json in names.items()
    }
    return Struct(name, _go_name(name), fields)


def describe(name: str) -> dict[str, str]:
    """Return the package's description of each field of a type, by JSON name."""
    if name in CUSTOM:
        return {}
    text = _source(name)
    names = _table(text, "attribute_map")
    descriptions = {
        names[python]: " ".join(words.replace('\\"', '"').split())
        for python, words in re.findall(
            r'def (\w+)\(self\):\n\s+"""Gets the .*?# noqa: E501\n(.*?)\s*(?:# noqa: E501)?\n\n\s+:return',
            text,
            re.DOTALL,
        )
        if python in names
    }
    return {field: words.removesuffix("# noqa: E501").strip() for field, words in descriptions.items()}


def parse_type(text: str) -> Type:
    """Parse a type as the package writes it: ``str``, ``list[V1EnvVar]``, ``dict[str, str]``."""
    if match := re.fullmatch(r"(list|dict)\[(?:str, )?(.+)\]", text):
        return Type("list" if match[1] == "list" else "map", parse_type(match[2]))
    return Type(SCALARS[text]) if text in SCALARS else Type("struct", name=text)


def _field_type(owner: str, field: str, text: str) -> Type:
    plain, form = parse_type(text), form_of(owner, field)
    if not form:
        return plain
    return Type(plain.form, Type(form)) if plain.form in ("list", "map") else Type(form)


def _go_name(name: str) -> str:
    return re.sub(r"^(Core|Events|Batch|Authentication|Rbac)?V\d(alpha\d|beta\d)?", "", name)


def _table(text: str, name: str) -> dict[str, str]:
    match = re.search(rf"\n    {name} = \{{(.*?)\n    \}}", text, re.DOTALL)
    return dict(re.findall(r"'(\w+)': '([^']+)'", match[1])) if match else {}


def _source(name: str) -> str:
    folder, modules = _modules()
    if name not in modules:
        raise LookupError(f"the kubernetes package has no type {name}")
    return (folder / f"{modules[name]}.py").read_text(encoding="utf-8")


@cache
def _modules() -> tuple[Path, dict[str, str]]:
    spec = find_spec("kubernetes")
    if spec is None or not spec.submodule_search_locations:
        raise LookupError("the package kubernetes, a dependency of kubelocal, is missing: install it again")
    folder = Path(spec.submodule_search_locations[0]) / "client" / "models"
    index = (folder / "__init__.py").read_text(encoding="utf-8")
    return folder, {name: module for module, name in re.findall(r"models\.(\w+) import (\w+)", index)}

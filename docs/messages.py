"""The messages of a .proto file as Markdown, from the descriptors and the comments in it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from wire.definitions import bounds
from wire.roles import METHODS

WIRE = Path(__file__).resolve().parent.parent / "wire"
Comments = Mapping[tuple[int, ...], str]

_FILE = descriptor_pb2.FileDescriptorProto
_MESSAGE = descriptor_pb2.DescriptorProto
_FIELD = descriptor_pb2.FieldDescriptorProto
_SERVICE = descriptor_pb2.ServiceDescriptorProto
_TYPES = {number: name.removeprefix("TYPE_").lower() for name, number in _FIELD.Type.items()}


@cache
def _parsed(name: str) -> Any:
    """The FileDescriptorProto of ``wire/NAME.proto``, its comments with it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        file = WIRE / f"{name}.proto"
        if protoc.main(
            ["protoc", f"-I{WIRE.parent}", "--include_source_info", f"--descriptor_set_out={out}", str(file)]
        ):
            raise ValueError(f"{file}: protoc refuses it")
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]


def _comments(file: Any) -> Comments:
    """Comment by the path of what it is of (descriptor.proto, SourceCodeInfo)."""
    return {
        tuple(at.path): " ".join((at.leading_comments + at.trailing_comments).split())
        for at in file.source_code_info.location
    }


def _limits() -> dict[str, str]:
    """What wire/ran.options says of a field, by its full name."""
    lines = (WIRE / "ran.options").read_text(encoding="utf-8").splitlines()
    found = (re.fullmatch(r"(\S+)\s+(max_size|max_count):(\d+)", line) for line in lines)
    # Of a text of max_size bytes nanopb keeps one for its end.
    return {
        f[1]: f"at most {int(f[3]) - 1} bytes" if f[2] == "max_size" else f"at most {f[3]}"
        for f in found
        if f
    }


def _text(comment: str) -> str:
    """A comment as Markdown; a constant of :mod:`wire.definitions.bounds` is followed by its value."""
    said = re.sub(r"\bMAX_\w+", lambda name: f"{name[0]} ({getattr(bounds, name[0]):,})", comment)
    return re.sub(r"([|<>*])", r"\\\1", said)


def _link(type_name: str, package: str) -> str:
    name = type_name.removeprefix(f".{package}.")
    return f"[{name}](#{package.rpartition('.')[2]}-{name.lower()})"


def _type(field: Any, package: str) -> str:
    name = _link(field.type_name, package) if field.type_name else _TYPES[field.type]
    if field.label == _FIELD.LABEL_REPEATED:
        return f"{name}, repeated"
    return f"{name}, or none" if field.proto3_optional else name


def _fields(message: Any, package: str, at: tuple[int, ...], said: Comments) -> Iterator[str]:
    if not message.field:
        return
    limits = _limits()
    yield from ("| number | field | type | meaning |", "|---|---|---|---|")
    for i, field in enumerate(message.field):
        of = (*at, _MESSAGE.FIELD_FIELD_NUMBER, i)
        one = field.HasField("oneof_index") and not field.proto3_optional
        kind = _type(field, package) + (
            f", one of `{message.oneof_decl[field.oneof_index].name}`" if one else ""
        )
        bound = limits.get(f"{package}.{message.name}.{field.name}")
        meaning = "; ".join(part for part in (_text(said.get(of, "")), bound) if part)
        yield f"| {field.number} | `{field.name}` | {kind} | {meaning} |"
    yield ""


def _of_messages(messages: Any, package: str, at: tuple[int, ...], said: Comments) -> Iterator[str]:
    short = package.rpartition(".")[2]
    for i, message in enumerate(messages):
        of = (*at, i)
        yield from (f"({short}-{message.name.lower()})=", f"### {message.name}", "")
        yield from (_text(said.get(of, "")), "")
        yield from _fields(message, package, of, said)


def _calls(service: Any, package: str, at: tuple[int, ...], said: Comments) -> list[str]:
    lines = [f"### Service {service.name}", "", _text(said.get(at, "")), ""]
    lines += ["| call | takes | gives | for | meaning |", "|---|---|---|---|---|"]
    for i, call in enumerate(service.method):
        takes = ("stream of " if call.client_streaming else "") + _link(call.input_type, package)
        gives = ("stream of " if call.server_streaming else "") + _link(call.output_type, package)
        roles = ", ".join(sorted(METHODS[f"/{package}.{service.name}/{call.name}"]))
        meaning = _text(said.get((*at, _SERVICE.METHOD_FIELD_NUMBER, i), ""))
        lines.append(f"| `{call.name}` | {takes} | {gives} | {roles} | {meaning} |")
    return [*lines, ""]


def markdown(name: str) -> str:
    """Services, messages and enumerations of ``wire/NAME.proto``: a table of each, with its comments.

    ValueError where protoc refuses the file.
    """
    file = _parsed(name)
    said, package = _comments(file), file.package
    lines = []
    for i, service in enumerate(file.service):
        lines += _calls(service, package, (_FILE.SERVICE_FIELD_NUMBER, i), said)
    lines += _of_messages(file.message_type, package, (_FILE.MESSAGE_TYPE_FIELD_NUMBER,), said)
    for i, enum in enumerate(file.enum_type):
        of = (_FILE.ENUM_TYPE_FIELD_NUMBER, i)
        lines += [f"({name}-{enum.name.lower()})=", f"### {enum.name}", "", _text(said.get(of, "")), ""]
        for k, value in enumerate(enum.value):
            meaning = _text(said.get((*of, 2, k), ""))
            lines.append(f"- {value.number}: `{value.name}`{': ' + meaning if meaning else ''}")
        lines.append("")
    return "\n".join(lines) + "\n"

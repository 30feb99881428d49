"""Every key of a configuration in words, from the models themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controller import allocators, policies
from controller.config import Config

Schema = Mapping[str, Any]

_UNITS = {
    "per_s": "1/s",
    "us": "µs",
    "ms": "ms",
    "s": "s",
    "min": "min",
    "days": "d",
    "hz": "Hz",
    "mhz": "MHz",
    "ghz": "GHz",
    "bps": "bit/s",
    "mbps": "Mbit/s",
    "kbit": "kbit",
    "bytes": "bytes",
    "db": "dB",
    "m": "m",
    "deg": "°",
    "prb": "PRB",
}
"""What the end of a key says of its unit."""
_RELOADED = frozenset(
    {
        *("control.mode", "control.rescue.blind_slots", "control.rescue.missed_slots"),
        *("control.events.min_slot_s", "links.ran.lease_s"),
    }
)
_RESTART = frozenset({"cells[].id", "cells[].gpu"})


def unit(key: str) -> str:
    """The unit of a key, as the end of its name says it; empty where it says none.

    >>> unit("control_slot_s"), unit("prb"), unit("gpu_flops_per_s"), unit("users")
    ('s', 'PRB', '1/s', '')
    """
    return next((u for end, u in _UNITS.items() if key == end != "min" or key.endswith(f"_{end}")), "")


@dataclass(frozen=True, slots=True)
class Section:
    """A model and where it stands: ``path`` is its key ("": the top), ``said`` what that key says of it,
    ``defaults`` what it holds where it is not given. ``values`` are its keys that hold no model, by name."""

    path: str
    schema: Schema
    said: str
    defaults: Mapping[str, Any]
    values: Mapping[str, Schema]

    def key(self, name: str) -> str:
        """A key of it from the top on."""
        return f"{self.path}.{name}".lstrip(".")


def sections(schema: Schema) -> Iterator[Section]:
    """The model of a JSON schema and those in it, each before what it holds."""
    yield from _sections("", schema, schema.get("$defs", {}), "", None)


def _sections(
    path: str, schema: Schema, models: Mapping[str, Schema], said: str, default: Any
) -> Iterator[Section]:
    defaults = default if isinstance(default, dict) else {}
    # A slice's options stand in a section of their service.
    keys = {name: found for name, found in schema["properties"].items() if name != "options"}
    inner = {name: of for name, found in keys.items() if (of := _model(found, models)) is not None}
    values = {name: found for name, found in keys.items() if name not in inner}
    here = Section(path, schema, said, defaults, values)
    yield here
    for name, (suffix, model) in inner.items():
        found = keys[name]
        default = defaults.get(name, found.get("default"))
        yield from _sections(here.key(name) + suffix, model, models, found.get("description", ""), default)


def file_keys() -> list[str]:
    """Every key of a configuration that holds a value, such as ``cells[].slices[].share.max``."""
    return [s.key(name) for s in sections(Config.model_json_schema()) for name in s.values]


def change(key: str) -> str:
    """What takes a change of a key of the file."""
    part = key.split(".")[0]
    if part == "emulation":
        return "restart of the testbed"
    if key in _RELOADED or (part == "cells[]" and key not in _RESTART):
        return "reload"
    return "restart"


def markdown() -> str:
    """A section for each part of the file, for the options of each service and of each policy, as tables of
    key, type, default, unit, what takes a change, and meaning."""
    lines = [line for section in sections(Config.model_json_schema()) for line in _table(section, "", change)]
    for name in allocators.names():
        lines += _service(name)
    lines += ["## Options of policies", "", "In a slice's `policy_options`:", ""]
    for name in policies.names():
        options = policies.make(name, [10, 20]).options()
        said = ", ".join(f"`{key}` ({_value(value)})" for key, value in options.items())
        lines.append(f"- `{name}`: {said or 'none'}")
    return "\n".join(lines) + "\n"


def _service(name: str) -> Iterator[str]:
    title = f"Options of service `{name}`"
    try:
        options = allocators.service(name).options
    except ValueError as error:
        yield from (f"## {title}", "", str(error), "")
        return

    def live(key: str) -> str:
        return "live, learns anew" if key.split(".")[0] in options.anew else "live"

    for section in sections(options.model_json_schema()):
        yield from _table(section, title, live)


def _table(section: Section, title: str, changed_by: Callable[[str], str]) -> Iterator[str]:
    schema = section.schema
    if heading := ": ".join(filter(None, (title, section.path and f"`{section.path}`"))):
        yield from (f"## {heading}", "")
        for text in (*schema.get("description", "").split("\n\n"), section.said):
            if text:
                yield from (_plain(text), "")
    if section.values:
        yield "| key | type | default | unit | change | meaning |"
        yield "|---|---|---|---|---|---|"
    for name, found in section.values.items():
        default = _default(name, found, section.defaults, name in schema.get("required", ()))
        meaning = _plain(found.get("description", ""))
        row = (f"`{name}`", _type(found), default, unit(name), changed_by(section.key(name)), meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def _default(name: str, found: Schema, defaults: Mapping[str, Any], required: bool) -> str:
    if name in defaults:
        return _value(defaults[name])
    if required:
        return "required"
    return _value(found["default"]) if "default" in found else "empty"


def _model(found: Schema, models: Mapping[str, Schema]) -> tuple[str, Schema] | None:
    """The model that a key holds, or a list or a mapping of it, and what then follows the key in a path."""
    for kind in (found, *found.get("anyOf", ())):
        extra = kind.get("additionalProperties", {})
        named: Any = next(iter(kind.get("patternProperties", {}).values()), extra)
        for suffix, ref in (("", kind), ("[]", kind.get("items", {})), (".NAME", named)):
            if isinstance(ref, dict) and "$ref" in ref:
                return suffix, models[ref["$ref"].rpartition("/")[2]]
    return None


def _type(found: Schema) -> str:
    if "anyOf" in found:
        return ", or ".join("null" if kind.get("type") == "null" else _type(kind) for kind in found["anyOf"])
    if "enum" in found or "const" in found:
        return ", ".join(f"`{value}`" for value in found.get("enum", (found.get("const"),)))
    if found.get("type") == "array":
        items = found.get("prefixItems")
        if items is not None:
            return f"list of {len(items)}: {_type(items[0])}"
        return f"list of: {_type(found['items'])}"
    names = {"number": "number", "integer": "whole number", "boolean": "true, false", "string": "text"}
    return names.get(found.get("type", ""), "mapping") + _bounds(found)


def _bounds(found: Schema) -> str:
    low, above = found.get("minimum"), found.get("exclusiveMinimum")
    high, below = found.get("maximum"), found.get("exclusiveMaximum")
    parts = [
        *([f"from {low:,}"] if low is not None else []),
        *([f"above {above:,}"] if above is not None else []),
        *([f"to {high:,}"] if high is not None else []),
        *([f"below {below:,}"] if below is not None else []),
    ]
    return " " + " ".join(parts) if parts else ""


def _value(value: Any) -> str:
    return f"`{json.dumps(value)}`"


def _plain(text: str) -> str:
    """A docstring as Markdown in one line, without references to the code."""
    said = re.sub(r" \(:\w+:`[^`]*`\)", "", " ".join(text.split()))
    return re.sub(r":\w+:`([^`]+)`", r"`\1`", said.replace("``", "`"))

"""Every key of a configuration in words, from the models themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
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


def markdown() -> str:
    """A section for each part of the file, for the options of each service and of each policy, as tables of
    key, type, default, unit, what takes a change, and meaning."""
    schema = Config.model_json_schema()
    lines = [*_sections("", schema, schema["$defs"], change)]
    for name in allocators.names():
        lines += _service(name)
    lines += ["## Options of policies", "", "In a slice's `policy_options`, or `prbandit policy NAME`:", ""]
    for name in policies.names():
        options = policies.make(name, [10, 20]).options()
        said = ", ".join(f"`{key}` ({_value(value)})" for key, value in options.items())
        lines.append(f"- `{name}`: {said or 'none'}")
    return "\n".join(lines) + "\n"


def _service(name: str) -> Iterator[str]:
    try:
        options = allocators.service(name).options
    except ValueError as error:
        yield from (f"## Options of service `{name}`", "", str(error), "")
        return
    schema = options.model_json_schema()

    def live(key: str) -> str:
        return "live, learns anew" if key.split(".")[0] in options.anew else "live"

    yield from _sections("", schema, schema.get("$defs", {}), live, f"Options of service `{name}`")


def change(key: str) -> str:
    """What takes a change of a key of the file, such as ``control.mode``, ``cells[].gpu``."""
    part = key.split(".")[0]
    if part == "emulation":
        return "restart of the testbed"
    if key in _RELOADED or (part == "cells[]" and key not in _RESTART):
        return "reload"
    return "restart"


def _sections(
    path: str,
    schema: Schema,
    models: Mapping[str, Schema],
    changed_by: Callable[[str], str],
    title: str = "",
    said: str = "",
    defaults: Any = None,
) -> Iterator[str]:
    """A table of the keys that hold values, then the sections of those that hold more. ``said`` is what the
    key of the model says, ``defaults`` what it holds where it is not given."""
    defaults = defaults if isinstance(defaults, dict) else {}
    keys = {name: found for name, found in schema["properties"].items() if name != "options"}
    inner = {name: of for name, found in keys.items() if (of := _model(found, models)) is not None}
    if path or title:
        heading = ": ".join([*([title] if title else []), *([f"`{path}`"] if path else [])])
        about = [_plain(text) for text in (*schema.get("description", "").split("\n\n"), said) if text]
        yield from (f"## {heading}", "", *(line for text in about for line in (text, "")))
    values = {name: found for name, found in keys.items() if name not in inner}
    if values:
        yield "| key | type | default | unit | change | meaning |"
        yield "|---|---|---|---|---|---|"
    for name, found in values.items():
        default = _default(name, found, defaults, name in schema.get("required", ()))
        how = changed_by(f"{path}.{name}".lstrip("."))
        meaning = _plain(found.get("description", ""))
        row = (f"`{name}`", _type(found), default, unit(name), how, meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""
    for name, (suffix, model) in inner.items():
        found = keys[name]
        yield from _sections(
            f"{path}.{name}{suffix}".lstrip("."),
            model,
            models,
            changed_by,
            title,
            found.get("description", ""),
            defaults.get(name, found.get("default")),
        )


def _default(name: str, found: Schema, defaults: Mapping[str, Any], required: bool) -> str:
    if name in defaults:
        return _value(defaults[name])
    if required:
        return "required"
    return _value(found["default"]) if "default" in found else "empty"


def _model(found: Schema, models: Mapping[str, Schema]) -> tuple[str, Schema] | None:
    """The model that a key holds, or a list or a mapping of it, and what then follows the key in a path."""
    for kind in (found, *found.get("anyOf", ())):
        named: Mapping[str, Any] = next(iter(kind.get("patternProperties", {}).values()), {})
        for suffix, ref in (("", kind), ("[]", kind.get("items", {})), (".NAME", named)):
            if "$ref" in ref:
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
    """A docstring as Markdown in one line: without the roles of a cross-reference."""
    return re.sub(r":\w+:`([^`]+)`", r"`\1`", " ".join(text.replace("``", "`").split()))

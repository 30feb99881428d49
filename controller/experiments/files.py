"""Instances of ``prbandit solve`` as files: YAML, or JSON where the name ends with ``.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from controller.config import StrictLoader


class _Loader(StrictLoader):
    """Numbers as YAML 1.2 and JSON have them: 1e-9 and 5.0e6 are numbers, not text."""


_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, [*"-+.0123456789"])


def read(path: Path) -> dict[str, Any]:
    """The mapping in a file. ValueError, naming the file and the line where there is one, for none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    try:
        data = _json(text) if path.suffix == ".json" else _yaml(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: {error.msg}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ValueError(f"{where}: {getattr(error, 'problem', None) or error}") from error
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None
    except ValueError as error:  # a key twice, a date that there is not, a number of 5000 digits
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: an instance is a mapping, not {type(data).__name__}")
    return data


def write(path: Path, instance: Mapping[str, Any], comment: str, *, replace: bool) -> None:
    """Writes an instance, as YAML or JSON by its name. FileExistsError for one that is there, unless
    ``replace``.

    ``comment``: the first line of a YAML file.
    """
    if path.suffix == ".json":
        text = json.dumps(instance, indent=1, allow_nan=False) + "\n"
    else:
        plain = yaml.safe_dump(dict(instance), sort_keys=False, default_flow_style=None, width=1000)
        text = f"# {comment}\n{plain}"
    with path.open("w" if replace else "x", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _yaml(text: str) -> Any:
    # With aliases a short text could be a huge value.
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_Loader)):
        raise ValueError("an alias is not taken here")
    return yaml.load(text, Loader=_Loader)


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in pairs:
        if key in data:
            raise ValueError(f"key {key!r} twice")
        data[key] = value
    return data

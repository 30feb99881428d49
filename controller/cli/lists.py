"""``scenarios``, ``policies``, ``services`` and ``arbiters``: what there is, with a word on each."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from controller.cli import emit, json_option
from wire.definitions.plugins import PluginError, Plugins, package


def sentence(text: str) -> str:
    """The first sentence of a text, on one line."""
    paragraph = " ".join(inspect.cleandoc(text).split("\n\n")[0].split()).replace("``", "")
    paragraph = re.sub(r" \(:\w+:`[^`]*`\)", "", paragraph)
    return re.split(r"(?<=[.:])\s(?=[A-Z])", paragraph)[0].rstrip(".")


def comment(path: Path) -> str:
    """The comment with which a file begins."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:end])


def docstring(module: str) -> str:
    """That of a module, which is not loaded: what it needs may not be installed."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""


def _of_service(about: str) -> str:
    """Without the name, which stands before it."""
    return re.sub(r"^The \S+ service(?: \((.*?)\))?: ", lambda m: f"{m[1]}: " if m[1] else "", about)


def _with_plugins(
    own: Mapping[str, Mapping[str, Any]], plugins: Plugins, tell: Callable[[str], Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """What there is of our own, and what ``tell`` says of each that another package brings along; of one that
    cannot be used, why."""
    found: dict[str, Mapping[str, Any]] = {name: {**one, "package": None} for name, one in own.items()}
    for name, entry in plugins.found.items():
        try:
            found[name] = {**tell(name), "package": package(entry)}
        except PluginError as error:
            found[name] = {"about": "", "package": package(entry), "error": str(error)}
    for name in plugins.refused:
        try:
            plugins.load(name)
        except PluginError as error:
            found[f"{name} (refused)"] = {"about": "", "package": None, "error": str(error)}
    return found


def _line(one: Mapping[str, Any]) -> str:
    if "error" in one:
        return f"cannot be used: {one['error']}"
    return f"{one['about']} ({one['package']})" if one.get("package") else str(one["about"])


def _show(what: str, found: Mapping[str, Mapping[str, Any]], as_json: bool) -> None:
    width = max(map(len, found))
    lines = [f"{name:{width}}  {_line(one)}" for name, one in found.items()]
    emit({what: [{"name": name, **one} for name, one in found.items()]}, as_json, "\n".join(lines))


@click.command("scenarios")
@json_option
def scenarios(as_json: bool) -> None:
    """List the scenarios that ship with PRBandit: up --config NAME and experiment NAME play them."""
    from controller import config

    found = {
        name: {"about": sentence(comment(path)), "file": str(path)}
        for name, path in sorted(config.scenarios().items())
    }
    _show("scenarios", found, as_json)


@click.command("policies")
@json_option
def policies(as_json: bool) -> None:
    """List the policies that a hop of a slice can learn by: policy of a slice, and --policy NAME."""
    from controller import policies as room

    def tell(name: str) -> dict[str, Any]:
        about, default = sentence(room.about(name)), name == room.DEFAULT
        text = f"{about}{' (default)' if default else ''}"
        return {"about": text, "default": default, "options": list(room.option_names(name))}

    brought = room.brought()
    own = {name: tell(name) for name in room.names() if name not in brought.found}
    _show("policies", _with_plugins(own, brought, tell), as_json)


@click.command("services")
@json_option
def services(as_json: bool) -> None:
    """List the services that a slice can carry: service of a slice."""
    from controller import allocators

    def tell(name: str) -> dict[str, Any]:
        module = allocators.module_of(name)
        return {"about": _of_service(sentence(docstring(module))), "module": module}

    def tell_brought(name: str) -> dict[str, Any]:
        allocators.service(name)
        return tell(name)

    brought = allocators.brought()
    own = {name: tell(name) for name in allocators.names() if name not in brought.found}
    _show("services", _with_plugins(own, brought, tell_brought), as_json)


@click.command("arbiters")
@json_option
def arbiters(as_json: bool) -> None:
    """List the arbiters, who divide a cell's PRBs among its slices: arbiter of a cell."""
    from controller import slicing

    _show("arbiters", {n: {"about": sentence(slicing.about(n))} for n in slicing.names()}, as_json)

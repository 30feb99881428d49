"""The arrows of the design: who may import whom."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("wire", "controller", "agents", "openrtist")

PURE = (
    "wire.definitions",
    "controller.core",
    "controller.policies",
    "controller.allocators",
    "controller.twins",
    "controller.slicing",
)
NO_IO = {
    "asyncio", "datetime", "google", "grpc", "http", "io", "logging", "multiprocessing", "os", "pathlib",
    "prometheus_client", "pynvml", "secrets", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl",
    "subprocess", "tempfile", "threading", "time", "urllib", "yaml", "zmq",
}  # fmt: skip
"""Modules with which a pure room could do I/O, read a clock or start a thread."""


def modules() -> dict[str, Path]:
    found = {}
    for top in OURS:
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, module: str) -> set[str]:
    """Full names of what a file imports anywhere in it, TYPE_CHECKING blocks aside."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = (
                    module.split(".")[: -node.level] if path.name != "__init__.py" else module.split(".")
                )
                base = ".".join([*package, base]).rstrip(".")
            names.update(f"{base}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return names


MODULES = modules()
IMPORTS = {name: imports(path, name) for name, path in MODULES.items()}


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


@pytest.mark.parametrize("module", sorted(m for m in MODULES if any(within(m, room) for room in PURE)))
def test_pure_rooms_do_no_io_and_know_nothing_of_the_world(module: str) -> None:
    for name in IMPORTS[module]:
        assert name.split(".")[0] not in NO_IO, f"{module} imports {name}"
        if name.split(".")[0] in OURS:
            assert any(within(name, room) for room in PURE), f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m.split(".")[0] in ("agents", "openrtist")))
def test_agents_know_the_wire_and_nothing_of_the_controller(module: str) -> None:
    for name in IMPORTS[module]:
        assert not within(name, "controller"), f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if within(m, "wire")))
def test_the_wire_knows_nobody(module: str) -> None:
    for name in IMPORTS[module]:
        assert name.split(".")[0] not in ("controller", "agents", "openrtist"), f"{module} imports {name}"
        if within(module, "wire.definitions") and within(name, "wire"):
            assert within(name, "wire.definitions"), f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if within(m, "controller")))
def test_only_the_cli_and_what_runs_scenarios_import_agents(module: str) -> None:
    allowed = within(module, "controller.cli") or module in ("controller.sim", "controller.scenario")
    for name in IMPORTS[module]:
        if name.split(".")[0] in ("agents", "openrtist"):
            assert allowed, f"{module} imports {name}"


@pytest.mark.parametrize("room", ["controller.links", "controller.store"])
def test_links_and_store_do_not_know_who_joins_them(room: str) -> None:
    for module in (m for m in MODULES if within(m, room)):
        for name in IMPORTS[module]:
            for above in ("cli", "daemon", "sim", "scenario", "cell", "commands", "journal"):
                assert not within(name, f"controller.{above}"), f"{module} imports {name}"


def test_the_controller_starts_without_the_extras() -> None:
    """Numba, matplotlib and cryptography are extras: nothing imports them when a module is loaded."""
    extras = {"numba", "matplotlib", "jinja2", "cryptography", "torch", "docker"}
    extras |= {"pyarrow", "scipy", "distributed"}
    for module, path in MODULES.items():
        if within(module, "controller") or within(module, "wire"):
            top = {
                alias.name.split(".")[0]
                if isinstance(node, ast.Import)
                else (node.module or "").split(".")[0]
                for node in ast.parse(path.read_text(encoding="utf-8")).body
                if isinstance(node, (ast.Import, ast.ImportFrom))
                for alias in node.names
            }
            assert not top & extras, f"{module} imports {top & extras} when loaded"


def test_the_stdlib_names_above_are_real() -> None:
    third_party = {"google", "grpc", "prometheus_client", "pynvml", "yaml", "zmq"}
    assert NO_IO - third_party <= set(sys.stdlib_module_names)

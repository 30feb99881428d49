"""The arrows of the design: who may import whom."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from controller import allocators
from controller.core.measure import Lever
from tests.allocators.world import measure_names

ROOT = Path(__file__).resolve().parent.parent
OURS = ("wire", "controller", "agents", "openrtist")

PURE = (
    "wire.definitions",
    "controller.core",
    "controller.policies",
    "controller.allocators",
    "controller.twins",
    "controller.slicing",
    "controller.loop",
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


ABOVE = ("cell", "cli", "commands", "daemon", "experiments", "scenario", "sim")
"""What runs a cell: the rooms of the controller that may know :mod:`controller.cell`, itself included."""


def controller(*rooms: str) -> tuple[str, ...]:
    return tuple(f"controller.{room}" for room in rooms)


@pytest.mark.parametrize(
    ("room", "others"),
    [
        ("core", ("allocators", "slicing", "policies", "twins", "loop", "links", "store", "config")),
        ("policies", ("allocators", "slicing", "twins", "loop")),
        ("twins", ("allocators", "slicing", "policies", "loop")),
        ("slicing", ("allocators", "policies", "loop")),
        ("allocators", ("slicing", "loop")),
        ("links", ("allocators", "slicing", "policies", "twins", "loop")),
        ("store", ("allocators", "slicing", "policies", "twins", "loop")),
        ("loop", ("policies", "twins", "links", "store", "config")),
    ],
)
def test_arrows_between_the_rooms(room: str, others: tuple[str, ...]) -> None:
    modules = [m for m in MODULES if within(m, f"controller.{room}")]
    assert modules
    for module in modules:
        for name in IMPORTS[module]:
            assert not any(within(name, other) for other in controller(*others)), f"{module} imports {name}"


def test_the_core_stands_on_the_definitions_alone() -> None:
    for module in (m for m in MODULES if within(m, "controller.core")):
        for name in IMPORTS[module]:
            if name.split(".")[0] in OURS:
                assert within(name, "controller.core") or within(name, "wire.definitions"), (
                    f"{module} imports {name}"
                )


@pytest.mark.parametrize("module", sorted(m for m in MODULES if within(m, "controller")))
def test_only_what_runs_a_cell_knows_it(module: str) -> None:
    if any(within(module, room) for room in controller(*ABOVE)):
        return
    for name in IMPORTS[module]:
        assert not any(within(name, room) for room in controller(*ABOVE)), f"{module} imports {name}"


# ---- services --------------------------------------------------------------------------------------------

SERVICES = tuple(allocators._SERVICES)
NAMED: dict[tuple[str, str], str] = {
    ("controller.allocators", "ar"): "the table of services",
    ("controller.allocators", "mar"): "the table of services",
    ("controller.allocators", "urllc"): "the table of services",
    ("controller.allocators", "video"): "the table of services",
    ("controller.allocators", "vr"): "the table of services",
    ("controller.config", "ar"): "what a slice without a service, and a cell without slices, always had",
    ("controller.store.record", "ar"): "version 1 of the record knew no other service",
    ("controller.cli.openrtist.client", "video"): "OpenRTiST's module of that name",
    ("controller.cli.openrtist.table_ii", "video"): "OpenRTiST's module of that name",
    ("controller.cli.openrtist.client", "ar"): "the slice of OpenRTiST's client, unless it is told another",
}
"""(module, service): why it may be named there."""
INDEXED: dict[tuple[str, str], str] = {
    ("controller.store.record", "round_trip"): "version 1 of the record had this measure alone",
}
"""(module, measure): why an outcome may be indexed by it there."""


def home(module: str, service: str) -> bool:
    """Whether a service may be named in a module: in its own package and where figures are made."""
    return any(
        within(module, room) for room in controller(f"allocators.{service}", "experiments", "scenarios")
    )


def constants(module: str) -> set[str]:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def indices(module: str) -> set[str]:
    """Strings that something is indexed by, or that are the first argument of ``measure`` and ``get``."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        key: ast.AST | None = None
        if isinstance(node, ast.Subscript):
            key = node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            key = node.args[0] if node.args and node.func.attr in ("measure", "get") else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            found.add(key.value)
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_imported_by_nobody(service: str) -> None:
    """The table loads it; the figures of its paper may know it."""
    room = f"controller.allocators.{service}"
    for module in (m for m in MODULES if within(m, "controller") and not home(m, service)):
        for name in IMPORTS[module]:
            assert not within(name, room), f"{module} imports {name}"


def test_no_service_is_named_outside_its_room() -> None:
    found = {
        (module, service)
        for module in MODULES
        if within(module, "controller")
        for service in constants(module) & set(SERVICES)
        if not home(module, service)
    }
    assert found - NAMED.keys() == set()
    assert NAMED.keys() - found == set(), "an exception that is needed no more"


def test_no_outcome_is_indexed_by_a_measure_s_name_outside_its_service_s_room() -> None:
    levers = {lever.value for lever in Lever}
    found = {
        (module, measure)
        for service in SERVICES
        for measure in measure_names(service) - levers
        for module in MODULES
        if within(module, "controller") and not home(module, service) and measure in indices(module)
    }
    assert found - INDEXED.keys() == set()
    assert INDEXED.keys() - found == set(), "an exception that is needed no more"


def test_the_controller_starts_without_the_extras() -> None:
    """Numba, matplotlib and cryptography are extras: nothing imports them when a module is loaded, but a
    service, whose package is loaded when it is asked for, what is in the extra of its name."""
    extras = {"numba", "matplotlib", "jinja2", "cryptography", "torch", "docker"}
    extras |= {"pandas", "pyarrow", "scipy", "distributed", "highspy", "cornac", "gymnasium"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = {
        f"controller.allocators.{service}": {re.split(r"[^\w-]", package)[0] for package in packages}
        for service, packages in project["optional-dependencies"].items()
        if service in SERVICES
    }
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
            allowed = {
                package for room, packages in own.items() if within(module, room) for package in packages
            }
            found = top & extras - allowed
            assert not found, f"{module} imports {found} when loaded"


def test_the_stdlib_names_above_are_real() -> None:
    third_party = {"google", "grpc", "prometheus_client", "pynvml", "yaml", "zmq"}
    assert NO_IO - third_party <= set(sys.stdlib_module_names)

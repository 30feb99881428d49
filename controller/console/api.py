"""The objects of a console: controller, cells, slices, hops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import yaml

from controller.console.chart import plot
from controller.console.history import KEPT, Decisions, History
from controller.console.table import Table, table
from controller.core.measure import Lever, worst_value
from controller.core.names import UnknownName, nearest, printable
from controller.links.follower import Connection, Follower
from controller.links.operator import CommandRefused, OperatorClient, OperatorError, operator_tls
from wire import OPERATOR_ADDRESS

_ANSWER_S = 5.0
_FRESH_S = 0.2
"""A look at the controller serves what is asked right after it: a table asks for many things."""


def attach(
    operator: str = OPERATOR_ADDRESS, keys: Path | str | None = None, *, kept: int = KEPT
) -> Controller:
    """The controller whose operator API is at ``operator``; ``keys`` is a key folder, needed beyond loopback.

    ``kept``: decisions of each cell that are kept for ``decisions``. Raises OperatorError where none answers,
    ValueError for an address or keys that cannot be used.
    """
    tls = operator_tls(Path(keys)) if keys else None

    def connect() -> OperatorClient:
        return OperatorClient(
            operator, tls, client="console", timeout_s=_ANSWER_S, setting="operator", missing="keys"
        )

    return Controller(operator, connect, kept)


@contextmanager
def _sentences() -> Iterator[None]:
    """Errors without the calls of the link below them."""
    try:
        yield
    except (OperatorError, CommandRefused) as error:
        raise error.with_traceback(None) from None


class Controller:
    """A running controller. Where it restarts it is met again; ``lost`` says why it does not answer now."""

    # Here and below: what is not there cannot be assigned to, else a misspelt command would be lost.
    __slots__ = ("_connection", "_history", "_mutex", "_seen", "operator")

    def __init__(self, operator: str, connect: Callable[[], OperatorClient], kept: int) -> None:
        self.operator = operator
        self._connection = Connection(connect)
        self._mutex = threading.Lock()
        self._seen: tuple[float, Mapping[str, Any]] = (0.0, {})
        with _sentences():
            self._connection.client()
        self._history = History(lambda: Follower(connect, latest=True), kept)

    # ---- what it says

    def state(self) -> Mapping[str, Any]:
        """All that it tells of itself and its cells (``OperatorClient.state``)."""
        with self._mutex, _sentences():
            at, state = self._seen
            if not state or time.monotonic() - at > _FRESH_S:
                state = self._connection.client().state()
                self._seen = time.monotonic(), state
            return state

    @property
    def version(self) -> str:
        return str(self.state()["version"])

    @property
    def run_dir(self) -> str:
        """The run folder, on the controller's host; "" where the run is not recorded."""
        return str(self.state()["run_dir"])

    @property
    def lost(self) -> str:
        """Why it cannot be reached; "" while it can."""
        lost = self._history.lost
        return "" if lost is None else lost.why

    @property
    def cells(self) -> Cells:
        return Cells(self)

    # ---- what it is told

    def _command(self, call: Callable[[OperatorClient], str]) -> str:
        with _sentences():
            try:
                return call(self._connection.client())
            finally:
                self._seen = 0.0, {}

    def reload(self) -> str:
        """Read the configuration file again; a bad one changes nothing."""
        return self._command(lambda c: c.reload())

    @property
    def lease(self) -> float:
        """Seconds that quotas and clock locks hold without renewal; assigning changes it from now on."""
        return float(self.state()["lease_s"])

    @lease.setter
    def lease(self, lease_s: float) -> None:
        self._command(lambda c: c.set_lease(float(lease_s)))

    def shut_down(self) -> str:
        """Release everything and end the controller; a supervisor may start it again."""
        return self._command(lambda c: c.shut_down())

    def checkpoint(self) -> str:
        """Write what has been learned to a checkpoint in the run folder."""
        return self._command(lambda c: c.checkpoint())

    def close(self) -> None:
        """End the connection; the controller goes on."""
        self._history.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"controller {self.version} at {self.operator}\n{self.cells!r}"


class _Named(Mapping[str, Any]):
    """Things by name; the KeyError of one that is not there names those that are."""

    __slots__ = ()
    _what = ""

    def _names(self) -> tuple[str, ...]:
        raise NotImplementedError

    def _make(self, name: str) -> Any:
        raise NotImplementedError

    def __getitem__(self, name: str) -> Any:
        names = self._names()
        if name not in names:
            known = ", ".join(names) or "none"
            raise UnknownName(f"no {self._what} {name!r}{nearest(name, names)}; {self._what}s: {known}")
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())


class Cells(_Named):
    """The cells of a controller by their id."""

    __slots__ = ("_controller",)
    _what = "cell"

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def _names(self) -> tuple[str, ...]:
        return tuple(cell["cell_id"] for cell in self._controller.state()["cells"])

    def _make(self, name: str) -> Cell:
        return Cell(self._controller, name)

    def __repr__(self) -> str:
        heads = ("cell", "connected", "mode", "control_slots", "PRB", "flows", "UEs", "slices")
        rows = [
            (
                c["cell_id"],
                "yes" if c["connected"] else "no",
                c["mode"],
                c["control_slots"],
                c["prb"],
                c["active_flows"],
                len(c["ues"]),
                ", ".join(c["last"]["slices"]) if c["last"] else "",
            )
            for c in self._controller.state()["cells"]
        ]
        return table(heads, rows)


class Cell:
    """One cell of a controller."""

    __slots__ = ("_controller", "name")

    def __init__(self, controller: Controller, name: str) -> None:
        self._controller, self.name = controller, name

    def state(self) -> Mapping[str, Any]:
        """All that the controller tells of the cell."""
        cells = self._controller.state()["cells"]
        found = next((cell for cell in cells if cell["cell_id"] == self.name), None)
        if found is None:
            raise UnknownName(f"the controller has no cell {self.name!r} any more")
        return dict(found)

    @property
    def last(self) -> Mapping[str, Any] | None:
        """The record of the latest decision; None before there is one."""
        last: Mapping[str, Any] | None = self.state()["last"]
        return last

    @property
    def connected(self) -> bool:
        return bool(self.state()["connected"])

    @property
    def mode(self) -> str:
        """``active``, ``shadow``, ``frozen`` or ``released``; assigning changes it at once."""
        return str(self.state()["mode"])

    @mode.setter
    def mode(self, mode: str) -> None:
        self._controller._command(lambda c: c.set_mode(self.name, mode))

    @property
    def slices(self) -> Slices:
        return Slices(self)

    @property
    def ues(self) -> Table:
        """The UEs of the last MAC report, a row each; ``ues["cqi"]`` is a column."""
        return Table([_flat(ue) for ue in self.state()["ues"]])

    @property
    def decisions(self) -> Decisions:
        """Those of its slice, where it has one."""
        names = tuple(self.slices)
        if len(names) != 1:
            which = ", ".join(f"cell.slices[{name!r}].decisions" for name in names)
            raise ValueError(f"cell {self.name} has {len(names)} slices: {which or 'none yet'}")
        return self.slices[names[0]].decisions

    def plot(self, file: Path | str | None = None) -> Any:
        """Draw the decisions of all its slices (:meth:`Slice.plot`)."""
        return plot({name: s.decisions for name, s in self.slices.items()}, f"cell {self.name}", file)

    def __repr__(self) -> str:
        state = self.state()
        connected = "connected" if state["connected"] else "not connected"
        return (
            f"cell {self.name}: {connected}, mode {state['mode']}, control slot {state['control_slots']}\n"
            + repr(self.slices)
        )


def _flat(ue: Mapping[str, Any]) -> dict[str, Any]:
    """A UE of the state as one row: ``ul`` and ``dl`` become columns of their own, lists are left out."""
    row: dict[str, Any] = {}
    for key, value in ue.items():
        if isinstance(value, Mapping):
            row |= {f"{key}_{name}": inner for name, inner in value.items()}
        elif not isinstance(value, list):
            row[key] = value
    return row


class Slices(_Named):
    """The slices of a cell by their id."""

    __slots__ = ("_cell",)
    _what = "slice"

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def _names(self) -> tuple[str, ...]:
        return tuple(s["slice"] for s in self._cell.state()["slices"])

    def _make(self, name: str) -> Slice:
        return Slice(self._cell, name)

    def __repr__(self) -> str:
        return "\n".join(repr(s) for s in self.values()) or "no slice: no gNB has told of its carrier yet"


class Slice:
    """One slice of a cell. ``ul``, ``edge`` and ``dl`` are its hops."""

    __slots__ = ("_cell", "_command", "name")

    def __init__(self, cell: Cell, name: str) -> None:
        self._cell, self.name = cell, name
        self._command = cell._controller._command

    @property
    def last(self) -> Mapping[str, Any]:
        """Its part of the latest decision record."""
        last = self._cell.last
        if last is None or self.name not in last["slices"]:
            raise UnknownName(f"cell {self._cell.name} has no slice {self.name!r} in its latest decision")
        return dict(last["slices"][self.name])

    def _status(self) -> Mapping[str, Any]:
        for status in self._cell.state()["slices"]:
            if status["slice"] == self.name:
                return dict(status)
        raise UnknownName(f"cell {self._cell.name} has no slice {self.name!r} any more")

    @property
    def service(self) -> str:
        return str(self._status()["service"])

    @property
    def explored(self) -> float | None:
        """The part of its choices so far that explored, 0..1; None before there is one."""
        explored: float | None = self._status()["explored"]
        return explored

    def _hop(self, lever: Lever) -> Hop:
        return Hop(self, lever.value)

    @property
    def ul(self) -> Hop:
        return self._hop(Lever.UL)

    @property
    def edge(self) -> Hop:
        return self._hop(Lever.EDGE)

    @property
    def dl(self) -> Hop:
        return self._hop(Lever.DL)

    @property
    def policy(self) -> str:
        """What plays, of several with commas between; assigning plays another from the next control slot
        on."""
        return ", ".join(dict.fromkeys(c["method"] for c in self.last["choices"]))

    @policy.setter
    def policy(self, policy: str) -> None:
        self._command(lambda c: c.switch_policy(self._cell.name, self.name, policy))

    @property
    def budgets(self) -> tuple[float | None, float | None, float | None]:
        """Of uplink, edge and downlink, ms, by which the last control slot was judged; None where it was not.
        Assigning three counts from the next control slot on."""
        return self.ul.budget, self.edge.budget, self.dl.budget

    @budgets.setter
    def budgets(self, budgets: tuple[float, float, float]) -> None:
        ul, edge, dl = map(float, budgets)
        self._command(lambda c: c.set_budgets(self._cell.name, self.name, ul, edge, dl))

    @property
    def options(self) -> Options:
        """``options["metric"]`` reads an option, ``options["metric"] = "p90"`` sets it."""
        return Options(self)

    def quota(self, *, ul: int | None = None, dl: int | None = None, for_s: float) -> str:
        """Hold it at so many PRBs for ``for_s`` seconds; a direction that is not given stays the policy's."""
        return self._command(lambda c: c.set_quota(self._cell.name, self.name, ul, dl, for_s))

    def clear_quota(self) -> str:
        """End a quota set by hand before its time."""
        return self._command(lambda c: c.clear_quota(self._cell.name, self.name))

    @property
    def decisions(self) -> Decisions:
        """Its decisions since the console was attached, as arrays."""
        rows = self._cell._controller._history.rows(self._cell.name, self.name)
        return Decisions(f"cell {self._cell.name}, slice {self.name}", rows)

    def plot(self, file: Path | str | None = None) -> Any:
        """Draw its decisions: actions, and what came of them beside its budget.

        Writes ``file`` (.png, .svg, .pdf; by default a new PNG in the folder for temporary files), shows it
        where there is a display, and returns its path; without matplotlib a drawing of characters.
        """
        return plot({self.name: self.decisions}, f"cell {self._cell.name}", file)

    def __repr__(self) -> str:
        head = f"slice {printable(self.name)}, service {printable(self.service)}"
        if self._cell.last is None:
            return f"{head}: no decision yet"
        s = self.last
        measures = dict(s["closed"]["measures"])
        heads = ("lever", "policy", "state", "action", "unit", "why", "came to", "budget")
        rows = [
            (
                c["lever"],
                c["method"],
                c["state"],
                c["action"],
                c["unit"],
                c["why"],
                *_of(measures.pop(c["lever"], None)),
            )
            for c in s["choices"]
            if not c.get("user")
        ]
        rows += [(name, "", None, None, of["unit"], "", *_of(of)) for name, of in measures.items()]
        return f"{head}\n{table(heads, rows)}"


class Options(MutableMapping[str, Any]):
    """The options of a slice: the configuration's, with what operators have set since.

    ``options["metric"] = "p90"`` sets one from the next control slot on, ``update`` several, all or none.
    """

    __slots__ = ("_slice",)

    def __init__(self, of: Slice) -> None:
        self._slice = of

    def _values(self) -> Mapping[str, Any]:
        values: Mapping[str, Any] = self._slice._status()["options"]
        return values

    def __getitem__(self, name: str) -> Any:
        options = self._values()
        if name not in options:
            known = ", ".join(options)
            raise UnknownName(f"no option {name!r}{nearest(name, options)}; options: {known}")
        return options[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def update(self, changes: Mapping[str, Any] = {}, **more: Any) -> None:  # type: ignore[override]
        text = yaml.safe_dump({**changes, **more}, sort_keys=False, allow_unicode=True)
        of = self._slice
        of._command(lambda c: c.set_options(of._cell.name, of.name, text))

    def __delitem__(self, name: str) -> None:
        raise TypeError("an option is set to another value, not deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def __repr__(self) -> str:
        return table(("option", "value"), list(self._values().items()))


class Hop:
    """One hop of a slice in the latest decision; what it has none of is None."""

    __slots__ = ("_slice", "name")

    def __init__(self, of: Slice, name: str) -> None:
        self._slice, self.name = of, name

    def _choice(self) -> Mapping[str, Any]:
        for choice in self._slice.last["choices"]:
            if choice["lever"] == self.name and not choice.get("user"):
                return dict(choice)
        return {}

    @property
    def policy(self) -> str | None:
        """What plays; assigning plays another from the next control slot on, the other hops go on."""
        return self._choice().get("method")

    @policy.setter
    def policy(self, policy: str) -> None:
        of = self._slice
        of._command(lambda c: c.switch_policy(of._cell.name, of.name, policy, self.name))

    @property
    def action(self) -> float | None:
        """PRB or MHz that were chosen, or that an operator has set."""
        by_hand = self._slice.last.get("manual", {}).get(self.name)
        return self._choice().get("action") if by_hand is None else by_hand

    @property
    def unit(self) -> str | None:
        return self._choice().get("unit")

    @property
    def state(self) -> float | None:
        return self._choice().get("state")

    @property
    def demand(self) -> float | None:
        return self._choice().get("demand")

    @property
    def why(self) -> str | None:
        return self._choice().get("why")

    @property
    def candidates(self) -> dict[float, float | None]:
        """Action -> the policy's index of it, None where no index decided."""
        choice = self._choice()
        actions = choice.get("actions", ())
        return dict(zip(actions, choice.get("indices") or [None] * len(actions), strict=True))

    def _measure(self) -> tuple[float | None, float | None]:
        return _of(self._slice.last["closed"]["measures"].get(self.name))

    @property
    def delay(self) -> float | None:
        """Of the control slot before, ms, the worst flow's."""
        return self._measure()[0]

    @property
    def budget(self) -> float | None:
        """What that was held against, ms."""
        return self._measure()[1]

    def __repr__(self) -> str:
        heads = ("hop", "policy", "state", "action", "unit", "why", "delay", "budget")
        values = (self.policy, self.state, self.action, self.unit, self.why, self.delay, self.budget)
        return table(heads, [(self.name, *values)])


def _of(measure: Mapping[str, Any] | None) -> tuple[float | None, float | None]:
    """The worst user's value of a measure, and its target."""
    value = None if measure is None else worst_value(measure)
    if measure is None or value is None:
        return None, None
    return value, next((target for of, target in measure["users"].values() if of == value), None)

"""The operator's commands against a cell under control, without threads and links."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from controller import config
from controller.cell import ControlledCell
from controller.commands import Commands
from controller.core.observation import GpuReading
from controller.journal import Journal
from controller.links.operator import ControllerStatus
from tests.test_cell import CARRIER, T0, Face, Memory, S, applied

CONFIG = """
control: {rescue: off, control_slot_s: 1.0, guard_ms: 0.0}
cells:
  - id: cell-1
    slices: [{id: ar, policy: mucb1, ues: [ue-1]}, {id: video, policy: mucb1, ues: [ue-2]}]
"""


class Direct(Commands):
    """Carried out on the thread that commands."""

    def _in_loop(self, call: Callable[[], str]) -> str:
        return call()


class Operated:
    def __init__(self) -> None:
        self.memory = Memory()
        journal = Journal(store=self.memory, time_ns=lambda: T0)
        self.config = config.parse(CONFIG)
        self.cell = ControlledCell("cell-1", self.config, journal, Face())
        self.cell.joined(1, CARRIER, T0)
        self.commands = Direct(
            self.config,
            {"cell-1": self.cell},
            journal,
            state=lambda: ControllerStatus("", "", 1.0),
            end_slot=lambda _: None,
            taken_over=lambda _: None,
        )
        self._slot = 0
        self.memory.events.clear()

    def slot(self, n: int = 1) -> None:
        """Control slots that close."""
        for _ in range(n):
            closed = T0 + self._slot * S
            self.cell.close(closed, GpuReading(1600), closed / 1e9)
            applied(self.cell, self._slot, first=True)
            self._slot += 1

    def options(self, name: str = "ar") -> dict[str, Any]:
        """Those of a slice that count now."""
        options: dict[str, Any] = self.state()["slices"][name]["set"]
        return options

    def state(self) -> dict[str, Any]:
        assert self.cell.loop is not None
        return self.cell.loop.to_state()


@pytest.fixture
def operated() -> Operated:
    operated = Operated()
    operated.slot(3)
    return operated


def test_options_count_from_the_next_control_slot_on(operated: Operated) -> None:
    told = operated.commands.set_options("cell-1", "ar", "metric: p90\nqueue: false")
    assert told == 'options metric="p90", queue=false from the next control slot on'
    assert operated.options()["metric"] == "mean"
    operated.slot()
    assert (operated.options()["metric"], operated.options()["queue"]) == ("p90", False)
    assert (operated.options("video")["metric"], operated.options("video")["queue"]) == ("mean", True)
    assert operated.memory.events == ["set_options"]
    operated.commands.set_options("", "", "{metric: p95}")
    operated.slot()
    assert operated.options()["metric"] == operated.options("video")["metric"] == "p95"


def test_an_option_of_what_is_learned_starts_learning_anew(operated: Operated) -> None:
    before = operated.state()["slices"]
    operated.commands.set_options("", "ar", "metric: p90")
    operated.slot()
    actions = {"ul_prb": [20, 40], "dl_prb": [20, 40], "gpu_mhz": [500, 1600]}
    operated.commands.set_options("", "ar", f"actions: {actions}")
    operated.slot()
    after = operated.state()["slices"]
    assert operated.options()["actions"] == actions and operated.options()["metric"] == "p90"
    for hop, limit in (("ul", [20, 40]), ("dl", [20, 40]), ("edge", [500, 1600])):
        assert before["ar"]["allocator"]["hops"][hop][0][1]["actions"] != limit
        assert all(p["actions"] == limit for _, p in after["ar"]["allocator"]["hops"][hop])
    assert operated.cell.decision is not None
    assert set(operated.cell.decision.quotas["ar"]) <= {20, 40}
    assert after["video"]["set"] == before["video"]["set"]


def test_commands_of_one_control_slot_have_to_fit_each_other(operated: Operated) -> None:
    operated.commands.switch_policy("", "ar", "static")
    with pytest.raises(ValueError, match="policy static has no option 'tradeoff'"):
        operated.commands.set_options("", "ar", "policy_options: {tradeoff: 2.0}")
    operated.commands.set_options("", "video", "policy_options: {tradeoff: 2.0}")
    operated.commands.set_budgets("", "", 60.0, 30.0, 60.0)
    operated.slot()
    assert operated.options()["policy"] == "static" and operated.options()["policy_options"] == {}
    assert operated.options("video")["policy_options"] == {"tradeoff": 2.0}
    assert operated.options("video")["budgets"] == {"ul_ms": 60.0, "edge_ms": 30.0, "dl_ms": 60.0}
    assert operated.memory.events == ["set_policy", "set_options", "set_budgets"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nosuch: 1", "cell cell-1, slice ar: nosuch: unknown key"),
        ("{queue: false, nosuch: 1}", "nosuch: unknown key"),
        ("queue: maybe", r"queue: .*boolean.* \(is 'maybe'\)"),
        ("metric: p9000", r"metric: .*\(is 'p9000'\)"),
        ("policy: nosuch", "slice ar: policy: unknown policy 'nosuch'"),
        ("budgets: {ul_ms: -1.0}", r"budgets\.ul_ms: .*\(is -1\.0\)"),
        ("actions: {ul_prb: [10, 200]}", "ul_prb 200 is above 106, all that there is"),
        ("policy_options: {tradeoff: many}", "tradeoff"),
        ("metric", "options: a mapping option -> value is needed, this is str"),
        ("[metric, p90]", "this is list"),
        ("", "this is NoneType"),
        ("{}", "options: none given"),
        ("metric: mean\nmetric: p90", "options: key 'metric' twice"),
        ("{metric: p90", "options: expected"),
        ("1: 2", "options: 1 is not the name of an option"),
        ("policy_options: {1: 2}", "policy_options: key 1 is not a word"),
        ("policy_options: {tradeoff: .inf}", r"policy_options\.tradeoff: inf is neither"),
        ("policy_options: [2026-01-01]", r"policy_options\.0: datetime"),
        ("policy_options: 2026-13-01", r"options: month must be in 1\.\.12"),
        ("policy_options: [&a [1, 2], *a]", "options: a YAML alias is not taken here"),
        ("queue: " + "[" * 2000 + "]" * 2000, "options: nested too deeply"),
        ("queue: !!python/object/apply:os.getpid []", "options: could not determine a constructor"),
        ("queue: \0", "options: "),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_name_and_change_nothing(
    operated: Operated, text: str, message: str
) -> None:
    before = operated.state()
    with pytest.raises(ValueError, match=message):
        operated.commands.set_options("", "", text)
    assert operated.state() == before
    assert not operated.cell.commands and not operated.memory.events


def test_an_unknown_cell_or_slice_is_refused_by_name(operated: Operated) -> None:
    with pytest.raises(ValueError, match="unknown cell 'cell-2'; cells: cell-1"):
        operated.commands.set_options("cell-2", "", "metric: p90")
    with pytest.raises(ValueError, match="has no slice 'nosuch'; slices: ar, video"):
        operated.commands.set_options("", "nosuch", "metric: p90")
    assert not operated.cell.commands


def test_what_is_set_goes_into_the_record_as_json(operated: Operated) -> None:
    operated.commands.set_options("", "ar", "{metric: p90, budgets: {ul_ms: 60}}")
    closed = T0 + 3 * S
    observation, _ = operated.cell.close(closed, GpuReading(1600), closed / 1e9)
    kind, value, name = observation.to_dict()["commands"][0]
    assert (kind, value, name) == ("options", {"metric": "p90", "budgets": {"ul_ms": 60}}, "ar")

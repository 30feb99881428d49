"""The operator's commands against a cell under control, without threads and links."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import yaml

from controller import commands as commands_module
from controller import config, reference
from controller.cell import ControlledCell
from controller.commands import MAX_IN_A_ROW, MAX_WAITING, Commands
from controller.core.decision import Decision
from controller.core.observation import Command, GpuReading
from controller.journal import Journal
from controller.links.operator import ControllerStatus
from controller.loop import ControlLoop
from controller.store import checkpoint
from tests import builders
from tests.e2e.harness import until
from tests.test_cell import CARRIER, NARROW, T0, Face, Memory, S, applied
from wire import keys
from wire.security import CurveServer

CONFIG = """
control: {rescue: off, control_slot_s: 1.0, guard_ms: 0.0}
cells:
  - id: cell-1
    slices:
      - {id: ar, policy: mucb1, ues: [ue-1], actions: &actions {ul_prb: [10, 55, 100], dl_prb: [10, 55, 100]}}
      - {id: video, policy: mucb1, ues: [ue-2], actions: *actions}
"""


T = TypeVar("T")


class Direct(Commands):
    """Carried out on the thread that commands."""

    def _in_loop(self, call: Callable[[], T]) -> T:
        return call()


class Operated:
    def __init__(self, text: str = CONFIG) -> None:
        self.memory = Memory()
        journal = Journal(store=self.memory, time_ns=lambda: T0)
        self.config = config.parse(text)
        self.ended: list[str] = []
        self.reloads: list[str] = []
        self.cell = ControlledCell("cell-1", self.config, journal, Face())
        self.cell.joined(1, CARRIER, T0)
        self.commands = Direct(
            self.config,
            {"cell-1": self.cell},
            journal,
            state=lambda: ControllerStatus("", "", 1.0),
            end_slot=self.ended.append,
            taken_over=lambda _: None,
            alive=lambda: True,
            shut_down=lambda: self.ended.append("shut down"),
            reloaded=self.reloads.append,
            rekeyed=lambda _: (),
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

    @property
    def now(self) -> float:
        """Monotonic seconds since T0 of the next close."""
        return float(self._slot)

    def options(self, name: str = "ar") -> dict[str, Any]:
        """Those of a slice that count now."""
        options: dict[str, Any] = self.state()["slices"][name]["set"]
        return options

    def learned(self, name: str = "ar") -> dict[str, Any]:
        """By hop what its policies have learned."""
        hops: dict[str, Any] = self.state()["slices"][name]["allocator"]["hops"]
        return hops

    def methods(self, name: str = "ar") -> list[str]:
        assert self.cell.record is not None
        return [c["method"] for c in self.cell.record["slices"][name]["choices"]]

    def state(self) -> dict[str, Any]:
        assert self.cell.loop is not None
        return self.cell.loop.to_state()


@pytest.fixture
def operated() -> Operated:
    operated = Operated()
    operated.slot(3)
    return operated


def test_a_hop_gets_a_policy_of_its_own_and_the_others_go_on_learning(operated: Operated) -> None:
    operated.slot(3)
    operated.commands.switch_policy("", "ar", "aimd", "dl")
    with pytest.raises(ValueError, match="unknown hop 'up'; hops: ul, edge, dl"):
        operated.commands.switch_policy("", "ar", "aimd", "up")
    with pytest.raises(ValueError, match="unknown policy 'nosuch'"):
        operated.commands.switch_policy("", "ar", "nosuch", "ul")
    learned = operated.learned()
    operated.slot()
    assert operated.options()["hop_policies"] == {"dl": {"policy": "aimd", "policy_options": {}}}
    assert operated.options()["policy"] == "mucb1" and operated.methods() == ["mucb1", "mucb1", "aimd"]
    assert learned["ul"] and operated.learned()["ul"][0][0] == learned["ul"][0][0]
    # What was learned is there again after a restart; a policy for all hops is for all of them.
    assert operated.cell.loop is not None
    state = operated.cell.loop.to_state()
    loop = operated.cell.loop_for(operated.config)
    assert loop is not None and not loop.load_state(state) and loop.to_state() == state
    operated.commands.switch_policy("", "ar", "ucb1")
    operated.slot()
    assert operated.methods() == ["ucb1"] * 3 and not operated.options()["hop_policies"]


def test_a_lease_is_set_and_a_reload_keeps_it(operated: Operated) -> None:
    assert operated.commands.set_lease(7.0) == "lease 7 s"
    for wrong in (0.0, -1.0, 0.1, 1e9, float("nan")):
        with pytest.raises(ValueError, match="lease_s: Input should be"):
            operated.commands.set_lease(wrong)
    assert [e for e in operated.memory.events if e == "set_lease"] == ["set_lease"]


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


# ---- quotas by hand -------------------------------------------------------------------------------------


VALUE = {"ul": 20, "dl": 20, "for_s": 60.0}


def decided(operated: Operated) -> Decision:
    assert operated.cell.decision is not None
    return operated.cell.decision


def test_a_quota_by_hand_holds_for_its_time_and_ends_by_itself(operated: Operated) -> None:
    told = operated.commands.set_quota("cell-1", "ar", 20, 30, 3.0)
    assert told == "UL 20 PRB, DL 30 PRB for 3 s, slice ar; then its policy goes on"
    assert operated.ended == ["cell-1"]
    learned = operated.state()["slices"]["ar"]["allocator"]
    for _ in range(3):
        operated.slot()
        assert decided(operated).quotas["ar"] == (20, 30)
        assert not operated.cell.manual_over(operated.now) or operated.now >= 6.0
    assert operated.state()["slices"]["ar"]["allocator"]["hops"] == learned["hops"]
    ((name, (quota, until)),) = operated.cell.manual.items()
    assert (name, str(quota), until - T0 / 1e9) == ("ar", "UL 20 PRB, DL 30 PRB", 6.0)
    assert operated.cell.manual_over(until) and not operated.cell.manual_over(until - 0.1)
    operated.slot()
    assert decided(operated).quotas["ar"] != (20, 30) and not operated.cell.manual
    assert operated.memory.events == ["set_quota", "quota_ended"]
    reasons = [s["slices"]["ar"]["closed"]["unattributed"].get("ul") for s in operated.memory.slots[3:]]
    assert reasons == ["quota set by hand"] * 4
    operated.slot(2)
    reasons = [s["slices"]["ar"]["closed"]["unattributed"].get("ul") for s in operated.memory.slots[-2:]]
    assert reasons[0] == "quota set by hand" != reasons[1], "the slot after inherits the queues"


def test_a_direction_that_is_not_set_stays_the_policys(operated: Operated) -> None:
    before = decided(operated).quotas["ar"]
    operated.commands.set_quota("cell-1", "ar", None, 7, 60.0)
    operated.slot()
    assert decided(operated).quotas["ar"] == (before[0], 7)
    assert decided(operated).to_record()["slices"]["ar"]["manual"] == {"ul": None, "dl": 7}
    assert "manual" not in decided(operated).to_record()["slices"]["video"]


def test_a_quota_by_hand_is_ended_by_an_operator_or_a_mode_without_quotas(operated: Operated) -> None:
    operated.commands.set_quota("cell-1", "ar", 20, None, 60.0)
    operated.slot()
    operated.commands.clear_quota("cell-1", "ar")
    operated.slot()
    assert decided(operated).quotas["ar"][0] != 20 and not operated.cell.manual
    with pytest.raises(ValueError, match="slice ar: no quota is set by hand"):
        operated.commands.clear_quota("cell-1", "ar")
    operated.commands.set_quota("cell-1", "ar", 20, None, 60.0)
    operated.slot()
    operated.commands.set_mode("cell-1", "frozen")
    operated.slot()
    assert decided(operated).quotas["ar"][0] == 20
    for mode in ("released", "active"):
        operated.commands.set_mode("cell-1", mode)
        operated.slot()
        assert not operated.cell.manual and decided(operated).quotas.get("ar", (0,))[0] != 20
    assert operated.memory.events.count("quota_ended") == 2


def test_a_quota_by_hand_does_not_outlive_its_control_loop(operated: Operated) -> None:
    operated.commands.set_quota("cell-1", "ar", 20, 20, 60.0)
    operated.slot()
    anew = ControlLoop(operated.cell.loop.spec)  # type: ignore[union-attr]
    anew.load_state(operated.state())
    assert not anew.manual
    assert operated.cell.loop is not None
    again = ControlLoop(operated.cell.loop.spec)
    again.step(builders.observation(0, slices=("ar", "video")))
    again.step(builders.observation(1, slices=("ar", "video"), commands=(Command("quota", VALUE, "ar"),)))
    assert again.manual
    again.load_state(operated.state())
    assert not again.manual
    operated.cell.configure(operated.config, operated.cell.loop_for(operated.config))
    assert not operated.cell.manual and operated.memory.events[-1] == "quota_ended"
    operated.slot()
    assert decided(operated).quotas["ar"] != (20, 20)


def test_a_quota_that_waits_when_the_gnb_goes_is_not_for_when_it_comes_back(operated: Operated) -> None:
    operated.commands.set_quota("cell-1", "ar", 20, 20, 60.0)
    operated.cell.lost("silent")
    operated.cell.joined(2, CARRIER, T0)
    operated.slot()
    assert decided(operated).quotas["ar"] != (20, 20) and not operated.cell.manual


def test_the_gnb_may_go_and_come_back_under_a_quota_by_hand(operated: Operated) -> None:
    operated.commands.set_quota("cell-1", "ar", 20, 20, 5.0)
    operated.slot()
    operated.cell.lost("silent")
    with pytest.raises(ValueError, match="its gNB is not connected"):
        operated.commands.set_quota("cell-1", "ar", 30, 30, 5.0)
    operated.cell.joined(2, CARRIER, T0)
    operated.slot()
    assert decided(operated).quotas["ar"] == (20, 20)
    operated.cell.lost("silent")
    operated.cell.joined(3, NARROW, T0)
    assert not operated.cell.manual and operated.memory.events.count("quota_ended") == 1
    with pytest.raises(ValueError, match=r"not under control: .*51"):
        operated.commands.set_quota("cell-1", "ar", 30, 30, 5.0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((107, None, 60.0), "slice ar: UL 107 PRB: the carrier has 106"),
        ((None, 104, 60.0), r"DL 104 PRB: the other slices' quotas \(video \d+\) leave \d+"),
        ((0, None, 60.0), "UL 0 PRB: the gNB's smallest grant is 1, so nothing would get through"),
        ((None, -5, 60.0), "DL -5 PRB: the gNB's smallest grant"),
        ((20, 20, 0.0), "for 0 s: above 0 s, 3600 s"),
        ((20, 20, -1.0), "for -1 s: above 0 s"),
        ((20, 20, 3600.1), "3600 s .1 h. at most"),
        ((20, 20, float("nan")), "for nan s"),
        ((None, None, 60.0), "neither UL nor DL PRBs are given"),
    ],
)
def test_a_quota_by_hand_that_would_be_unsafe_is_refused(
    operated: Operated, asked: tuple[int | None, int | None, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        operated.commands.set_quota("cell-1", "ar", *asked)
    assert not operated.cell.commands and not operated.memory.events and not operated.ended


@pytest.mark.parametrize("mode", ["released", "shadow"])
def test_a_quota_by_hand_without_effect_is_refused(operated: Operated, mode: str) -> None:
    operated.commands.set_mode("", mode)
    for _ in range(2):  # the mode that is to come counts as well
        with pytest.raises(ValueError, match=f"mode is {mode}: no quota is in force"):
            operated.commands.set_quota("cell-1", "ar", 20, 20, 60.0)
        operated.slot()
    operated.commands.set_mode("", "active")
    with pytest.raises(ValueError, match="no quota is in force yet"):
        operated.commands.set_quota("cell-1", "ar", 20, 20, 60.0)


def test_quotas_by_hand_of_one_control_slot_have_to_fit_each_other(operated: Operated) -> None:
    operated.commands.set_quota("cell-1", "video", 10, 10, 60.0)
    operated.commands.set_quota("cell-1", "ar", 96, 96, 60.0)
    with pytest.raises(
        ValueError, match=r"slice video: UL 11 PRB: the other slices' quotas \(ar 96\) leave 10"
    ):
        operated.commands.set_quota("cell-1", "video", 11, None, 60.0)
    operated.slot()
    assert decided(operated).quotas == {"ar": (96, 96), "video": (10, 10)}


def test_the_share_of_a_slice_bounds_what_is_set_by_hand() -> None:
    text = CONFIG.replace("id: ar,", "id: ar, share: {max: 40},").replace(
        "id: video,", "id: video, share: {dedicated: 70, min: 70},"
    )
    operated = Operated(text)
    operated.slot(3)
    with pytest.raises(ValueError, match="UL 41 PRB: its share is 40 at most"):
        operated.commands.set_quota("cell-1", "ar", 41, None, 60.0)
    with pytest.raises(ValueError, match=r"UL 40 PRB: the other slices' quotas \(video 70\) leave 36"):
        operated.commands.set_quota("cell-1", "ar", 40, None, 60.0)


def test_what_is_set_goes_into_the_record_as_json(operated: Operated) -> None:
    operated.commands.set_options("", "ar", "{metric: p90, budgets: {ul_ms: 60}}")
    closed = T0 + 3 * S
    observation, _ = operated.cell.close(closed, GpuReading(1600), closed / 1e9)
    kind, value, name = observation.to_dict()["commands"][0]
    assert (kind, value, name) == ("options", {"metric": "p90", "budgets": {"ul_ms": 60}}, "ar")


# ---- what a reload takes ---------------------------------------------------------------------------------

CHANGED: dict[str, Any] = {
    "control.control_slot_s": 2.0,
    "control.subinterval_ms": 100,
    "control.guard_ms": 1.0,
    "control.mode": "shadow",
    "control.seed": 1,
    "control.rescue.blind_slots": 5,
    "control.rescue.missed_slots": 5,
    "control.events.min_slot_s": 0.5,
    "cells[].id": "cell-2",
    "cells[].arbiter": "greedy",
    "cells[].gpu": "GPU-1",
    "cells[].max_mhz": 1700,
    "cells[].ul_overhead": 0.1,
    "cells[].dl_overhead": 0.1,
    "cells[].tdd_guard": True,
    "cells[].slices[].id": "other",
    "cells[].slices[].service": "vr",
    "cells[].slices[].ues": ["ue-9"],
    "cells[].slices[].share.dedicated": 5,
    "cells[].slices[].share.min": 5,
    "cells[].slices[].share.max": 100,
    "links.ran.address": "tcp://127.0.0.1:5556",
    "links.ran.report_period_ms": 100,
    "links.ran.lease_s": 4.0,
    "links.edge.address": None,
    "links.edge.watch_period_ms": 100,
    "links.qos.address": None,
    "links.qos.clock_bound_us": 1.0,
    "links.qos.clock_stale_s": 1.0,
    "links.qos.clock_hosts": ["edge-1"],
    "links.qos.max_hosts": 8,
    "links.operator.address": None,
    "links.metrics.address": None,
    "links.page.address": None,
    "security.keys": "keys",
    "store.runs": "elsewhere",
    "store.retain_days": 1.0,
}
"""Of every key of the file another value than CONFIG has."""


def test_the_changes_are_of_all_keys_of_the_reference() -> None:
    assert [*CHANGED] == [key for key in reference.file_keys() if not key.startswith("emulation")]


@pytest.mark.parametrize("key", CHANGED)
def test_a_reload_takes_the_keys_of_which_the_reference_says_so(key: str, tmp_path: Path) -> None:
    operated = Operated()
    data = inner = yaml.safe_load(CONFIG)
    *place, last = key.replace("[]", ".0").split(".")
    for part in place:
        if not part.isdigit():
            inner[part] = inner.get(part) or {}
        inner = inner[int(part) if part.isdigit() else part]
    inner[last] = CHANGED[key]
    if last == "service":  # whose options the others are
        data["cells"][0]["slices"][0] = {"id": "ar", "service": CHANGED[key]}
    if key == "security.keys":
        inner[last] = str(tmp_path)
        keys.create(tmp_path, cells=["cell-1"])
    operated.commands._config_path = file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(data))
    if reference.change(key) == "reload":
        assert operated.commands.reload().startswith("reloaded; changed: ")
    else:
        with pytest.raises(ValueError, match="can change at a restart alone"):
            operated.commands.reload()


# ---- many calls at once, and slow ones -------------------------------------------------------------------


def test_commands_that_wait_are_bounded_and_a_mode_goes_before_them(operated: Operated) -> None:
    for _ in range(MAX_WAITING):
        operated.commands.set_options("", "ar", "metric: p90")
    with pytest.raises(
        ValueError, match=f"cell cell-1: {MAX_WAITING} commands wait for its next control slot"
    ):
        operated.commands.set_options("", "ar", "metric: p90")
    for _ in range(3):
        operated.commands.set_mode("", "released")
    assert [c.kind for c in operated.cell.commands] == ["options"] * MAX_WAITING + ["mode"]
    operated.slot()
    assert operated.cell.loop is not None and operated.cell.loop.mode == "released"
    operated.commands.set_options("", "ar", "metric: p95")


def test_commands_without_end_are_bounded_and_everything_can_be_released(
    operated: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(commands_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    commands, many = operated.commands, "commands in a row: now one is taken every 1 s"

    def taken(call: Callable[[int], str]) -> int:
        n = 0
        for i in range(3 * MAX_IN_A_ROW):
            with suppress(ValueError):
                call(i)
                n += 1
        return n

    def switch(i: int) -> str:
        told = commands.set_mode("", ("frozen", "active")[i % 2])
        operated.slot()
        return told

    assert taken(switch) == MAX_IN_A_ROW
    assert taken(lambda i: commands.set_lease(3 + i % 2)) == MAX_IN_A_ROW
    with pytest.raises(ValueError, match=many):
        commands.set_lease(3.0)
    with pytest.raises(ValueError, match=many):
        commands.switch_policy("", "ar", "aimd")
    operated.memory.events.clear()
    assert taken(lambda _: commands.set_mode("", "released")) == 1
    operated.slot()
    assert operated.state()["mode"] == "released" and operated.memory.events == ["set_mode"]
    assert taken(lambda _: commands.set_mode("", "released")) == 0
    now[0] += 2.0
    assert taken(lambda _: commands.set_mode("cell-1", "active")) == MAX_IN_A_ROW
    assert taken(switch) == 2


class Called:
    """Commands that a thread of their own calls, and this one answers."""

    def __init__(self, operated: Operated, run_dir: Path) -> None:
        self.commands = Commands(
            operated.config,
            {"cell-1": operated.cell},
            Journal(),
            state=lambda: ControllerStatus("", "", 1.0),
            end_slot=lambda _: None,
            taken_over=lambda _: None,
            alive=lambda: True,
            shut_down=lambda: None,
            reloaded=lambda _: None,
            rekeyed=lambda _: (),
            run_dir=run_dir,
        )
        self.pool = ThreadPoolExecutor(4)

    def wait(self, n: int) -> None:
        """Until so many calls wait."""
        until(lambda: self.commands._calls.qsize() == n, f"{n} calls")


@pytest.fixture
def called(operated: Operated, tmp_path: Path) -> Iterator[Called]:
    called = Called(operated, tmp_path)
    yield called
    called.pool.shutdown()


def test_calls_without_end_do_not_hold_up_the_control_slots(called: Called) -> None:
    commands = called.commands
    turns: list[Future[str]] = []

    def call() -> str:  # while it is carried out the next one comes
        waiting = commands._calls.qsize()
        turns.append(called.pool.submit(commands._in_loop, call if len(turns) < 20 else str))
        called.wait(waiting + 1)
        return "done"

    first = called.pool.submit(commands._in_loop, call)
    called.wait(1)
    commands.answer()
    assert first.result(10) == "done" and len(turns) == 1
    while commands._calls.qsize():
        commands.answer()
    assert all(turn.result(10) in ("done", "") for turn in turns)


def test_a_disk_that_takes_its_time_holds_up_its_checkpoint_alone(
    called: Called, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    go_on = threading.Event()
    save = checkpoint.save

    def slow(path: Path, states: Any) -> None:
        go_on.wait(10)
        save(path, states)

    monkeypatch.setattr(checkpoint, "save", slow)
    written = called.pool.submit(called.commands.checkpoint)
    called.wait(1)
    answered = called.pool.submit(called.commands.answer)
    try:
        answered.result(5)
        assert not written.done()
    finally:
        go_on.set()
    assert written.result(10) == f"checkpoint of 1 cell(s) in {tmp_path / 'checkpoint.json'}"
    assert set(checkpoint.load(tmp_path / "checkpoint.json").states) == {"cell-1"}


def test_a_call_that_was_begun_is_not_told_as_refused(
    called: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands_module, "CALL_TIMEOUT_S", 0.05)

    def slow() -> str:
        time.sleep(0.3)
        return "done"

    begun = called.pool.submit(called.commands._in_loop, slow)
    called.wait(1)
    called.commands.answer()
    assert begun.result(10) == "done"
    never = called.pool.submit(called.commands._in_loop, slow)
    with pytest.raises(ValueError, match="the control loop did not answer within"):
        never.result(10)


def test_what_comes_at_the_end_is_refused_at_once(called: Called) -> None:
    waits = called.pool.submit(called.commands.checkpoint)
    called.wait(1)
    called.commands.close()
    for call in (waits, called.pool.submit(called.commands.shut_down)):
        with pytest.raises(ValueError, match="the controller ends"):
            call.result(3)


def test_of_two_reloads_the_later_one_has_the_last_word(
    operated: Operated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(CONFIG.replace("ues: [ue-1]", "ues: [ue-1], metric: p90"))
    operated.commands._config_path = file
    read, go_on, load = threading.Event(), threading.Event(), config.load

    def slow_load(*args: Any, **options: Any) -> config.Config:
        loaded = load(*args, **options)
        if not read.is_set():
            read.set()
            go_on.wait(10)
        return loaded

    monkeypatch.setattr(config, "load", slow_load)
    with ThreadPoolExecutor(2) as pool:
        older = pool.submit(operated.commands.reload)
        read.wait(10)
        file.write_text(CONFIG.replace("ues: [ue-1]", "ues: [ue-1], metric: p95"))
        newer = pool.submit(operated.commands.reload)
        time.sleep(0.3)
        monkeypatch.setattr(commands_module, "CALL_TIMEOUT_S", 0.05)
        with pytest.raises(ValueError, match="a reload before this one has not ended within"):
            operated.commands.reload()
        go_on.set()
        assert "changed" in older.result(10) and "changed" in newer.result(10)
    assert operated.options()["metric"] == "p95"


def test_a_reload_that_fails_for_whatever_reason_is_no_good_one(
    operated: Operated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of file descriptors")

    operated.commands._config_path = tmp_path / "c.yaml"
    monkeypatch.setattr(config, "load", fails)
    with pytest.raises(RuntimeError):
        operated.commands.reload()
    assert operated.reloads == ["RuntimeError('out of file descriptors')"]


def test_what_is_written_down_of_a_call_is_one_printable_line(operated: Operated) -> None:
    operated.commands.called(
        "nosuch", "SetOptions: refused:\n a\x1b[2J\r\u2028b: unknown key" + "x" * 9999, True
    )
    text = operated.memory.texts[-1]
    assert text.startswith("SetOptions: refused: a\\x1b[2J b: unknown keyx") and len(text) == 500


def test_a_key_that_is_gone_lets_nobody_in_although_the_file_asks_for_it(tmp_path: Path) -> None:
    folder, file = tmp_path / "keys", tmp_path / "c.yaml"
    keys.create(folder, cells=["cell-1"])
    text = f"{CONFIG}security: {{keys: {folder}}}\n"
    file.write_text(text)
    operated = Operated(text)
    taken: list[list[str]] = []

    def rekeyed(curve: CurveServer) -> list[str]:
        taken.append(list(curve.clients.values()))
        return [] if curve.clients else ["cell-1"]

    operated.commands._config_path, operated.commands._rekeyed = file, rekeyed
    assert operated.commands.reload() == "reloaded; changed: nothing"
    keys.revoke(folder, "cell-1")
    with pytest.raises(ValueError, match=r"(?s)cell-1.pub is missing.*lets nobody in any more: cell-1"):
        operated.commands.reload()
    keys.create(folder, cells=["cell-1"])
    file.write_text("controll: {}")
    with pytest.raises(ValueError, match="unknown key"):
        operated.commands.reload()
    (folder / "curve" / "cells" / "cell-1.pub").write_text("garbage")
    file.write_text(text)
    with pytest.raises(ValueError, match=r"cell-1\.pub"):
        operated.commands.reload()
    assert taken == [["cell-1"], [], ["cell-1"]]


def reload(operated: Operated, text: str) -> None:
    new = config.parse(text)
    operated.cell.configure(new, operated.cell.loop_for(new))


def test_a_command_waits_through_a_reload_while_the_gnb_is_away(operated: Operated) -> None:
    operated.commands.switch_policy("", "ar", "aimd")
    operated.cell.lost("silent")
    reload(operated, CONFIG.replace("guard_ms: 0.0", "guard_ms: 1.0"))
    assert "command_dropped" not in operated.memory.events
    operated.cell.joined(2, CARRIER, T0)
    operated.slot()
    assert operated.options()["policy"] == "aimd"


def test_a_reload_after_a_command_that_waits_counts_where_it_changes_the_same(operated: Operated) -> None:
    operated.commands.set_budgets("", "ar", 71.0, 21.0, 61.0)
    operated.commands.set_options("", "ar", "metric: p90")
    operated.commands.set_mode("", "shadow")
    text = CONFIG.replace("{id: ar,", "{id: ar, budgets: {ul_ms: 90.0},").replace(
        "{rescue", "{mode: frozen, rescue"
    )
    reload(operated, text)
    operated.slot()
    assert (operated.options()["budgets"]["ul_ms"], operated.options()["metric"]) == (90.0, "p90")
    assert operated.state()["mode"] == "frozen"
    dropped = [
        t
        for e, t in zip(operated.memory.events, operated.memory.texts, strict=False)
        if e == "command_dropped"
    ]
    assert len(dropped) == 2


def test_a_command_that_is_not_on_record_says_so(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    assert operated.commands.set_mode("", "frozen") == "mode frozen"
    monkeypatch.setattr(operated.memory, "flush", lambda timeout_s: False)
    for text in (operated.commands.set_mode("", "active"), operated.commands.switch_policy("", "ar", "aimd")):
        assert "not on record yet: a restart before its control slot would not know of it" in text

"""An allocator that fails harms its own slice alone, says so, and is the same in a replay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from controller import allocators, config
from controller.allocators.base import SliceView
from controller.cell import ControlledCell
from controller.core.decision import Decision, Grant, Settings, SliceDecision
from controller.core.fits import Fit
from controller.core.measure import Lever, Reason
from controller.core.observation import AppliedSettings, Enforcement, Flow, Observation
from controller.core.spec import LoopSpec, Share, SliceSpec
from controller.journal import Journal
from controller.loop import MAX_FAILURE, ControlLoop
from tests.builders import T0, loop_spec, observation, slice_spec
from tests.failing_service import HOWS, NAME, PRB, Failing
from tests.test_cell import CARRIER, Face, Memory, close

SLOTS = 9
FIRST, LAST = 3, 5
FLOWS = (
    Flow("flow-0", "ue-1", "ar", 2.997e6, 0.992e6, T0),
    Flow("bad-1", "ue-2", "bad", 1e6, 1e6, T0),
)
BOTH = ("bad-1", "bad-2")
every_failure = pytest.mark.parametrize("how", HOWS)


@pytest.fixture(autouse=True)
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(allocators._SERVICES, NAME, "tests.failing_service")
    yield
    allocators.service.cache_clear()


def spec(how: str, *, alone: bool = False, **options: Any) -> LoopSpec:
    """A slice that learns, within 50 PRB, and one that fails; ``alone``: without that."""
    good = slice_spec("ar", ul_prb=(10, 30, 50), dl_prb=(10, 30, 50), ues=("ue-1",))
    bad = SliceSpec("bad", NAME, ("ue-2",), Share(), {"how": how, **options})
    return loop_spec(good) if alone else loop_spec(good, bad)


def observations() -> list[Observation]:
    out = []
    for slot in range(SLOTS):
        delays = (20.0, 9.0, 15.0) if slot % 3 else (120.0, 30.0, 90.0)
        out.append(
            observation(
                slot,
                delays,
                flows=FLOWS,
                enforcement={"ar": Enforcement(), "bad": Enforcement()},
                settings={"bad-1": AppliedSettings(T0)},
            )
        )
    return out


def run(loop: ControlLoop) -> list[Decision]:
    return [loop.step(o) for o in observations()]


def part(decision: Decision, name: str) -> SliceDecision:
    return next(s for s in decision.slices if s.slice == name)


@every_failure
def test_a_failure_is_in_the_record_of_its_control_slots_alone(how: str) -> None:
    where = how.split(":")[0]
    for slot, decision in enumerate(run(ControlLoop(spec(how)))):
        failed = part(decision, "bad").failed
        assert set(failed) == ({where} if FIRST <= slot <= LAST else set()), failed
        assert all(0 < len(why) <= MAX_FAILURE for why in failed.values())
        record = json.loads(json.dumps(decision.to_record(), allow_nan=False))["slices"]
        assert record["bad"].get("failed", {}) == dict(failed) and "failed" not in record["ar"]


@every_failure
def test_the_other_slice_is_not_touched(how: str) -> None:
    with_it, without = run(ControlLoop(spec(how))), run(ControlLoop(spec(how, alone=True)))
    for a, b in zip(with_it, without, strict=True):
        assert part(a, "ar") == part(b, "ar")
        assert a.quotas["ar"] == b.quotas["ar"] and a.gpu_mhz == b.gpu_mhz


@every_failure
def test_the_slice_goes_on_with_what_it_last_asked_for(how: str) -> None:
    failing, well = run(ControlLoop(spec(how))), run(ControlLoop(spec("")))
    for slot, (a, b) in enumerate(zip(failing, well, strict=True)):
        bad, good = part(a, "bad"), part(b, "bad")
        last = part(well[FIRST - 1], "bad")
        if not FIRST <= slot <= LAST:
            assert (bad.demand, bad.settings, a.jobs) == (good.demand, good.settings, b.jobs)
            continue
        match how.split(":")[0]:
            case "learn":
                assert bad.outcome.met is None and bad.outcome.busy
                assert bad.outcome.unattributed == dict.fromkeys(Lever, Reason.ALLOCATOR_FAILED)
                assert bad.demand == good.demand
            case "demand":
                assert bad.demand == last.demand and a.quotas["bad"] == (PRB, PRB)
                assert bad.settings == {"bad-1": {"upload_hz": (float(PRB),)}}
            case "settle":
                assert bad.demand == good.demand and bad.settings == {}
                assert "bad-1" not in a.settings
            case "jobs":
                assert bad.demand == good.demand and "bad" not in a.jobs


@every_failure
def test_what_was_recorded_is_decided_again_the_same(how: str) -> None:
    first = run(ControlLoop(spec(how)))
    again = ControlLoop(LoopSpec.from_dict(json.loads(json.dumps(spec(how).to_dict()))))
    for seen, decision in zip(observations(), first, strict=True):
        copy = again.step(Observation.from_dict(json.loads(json.dumps(seen.to_dict()))))
        assert copy == decision and copy.to_record() == decision.to_record()


@every_failure
def test_a_slice_that_never_asked_wants_all_and_gets_its_fair_part(how: str) -> None:
    decision = ControlLoop(spec(how, first=0)).step(observations()[0])
    assert sum(ul for ul, _ in decision.quotas.values()) <= 106
    if how.startswith("demand"):
        assert part(decision, "bad").demand.ul.prb == 106
        assert decision.quotas["ar"][0] >= 30 and decision.quotas["bad"][0] >= 53


def test_a_state_that_was_saved_while_it_failed_is_gone_on_from() -> None:
    how = "demand: raises"
    whole, first, second = (ControlLoop(spec(how)) for _ in range(3))
    seen = observations()
    for o in seen[: FIRST + 1]:
        whole.step(o)
        first.step(o)
    second.load_state(json.loads(json.dumps(first.to_state())))
    # What was asked for last is not part of the state: it asks for all until its allocator is well again.
    assert part(second.step(seen[FIRST + 1]), "bad").demand.ul.prb == 106
    after = [second.step(o) for o in seen[FIRST + 2 :]]
    assert part(after[-1], "bad").failed == {}


# ---- one cell under control ------------------------------------------------------------------------------

CONFIG = """
control: {{control_slot_s: 1.0, guard_ms: 0.0}}
cells:
  - id: cell-1
    slices:
      - {{id: ar, ues: [ue-1]}}
      - {{id: bad, service: failing, ues: [ue-2], how: '{how}'}}
"""


def controlled(how: str = "") -> tuple[ControlledCell, Memory]:
    memory = Memory()
    parsed = config.parse(CONFIG.format(how=how.replace("'", "''")))
    cell = ControlledCell("cell-1", parsed, Journal(store=memory, time_ns=lambda: T0), Face())
    cell.joined(1, CARRIER, T0)
    return cell, memory


def fits_seen(cell: ControlledCell) -> list[str]:
    assert cell.learned is not None
    seen: list[str] = cell.learned["slices"]["bad"]["allocator"]["fits"]
    return seen


@every_failure
def test_a_cell_counts_failures_and_stays_under_control(how: str) -> None:
    cell, memory = controlled(how)
    for slot in range(SLOTS):
        close(cell, slot)
        json.dumps(memory.slots[-1], allow_nan=False)
    assert cell.journal.counters.get("allocator_failed_total", "cell-1") == LAST - FIRST + 1
    assert memory.events.count("allocator_failed") == 1  # the clock stands still: repeated events are rare
    assert cell.controlled and len(memory.slots) == SLOTS


def test_a_fit_that_failed_is_counted_and_the_allocator_is_told_once() -> None:
    cell, memory = controlled()
    close(cell, 0)
    cell.fitted([Fit("bad", "job 0", "", "killed: it took longer than 1 s")])
    for slot in (1, 2, 3):
        close(cell, slot)
    assert fits_seen(cell) == ["1 job 0 killed: it took longer than 1 s"]
    assert memory.events.count("fit_failed") == 1
    assert cell.journal.counters.get("fit_failed_total", "cell-1") == 1


def test_a_fit_of_a_slice_that_is_gone_is_dropped() -> None:
    cell, memory = controlled()
    close(cell, 0)
    cell.fitted([Fit("gone", "k", "ab" * 32), Fit("gone", "k", "", "failed"), Fit("bad", "k", "cd" * 32)])
    seen, _ = close(cell, 1)
    assert [fit.slice for fit in seen.fits] == ["bad"] and "fit_failed" not in memory.events
    cell, memory = controlled()
    cell.lost("silent")
    cell.fitted([Fit("gone", "k", "ab" * 32)])
    cell.joined(2, CARRIER, T0)
    assert close(cell, 0)[0].fits == ()


def test_a_fit_for_a_slice_that_goes_before_the_close_harms_nobody() -> None:
    cell, _ = controlled()
    close(cell, 0)
    cell.fitted([Fit("bad", "k", "ab" * 32)])
    text = CONFIG.format(how="").split("      - {id: bad")[0]
    smaller = config.parse(text)
    cell.configure(smaller, cell.loop_for(smaller))
    _, decision = close(cell, 1)
    assert [s.slice for s in decision.slices] == ["ar"] and decision.slices[0].failed == {}


def test_a_fit_comes_late_and_also_after_a_control_slot_that_failed() -> None:
    cell, _ = controlled()
    for slot in range(6):
        close(cell, slot)
    cell.fitted([Fit("bad", "job 0", "ab" * 32)])
    assert isinstance(cell.face, Face)
    cell.face.fails = True
    with pytest.raises(ValueError):
        close(cell, 6)
    cell.face.fails = False
    seen, _ = close(cell, 7)
    assert seen.fits == (Fit("bad", "job 0", "ab" * 32),)
    assert fits_seen(cell) == ["6 job 0"]
    assert close(cell, 8)[0].fits == ()


def test_fits_are_the_slice_s_own() -> None:
    loop = ControlLoop(spec(""))
    fits = (Fit("bad", "k", "", "failed"), Fit("ar", "k", "ab" * 32))
    loop.step(replace(observations()[0], fits=fits))
    assert loop.to_state()["slices"]["bad"]["allocator"]["fits"] == ["0 k failed"]


def test_a_state_that_cannot_be_had_is_the_last_good_one(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = ControlLoop(loop_spec(SliceSpec(NAME, NAME), slice_spec("ar")))
    loop.step(observation(0))
    before = loop.to_state()["slices"]
    with monkeypatch.context() as broken:
        broken.setattr("tests.failing_service.Failing.to_state", lambda _self: 1 / 0)
        loop.step(observation(1))
        after = loop.to_state()["slices"]
    assert after[NAME]["allocator"] == before[NAME]["allocator"]
    assert after["ar"]["allocator"] != before["ar"]["allocator"]
    assert loop.state_failures == {NAME: "ZeroDivisionError: division by zero"}
    loop.to_state()
    assert loop.state_failures == {}


@pytest.mark.parametrize(
    ("left", "unapplied", "known"),
    [((), (), True), ((), ("bad-1",), False), (("bad-1",), ("bad-1",), True), (BOTH, BOTH, False)],
    ids=["all applied", "one has not", "who has not left", "nobody has, as all left"],
)
def test_users_who_left_make_settings_unknown_only_where_nobody_is_left_who_applied_them(
    monkeypatch: pytest.MonkeyPatch, left: tuple[str, ...], unapplied: tuple[str, ...], known: bool
) -> None:
    def settle(self: Failing, view: SliceView, grant: Grant) -> Settings:
        return {user.flow: {"upload_hz": (1.0,)} for user in view.users}

    monkeypatch.setattr(Failing, "settle", settle)
    loop = ControlLoop(spec(""))
    for slot in range(2):
        stop = dict.fromkeys(left, T0 + 1) if slot else {}
        users = [Flow(f, "ue-2", "bad", 1e6, 1e6, T0, stop_ns=stop.get(f, 0)) for f in BOTH]
        applied = {
            f: AppliedSettings(0 if f in unapplied else T0, Reason.NOT_KNOWN if f in unapplied else None)
            for f in BOTH
        }
        flows = (FLOWS[0], *users)
        enforced = {"ar": Enforcement(), "bad": Enforcement()}
        decision = loop.step(
            observation(slot, (20.0, 9.0, 15.0), flows=flows, enforcement=enforced, settings=applied)
        )
    reason = part(decision, "bad").outcome.unattributed.get(Lever.SETTINGS)
    assert reason is (None if known else Reason.SETTINGS_NOT_APPLIED)

"""PRBs that a slice reserves for its window, through the control loop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from controller import allocators, slicing
from controller.core.decision import Decision, SliceDemand, Want
from controller.core.observation import Command, Observation
from controller.core.spec import LoopSpec, Share, SliceSpec
from controller.loop import ControlLoop
from tests.builders import loop_spec, observation
from tests.reserving_service import NAME

every_arbiter = pytest.mark.parametrize("arbiter", slicing.names())
GREEDY = {"prb": 106, "gain": 1.0}
"""Of who wants all; with reservations of others every arbiter has to hold it back."""


@pytest.fixture(autouse=True)
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(allocators._SERVICES, NAME, "tests.reserving_service")
    yield
    allocators.service.cache_clear()


def spec(
    arbiter: str = "maxmin", shares: dict[str, Share] | None = None, **slices: dict[str, Any]
) -> LoopSpec:
    return loop_spec(
        *(
            SliceSpec(name, NAME, (f"ue-{name}",), (shares or {}).get(name, Share()), options)
            for name, options in slices.items()
        ),
        arbiter=arbiter,
    )


def step(loop: ControlLoop, *commands: Command) -> Decision:
    return loop.step(observation(loop.control_slot, slices=tuple(loop.slices), commands=commands))


@every_arbiter
def test_what_is_reserved_is_there_when_others_want_all(arbiter: str) -> None:
    low = {"prb": 90, "gain": 0.0}
    before = step(ControlLoop(spec(arbiter, a=low, b=GREEDY, c=GREEDY))).quotas
    reserving = {**low, "reserved": (80, 50)}
    after = step(ControlLoop(spec(arbiter, a=reserving, b=GREEDY, c=GREEDY))).quotas
    assert before["a"][0] < 50 and before["a"][1] < 50
    assert (after["a"][0] >= 80, after["a"][1] >= 50) == (True, True)
    assert [sum(q[i] for q in after.values()) for i in (0, 1)] == [106, 106]


@every_arbiter
def test_others_use_it_while_the_slice_does_not_want_it(arbiter: str) -> None:
    loop = ControlLoop(spec(arbiter, a={"prb": 80, "reserved": (70, 70), "from_slot": 2}, b=GREEDY))
    ul = [step(loop).quotas for _ in range(3)]
    assert [q["b"][0] for q in ul[:2]] == [106, 106]
    assert ul[2]["a"][0] >= 70


@every_arbiter
def test_it_takes_no_floor_from_another_slice(arbiter: str) -> None:
    quotas = step(
        ControlLoop(spec(arbiter, a={"prb": 106, "reserved": (106, 106)}, b={"prb": 90, "floor": 85}))
    ).quotas
    assert quotas == {"a": (21, 21), "b": (85, 85)}


@every_arbiter
def test_it_takes_nothing_from_a_share(arbiter: str) -> None:
    shares = {"a": Share(max=50), "b": Share(min=30), "c": Share(dedicated=20)}
    quotas = step(
        ControlLoop(spec(arbiter, shares, a={"prb": 90, "reserved": (90, 60)}, b={"prb": 40}, c={"prb": 40}))
    ).quotas
    assert quotas["a"] == (50, 50)
    assert quotas["b"][0] >= 30 and quotas["c"][0] >= 20


def test_the_record_has_it_where_there_is_some() -> None:
    record = step(ControlLoop(spec(a={"prb": 50, "reserved": (0, 7)}, b=GREEDY))).to_record()["slices"]
    assert record["a"]["demand"]["reserved"] == [0, 7]
    assert "reserved" not in record["b"]["demand"]


@every_arbiter
def test_what_was_recorded_is_decided_again_the_same(arbiter: str) -> None:
    of = spec(arbiter, a={"prb": 90, "gain": 0.0, "reserved": (80, 50), "from_slot": 2}, b=GREEDY, c=GREEDY)
    loop, copy = ControlLoop(of), ControlLoop(LoopSpec.from_dict(json.loads(json.dumps(of.to_dict()))))
    for slot in range(4):
        seen = observation(slot, slices=("a", "b", "c"))
        decision = loop.step(seen)
        replayed = copy.step(Observation.from_dict(json.loads(json.dumps(seen.to_dict()))))
        assert replayed == decision and replayed.to_record() == decision.to_record()


@every_arbiter
def test_frozen_keeps_it_over_a_restart_and_released_knows_none(arbiter: str) -> None:
    of = spec(arbiter, a={"prb": 90, "gain": 0.0, "reserved": (80, 50)}, b=GREEDY, c={"prb": 60})
    loop = ControlLoop(of)
    held = step(loop).quotas
    assert step(loop, Command("mode", "frozen")).quotas == held
    resumed = ControlLoop(of)
    resumed.load_state(json.loads(json.dumps(loop.to_state())))
    decision = step(resumed)
    assert decision.quotas == held
    assert decision.to_record()["slices"]["a"]["demand"]["reserved"] == [80, 50]
    released = step(resumed, Command("mode", "released"))
    assert released.quotas == {} and released.slices[0].demand.reserved == (0, 0)


def test_a_state_from_before_there_were_reservations_is_read() -> None:
    of = spec(a={"prb": 90}, b=GREEDY)
    loop = ControlLoop(of)
    step(loop)
    held = step(loop, Command("mode", "frozen")).quotas
    state = json.loads(json.dumps(loop.to_state()))
    for saved in state["slices"].values():
        del saved["held"]["reserved"]
    resumed = ControlLoop(of)
    resumed.load_state(state)
    assert step(resumed).quotas == held


@pytest.mark.parametrize("reserved", [(-1, 0), (0, -5)])
def test_a_negative_reservation_is_refused(reserved: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="reserved PRBs"):
        SliceDemand(Want(5), Want(5), reserved=reserved)


@pytest.mark.parametrize(
    ("reserved", "why"), [((0, 107), "reserved PRB of a carrier of 106"), ((1.5, 0), "not whole numbers")]
)
def test_a_reservation_that_cannot_be_fails_its_own_slice_alone(reserved: Any, why: str) -> None:
    decision = step(ControlLoop(spec(a={"prb": 50, "reserved": reserved}, b={"prb": 20})))
    assert why in decision.slices[0].failed["demand"]
    assert decision.slices[1].failed == {} and decision.quotas["b"] == (20, 20)

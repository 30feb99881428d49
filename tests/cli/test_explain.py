"""What ``explain`` says of decisions, live and recorded, of every policy and every service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controller import allocators, policies
from controller.cli import cli
from controller.cli.explain import _lines, _of_slice, explanation
from controller.core.decision import Decision, SliceDecision
from controller.core.measure import Reason
from controller.core.observation import Command, Enforcement, Mode
from controller.core.rescue import RescueSpec
from controller.links.operator import CellStatus
from controller.loop import ControlLoop
from controller.policies.base import UNTRIED
from controller.store.run import RunStore
from tests import builders
from tests.allocators.world import MHZ, PRB, World, play
from tests.links.test_operator import Served

CASES = [
    pytest.param(name, options, id=f"{name}-{i}")
    for name in allocators.names()
    for i, options in enumerate(allocators.service(name).unit_test_options)
]


def text(record: dict[str, Any], name: str = "ar") -> str:
    return "\n".join(_lines(_of_slice(record, name, {"of": "a test"})))


def decided(n: int, policy: str = "mucb1", **changes: Any) -> Iterator[dict[str, Any]]:
    loop = ControlLoop(builders.loop_spec(builders.slice_spec(policy=policy)))
    for slot in range(n):
        delays = (20.0, 9.0, 15.0) if slot % 4 else (95.0, 9.0, 15.0)
        yield loop.step(builders.observation(slot, delays, **changes)).to_record()


def of_service(name: str, options: dict[str, Any], slots: int) -> list[dict[str, Any]]:
    """The decision records of a slice of a service, alone in its cell."""
    world = World(allocators.service(name), options)
    records: list[dict[str, Any]] = []

    def look(view: Any, grant: Any, played: Any) -> None:
        outcome, demand, settings = played
        part = SliceDecision(name, outcome, demand, grant, settings)
        quotas = {name: (grant.ul_prb, grant.dl_prb)}
        slot = len(records) + 1
        decision = Decision(
            "cell-1", slot, slot, Mode.ACTIVE, quotas, grant.gpu_mhz or None, (part,), PRB, MHZ
        )
        records.append(decision.to_record())

    play(world, world.allocator(), slots, look)
    return records


@pytest.mark.parametrize("policy", policies.names())
def test_every_reason_of_every_policy_is_explained(policy: str) -> None:
    seen = set()
    for record in decided(60, policy):
        for lever in explanation(record, "ar")["levers"]:
            seen.add(lever["why"])
            assert lever["reason"], f"{policy} says {lever['why']!r} and nobody says what that means"
            assert [c["action"] for c in lever["candidates"]] == sorted(
                c["action"] for c in lever["candidates"]
            )
            known = [c for c in lever["candidates"] if c["index"] is not None]
            assert bool(known) is bool(lever["index"]), "an index, and what it is"
            if known:
                best = max(known, key=lambda c: c["index"])
                assert best["action"] == lever["action"], f"{policy}: not the one with the greatest index"
        said = text(record)
        assert f"by {policy}: " in said and f"[{record['slices']['ar']['choices'][0]['action']:g}" in said
    texts = policies.reasons(policy)
    assert {why for why in texts if why != UNTRIED} - seen <= {"demand not known", "drains a backlog", "idle"}
    assert bool(policies.index_text(policy)) is (policy in ("ucb1", "mucb1", "kl_ucb", "isotonic_ts"))


def test_an_action_that_was_never_tried_is_not_said_to_have_the_greatest_index() -> None:
    _, second, *_ = decided(3, "ucb1")
    ul = explanation(second, "ar")["levers"][0]
    assert (ul["why"], ul["index"]) == ("explore", "") and "never tried" in ul["reason"]
    assert "candidates, no index decided: [10] 30 50" in text(second)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_service_has_its_levers_measures_and_users(name: str, options: dict[str, Any]) -> None:
    records = of_service(name, options, 8)
    s = records[-1]["slices"][name]
    out = explanation(records[-1], name)
    json.dumps(out, allow_nan=False)
    assert out["before"] == s["closed"] and s["choices"]
    said = text(records[-1], name)
    for measure in s["closed"]["measures"]:
        assert f"\n    {measure.replace('_', ' ')} " in said
    for choice in s["choices"]:
        assert f"by {choice['method']}: {choice['why']}" in said
    for direction in ("ul", "dl"):
        asked, granted = s["demand"][direction][0], s["granted"][direction][0]
        assert out["resources"][direction]["asked"] == asked
        assert f"\n  {direction}: " in said
        assert (f"granted: {granted} PRB" in said.partition(f"\n  {direction}: ")[2]) >= (granted < asked)


def test_what_an_operator_the_rescue_and_the_arbiter_made_of_it_is_said() -> None:
    loop = ControlLoop(
        builders.loop_spec(
            builders.slice_spec("a", ues=("ue-1",)),
            builders.slice_spec("b", ues=("ue-2",), policy="static"),
        )
    )
    quota = Command("quota", {"ul": 20, "dl": None, "for_s": 60.0}, "a")
    first = loop.step(builders.observation(0, slices=("a", "b"), commands=(quota,))).to_record()
    said = text(first, "a")
    assert "set by hand: 20 PRB" in said and "granted: 20 PRB" in said, said
    assert "set by hand" not in text(first, "b")
    cut = text(first, "b")
    assert "ul: 90 PRB, by static: fixed" in cut and "granted: 86 PRB, max-min fair share" in cut, cut


def test_what_rescue_gives_is_said_with_its_reason() -> None:
    loop = ControlLoop(builders.loop_spec(rescue=RescueSpec(1, 1)))
    loop.step(builders.observation(0))
    blind = {"ar": Enforcement(Reason.NOT_ACKNOWLEDGED)}
    said = text(loop.step(builders.observation(1, enforcement=blind)).to_record())
    assert "rescue: at least 106 PRB: nothing learned: not acknowledged" in said, said
    assert "nothing was learned about ul, dl: not acknowledged" in said


def test_in_shadow_nothing_of_it_is_in_force() -> None:
    loop = ControlLoop(builders.loop_spec())
    record = loop.step(builders.observation(0, commands=(Command("mode", "shadow"),))).to_record()
    assert "nothing of it is in force: in mode shadow" in text(record)


# ---- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    served.target.cells = [CellStatus("cell-1", last=record, prb=106) for record in list(decided(5))[-1:]]
    yield served
    served.server.close(0)


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["explain", *arguments])


def test_the_running_controller_has_its_latest_decision(served: Served) -> None:
    at = ("--operator", served.address)
    (out,) = json.loads(explain("cell-1", "ar", *at, "--json").output)["decisions"]
    assert out["control_slot"] == 5 and set(out["slices"]) == {"ar"}
    assert "cell cell-1, control slot 5, mode active" in explain(*at).output
    other = explain("--slot", "2", *at)
    assert other.exit_code == 2 and "has its latest decision alone, that of control slot 5" in other.output
    assert "--run runs/1" in other.output, "where the others are"
    refusals = {
        ("cell-2",): "unknown cell 'cell-2', did you mean 'cell-1'?",
        ("cell-1", "vr"): "slices: ar",
    }
    for wrong, said in refusals.items():
        result = explain(*wrong, *at)
        assert result.exit_code == 1 and said in str(result.exception)


def test_a_run_has_each_control_slot_and_what_came_of_it(tmp_path: Path) -> None:
    loop = ControlLoop(builders.loop_spec())
    with RunStore.create(tmp_path / "run", config="config: {}\n", seed=1) as store:
        for part in (1, 2):
            start = store.record_start(part, "cell-1", loop.spec.to_dict(), loop.to_state())
            for slot in range(4):
                observation = builders.observation(slot)
                decision = loop.step(observation)
                store.record_slot(start, observation, decision.to_record(), loop.to_state())
            loop = ControlLoop(builders.loop_spec(builders.slice_spec(policy="static")))
            if part == 1:
                store.begin_part(2, "config: {a: 1}\n", seed=1)
    run = ("--run", str(tmp_path / "run"))
    (out,) = json.loads(explain(*run, "--slot", "2", "--json").output)["decisions"]
    assert (out["control_slot"], out["part"], out["also_in_parts"]) == (2, 2, [1])
    assert out["slices"]["ar"]["service"] == "ar"
    assert out["slices"]["ar"]["levers"][0]["method"] == "static"
    assert out["slices"]["ar"]["after"]["measures"]["ul"]["users"], "what came of it is in the next record"
    first = explain(*run, "--slot", "2", "--part", "1").output
    assert "by mucb1: " in first and "what came of it: promise kept" in first
    latest = explain(*run).output
    assert "control slot 4," in latest and "what came of it" not in latest
    missing = explain(*run, "--slot", "77")
    assert missing.exit_code == 1 and "control slot 77 is not in the record" in str(missing.exception)

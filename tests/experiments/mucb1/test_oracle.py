from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from controller import scenario
from controller.experiments.mucb1 import oracle
from controller.experiments.runs import Run, RunSpec, execute
from controller.store.summary import Allocation
from tests.experiments.builders import SMALL, small

FULL = {"ul": 106, "edge": 1600, "dl": 106}
ACTIONS = {"ul": (10, 30, 50, 70, 90), "edge": (500, 1000, 1600), "dl": (5, 10, 50)}


def allocation(**actions: int) -> Allocation:
    a = FULL | actions
    return Allocation(a["ul"], a["dl"], a["edge"])


def play(spec: RunSpec, loads: np.ndarray, load: int, a: Allocation) -> Run:
    """One load under an allocation, everything else at full resources."""
    return execute(spec, [a if n == load else allocation() for n in loads])


def met(run: Run, at: np.ndarray, leg: str) -> float:
    return float((run.series.q[leg][at] != 0).mean())


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    return RunSpec.make(small(tmp_path_factory.mktemp("oracle")), "mucb1", 3)


@pytest.fixture(scope="module")
def found(spec: RunSpec) -> oracle.Oracle:
    return oracle.find(spec)


def test_each_hop_s_least_action_meets_the_aim_and_the_next_smaller_does_not(
    spec: RunSpec, found: oracle.Oracle
) -> None:
    loads = np.array(scenario.loads(spec.load(), spec.seed))
    settled = oracle.settle(loads, 1.0)
    assert 20 < settled.sum() < len(loads)
    assert set(loads) == {0, 1, 2}
    for load in (1, 2):
        at = (loads == load) & settled
        full = play(spec, loads, load, allocation())
        for hop, actions in ACTIONS.items():
            runs = {a: play(spec, loads, load, allocation(**{hop: a})) for a in actions}
            aim = met(full, at, "round_trip") - oracle.TOLERANCE
            one = found.reference.least[load]
            steps = (*actions, FULL[hop])
            at_step = steps.index({"ul": one.ul_prb, "edge": one.gpu_mhz, "dl": one.dl_prb}[hop])
            if at_step < len(actions):
                assert met(runs[steps[at_step]], at, "round_trip") >= aim, (load, hop)
            if at_step > 0:
                assert met(runs[steps[at_step - 1]], at, "round_trip") < aim, (load, hop)
            cost = {a: a + 2 * actions[-1] * (1 - met(run, at, hop)) for a, run in runs.items()}
            best = found.reference.hindsight[load][hop]
            assert best.mean_cost == pytest.approx(cost[best.action])
            assert best.mean_cost <= min(cost.values()) + oracle.SLACK * actions[-1]
    a, b = found.reference.least[1], found.reference.least[2]
    assert (b.ul_prb, b.gpu_mhz, b.dl_prb) > (a.ul_prb, a.gpu_mhz, a.dl_prb)


def test_all_hops_together_meet_what_full_resources_meet(spec: RunSpec, found: oracle.Oracle) -> None:
    assert found.reference.verified
    loads = np.array(scenario.loads(spec.load(), spec.seed))
    again = execute(spec, [found.reference.actions[int(n)] for n in loads])
    assert again.figures == found.run.figures
    for load in (1, 2):
        at = loads == load
        assert met(again, at, "round_trip") >= met(found.full, at, "round_trip") - oracle.TOLERANCE
        assert found.reference.actions[load].ul_prb >= found.reference.least[load].ul_prb
        assert found.reference.actions[load].gpu_mhz >= found.reference.least[load].gpu_mhz
    assert found.run.figures["avg_ul_prb"] < 0.95 * found.full.figures["avg_ul_prb"]
    assert found.reference.actions[0] == Allocation(10, 5, 500)


def test_the_search_does_not_depend_on_the_policy(tmp_path: Path) -> None:
    text = SMALL.replace("duration_s: 60.0", "duration_s: 20.0")
    specs = [RunSpec.make(small(tmp_path, text), p, 7) for p in ("ucb1", "aimd")]
    searched = [oracle.find(one).reference.to_dict() for one in specs]
    assert searched[0] == searched[1]


def test_regret_adds_up_the_cost_above_the_best_fixed_action(spec: RunSpec, found: oracle.Oracle) -> None:
    curves = oracle.regret(found.full, found.reference)
    for hop, curve in curves.items():
        s, a_max = found.full.series, ACTIONS[hop][-1]
        assert len(curve) == len(s) == 60
        cost = s.action(hop) + 2.0 * a_max * (s.q[hop] == 0)
        reference = [found.reference.hindsight[n][hop].mean_cost for n in found.reference.loads]
        assert curve[-1] == pytest.approx((cost.sum() - sum(reference)) / a_max)
        assert curve[0] == pytest.approx((cost[0] - reference[0]) / a_max)
    # Too much of everything costs more and more.
    assert curves["ul"][-1] > curves["ul"][29] > 0


def test_without_flows_the_smallest_actions_are_enough(tmp_path: Path) -> None:
    spec = RunSpec.make(small(tmp_path), "mucb1", 1, parameters={"emulation.flows": 0})
    found = oracle.find(spec)
    assert found.reference.verified and found.reference.actions == {0: Allocation(10, 5, 500)}
    assert found.run.figures["qos_delivery_ratio"] == 1.0

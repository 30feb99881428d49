from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from controller import scenario
from controller.config import ConfigError
from controller.experiments.runs import FIGURES, RunSpec, execute
from controller.store.summary import Allocation
from tests.experiments.builders import SMALL, small


def test_a_run_is_a_row_whose_figures_are_those_of_its_control_slots(tmp_path: Path) -> None:
    run = execute(RunSpec.make(small(tmp_path), "aimd", 3))
    row, s = run.row(), run.series
    assert set(FIGURES) <= row.keys() and row["policy"] == "aimd" and row["seed"] == 3
    assert len(s) == row["control_slots"] == 60
    assert row["avg_ul_prb"] == pytest.approx(s.ul_prb.mean())
    assert row["avg_gpu_mhz"] == pytest.approx(s.gpu_mhz.mean())
    assert row["qos_delivery_ratio"] == pytest.approx(s.q["round_trip"].mean())
    busy = s.flows > 0
    assert row["qos_delivery_ratio_busy"] == pytest.approx(s.q["round_trip"][busy].mean())
    assert 0 < busy.sum() < 60


def test_a_specification_needs_no_file_once_made_and_gives_the_same_again(tmp_path: Path) -> None:
    spec = RunSpec.make(small(tmp_path), "mucb1", 1, duration_s=20)
    (tmp_path / "small.yaml").unlink()
    again = pickle.loads(pickle.dumps(spec))
    assert again.key == spec.key
    a, b = execute(spec).row(), execute(again).row()
    assert a.pop("wall_s") and b.pop("wall_s") and a == b


def test_the_key_tells_runs_apart(tmp_path: Path) -> None:
    path = small(tmp_path)
    specs = [
        RunSpec.make(path, "mucb1", 1),
        RunSpec.make(path, "ucb1", 1),
        RunSpec.make(path, "mucb1", 2),
        RunSpec.make(path, "mucb1", 1, duration_s=30),
        RunSpec.make(path, "mucb1", 1, parameters={"control.guard_ms": 100.0}),
    ]
    assert len({s.key for s in specs}) == len(specs)


def test_all_schemes_have_the_same_schedule_channel_and_traffic(tmp_path: Path) -> None:
    """Common random numbers: under one allocation the loop's policy leaves no trace in the cell."""
    path = small(tmp_path)
    plan = [Allocation(50, 10, 1000)] * 60
    q = {p: execute(RunSpec.make(path, p, 5), plan).series.q for p in ("static", "mucb1")}
    for leg in q["static"]:
        assert np.array_equal(q["static"][leg], q["mucb1"][leg])
    flows = {p: execute(RunSpec.make(path, p, 5)).series.flows for p in ("ucb1", "aimd")}
    assert np.array_equal(flows["ucb1"], flows["aimd"])
    assert not np.array_equal(flows["ucb1"], execute(RunSpec.make(path, "ucb1", 6)).series.flows)


def test_a_plan_is_what_is_in_force(tmp_path: Path) -> None:
    spec = RunSpec.make(small(tmp_path), "mucb1", 5)
    plan = [Allocation(30 + n % 2, 10, 1000 + n) for n in range(60)]
    s = execute(spec, plan).series
    assert s.ul_prb.tolist() == [a.ul_prb for a in plan]
    assert s.gpu_mhz.tolist() == [a.gpu_mhz for a in plan]


def test_a_plan_at_full_resources_is_the_static_policy_at_full(tmp_path: Path) -> None:
    spec = RunSpec.at_full(small(tmp_path), 5)
    planned, played = execute(spec, [Allocation(106, 106, 1600)] * 60), execute(spec)
    assert planned.figures == played.figures and planned.by_load == played.by_load


def test_loads_are_known_beforehand(tmp_path: Path) -> None:
    spec = RunSpec.make(small(tmp_path), "static", 5)
    known = np.array(scenario.loads(spec.load(), 5))
    judged = execute(spec).series.flows
    # A flow that is on for less than the round-trip budget in a control slot is not judged there.
    assert np.abs(known - judged).max() <= 1 and (known == judged).mean() > 0.9
    assert set(known) == {0, 1, 2}


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("cells.0.slices.0.actions.ul_prb", [10, 110], r"ul_prb 110 is above 106, all that there is"),
        ("cells.0.slices.0.actions.gpu_mhz", [500, 1700], r"gpu_mhz 1700 is above max_mhz 1600"),
        ("emulation.fows", 3, r"emulation.fows: unknown key"),
        ("cells.7.id", "x", r"cells.7.id: there is no such place"),
        ("emulation.flows", -1, r"emulation.flows"),
    ],
)
def test_what_cannot_be_run_is_refused_before_it_runs(
    tmp_path: Path, key: str, value: object, match: str
) -> None:
    with pytest.raises(ConfigError, match=match) as error:
        RunSpec.make(small(tmp_path), "mucb1", 1, parameters={key: value})
    assert "small.yaml" in str(error.value)


def test_a_run_does_not_outlive_its_scenario(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"61 s are more than the scenario's 60 s"):
        RunSpec.make(small(tmp_path), "mucb1", 1, duration_s=61)


def test_a_flow_that_would_outlive_the_scenario_ends_with_it(tmp_path: Path) -> None:
    text = SMALL.replace("mean_on_s: 20.0", "mean_on_s: 1000.0")
    assert text != SMALL
    spec = RunSpec.make(small(tmp_path, text), "static", 1)
    flows = scenario.testbed_spec(spec.load(), 1).flows
    assert any(f.active for f in flows)
    assert all(stop <= 60 for f in flows for _, stop in f.active)
    assert execute(spec).series.flows[-1] > 0


def test_no_flows_is_an_idle_scenario(tmp_path: Path) -> None:
    row = execute(RunSpec.make(small(tmp_path), "mucb1", 1, parameters={"emulation.flows": 0})).row()
    assert row["qos_delivery_ratio"] == 1.0 and row["qos_delivery_ratio_busy"] is None
    assert row["busy_control_slots"] == 0

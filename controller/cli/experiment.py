"""``experiment`` and ``replay``: the control loop on a virtual clock and on a record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from controller.cli import emit, json_option
from controller.cli.processes import SECONDS


@click.command("experiment")
@click.argument("scenario")
@click.option("--policy", help="Play this policy in every slice (static, aimd, ucb1, mucb1).")
@click.option("--seed", default=4, show_default=True, help="Seed of channel, traffic and schedule.")
@click.option(
    "--schedule", type=click.Choice(["described", "published", "always"]), help="When flows are on."
)
@click.option("--channel-trace", type=click.Path(), help="Measured channel (CQI, SNR) instead of a process.")
@click.option("--duration", type=SECONDS, help="Run only so many emulated seconds.")
@click.option("--run", "run_dir", type=click.Path(path_type=Path), help="Write a run folder.")
@json_option
def experiment(
    scenario: str,
    policy: str | None,
    seed: int,
    schedule: str | None,
    channel_trace: str | None,
    duration: float | None,
    run_dir: Path | None,
    as_json: bool,
) -> None:
    """Run SCENARIO (a shipped name or a file) on the emulated cell, in process, on a virtual clock."""
    from controller import sim
    from controller.cli.processes import load_config

    overrides: dict[str, Any] = {}
    if schedule:
        overrides["emulation.schedule"] = schedule
    if channel_trace:
        overrides["emulation.channel_trace"] = channel_trace
    config = load_config(scenario, overrides, policy)
    on_slot, finish = _recorder(run_dir, config, seed)
    try:
        result = sim.run(config, seed, on_slot=on_slot, duration_s=duration)
    finally:
        finish()
    cell = next(iter(result.summary["cells"].values()))
    name, ar = next(iter(cell["slices"].items()))
    out = {
        "scenario": scenario,
        "slice": name,
        "policy": config.cells[0].slices[0].policy,
        "seed": seed,
        **{
            k: ar[k]
            for k in (
                "qos_delivery_ratio",
                "qos_delivery_ratio_busy",
                "avg_ul_prb",
                "avg_dl_prb",
                "avg_gpu_mhz",
                "bs_power_saving",
                "ue_power_saving",
            )
        },
        "control_slots": result.control_slots,
        "simulated_s": result.simulated_s,
        "wall_s": round(result.wall_s, 3),
        "details": ar,
    }
    emit(out, as_json, experiment_text(out))


def experiment_text(out: dict[str, Any]) -> str:
    """The result as a person reads it."""
    busy = out["qos_delivery_ratio_busy"]
    return "\n".join(
        [
            f"{out['scenario']}  policy {out['policy']}  seed {out['seed']}",
            f"  QoS delivery ratio  {out['qos_delivery_ratio']:.1%}"
            + (f" (busy control slots {busy:.1%})" if busy is not None else " (no busy control slot)"),
            f"  UL, DL              {out['avg_ul_prb']:.1f}, {out['avg_dl_prb']:.1f} PRB",
            f"  GPU                 {out['avg_gpu_mhz']:.0f} MHz",
            f"  power saving        BS {out['bs_power_saving']:.1%}, UE {out['ue_power_saving']:.1%}",
            f"  {out['control_slots']} control slots, {out['simulated_s']:g} s in {out['wall_s']:.1f} s",
        ]
    )


def _recorder(run_dir: Path | None, config: Any, seed: int) -> tuple[Any, Any]:
    """Callbacks that write a run folder, or do nothing."""
    if run_dir is None:
        return None, lambda: None
    from controller.store.run import RunStore

    store = RunStore.create(run_dir, config=config.to_yaml(), seed=seed)
    starts: dict[str, int] = {}

    def on_slot(observation: Any, decision: Any, loop: Any) -> None:
        if decision.cell not in starts:
            from controller.core.loop import ControlLoop

            fresh = ControlLoop(loop.spec)
            starts[decision.cell] = store.record_start(
                decision.time_ns, decision.cell, loop.spec.to_dict(), fresh.to_state()
            )
        store.record_slot(starts[decision.cell], observation, decision.to_record(), loop.to_state())

    return on_slot, store.close


@click.command("replay")
@click.argument("run_dir", metavar="RUN", type=click.Path(exists=True, path_type=Path))
@json_option
def replay(run_dir: Path, as_json: bool) -> None:
    """Give the recorded observations of RUN to new control loops and compare every decision."""
    from controller.core.loop import ControlLoop
    from controller.core.spec import LoopSpec
    from controller.store.run import RunStore

    store = RunStore.open(run_dir)
    compared = different = incomplete = 0
    first = ""
    try:
        for start in store.starts():
            if start.lost or start.pruned:
                incomplete += 1
                continue
            loop = ControlLoop(LoopSpec.from_dict(start.spec))
            loop.load_state(start.state)
            for slot in store.slots(start.id):
                again = json.loads(json.dumps(loop.step(slot.observation).to_record()))
                compared += 1
                if again != slot.decision:
                    different += 1
                    first = first or f"cell {start.cell}, control slot {slot.decision['control_slot']}"
    finally:
        store.close()
    text = f"{compared} decisions replayed, {different} differ" + (f"; first: {first}" if first else "")
    if incomplete:
        text += f"; {incomplete} control loops left out, their record has gaps (lost or pruned control slots)"
    emit(
        {
            "compared": compared,
            "different": different,
            "first_difference": first or None,
            "incomplete_starts": incomplete,
        },
        as_json,
        text,
    )
    if different or not compared:
        raise SystemExit(1)

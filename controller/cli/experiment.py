"""``experiment`` (one scenario, or the whole Table V) and ``replay``: virtual clock, and a record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from controller.cli import emit, json_option
from controller.cli.processes import SECONDS


class _ByDefaultAScenario(click.Group):
    """What is none of the commands is the name of a scenario."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["scenario", *args]
        return super().parse_args(ctx, args)


@click.group("experiment", cls=_ByDefaultAScenario, subcommand_metavar="SCENARIO|COMMAND [ARGS]...")
def experiment() -> None:
    """Run scenarios on the emulated cell, in process, on a virtual clock.

    `prbandit experiment NAME` is `prbandit experiment scenario NAME`.
    """


@experiment.command("scenario")
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
def one_scenario(
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


class _Seeds(click.ParamType):
    """``3`` is seeds 1, 2, 3; ``4,7`` is those."""

    name = "N|A,B,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = [int(part) for part in str(value).rstrip(",").split(",")]
        except ValueError:
            self.fail(f"{value!r} is neither a number of seeds nor seeds with commas", param, ctx)
        if "," not in str(value):
            numbers = list(range(1, numbers[0] + 1))
        if not numbers or min(numbers) < 0:
            self.fail(f"{value!r}: at least one seed, none negative", param, ctx)
        if len(set(numbers)) != len(numbers):
            self.fail(f"{value!r}: a seed is there twice", param, ctx)
        return tuple(numbers)


@experiment.command("table-v")
@click.option("--seeds", type=_Seeds(), default="1", show_default=True, help="So many, or a list (4,7,).")
@click.option(
    "--schedule",
    type=click.Choice(["described", "published", "both"]),
    default="described",
    show_default=True,
    help="When flows are on: as the paper describes it, as its authors' generator did it.",
)
@click.option("--channel-trace", type=click.Path(), help="Measured channel (CQI) instead of a process.")
@click.option("--duration", type=float, help="Only so many emulated seconds of each scenario.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Worker processes.")
@click.option("--oracle/--no-oracle", default=True, show_default=True, help="Search what hindsight plays.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default="table-v", show_default=True)
@json_option
def table_v(
    seeds: tuple[int, ...],
    schedule: str,
    channel_trace: str | None,
    duration: float | None,
    jobs: int,
    oracle: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Run the MUCB1 paper's Table V: five scenarios, four schemes, beside the paper's figures.

    Writes table-v.json, table-v.parquet, table-v-slots.parquet (a row a control slot) and table-v.html.
    """
    import time

    from controller.cli.progress import progress
    from controller.experiments import page, table_v, tables
    from controller.store.files import write_atomic

    tables.require_parquet()
    page.require()
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    schedules = ("described", "published") if schedule == "both" else (schedule,)
    todo = {
        s: table_v.jobs(
            seeds, schedule=s, channel_trace=channel_trace, duration_s=duration, with_oracle=oracle
        )
        for s in schedules
    }
    done = []
    with progress("runs", sum(map(len, todo.values()))) as advance:
        for s, of in todo.items():
            table = table_v.Table(s, seeds, table_v.SCENARIOS, channel_trace)
            done.append(table_v.collect(table, of, jobs, lambda job: advance(job.spec.name)))
    results = [table_v.result(table) for table in done]
    whole = {
        "tables": results,
        "wall_s": round(time.monotonic() - started, 1),
        "simulated_s": sum(run.simulated_s for table in done for run in table.runs.values()),
        "files": {k: str(out / f"table-v{k}") for k in (".json", ".parquet", "-slots.parquet", ".html")},
    }
    tables.write_parquet(out / "table-v.parquet", table_v.run_rows(done))
    tables.write_parquet(out / "table-v-slots.parquet", table_v.slot_rows(done))
    write_atomic(out / "table-v.json", (json.dumps(whole, indent=1) + "\n").encode())
    write_atomic(out / "table-v.html", page.build(done, results).encode())
    text = "\n\n".join(table_v.text(r) for r in results)
    emit(whole, as_json, f"{text}\n\n{out / 'table-v.html'}  ({whole['wall_s']:.0f} s)")


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

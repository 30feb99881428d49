"""``experiment``: one scenario, or the whole Table V, on the virtual clock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from controller.cli import emit, json_option
from controller.cli.options import SECONDS, SEED, SEEDS, qos_target_option, warm_start_option
from controller.cli.study import study


class _ByDefaultAScenario(click.Group):
    """What is none of the commands is the name of a scenario."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["scenario", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        scenario = self.commands["scenario"]
        own = click.Context(scenario, parent=ctx)
        options = [p for p in scenario.params if isinstance(p, click.Option)]
        with formatter.section("Options of a SCENARIO"):
            formatter.write_dl([r for p in options if (r := p.get_help_record(own)) is not None])


@click.group("experiment", cls=_ByDefaultAScenario, subcommand_metavar="SCENARIO|COMMAND [ARGS]...")
def experiment() -> None:
    """Run scenarios on the emulated cell, in process, on a virtual clock.

    `prbandit experiment NAME` is `prbandit experiment scenario NAME`; `prbandit scenarios` lists the names,
    `prbandit policies` what --policy takes.
    """


experiment.add_command(study)

_trace_option = click.option(
    "--channel-trace",
    metavar="FILE|DIR",
    type=click.Path(exists=True, resolve_path=True),
    help="Measured channel (CQI) instead of a process; each seed begins elsewhere in it.",
)


@experiment.command("scenario")
@click.argument("scenario")
@click.option("--policy", help="Play this policy in every slice; an unknown name lists them.")
@qos_target_option
@click.option("--seed", type=SEED, default=4, show_default=True, help="Of channel, traffic and schedule.")
@click.option(
    "--schedule", type=click.Choice(["described", "published", "always"]), help="When flows are on."
)
@_trace_option
@click.option("--duration", type=SECONDS, help="Run only so many emulated seconds.")
@click.option("--run", "run_dir", type=click.Path(path_type=Path), help="Write a run folder.")
@warm_start_option
@click.option(
    "--oracle",
    is_flag=True,
    help="Search what hindsight would have played, for the report (ten to forty more runs).",
)
@json_option
def one_scenario(
    scenario: str,
    policy: str | None,
    qos_target: float | None,
    seed: int,
    schedule: str | None,
    channel_trace: str | None,
    duration: float | None,
    run_dir: Path | None,
    warm_start: str | None,
    oracle: bool,
    as_json: bool,
) -> None:
    """Run SCENARIO (a shipped name or a file) on the emulated cell, in process, on a virtual clock.

    With --run and --oracle the run folder gets report.html and summary.json, too.
    """
    from controller import config as config_module
    from controller import sim
    from controller.cli.processes import load_config
    from controller.experiments import runs
    from controller.experiments.mucb1 import oracle as oracle_module
    from controller.store import prior as prior_module
    from controller.store.models import ModelStore
    from controller.store.summary import ClosedSlot, Summary

    overrides: dict[str, Any] = {}
    if schedule:
        overrides["emulation.schedule"] = schedule
    if channel_trace:
        overrides["emulation.channel_trace"] = channel_trace
    config = load_config(scenario, overrides, policy, qos_target)
    runs.check(config_module.find(scenario), config, seed, duration)
    if oracle:
        oracle_module.check(config)
        if config.cells[0].ends_early(config.control):
            from controller.store.oracle import UNEQUAL

            raise click.UsageError(f"--oracle: {UNEQUAL}; or set control.events: off in the scenario")
        if run_dir is not None:
            from controller.store import figures

            figures.require()
    closed: list[ClosedSlot] = []
    own = Summary()

    def seen(_observation: Any, decision: Any, _loop: Any) -> None:
        if (slot := own.add(decision.to_record())) is not None:
            closed.append(slot)

    models = ModelStore(run_dir / "models" if run_dir else None)
    prior = prior_module.load(warm_start) if warm_start else None
    with _recorded(run_dir, config, seed) as store:
        result = sim.run(
            config,
            seed,
            on_slot=seen if oracle else None,
            duration_s=duration,
            store=store,
            models=models,
            prior=prior,
        )
    about = {
        "scenario": scenario,
        "seed": seed,
        "control_slots": result.control_slots,
        "simulated_s": result.simulated_s,
        "wall_s": round(result.wall_s, 3),
        "channel": [use.to_dict() for use in result.channel],
    }
    slices = [
        {
            "cell": cell.id,
            "slice": s.id,
            "policy": summary["policy"],
            "policies": summary["policies"],
            **{name: summary[name] for name in runs.FIGURES},
            "details": summary,
        }
        for cell in config.cells
        for s in cell.slices
        if (summary := result.summary["cells"][cell.id]["slices"].get(s.id)) is not None
    ]
    if len(slices) != 1:
        emit({**about, "slices": slices}, as_json, experiment_text(about, slices))
        return
    (only,) = slices
    out = {**about, **{name: value for name, value in only.items() if name != "cell"}}
    if oracle:
        from controller.cli.progress import progress
        from controller.store import oracle as kept

        spec = runs.RunSpec(scenario, out["policy"], seed, config.to_yaml(), duration_s=duration)
        with progress("oracle", None) as advance:
            found = oracle_module.find(spec, lambda runs: advance(f"{runs} runs searched")).reference
        if run_dir is not None:
            from controller import misses
            from controller.store import report

            kept.write(run_dir, found, seed)
            page, _ = report.build(run_dir, read_misses=misses.read)
            out["report"] = str(page)
        columns = runs.series(closed, only["slice"])
        actions = {hop: columns.action(hop) for hop in kept.HOP_NAMES}
        out["oracle"] = found.judge(only["details"], actions, columns.q)
    emit(out, as_json, experiment_text(out, slices, out.get("oracle")))


@experiment.command("table-v")
@click.option("--seeds", type=SEEDS, default="1", show_default=True, help="So many, or a list (4,7,).")
@click.option(
    "--schedule",
    type=click.Choice(["described", "published", "both"]),
    default="described",
    show_default=True,
    help="When flows are on: as the paper describes it, as its authors' generator did it.",
)
@click.option(
    "--rules",
    type=click.Choice(["paper", "authors", "recorded", "all"]),
    default="paper",
    show_default=True,
    help="What is in the state and judged: by the paper's text, its authors' code, the same with hiccups as "
    "rare as in their records.",
)
@_trace_option
@click.option("--duration", type=SECONDS, help="Only so many emulated seconds of each scenario.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Worker processes.")
@click.option("--oracle/--no-oracle", default=True, show_default=True, help="Search what hindsight plays.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default="table-v", show_default=True)
@click.option("--fresh", is_flag=True, help="Forget the runs that are already there.")
@json_option
def table_v(
    seeds: tuple[int, ...],
    schedule: str,
    rules: str,
    channel_trace: str | None,
    duration: float | None,
    jobs: int,
    oracle: bool,
    out: Path,
    fresh: bool,
    as_json: bool,
) -> None:
    """Run the MUCB1 paper's Table V: five scenarios, four schemes, beside the paper's figures.

    Writes table-v.json, table-v.parquet, table-v-slots.parquet (a row a control slot) and table-v.html. Every
    finished run is kept beside them (table-v.jsonl): the same command again does what is missing, and so does
    one with more seeds.
    """
    import time

    from controller.cli.progress import carry_out
    from controller.experiments import tables
    from controller.experiments.mucb1 import page, table_v
    from controller.experiments.results import Results
    from controller.store import parquet
    from controller.store.files import write_atomic

    parquet.require()
    page.require()
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    schedules = ("described", "published") if schedule == "both" else (schedule,)
    todo = {
        (r, s): table_v.jobs(
            seeds, schedule=s, rules=r, channel_trace=channel_trace, duration_s=duration, with_oracle=oracle
        )
        for r in (tuple(table_v.RULES) if rules == "all" else (rules,))
        for s in schedules
    }
    wanted_runs = [job for of in todo.values() for job in of]
    with Results(out / "table-v.jsonl", fresh=fresh) as kept:
        kept_before = carry_out(wanted_runs, kept, lambda: table_v.collect(wanted_runs, kept, jobs))
        done = [
            table_v.fill(table_v.Table(s, seeds, table_v.SCENARIOS, channel_trace, duration, r), of, kept)
            for (r, s), of in todo.items()
        ]
        results = [table_v.result(table) for table in done]
        whole = {
            "tables": results,
            "runs": len(wanted_runs),
            "already_there": kept_before,
            "wall_s": round(time.monotonic() - started, 1),
            "simulated_s": sum(run.simulated_s for table in done for run in table.runs.values()),
            "files": {k: str(out / f"table-v{k}") for k in (".json", ".parquet", "-slots.parquet", ".html")},
        }
        tables.write_parquet(out / "table-v.parquet", table_v.run_rows(done))
        tables.write_parquet(out / "table-v-slots.parquet", table_v.slot_rows(done))
        write_atomic(out / "table-v.json", (json.dumps(whole, indent=1) + "\n").encode())
        write_atomic(out / "table-v.html", page.build(done, results).encode())
    text = "\n\n".join(table_v.text(r) for r in results)
    resumed = f"; {kept_before} of {len(wanted_runs)} runs were already there" if kept_before else ""
    emit(whole, as_json, f"{text}\n\n{out / 'table-v.html'}  ({whole['wall_s']:.0f} s{resumed})")


def experiment_text(
    about: dict[str, Any],
    slices: list[dict[str, Any]],
    oracle: dict[str, Any] | None = None,
) -> str:
    """The result as a person reads it: each slice of each cell."""
    from controller.scenario import rows_lines

    several = len(slices) > 1
    lines = []
    for s in slices:
        busy = s["qos_delivery_ratio_busy"]
        whose = f"  cell {s['cell']}  slice {s['slice']}" if several else ""
        lines += [
            f"{about['scenario']}{whose}  policy {', '.join(s['policies'])}  seed {about['seed']}",
            f"  QoS delivery ratio  {_ratio(s['qos_delivery_ratio'])}"
            + (f" (busy control slots {busy:.1%})" if busy is not None else " (no busy control slot)"),
            f"  UL, DL              {s['avg_ul_prb']:.1f}, {s['avg_dl_prb']:.1f} PRB",
            f"  GPU                 {s['avg_gpu_mhz']:.0f} MHz",
            f"  power saving        BS {s['bs_power_saving']:.1%}, UE {s['ue_power_saving']:.1%}",
        ]
    lines.append(
        f"  {about['control_slots']} control slots, {about['simulated_s']:g} s in {about['wall_s']:.1f} s"
    )
    lines += [
        f"  channel of {c['ue']:9}{Path(c['trace']).name} from {c['start_s']} s of {c['length_s']} s"
        for c in about["channel"]
    ]
    lines += [f"  {line}" for line in rows_lines(about["channel"])]
    if oracle is not None:
        lines += _oracle_text(oracle)
    if "report" in about:
        lines.append(f"  report              {about['report']}")
    return "\n".join(lines)


def _ratio(value: float | None) -> str:
    return "not known" if value is None else f"{value:.1%}"


def _oracle_text(oracle: dict[str, Any]) -> list[str]:
    ul, dl, mhz = (f"{oracle['relative'][name]:.2f}" for name in oracle["relative"])
    return [
        f"  resources / oracle  UL {ul}, DL {dl}, MHz {mhz}",
        f"  regret              {oracle['regret']['total']:.1f} a_max"
        + ("" if oracle["verified"] else "  (the oracle missed its own aim)"),
    ]


@contextmanager
def _recorded(run_dir: Path | None, config: Any, seed: int) -> Iterator[Any]:
    """The run folder that a run is recorded in; None where none is wanted."""
    if run_dir is None:
        yield None
        return
    from controller.store.oracle import VIRTUAL
    from controller.store.run import RunStore

    with RunStore.create(run_dir, config=config.to_yaml(), seed=seed, meta=VIRTUAL) as store:
        yield store

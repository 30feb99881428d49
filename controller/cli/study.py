"""``experiment study``: every policy under every condition, over local processes or a Dask cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from controller.cli import emit, json_option
from controller.cli.options import NAMES, NUMBERS, SECONDS, SEEDS, worker_options

_TRACES = "../shared/data/channel-traces"


@click.command("study")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default="study", show_default=True)
@click.option("--seeds", type=SEEDS, default="20", show_default=True, help="So many, or a list (4,7,).")
@click.option("--scenarios", type=NUMBERS, default="1,2,3,4,5", show_default=True)
@click.option("--policies", type=NAMES, help="By default all that there are.")
@click.option(
    "--conditions",
    type=NAMES,
    help="By default all: emulated, measured, floor-1, floor-5, floor-15, demand-up, rate-half, rate-double, "
    "gpu-slow, unsynchronised, cross-ul, cross-dl.",
)
@click.option(
    "--stress-scenarios",
    type=NUMBERS,
    help="Where all conditions but emulated and measured are played; by default 1 and 2 of --scenarios.",
)
@click.option(
    "--oracle-seeds",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="Search the clairvoyant for so many of the seeds (10 to 40 runs each), emulated and measured.",
)
@click.option(
    "--channel-trace",
    metavar="DIR",
    type=click.Path(path_type=Path, resolve_path=True),
    default=_TRACES,
    help=f"Measured channels ({_TRACES}); without the folder that condition is left out.",
)
@click.option("--judge", help="The policy whose losses are listed.")
@click.option("--duration", type=SECONDS, help="Only so many emulated seconds of each scenario.")
@worker_options
@json_option
def study(
    out: Path,
    seeds: tuple[int, ...],
    scenarios: tuple[int, ...],
    policies: tuple[str, ...] | None,
    conditions: tuple[str, ...] | None,
    stress_scenarios: tuple[int, ...] | None,
    oracle_seeds: int,
    channel_trace: Path,
    judge: str | None,
    duration: float | None,
    jobs: int,
    scheduler: str | None,
    keys: Path | None,
    fresh: bool,
    as_json: bool,
) -> None:
    """Run every policy in every scenario and under every condition, and say where one loses.

    Writes study.json, study.parquet (a row a run), study.txt and study.html. Every finished run is kept
    beside them (study.jsonl): the same command again does what is missing, and so does one with more seeds.
    """
    import time

    from controller.cli.progress import carry_out
    from controller.experiments import pool, tables
    from controller.experiments import results as results_module
    from controller.experiments.study import jobs as jobs_module
    from controller.experiments.study import page
    from controller.experiments.study import result as result_module
    from controller.store import parquet
    from controller.store.files import write_atomic

    parquet.require()
    page.require()
    plan = jobs_module.plan(
        seeds,
        policies=policies,
        conditions=conditions,
        scenarios=scenarios,
        stressed=stress_scenarios,
        oracle_seeds=oracle_seeds,
        duration_s=duration,
        channel_trace=channel_trace,
    )
    judge = judge or result_module.JUDGE
    todo = jobs_module.jobs(plan)
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def run_all(function: Callable[[Any], Any], missing: Sequence[Any]) -> Iterable[tuple[int, Any]]:
        if scheduler and missing:
            names = [f"prbandit-study-{job.key}" for job in missing]
            return pool.dask(function, missing, scheduler, keys=keys, names=names)
        return pool.local(function, missing, jobs)

    with results_module.Results(out / "study.jsonl", fresh=fresh) as kept:
        finished = carry_out(
            todo, kept, lambda: results_module.carry_out(todo, jobs_module.work, kept, run_all)
        )
        rows = [jobs_module.labelled(kept.rows[job.key], job) for job in todo]
        whole = {
            **result_module.result(plan, rows, judge),
            "runs": len(todo),
            "already_there": finished,
            "wall_s": round(time.monotonic() - started, 1),
            "simulated_s": sum(row["simulated_s"] for row in rows),
            "files": {k: str(out / f"study{k}") for k in (".json", ".parquet", ".txt", ".html")},
        }
        text = result_module.text(whole)
        tables.write_parquet(out / "study.parquet", rows)
        write_atomic(out / "study.json", (json.dumps(whole, indent=1) + "\n").encode())
        write_atomic(out / "study.txt", (text + "\n").encode())
        write_atomic(out / "study.html", page.build(whole).encode())
    resumed = f"; {finished} of {len(todo)} runs were already there" if finished else ""
    emit(whole, as_json, f"{text}\n\n{out / 'study.html'}  ({whole['wall_s']:.0f} s{resumed})")

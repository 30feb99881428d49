"""``prbandit solve vr`` and ``prbandit figures vr``: instances of VR-GX in, tables and JSON out."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli import emit, json_option
from controller.cli.options import SECONDS

if TYPE_CHECKING:
    pass

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


class _Synthetic(click.ParamType):
    """``64`` or ``64,16`` or ``64,16,3``: users, base stations and seed of a synthetic instance."""

    name = "USERS[,STATIONS[,SEED]]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int, int]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = [int(part) for part in str(value).split(",")]
        except ValueError:
            numbers = []
        if not 1 <= len(numbers) <= 3 or min(numbers[:2]) < 1 or min(numbers) < 0:
            self.fail(f"{value!r} is not USERS[,STATIONS[,SEED]] in whole numbers", param, ctx)
        users, stations, seed = (*numbers, *(4, 0)[len(numbers) - 1 :])
        return users, stations, seed


synthetic_type = _Synthetic()


@click.command("solve")
@click.argument("instance", type=_FILE, required=False)
@click.option("--synthetic", type=synthetic_type, help="Draw the instance instead (4 stations, seed 0).")
@click.option(
    "--solver",
    metavar="exact|heuristic|rca|fixed",
    default="exact",
    show_default=True,
    help="exact: the optimum with its proof; heuristic: near it, in milliseconds; rca: Du et al.; fixed:"
    " everybody 4K at 30 Hz.",
)
@click.option("--users", type=click.IntRange(1), help="Only the first so many users.")
@click.option(
    "--constraints",
    metavar="full|published-code",
    default="full",
    show_default=True,
    help="published-code: of the latency transmission and routing, of the nodes the GPU, as the authors do.",
)
@click.option(
    "--objective",
    metavar="weighted|printed",
    default="weighted",
    show_default=True,
    help="weighted: attention x ln(resolution / lowest); printed: equation (1), where attention decides"
    " nothing.",
)
@click.option("--time-limit", type=SECONDS, help="Of the MILP solver in exact and rca, in seconds.")
@click.option(
    "--progress/--no-progress",
    default=None,
    help="Print the best objective and the bound of exact to stderr (default: where that is a terminal).",
)
@json_option
def solve(
    instance: Path | None,
    synthetic: tuple[int, int, int] | None,
    solver: str,
    users: int | None,
    constraints: str,
    objective: str,
    time_limit: float | None,
    progress: bool | None,
    as_json: bool,
) -> None:
    """Who is admitted, and with which base station, compute node, frame rate and resolution of each object
    the quality of experience of all is highest."""
    from controller.allocators.vr.solve import Request, report
    from controller.experiments.vr.timing import timed

    if (instance is None) == (synthetic is None):
        raise click.UsageError("one of INSTANCE and --synthetic is needed")
    data = read_instance(instance) if instance is not None else _drawn(synthetic or (1, 1, 0))
    asked = {
        "first": users,
        "solver": solver,
        "constraints": constraints,
        "objective": objective,
        "time_limit_s": time_limit,
        "progress": _print_progress if _wanted(progress) else None,
    }
    try:
        request = Request.of({**data, **asked})
    except ValueError as error:
        raise click.ClickException(f"{instance or 'synthetic'}: {error}") from error
    answer, seconds = timed(request)
    result = {**report(request, answer), "seconds": seconds}
    emit(result, as_json, text(result))


@click.command("figures")
@click.option("--instance", type=_FILE, required=True, help="The instance, as of `solve vr`.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="figures-vr",
    show_default=True,
    help="Where plots and page go.",
)
@click.option("--users", type=click.IntRange(1), help="Up to so many users (default: all of the instance).")
@click.option(
    "--time-limit",
    type=SECONDS,
    default=60.0,
    show_default=True,
    help="Of the MILP solver, in seconds, each.",
)
@click.option(
    "--largest", type=click.IntRange(1), default=1000, show_default=True, help="Synthetic instances."
)
@click.option(
    "--attention",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of ratings: uoal_observed.csv and uoal_ground_truth.csv.",
)
@click.option("--figure", "names", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@json_option
def figures(
    instance: Path,
    out: Path,
    users: int | None,
    time_limit: float,
    largest: int,
    attention: Path | None,
    names: tuple[str, ...],
    as_json: bool,
) -> None:
    """Redo the figures of the paper, and what it does not show: proofs, the full model, larger instances."""
    from controller.allocators.vr.instance import Instance
    from controller.cli.progress import progress

    figures_module = import_module("controller.experiments.vr.figures")
    for name in names:
        if name not in figures_module.NAMES:
            raise click.BadParameter(
                f"no figure {name!r}; figures: {', '.join(figures_module.NAMES)}", param_hint="--figure"
            )
    data = read_instance(instance)
    try:
        there = Instance.of(data)
        count = len(there.first(len(there.users) if users is None else users).users)
        study = figures_module.Study(data, count, time_limit, attention, largest)
        result = figures_module.run(study, out, names or figures_module.NAMES, progress)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{instance}: {error}") from error
    emit(result, as_json, figures_module.text(result))


def read_instance(path: Path) -> dict[str, Any]:
    """The JSON of a file; a usage error, naming it, where it is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise click.ClickException(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise click.ClickException(f"{path}: an object is needed, not {type(data).__name__}")
    return data


def _drawn(of: tuple[int, int, int]) -> dict[str, Any]:
    from controller.experiments.vr.instances import draw

    return draw(*of)


def _wanted(progress: bool | None) -> bool:
    return sys.stderr.isatty() if progress is None else progress


def _print_progress(seconds: float, best: float, bound: float) -> None:
    click.echo(f"{seconds:8.1f} s  best {best:.3f}  bound {bound:.3f}", err=True)


def text(result: Mapping[str, Any]) -> str:
    """What was solved, as a table and some lines."""
    rows = [("user", "station", "node", "Hz", "MHz", "QoE", "ms", "of", "binding", "resolutions")]
    for of in result["users"]:
        if not of["admitted"]:
            rows.append((str(of["user"]), *"--------", of["reason"]))
            continue
        rows.append(
            (
                str(of["user"]),
                str(of["station"]),
                str(of["node"]),
                f"{of['frame_rate']:g}",
                f"{of['bandwidth_hz'] / 1e6:.3f}",
                f"{of['qoe']:.3f}",
                f"{of['latency_ms']['total']:.3f}",
                f"{of['budget_ms']:.3f}",
                of["binding"] or "-",
                _resolutions(of["resolutions"]),
            )
        )
    width = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([*(cell.rjust(w) for cell, w in zip(row[:-1], width, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
    proof = "no bound"
    if result["bound"] is not None:
        proof = f"bound {result['bound']:.6f}, gap {100.0 * result['gap']:.4f} %"
    used = ", ".join(
        f"{s['station']}: {s['used'] / 1e6:.2f} of {s['of'] / 1e6:g}" for s in result["bandwidth_hz"]
    )
    share = ", ".join(f"{n['node']}: {100.0 * n['share']:.1f} %" for n in result["gpu_share"])
    lines += [
        "",
        f"{result['solver']}, constraints {result['constraints']}, objective {result['objective_form']}:"
        f" {result['status']}, {result['objective']:.6f} ({proof}) in {result['seconds']:.4g} s",
        f"{result['admitted']} of {len(result['users'])} users; fairness (Jain) of QoE"
        f" {_number(result['jain_qoe'])}, of latency {_number(result['jain_latency'])}",
        f"MHz by base station: {used}",
        f"GPU by node: {share}",
    ]
    lines += [f"violated: {violation}" for violation in result["violations"]]
    return "\n".join(lines)


def _resolutions(of: Mapping[str, str]) -> str:
    """How many objects have each resolution, the highest first."""
    count: dict[str, int] = {}
    for name in of.values():
        count[name] = count.get(name, 0) + 1
    return ", ".join(f"{count[k]} x {k}" for k in sorted(count, key=lambda name: -int(name[:-1])))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

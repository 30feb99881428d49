"""``prbandit solve urllc`` and ``prbandit figures urllc``: instances in, tables, JSON and a page out."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from controller.cli import emit, json_option
from controller.cli.options import NAMES, Quantity

_DROP: Final = ("devices", "cycles_per", "side_m", "min_distance_m", "antennas", "antenna_gain")
_CELL: Final = ("interval_ms", "min_rate_bps", "transmitted")
_AMOUNT: Final = Quantity(0, 1e12, min_open=True)


@click.command("solve")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--method",
    metavar="joint|algorithm-1|algorithm-1-cvxpy",
    help="joint: offloading together with the resources, and a search over the caching; algorithm-1: the"
    " paper's, compiled; algorithm-1-cvxpy: the same by CVXPY and Clarabel.  [default: joint]",
)
@click.option("--bound", is_flag=True, help="Prove a lower bound too, which takes a second or more.")
@click.option("--generate", is_flag=True, help="Write a drop of the paper's simulations to FILE instead.")
@click.option("--seed", type=click.IntRange(0), help="Of the drop.  [default: 0]")
@click.option("--devices", type=int, help="M.  [default: 15]")
@click.option("--cycles-per", metavar="byte|bit", help="What 100 to 300 cycles are of.  [default: byte]")
@click.option("--side-m", type=_AMOUNT, help="Of the square, in metres.  [default: 100]")
@click.option("--min-distance-m", type=_AMOUNT, help="To the access point, in metres.  [default: 1]")
@click.option("--antennas", type=int, help="L, of the access point.  [default: 8]")
@click.option("--antenna-gain", metavar="sum|mean", help="What ||h||^2 is over the antennas.  [default: sum]")
@click.option("--interval-ms", type=_AMOUNT, help="phi, which the paper leaves open.  [default: 1]")
@click.option("--min-rate-bps", type=Quantity(0, 1e12), help="R_min, left open as well.  [default: 1e6]")
@click.option(
    "--transmitted",
    metavar="whole|offloaded",
    help="What of a task equation (2) has a device send.  [default: whole]",
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@json_option
def solve(
    file: Path, method: str | None, bound: bool, generate: bool, force: bool, as_json: bool, **drop: Any
) -> None:
    """What each device of an instance (FILE, YAML or JSON) caches, offloads and uses so that the total
    latency is least; or, with --generate, an instance with every channel gain and task in it."""
    given = {name: value for name, value in drop.items() if value is not None}
    if generate:
        if method is not None or bound:
            raise click.UsageError("--method and --bound do not go with --generate")
        _generate(file, given, force, as_json)
        return
    if given or force:
        option = next(iter(given), "force").replace("_", "-")
        raise click.UsageError(f"--{option} goes with --generate")
    _solve(file, method, bound, as_json)


def _solve(file: Path, requested: str | None, bound: bool, as_json: bool) -> None:
    from controller.allocators.urllc.instance import Instance
    from controller.allocators.urllc.solve import METHODS, lower_bound_ms, report
    from controller.experiments import files
    from controller.experiments.urllc.timing import timed

    method = next((name for name in METHODS if name == (requested or METHODS[0])), None)
    if method is None:
        raise click.BadParameter(f"{requested!r} is none of {', '.join(METHODS)}", param_hint="--method")
    try:
        data = files.read(file)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    try:
        instance = Instance.of(data)
        answer, seconds = timed(instance, method)
        proven = lower_bound_ms(instance, answer) if bound else None
        result = {"method": method, **report(instance, answer, proven), "seconds": seconds}
    except ValueError as error:
        raise click.ClickException(f"{file}: {error}") from error
    emit(result, as_json, text(result))


def _generate(file: Path, given: Mapping[str, Any], force: bool, as_json: bool) -> None:
    from controller.allocators.urllc.instance import Instance
    from controller.experiments import files
    from controller.experiments.urllc.drops import Drop, draw

    seed = given.get("seed", 0)
    try:
        drop = Drop(**{name: given[name] for name in _DROP if name in given})
        instance = {**draw(seed, drop), **{name: given[name] for name in _CELL if name in given}}
        Instance.of(instance)
        fields = ", ".join(f"{name} {getattr(drop, name)}" for name in _DROP)
        files.write(file, instance, f"prbandit solve urllc --generate: seed {seed}, {fields}", replace=force)
    except FileExistsError as error:
        raise click.ClickException(f"{file}: is there already; --force overwrites it") from error
    except OSError as error:
        raise click.ClickException(f"{file}: cannot be written: {error}") from error
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    result = {"file": str(file), "seed": seed, "devices": drop.devices}
    emit(result, as_json, f"{file}: {drop.devices} devices, seed {seed}")


def text(result: Mapping[str, Any]) -> str:
    """What was solved, as a table and some lines."""
    head = ("device", "cached", "alpha", "band %", "mW", "f_ue GHz", "f_es GHz", "local ms", "air ms")
    rows = [(*head, "edge ms", "total ms", "mJ", "Mbit/s")]
    for of in result["devices"]:
        if of["latency_ms"] is None:
            rows.append((of["id"], *("-" * 12)))
            continue
        sends, latency = not of["cached"], of["latency_ms"]
        rows.append(
            (
                of["id"],
                "no" if sends else "yes",
                f"{of['local_share']:.3f}" if sends else "-",
                f"{100.0 * of['bandwidth']:.2f}" if sends else "-",
                f"{1e3 * of['power_w']:.1f}" if sends else "-",
                f"{of['f_ue_hz'] / 1e9:.3f}" if sends else "-",
                f"{of['f_es_hz'] / 1e9:.3f}",
                *(f"{latency[part]:.3f}" for part in ("local", "transmission", "edge", "total")),
                f"{of['energy_mj']:.3f}",
                f"{of['rate_bps'] / 1e6:.2f}" if sends else "-",
            )
        )
    width = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(width[0]), *(c.rjust(w) for c, w in zip(row[1:], width[1:], strict=True))])
        for row in rows
    ]
    total = "-" if result["objective_ms"] is None else f"{result['objective_ms']:.4f} ms"
    if result["objective_v1_ms"] is not None:
        total += f" ({result['objective_v1_ms']:.4f} with V = 1)"
    lines += [
        "",
        f"{result['method']}: {result['status']}, {total}, {result['iterations']} iterations in"
        f" {1e3 * result['seconds']:.3g} ms",
    ]
    if result["bound_ms"] is not None:
        gap = "" if result["gap"] is None else f": gap {100.0 * result['gap']:.3f} %"
        lines.append(f"no less than {result['bound_ms']:.4f} ms{gap}")
    for late in result["late"]:
        by = "cannot be served" if late["by_ms"] is None else f"{late['by_ms']:.4f} ms late"
        lines.append(f"{late['device']}: {by}, for {late['binding']}")
    lines += [
        f"violated: ({v['constraint']}) {v['name']}{' of ' + v['device'] if v['device'] else ''}:"
        f" {v['value']} of {v['limit']} {v['unit']}".rstrip()
        for v in result["violations"]
    ]
    return "\n".join(lines)


@click.command("figures")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="figures-urllc",
    show_default=True,
    help="Where plots and page go.",
)
@click.option(
    "--drops", type=click.IntRange(2), default=50, show_default=True, help="Of devices, channels and tasks."
)
@click.option("--only", "names", type=NAMES, help="Only these figures, with commas between.")
@json_option
def figures(out: Path, drops: int, names: tuple[str, ...] | None, as_json: bool) -> None:
    """Redo the figures of the paper, and what it does not show: readings of its text, bounds, baselines."""
    from controller.cli.progress import progress

    module = import_module("controller.experiments.urllc.figures")
    for name in names or ():
        if name not in module.NAMES:
            raise click.BadParameter(
                f"no figure {name!r}; figures: {', '.join(module.NAMES)}", param_hint="--only"
            )
    try:
        result = module.run(module.Study(drops), out, names or module.NAMES, progress)
    except OSError as error:
        raise click.ClickException(f"{out}: {error}") from error
    emit(result, as_json, module.text(result))

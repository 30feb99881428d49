"""``prbandit train video``, ``prbandit figures video`` and ``prbandit solve video``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import click

from controller.cli import emit, json_option
from controller.cli.options import NAMES

KINDS: Final = ("group", "user")
STEPS: Final = 24_000


@click.command("train")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the weights go; FILE.checkpoint is beside them until training is over.",
)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default=KINDS[0],
    show_default=True,
    help="group: what divides among groups of users; user: what serves users directly, without models"
    " (the benchmark PDRL-L1).",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=STEPS, show_default=True, help="Of 10 s, emulated.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@json_option
def train(out: Path, kind: str, seed: int, steps: int, force: bool, as_json: bool) -> None:
    """Train a branching duelling Q-network on emulated users, on the CPU: some minutes.

    The same seed and steps give the same weights, bit for bit, on one machine. What was broken off goes on
    from its checkpoint when it is called again in the same way.
    """
    from controller.cli.progress import progress
    from controller.experiments.video.training.learner import Training
    from controller.experiments.video.training.learner import train as learn
    from controller.store.files import write_atomic

    if out.exists() and not force:
        raise click.ClickException(f"{out}: is there already; --force overwrites it")
    checkpoint = out.with_name(out.name + ".checkpoint")
    begun = perf_counter()
    try:
        training = Training(kind, seed, steps)
        with progress(f"train {kind}", training.checkpoints) as advance:
            network = learn(training, checkpoint, advance)
        write_atomic(out, network.to_bytes())
        checkpoint.unlink(missing_ok=True)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{out}: cannot be written: {error}") from error
    result = {
        "file": str(out),
        "kind": kind,
        "seed": seed,
        "steps": network.training["curve"][-1][0],
        "validated": network.training["validated"],
        "curve": network.training["curve"],
        "seconds": perf_counter() - begun,
    }
    emit(
        result,
        as_json,
        f"{out}: {kind} network, {result['steps']} steps in {result['seconds']:.0f} s, gain in validation"
        f" {result['validated']:.4f} (untrained {network.training['curve'][0][1]:.4f})",
    )


@click.command("figures")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="figures-video",
    show_default=True,
    help="Where plots, page and, where none are given, networks go.",
)
@click.option("--seeds", type=click.IntRange(2), default=10, show_default=True, help="Worlds, from 0 on.")
@click.option(
    "--users",
    "counts",
    multiple=True,
    type=click.IntRange(1, 24),
    help="Numbers of users of figure 5; may be repeated.  [default: 16, 18, 20, 22, 24]",
)
@click.option(
    "--minutes",
    type=click.IntRange(3),
    default=30,
    show_default=True,
    help="Of a run that are judged.",
)
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
@click.option(
    "--networks",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with group.weights and user.weights of `prbandit train video`, instead of training.",
)
@click.option(
    "--train-steps",
    type=click.IntRange(0),
    default=STEPS,
    show_default=True,
    help="Of each network; 0: none, and the schemes that take one are left out.",
)
@click.option("--only", "names", type=NAMES, help="Only these figures, with commas between.")
@json_option
def figures(
    out: Path,
    seeds: int,
    counts: tuple[int, ...],
    minutes: int,
    jobs: int,
    networks: Path | None,
    train_steps: int,
    names: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Redo figure 5 with a verdict on each sentence about it, and what the paper does not show: load,
    ablation, QoE models, demand, emulation, windows. Networks are trained first where a figure needs them."""
    from controller.cli.progress import progress
    from controller.experiments.pool import WorkersLost

    module = import_module("controller.experiments.video.figures")
    study = import_module("controller.experiments.video.study")
    chosen = names or module.NAMES
    for name in chosen:
        if name not in module.NAMES:
            raise click.BadParameter(
                f"no figure {name!r}; figures: {', '.join(module.NAMES)}", param_hint="--only"
            )
    files: dict[str, str] = {}
    try:
        if networks is not None:
            files = {kind: str(networks / f"{kind}.weights") for kind in KINDS}
            for file in files.values():
                study.network_of(file)
        elif train_steps and module.NETWORKED & frozenset(chosen):
            training = import_module("controller.experiments.video.trained")
            files = training.train_all(out, train_steps, jobs, progress)
        of = study.Study(seeds, counts or study.USERS, 60 * minutes, jobs, files)
        result = module.run(of, out, chosen, progress)
    except (OSError, ValueError, WorkersLost) as error:
        raise click.ClickException(str(error)) from error
    emit(result, as_json, module.text(result))


@click.command("solve")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--method",
    metavar="convex|grouped|round-robin",
    help="convex: all users at once; grouped: groups by their gains, users by SLSQP and dynamic programming;"
    " round-robin: as much for everybody.  [default: convex]",
)
@click.option("--generate", is_flag=True, help="Write a moment of the campus to FILE instead.")
@click.option("--seed", type=click.IntRange(0), help="Of the campus.  [default: 0]")
@click.option("--users", type=click.IntRange(1, 1024), help="Of the campus.  [default: 20]")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@json_option
def solve(
    file: Path,
    method: str | None,
    generate: bool,
    seed: int | None,
    users: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """What each user of an instance (FILE, YAML or JSON) gets of cells and edge, the opinion that its model
    expects of it, what more resources are worth, and which agreements nothing can keep."""
    from controller.experiments import files

    if generate:
        if method is not None:
            raise click.UsageError("--method does not go with --generate")
        _generate(file, seed or 0, users or 20, force, as_json)
        return
    given = {"seed": seed, "users": users, "force": force or None}
    for name, value in given.items():
        if value is not None:
            raise click.UsageError(f"--{name} goes with --generate")
    from controller.allocators.video.instance import Instance
    from controller.allocators.video.solve import DEFAULT, METHODS
    from controller.allocators.video.solve import solve as solved

    if method is not None and method not in METHODS:
        raise click.BadParameter(f"{method!r} is none of {', '.join(METHODS)}", param_hint="--method")
    try:
        data = files.read(file)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    try:
        instance = Instance.of(data)
    except ValueError as error:
        raise click.ClickException(f"{file}: {error}") from error
    result = solved(instance, {"method": method or DEFAULT})
    emit(result, as_json, text(result))


def _generate(file: Path, seed: int, users: int, force: bool, as_json: bool) -> None:
    from controller.experiments import files
    from controller.experiments.video.instances import generate

    try:
        comment = f"prbandit solve video --generate: seed {seed}, {users} users"
        files.write(file, generate(seed, users), comment, replace=force)
    except FileExistsError as error:
        raise click.ClickException(f"{file}: is there already; --force overwrites it") from error
    except OSError as error:
        raise click.ClickException(f"{file}: cannot be written: {error}") from error
    result = {"file": str(file), "seed": seed, "users": users}
    emit(result, as_json, f"{file}: {users} users, seed {seed}")


def text(result: Mapping[str, Any]) -> str:
    """What was solved, as a table and some lines."""
    rows = [("user", "cell", "group", "PRB", "Gcycle/s", "kbit/s", "bitrate", "ahead", "ELA", "expected", "")]
    for of in result["users"]:
        hopeless = f"no more than {of['best']:.2f} at any rate" if of["best"] < of["ela"] else "short"
        rows.append(
            (
                of["id"],
                of["cell"],
                of["group"],
                f"{of['prb']:.2f}",
                f"{of['gcycles']:.3f}",
                f"{of['kbps']:.0f}",
                f"{of['bitrate_kbps']:.0f}",
                str(of["prefetch"]),
                f"{of['ela']:.2f}",
                f"{of['expected']:.2f}",
                "" if of["kept"] else hopeless,
            )
        )
    width = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = (0, 1, 2, len(width) - 1)
    lines = [
        "  ".join(
            c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, width, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines += [
        "",
        f"{result['method']}: {result['kept']} of {len(result['users'])} agreements kept,"
        f" {len(result['impossible'])} cannot be",
    ]
    for name, of in result["cells"].items():
        lines.append(
            f"{name}: {of['used']:.1f} of {of['prb']:.0f} PRB; one more would gain {of['price']:.4f}"
        )
    edge = result["edge"]
    lines.append(
        f"edge: {edge['used']:.2f} of {edge['gcycles']:g} Gcycle/s; one more would gain {edge['price']:.4f}"
    )
    return "\n".join(lines)

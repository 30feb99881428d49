"""``prbandit train video``."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Final

import click

from controller.cli import emit, json_option

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

"""``prbandit solve mar`` and ``prbandit figures mar``: files and options in, tables and JSON out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import click

from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.splits import KINDS
from controller.cli import emit, json_option
from controller.cli.options import Quantity
from wire import channel_traces
from wire.channel_traces import Account
from wire.definitions.nr import MAX_PRB, TDD_PATTERNS
from wire.definitions.poses import HISTORY_FRAMES, LOOKAHEAD_FRAMES
from wire.definitions.vchr import FIELD_OF_VIEW_DEG

T = TypeVar("T")

SERVICE = "mar"

_SHARE = Quantity(0, 1)
_ANGLE = Quantity(0, 180, min_open=True, max_open=True)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
SNR_DB = 10.0
"""Without a channel trace."""


class _User(click.ParamType):
    """The index of a user, or all of them (None)."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "all":
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither the index of a user nor 'all'", param, ctx)


@click.command("solve")
@click.option(
    "--traces", type=_FILE, required=True, help="Poses: array 'pose' [users, frames, 6] of an .npz file."
)
@click.option("--user", type=_User(), default="all", show_default=True, help="Whom to serve.")
@click.option("--vchr", type=_SHARE, required=True, help="V: the hit rate that a frame is to reach, 0..1.")
@click.option("--rho", type=_SHARE, required=True, help="Share of the frames that are to reach it, 0..1.")
@click.option("--epsilon", type=_SHARE, required=True, help="Probability that they do, 0..1.")
@click.option(
    "--field-of-view",
    type=(_ANGLE, _ANGLE),
    default=FIELD_OF_VIEW_DEG,
    show_default=True,
    metavar="ACROSS UP",
    help="Of the device, in degrees.",
)
@click.option(
    "--history", type=click.IntRange(1), default=HISTORY_FRAMES, show_default=True, help="H, in frames."
)
@click.option(
    "--lookahead", type=click.IntRange(0), default=LOOKAHEAD_FRAMES, show_default=True, help="W, in frames."
)
@click.option(
    "--frame-bytes",
    type=click.IntRange(1),
    default=MarOptions.model_fields["frame_bytes"].default,
    show_default=True,
    help="What a frame uploads.",
)
@click.option(
    "--latency-ms",
    type=Quantity(0, 1e6, min_open=True),
    default=MarOptions.model_fields["latency_ms"].default,
    show_default=True,
    help="T: within which a selected frame is uploaded on average.",
)
@click.option("--snr-db", type=Quantity(-100, 100), help=f"SNR of every user (default: {SNR_DB:g}).")
@click.option(
    "--channel-trace",
    metavar="FILE|DIR",
    type=click.Path(path_type=Path, exists=True),
    help="Measured SNR instead: user k has that of trace k mod n, by name.",
)
@click.option(
    "--outage",
    type=_SHARE,
    help="Take the measured SNR as slow: the latency is kept but for this share of the time. Without it each "
    "frame draws its own SNR, as in the paper.",
)
@click.option(
    "--tdd", type=click.Choice(list(TDD_PATTERNS)), default="DSUUU", show_default=True, help="TDD pattern."
)
@click.option("--n-prb", type=click.IntRange(1, MAX_PRB), help="PRBs that there are; without it no limit.")
@click.option(
    "--split",
    type=click.Choice(KINDS),
    default="temporal",
    show_default=True,
    help="Which frames the twin never sees, and is judged on.",
)
@click.option(
    "--without-promise",
    type=click.Choice(["best", "lowest", "highest"]),
    default=MarOptions.model_fields["without_promise"].default,
    show_default=True,
    help="The frequency of those with whom none keeps the promise.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the training.")
@json_option
def solve(
    traces: Path,
    user: int | None,
    vchr: float,
    rho: float,
    epsilon: float,
    field_of_view: tuple[float, float],
    history: int,
    lookahead: int,
    frame_bytes: int,
    latency_ms: float,
    snr_db: float | None,
    channel_trace: Path | None,
    outage: float | None,
    tdd: str,
    n_prb: int | None,
    split: str,
    without_promise: str,
    seed: int,
    as_json: bool,
) -> None:
    """The least bandwidth for each user with which P(share of frames with VCHR >= V is at least rho) >=
    epsilon, as the user's digital twin knows it."""
    import numpy as np

    from controller import allocators
    from controller.allocators.mar.radio import slow_snr_db
    from controller.cli.progress import progress
    from wire.pose_files import read_poses

    poses = _of("--traces", read_poses, traces)
    if user is not None and not 0 <= user < len(poses):
        raise click.BadParameter(f"user {user} is outside 0..{len(poses) - 1}", param_hint="--user")
    if snr_db is not None and channel_trace is not None:
        raise click.UsageError("--snr-db and --channel-trace exclude each other")
    if outage is not None and channel_trace is None:
        raise click.UsageError("--outage goes with --channel-trace")
    read: list[Account] = []
    if channel_trace is not None:
        snr, read = _channels(channel_trace, len(poses))
        if outage is not None:
            snr = [slow_snr_db(samples, outage)[None] for samples in snr]
    else:
        snr = [np.array([SNR_DB if snr_db is None else snr_db])] * len(poses)
    instance = {
        "poses": poses,
        "users": list(range(len(poses))) if user is None else [user],
        "snr_db": snr,
        "tdd": tdd,
        "n_prb": n_prb,
        "split": split,
        "seed": seed,
    }
    promise = {
        "vchr": vchr,
        "rho": rho,
        "epsilon": epsilon,
        "field_of_view_deg": field_of_view,
        "history_frames": history,
        "lookahead_frames": lookahead,
        "frame_bytes": frame_bytes,
        "latency_ms": latency_ms,
        "without_promise": without_promise,
    }
    service = allocators.service(SERVICE)
    assert service.solve is not None
    try:
        with progress(f"users of {traces.name}", None):
            result = service.solve(instance, service.options(**promise))
    except ValueError as error:  # too few frames for a split, gazes that never meet
        raise click.ClickException(f"{traces}: {error}") from error
    emit(_with_channel(result, read), as_json, text(result) + _channel_text(read))


@click.command("figures")
@click.option(
    "--traces", type=_FILE, required=True, multiple=True, help="Poses, one file a video; may be repeated."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="figures-mar",
    show_default=True,
    help="Where plots and page go.",
)
@click.option(
    "--channel-trace",
    metavar="FILE|DIR",
    type=click.Path(path_type=Path, exists=True),
    help="Measured SNR: user k has that of trace k mod n, by name.",
)
@click.option("--figure", "names", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@json_option
def figures(
    traces: tuple[Path, ...], out: Path, channel_trace: Path | None, names: tuple[str, ...], as_json: bool
) -> None:
    """Redo the figures of the paper, and what contradicts them, on measured poses."""
    from controller.cli.progress import progress
    from wire.pose_files import read_poses

    figures_module = import_module("controller.experiments.mar.figures")
    for name in names:
        if name not in figures_module.NAMES:
            raise click.BadParameter(
                f"no figure {name!r}; figures: {', '.join(figures_module.NAMES)}", param_hint="--figure"
            )
    videos = {}
    for path in traces:
        if path.stem in videos:
            raise click.BadParameter(f"two videos of the name {path.stem!r}", param_hint="--traces")
        videos[path.stem] = _of("--traces", read_poses, path)
    most = max(len(poses) for poses in videos.values())
    snr, read = (None, []) if channel_trace is None else _channels(channel_trace, most)
    channels = {} if snr is None else {"snr_db": snr}
    try:
        result = figures_module.run(videos, out, names or figures_module.NAMES, progress, **channels)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--traces") from error
    emit(_with_channel(result, read), as_json, figures_module.text(result) + _channel_text(read))


def text(result: Mapping[str, Any]) -> str:
    """What was solved, as a table and two lines."""
    rows = [("user", "upload Hz", "MHz", "PRB", "reliability", "feasible", "why")]
    for of in result["users"]:
        bandwidth = of["bandwidth_hz"]
        rows.append(
            (
                str(of["user"]),
                _number(of["upload_hz"], "g"),
                _number(None if bandwidth is None else bandwidth / 1e6, ".3f"),
                _number(of["prb"], "d"),
                _number(of["reliability"], ".3f"),
                "yes" if of["feasible"] else "no",
                of["why"],
            )
        )
    width = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([*(cell.rjust(w) for cell, w in zip(row[:-1], width, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
    feasible = sum(of["feasible"] for of in result["users"])
    return "\n".join(
        [
            *lines,
            "",
            f"total: {result['total_prb']} PRB; the promise can be kept for {feasible} of"
            f" {len(result['users'])} users",
            f"twin {result['twin']}, {result['split']} split: accuracy {_number(result['accuracy'], '.3f')}"
            f" on frames that it never saw, the majority class {_number(result['majority'], '.3f')}",
        ]
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _channels(path: Path, users: int) -> tuple[list[Any], list[Account]]:
    """SNR samples of each user, and what became of the rows of each trace."""
    files = _of("--channel-trace", channel_traces.files, path)
    known = [_of("--channel-trace", channel_traces.read_snr_db, file) for file in files[:users]]
    return [known[k % len(files)][0] for k in range(users)], [account for _, account in known]


def _with_channel(result: Mapping[str, Any], read: list[Account]) -> dict[str, Any]:
    channel = [{"trace": str(a.path), **a.to_dict()} for a in read]
    return {**result, **({"channel": channel} if channel else {})}


def _channel_text(read: list[Account]) -> str:
    return "".join(f"\nchannel trace {account}" for account in read)


def _of(option: str, read: Callable[[Path], T], path: Path) -> T:
    """What an option's file holds; a usage error, naming the option, where it cannot be used."""
    try:
        return read(path)
    except (OSError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint=option) from error

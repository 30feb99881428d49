"""``openrtist table-ii``: Table II of the MUCB1 paper, redone."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from controller.cli import children, emit, json_option
from controller.cli.openrtist.common import PATH, load, quiet_gabriel
from controller.cli.options import SECONDS
from controller.cli.ports import free_port


@click.command("table-ii")
@click.option("--style", type=PATH, required=True, help="Style as ONNX (import-style).")
@click.option("--video", required=True)
@click.option("--seconds", type=SECONDS, default=5.0, show_default=True, help="For each row.")
@click.option(
    "--limit", type=SECONDS, default=60.0, show_default=True, help="Wait so long for three results."
)
@click.option("--only", multiple=True, metavar="WxH@FPS", help="Only this row; repeatable.")
@click.option(
    "--threads", default=0, type=click.IntRange(0), help="CPU threads of the network (0: a core each)."
)
@click.option("--provider", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--out", type=PATH, help="Also write the table as HTML.")
@json_option
def table_ii(
    style: Path,
    video: str,
    seconds: float,
    limit: float,
    only: tuple[str, ...],
    threads: int,
    provider: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Redo Table II of the paper on this machine: bitrates and inference time over loopback, tokens off.

    The rows that were measured are told even where it is broken off.
    """
    from controller.cli.progress import progress

    module = load("table_ii")
    quiet_gabriel()
    cases = [case for case in module.PAPER if not only or case.name in only]
    if unknown := set(only) - {case.name for case in module.PAPER}:
        raise click.BadParameter(f"{sorted(unknown)[0]!r} is no row of the table", param_hint="--only")
    if out is not None and not (out.parent.is_dir() and os.access(out.parent, os.W_OK) and not out.is_dir()):
        raise click.BadParameter(f"{out}: no file can be written there", param_hint="--out")
    children.interrupt_on_signals()
    address = f"127.0.0.1:{free_port()}"
    rows: list[Any] = []
    ran_on = ""
    failed: BaseException | None = None
    try:
        with (
            _server_process(style, address, threads, provider) as about,
            progress("rows", len(cases)) as advance,
        ):
            ran_on = about()
            for case in cases:
                row = module.measure(case, address, video, seconds=seconds, limit_s=max(limit, seconds))
                rows.append(row)
                advance(case.name)
    except (Exception, KeyboardInterrupt) as error:
        if not rows:
            raise
        failed = error
    from controller.store.run import environment

    result = {
        "rows": [row.to_dict() for row in rows],
        "missing": [case.name for case in cases[len(rows) :]],
        "provider": ran_on,
        "style": str(style),
        "video": video,
        "seconds": seconds,
        "host": environment()["host"],
    }
    try:
        if out is not None:
            from controller.store.files import write_atomic

            write_atomic(out, module.html(result).encode())
    finally:
        emit(result, as_json, module.text(result))
    if failed is not None:
        click.echo(f"prbandit: broken off, without {', '.join(result['missing'])}", err=True)
        raise failed


def _server_process(style: Path, address: str, threads: int, provider: str) -> Any:
    """A server of our own in another process; the value tells on what it ran."""
    import subprocess
    import sys
    import tempfile
    from contextlib import contextmanager

    host, _, port = address.rpartition(":")

    @contextmanager
    def process() -> Any:
        with tempfile.TemporaryFile() as log:
            child = children.start(
                [
                    *(sys.executable, "-m", "controller.cli", "openrtist", "server", "--style", str(style)),
                    *("--address", host, "--port", port, "--threads", str(threads), "--provider", provider),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

            def output() -> str:
                log.seek(0)
                return log.read().decode(errors="replace")

            try:
                end = time.monotonic() + 60
                while "OpenRTiST server on" not in output():
                    if child.poll() is not None or time.monotonic() > end:
                        raise click.ClickException(f"the server did not start: {output().strip()[-400:]}")
                    time.sleep(0.1)
                yield lambda: "cuda" if " on cuda" in output() else "cpu"
            finally:
                child.terminate()
                try:
                    # An inference that runs is not broken off.
                    child.wait(5)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    return process()

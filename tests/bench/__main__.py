"""``python -m tests.bench [--only NAME] [--quick] [--json]``: the table of all benchmarks."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from tests.bench import (
    control_slot,
    edge_agent,
    emulation,
    exchanges,
    frame_transport,
    mar,
    memory,
    policies,
    quota_latency,
    report_rate,
    scaling,
    schedulers,
    shares,
    urllc,
    user_plane,
    video,
    vr,
)
from tests.bench.common import Row, Skip

_ALL = (
    quota_latency,
    report_rate,
    control_slot,
    policies,
    emulation,
    exchanges,
    scaling,
    schedulers,
    shares,
    mar,
    vr,
    urllc,
    video,
    memory,
    user_plane,
    edge_agent,
    frame_transport,
)
BENCHMARKS = {b.NAME: b for b in _ALL}
QUICK = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; 0 unless a benchmark failed. What is not installed is said and left out."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        epilog="Benchmarks: "
        + "; ".join(f"{name}: {(b.__doc__ or '').strip()}" for name, b in BENCHMARKS.items()),
    )
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="one benchmark; repeatable")
    parser.add_argument("--quick", action="store_true", help="a tenth of the full length")
    parser.add_argument("--json", action="store_true", help="every figure as one JSON object")
    parser.add_argument("--effort", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR)
    effort = options.effort or (QUICK if options.quick else 1.0)
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    for name in options.only or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows += BENCHMARKS[name].run(effort)
        except Skip as reason:
            skipped[name] = str(reason)
        except Exception as error:
            logging.exception("%s", name)
            failed[name] = f"{type(error).__name__}: {error}"
    if options.json:
        print(json.dumps({"rows": [r.to_dict() for r in rows], "skipped": skipped, "failed": failed}))
    else:
        print(table(rows))
        for row in rows:
            if row.note:
                print(f"{row.benchmark}: {row.note}")
        for what, names in (("skipped", skipped), ("failed", failed)):
            for name, why in names.items():
                print(f"{what}: {name}: {why}")
    return 1 if failed else 0


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    head = ("benchmark", "", "measured", "baseline", "", "ratio", "aim")
    cells = [
        (r.benchmark, r.name, _figure(r.measured, r.unit), _figure(r.baseline, r.unit), r.against,
         _number(r.ratio), r.aim)
        for r in rows
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in (head, *cells)) for i in range(len(head))]
    right = (2, 3, 5)
    return "\n".join(
        "  ".join(
            text.rjust(width) if i in right else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *cells)
    )


def _figure(value: float, unit: str) -> str:
    return f"{_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())

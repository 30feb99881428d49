"""``python -m tests.fuzz [--only NAME] [--seconds S]``: fuzzes each decoder with atheris, guided by coverage.

Each has its share of the time in a process of its own and begins with the corpus in the tree. An input at
which a decoder raises what it does not document is kept beside that corpus (``crash-...``); exit status 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from tests.fuzz import CORPUS, MAX_BYTES


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--only", action="append", help="one decoder; repeatable")
    parser.add_argument("--seconds", type=float, default=60.0, help="all together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed (pip install -e '.[fuzz]'): the decoders were not fuzzed")
        return 0
    if options.one:
        _fuzz(options.one, options.seconds, options.seed)
    names = options.only or sorted(p.name for p in CORPUS.iterdir())
    failed = []
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz", "--one", name, "--seed", str(options.seed)]
        done = subprocess.run(
            [*command, "--seconds", str(max(1, round(options.seconds / len(names))))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        lines = done.stdout.splitlines()
        runs = next((line for line in reversed(lines) if line.startswith("stat::number_of_executed")), "")
        print(f"{name}: {runs.rpartition(' ')[2] or 'no'} inputs, exit status {done.returncode}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout[-6000:])
    return 1 if failed else 0


def _fuzz(name: str, seconds: float, seed: int) -> None:
    """Does not return."""
    import atheris

    with atheris.instrument_imports(include=["agents", "controller", "openrtist", "tests.fuzz"]):
        from tests.fuzz.decoders import DECODERS

    logging.disable(logging.CRITICAL)
    found = tempfile.mkdtemp(prefix=f"fuzz-{name}-")
    flags = [
        f"-max_total_time={seconds:.0f}",
        f"-max_len={MAX_BYTES}",
        f"-seed={seed}",
        "-print_final_stats=1",
        "-rss_limit_mb=1024",
        "-timeout=10",
        f"-artifact_prefix={CORPUS / name}/",
    ]
    # New inputs go to the first folder: the corpus in the tree stays small.
    atheris.Setup([sys.argv[0], *flags, found, str(CORPUS / name)], DECODERS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())

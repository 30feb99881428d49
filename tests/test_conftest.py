"""The suite under nohup, and what it says of skipped tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import closing_line

ROOT = Path(__file__).parents[1]

PROBE = """
import os, signal, subprocess, sys

NAMES = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM")
CHILD = (
    "import signal\\n"
    "print([n for n in ('SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGCHLD')"
    " if signal.getsignal(getattr(signal, n)) is signal.SIG_IGN], signal.pthread_sigmask(0, ()))"
)

def test_children_have_the_default_signals():
    assert subprocess.check_output([sys.executable, "-c", CHILD], text=True) == "[] set()\\n"

def test_this_process_goes_on_ignoring_them():
    for name in NAMES:
        os.kill(os.getpid(), getattr(signal, name))
"""

NOHUP = """
import os, signal, sys
for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGCHLD"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGHUP})
os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]])
"""


def test_under_nohup_children_can_be_hung_up_and_the_suite_cannot(tmp_path: Path) -> None:
    (tmp_path / "test_probe.py").write_text(PROBE)
    for workers in ((), ("-n", "1")):
        done = subprocess.run(
            [
                *(sys.executable, "-c", NOHUP, "-p", "tests.conftest", "-p", "no:cacheprovider", *workers),
                *("-q", "--rootdir", str(tmp_path), "-c", "/dev/null", str(tmp_path)),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


def test_what_was_skipped_is_told_by_what_it_wants() -> None:
    reasons = [
        *["needs a C compiler (cc)"] * 3,
        "the C agent cannot be built: cmake, nanopb",
        "the extra video",
        "cryptography is not installed: pip install 'prbandit[keys]'",
        "Parquet needs the extra 'research'",
        "../shared/data/oai-rfsim is not there",
        "the band is too narrow for all",
    ]
    line = closing_line(reasons)
    assert line.startswith("skipped: 9, which want a C compiler (apt install gcc libc6-dev): 3; ")
    for part in (
        "CMake and the C agent's libraries (see README): 1",
        "the extra video (.venv/bin/pip install -e '.[video]'): 1",
        "the extra keys (.venv/bin/pip install -e '.[keys]'): 1",
        "the extra research (.venv/bin/pip install -e '.[research]'): 1",
        "../shared/data: 1",
        "the band is too narrow for all: 1",
    ):
        assert part in line

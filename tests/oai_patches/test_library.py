"""The C agent's own tests, on a plain build. The sanitizers and the fuzzer are for `.ci/run`."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.oai_patches import seeds


def test_the_c_tests_pass(agent_build: Path) -> None:
    done = subprocess.run(
        ["ctest", "--test-dir", str(agent_build), "--output-on-failure"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "100% tests passed" in done.stdout


def test_mutated_vectors_do_no_harm(agent_build: Path, tmp_path: Path) -> None:
    command = [agent_build / "tests" / "fuzz_receive", "20000", *seeds.write(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:]

"""Builds the C agent once for a test session, and drives its protocol core."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

AGENT = Path(__file__).parents[2] / "oai_patches" / "agent"


def build_agent() -> Path:
    """The build folder: ``libprbandit.so``, and ``tests/`` with ``toy_gnb`` and the others.

    ``PRBANDIT_AGENT_BUILD`` names a build that is there already, one with sanitizers perhaps.
    """
    if there := os.environ.get("PRBANDIT_AGENT_BUILD"):
        return Path(there).resolve()
    return build(AGENT)


@functools.cache
def build(source: Path) -> Path:
    """The folder in which a CMake project of ours was built, once for a test session.

    Skips the test, naming what is missing, on a machine without the tools.
    """
    if missing := _missing():
        pytest.skip(f"the C agent cannot be built: {missing}")
    folder = tempfile.mkdtemp(prefix="prbandit-build-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _run(["cmake", "-S", str(source), "-B", folder])
    _run(["cmake", "--build", folder, "--parallel", str(os.cpu_count() or 1)])
    return Path(folder)


def _missing() -> str:
    cc = os.environ.get("CC", "cc")
    for names, package in (
        (("cmake",), "cmake"),
        ((cc,), "gcc"),
        (("make", "ninja"), "make"),
        (("nanopb_generator", "nanopb_generator.py"), "nanopb"),
        (("protoc",), "protobuf-compiler"),
    ):
        if not any(map(shutil.which, names)):
            return f"{names[0]} is not there (Debian: {package})"
    for header, package in (("zmq.h", "libzmq3-dev"), ("pb.h", "libnanopb-dev")):
        asked = subprocess.run(
            [cc, "-E", "-x", "c", "-"], input=f"#include <{header}>\n", capture_output=True, text=True
        )
        if asked.returncode:
            return f"{header} is not there (Debian: {package})"
    return ""


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout[-4000:]}")


class CLink:
    """The protocol core in C (``oai_patches/agent/tests/link_script.c``), a line in, a line out."""

    def __init__(self, build: Path) -> None:
        self._process = subprocess.Popen(
            [build / "tests" / "link_script"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, *words: object) -> str:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line.endswith("\n"), f"link_script ended at {str(words)[:200]}"
        return line[:-1]

    def json(self, *words: object) -> Any:
        return json.loads(self(*words))

    def message(self, *words: object) -> bytes | None:
        answer = self(*words)
        return None if answer == "-" else bytes.fromhex(answer)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        assert self._process.wait(10) == 0

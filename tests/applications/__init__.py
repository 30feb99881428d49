"""Applications of the tests and benchmarks, known once this is imported."""

from __future__ import annotations

from agents.emulator import applications

NAMES = ("periodic", "chain")

applications.register("periodic", "tests.applications.periodic:Periodic")
applications.register("chain", "tests.applications.chain:Chain")

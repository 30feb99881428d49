"""Training that takes longer than a control slot may: what is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """Work that runs beside the control loop.

    ``function`` is "module:name", a pure function of plain values and arrays; ``key`` names the job for ever
    (whose model, digest of the data), so that it is done once; ``seed`` is for its randomness.
    """

    key: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """What came of a job. ``digest`` (SHA-256) names the result's bytes among the run's models; ``error``
    says why there is none."""

    slice: str
    key: str
    digest: str
    error: str = ""

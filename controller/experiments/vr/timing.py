"""How long a solver takes, without what is compiled and imported at its first call."""

from __future__ import annotations

import time
from dataclasses import replace

from controller.allocators.vr.instance import Instance
from controller.allocators.vr.solve import Answer, Request, find
from controller.experiments.vr.instances import draw


def timed(request: Request) -> tuple[Answer, float]:
    """The answer, and the seconds that solver and checker took."""
    warm_up(request)
    begin = time.perf_counter()
    answer = find(request)
    return answer, time.perf_counter() - begin


def warm_up(request: Request) -> None:
    """Compiles and imports what a solver needs, with a tiny instance."""
    find(replace(request, instance=Instance.of(draw(3, 2)), progress=None))

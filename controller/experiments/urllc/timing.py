"""How long a method takes, without what is compiled and imported at its first call."""

from __future__ import annotations

import time

from controller.allocators.urllc.instance import Instance
from controller.allocators.urllc.solve import Answer, Method, find
from controller.experiments.urllc.drops import Drop, draw


def timed(instance: Instance, method: Method) -> tuple[Answer, float]:
    """The answer and the seconds that it took. By CVXPY they hold the compilation of the problem, once."""
    find(Instance.of(draw(0, Drop(devices=2))), method)
    begin = time.perf_counter()
    answer = find(instance, method)
    return answer, time.perf_counter() - begin

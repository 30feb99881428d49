"""Digital agents of the video service: fits, demand, orchestration, a round of learning, a control slot."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.bench.common import Row, Skip, no_collection

NAME = "video"
USERS = (24, 1000)
LEARNERS = (16, 64)
STEP_MS = 10.0


def run(effort: float) -> list[Row]:
    """Of what is compiled, the least of a few times each, against a straightforward version of the same, or
    what may be taken. SciPy's fit is ``curve_fit`` for each structure, with the same truncated mean."""
    try:
        import numba  # noqa: F401
        import scipy  # noqa: F401
    except ImportError as error:
        raise Skip(f"{error.name} is not installed (pip install -e '.[video]')") from error
    times = max(2, round(5 * effort))
    many = USERS if effort >= 0.5 else USERS[:1]
    with no_collection():
        rows = [row for users in many for row in (*_fits(users, times), _demand(users, times))]
        rows += _orchestration(times)
        rows += [_round(users, times) for users in LEARNERS]
        rows.append(_control_slot(times))
    return rows


def _least(function: Callable[[], Any], times: int) -> float:
    """Seconds."""
    function()
    least = float("inf")
    for _ in range(times):
        begin = time.perf_counter()
        function()
        least = min(least, time.perf_counter() - begin)
    return least


def _histories(users: int, rows: int) -> list[Any]:
    from tests.allocators.video.viewers import COMBINED, QUALITY, STALLS, history

    return [history((STALLS, QUALITY, COMBINED)[i % 3], rows, seed=i)[:, :9] for i in range(users)]


def _fits(users: int, times: int) -> list[Row]:
    """Structure and weights, of 60 scores of each user; and what a score costs until the next fit."""
    from controller.allocators.video import opinion
    from controller.allocators.video.agent import OWN, Agent

    histories = _histories(users, 60)
    models = [opinion.fit(h) for h in histories]
    sample = 3
    scipy_s = sum(_scipy_fit(h) for h in histories[:sample]) / sample
    fit_s = _least(lambda: [opinion.fit(h) for h in histories], times) / users
    agents = [Agent(f"u{i}", 3.5, model=m, source=OWN) for i, m in enumerate(models)]
    score = np.concatenate((histories[0][-1], (6.0, 0.002, 600.0)))[None]
    update_s = _least(lambda: [a.observe(score) for a in agents], times) / users
    return [
        Row(NAME, f"fit a user's model, {users} users", "ms", 1e3 * fit_s, 1e3 * scipy_s,
            "SciPy, structure by structure", scipy_s / fit_s, ""),
        Row(NAME, f"update an agent by a score, {users} users", "ms", 1e3 * update_s, 1e3 * fit_s,
            "the whole fit", fit_s / update_s, ""),
    ]  # fmt: skip


def _scipy_fit(rows: Any) -> float:
    """Seconds of fitting every structure of two of four factors, and B and C in each shape."""
    from itertools import combinations

    from scipy.optimize import curve_fit

    from controller.allocators.video.opinion import COLUMNS, QOS, truncated_mean
    from wire.definitions import mos

    b, c = rows[:, COLUMNS.index("behaviour")], rows[:, COLUMNS.index("environment")]
    begin = time.perf_counter()
    for count in (1, 2):
        for names in combinations(QOS[:4], count):
            columns = rows[:, [COLUMNS.index(n) for n in names]]
            for shape in mos.IMPACTS:

                def score(_: Any, *w: float, columns: Any = columns, shape: str = shape) -> Any:
                    service = w[0] + columns @ np.array(w[3:])
                    return truncated_mean(service * mos.impact(shape, b, c, w[1:3]), 0.8)[0]

                start = (float(rows[:, 0].mean()), 0.0, 0.0, *(0.0 for _ in names))
                try:
                    curve_fit(score, None, rows[:, 0], start, maxfev=400)
                except RuntimeError:
                    continue
    return time.perf_counter() - begin


def _demand(users: int, times: int) -> Row:
    from controller.allocators.video.demand import Futures, demand
    from tests.allocators.video.people import users as people
    from wire.definitions import mos

    rng = np.random.default_rng(1)
    shape = users, 32, 4
    swipes = rng.uniform(1.0, 12.0, shape)
    ahead = Futures(
        mos.behaviour(swipes), rng.uniform(1.0, 2.0, shape), swipes, rng.uniform(1e-3, 4e-3, shape)
    )
    of = people(users, 3)

    def alone() -> None:
        for i in range(min(users, 24)):
            at = np.array([i])
            part = Futures(*(getattr(ahead, name)[at] for name in Futures.__slots__))
            demand(of.take(at), part, 180.0, 0.8, 180.0)

    each = _least(lambda: demand(of, ahead, 180.0, 0.8, 180.0), times) / users
    single = _least(alone, times) / min(users, 24)
    name = f"a user's demand, {users} users"
    return Row(NAME, name, "ms", 1e3 * each, 1e3 * single, "user by user", single / each, "")


def _orchestration(times: int) -> list[Row]:
    from controller.allocators.video import orchestration
    from controller.allocators.video.orchestration import Resources
    from tests.allocators.video.people import users as people

    of = people(24, 3)
    resources = Resources(np.full(2, 100.0), 10_000.0, 180.0)
    rows = []
    steps: dict[str, Callable[[], Any]] = {
        "convex": lambda: orchestration.convex(of, resources),
        "grouped": lambda: orchestration.plan(of, resources),
    }
    for name, step in steps.items():
        ms = 1e3 * _least(step, 4 * times)
        title = f"an orchestration step of 24 users, {name}"
        rows.append(Row(NAME, title, "ms", ms, STEP_MS, "may be taken", STEP_MS / ms, f"{STEP_MS:g} ms"))
    return rows


def _round(users: int, times: int) -> Row:
    from controller.allocators.video.learning import learn
    from controller.allocators.video.options import VideoOptions
    from tests.allocators.video.viewers import COMBINED, QUALITY, STALLS, history

    viewers = [(STALLS, QUALITY, COMBINED)[i % 3] for i in range(users)]
    first = {f"u{i}": history(v, 120, seed=i) for i, v in enumerate(viewers)}
    then = {f"u{i}": history(v, 6, seed=i + 99, start_s=1200.0) for i, v in enumerate(viewers)}
    given: dict[str, Any] = {
        "profiles": {f"u{i}": [v.ela, 1.0, 180.0] for i, v in enumerate(viewers)},
        "arrivals": {},
        "present": list(first),
        "options": VideoOptions().to_dict(),
        "seed": 1,
    }
    before = learn(before=b"", rows=first, **given)
    anew = _least(lambda: learn(before=b"", rows=first, **given), 1)
    seconds = _least(lambda: learn(before=before, rows=then, **given), times)
    name = f"a round of learning, {users} users, beside the loop"
    return Row(NAME, name, "ms", 1e3 * seconds, 1e3 * anew, "all models anew", anew / seconds, "")


def _control_slot(times: int) -> Row:
    """Learn, demand and settle of 64 users who have their own models; the state in JSON apart."""
    from tests.allocators.video.viewers import COMBINED, QUALITY, STALLS, Cell, allocator

    cell = Cell.of(*[(STALLS, QUALITY, COMBINED, QUALITY)[i % 4] for i in range(64)])
    a = allocator(window_min=3, recurrent=False)
    cell.play(a, 30)
    took: dict[str, list[float]] = {"learn": [], "demand": [], "settle": [], "state": []}
    for _ in range(4 * times):
        seen = cell.view()
        marks = [time.perf_counter()]
        a.learn(seen)
        marks.append(time.perf_counter())
        demand = a.demand(seen)
        marks.append(time.perf_counter())
        assert cell.granted is not None
        cell.settings = a.settle(seen, cell.granted)
        marks.append(time.perf_counter())
        json.dumps(a.to_state())
        marks.append(time.perf_counter())
        for name, ms in zip(took, np.diff(marks) * 1e3, strict=True):
            took[name].append(float(ms))
        assert demand.dl.prb > 0
    least = {name: min(ms) for name, ms in took.items()}
    ms = least["learn"] + least["demand"] + least["settle"]
    note = "control slot of 64 users: " + ", ".join(f"{name} {x:.2f} ms" for name, x in least.items())
    name = "learn, demand and settle, 64 users"
    return Row(NAME, name, "ms", ms, STEP_MS, "may be taken", STEP_MS / ms, f"{STEP_MS:g} ms", least, note)

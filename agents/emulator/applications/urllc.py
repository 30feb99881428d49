"""Industrial devices that offload tasks: the device works on a part, the edge on the rest or, cached, on all.

A device captures a task ``task_hz`` times a second. Of a task that is not cached the device works on the part
``local_share``, then sends its bytes, all of them or those of the rest; the edge works on the rest at the
rate granted to the device and sends the result back. A cached task is at the edge when it is captured:
nothing goes up, and the edge works on all of it. The parts come one after the other, as equation (5) adds
them.

The devices' processors work on one task at a time, in the order of capture; equation (3) has no queue, which
is the same where tasks do not overlap. The edge's rates are reserved: where what active devices are granted,
weighted as in constraint (6f), is more than the edge has, all rates are scaled down in proportion.

Nominal and real rates differ: real = nominal (1 - d), d drawn for each device and for the edge's share of it,
which is the deviation of equations (3) and (4).

Source: Edge Intelligence-based URLLC for Digital Twin-enabled Metaverse, section II and the parameters of
section IV.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from agents.emulator import draws
from agents.emulator.applications.base import (
    NEVER,
    NOT_YET,
    Application,
    Exchanges,
    ExchangeTimes,
    FloatArray,
    IntArray,
    SampleRows,
    Settings,
    UnitTestCase,
    joined,
)
from agents.emulator.applications.options import check_range, parse
from agents.emulator.spec import UserSpec
from wire.definitions.nr import SLOT_NS
from wire.definitions.short_packets import q_function

SECOND_NS: Final = 1_000_000_000
PLAN_NS: Final = 20_000_000
"""What is planned in one call."""
REPEAT_NS: Final = 10 * SECOND_NS
"""After so long a device's properties are sent once more, for a controller that has begun since."""
MIN_POWER_DBM: Final = -40.0
"""The least transmit power of a UE (TS 38.101-1 Table 6.3.1-1, channels up to 20 MHz)."""
TRANSMITTED: Final = ("whole", "offloaded")
SETTINGS: Final = ("cached", "local_share", "power_dbm", "ue_ghz", "edge_ghz")

_DRAWS = draws.APPLICATION + 48
_PHASE, _CYCLES, _WORK, _UE_DEVIATION, _EDGE_DEVIATION = range(_DRAWS, _DRAWS + 5)

_NOT_OFFERED = -1
"""Instead of the sequence of a task whose exchange has not been offered."""

_TASK = np.dtype(
    [
        (name, np.int64)
        for name in (
            "user",
            "captured_ns",
            # When the device's part is over, and whether the edge has a part, or the task timed out before.
            "begin_ns",
            "offloads",
            "expired",
            "sequence",
            "ul_bytes",
            "edge_ns",
            "ue_sent",
            "edge_received",
            "edge_sent",
            "ue_received",
        )
    ]
    + [("local_ms", np.float64), ("energy_mj", np.float64)]
)


@dataclass(frozen=True, slots=True)
class UrllcOptions:
    """Options of the users, the same for all of them. ValueError, which names the option, for one that cannot
    be.

    ``task_bytes`` of a task; ``cycles_per_byte``: lowest and highest, a device's is uniform between them;
    ``ue_ghz``: highest rate of a device; ``edge_ghz``: of the edge, all devices together; ``energy_mj``: a
    device's budget for a task; ``max_power_dbm``; ``theta`` in W s^3 / cycle^3, twice the effective switched
    capacitance. All of these: section IV, where P is 23 dB and 23 dBm is meant.

    ``transmitted``: of a task that is not cached a device sends the ``whole``, as equation (2) has it, or the
    ``offloaded`` part.

    ``task_hz``: tasks of a device a second, its phase is drawn; ``result_bytes``; ``work_sd``: standard
    deviation of a task's cycles relative to the device's, normal, cut off at three of them; ``timeout_ms``:
    a task without its result by then is lost. All four assumed.

    ``deviation`` and ``edge_deviation``: half-width of the uniform part by which a real rate falls short of
    the nominal one, drawn for each device; it may be negative. 0.02: Fig. 3. ``deviation_drift_s``: time
    scale in which that part changes, 0: it does not. Assumed.
    """

    task_bytes: int = 1354
    cycles_per_byte: tuple[float, ...] = (100.0, 300.0)
    transmitted: str = "whole"
    task_hz: float = 20.0
    result_bytes: int = 64
    ue_ghz: float = 1.5
    edge_ghz: float = 30.0
    energy_mj: float = 3.0
    max_power_dbm: float = 23.0
    theta: float = 1e-26
    deviation: float = 0.02
    edge_deviation: float = 0.02
    deviation_drift_s: float = 0.0
    work_sd: float = 0.01
    timeout_ms: float = 100.0

    def __post_init__(self) -> None:
        check_range(
            self,
            {
                "task_bytes": (1, 1_000_000),
                "task_hz": (0.01, 1000.0),
                "result_bytes": (1, 1_000_000),
                "ue_ghz": (1e-3, 100.0),
                "edge_ghz": (1e-3, 1e5),
                "energy_mj": (0.0, 1e6),
                "max_power_dbm": (MIN_POWER_DBM, 60.0),
                "theta": (0.0, 1e-20),
                "deviation": (0.0, 0.9),
                "edge_deviation": (0.0, 0.9),
                "deviation_drift_s": (0.0, 1e6),
                "work_sd": (0.0, 0.3),
                "timeout_ms": (1.0, 10_000.0),
            },
        )
        if self.transmitted not in TRANSMITTED:
            raise ValueError(f"transmitted {self.transmitted!r} is none of {', '.join(TRANSMITTED)}")
        low, high = self.cycles_per_byte
        if not 0.0 < low <= high <= 1e6:
            raise ValueError(f"cycles_per_byte {self.cycles_per_byte} are not rising within (0, 1e6]")


class Urllc(Application):
    """See the module; options: :class:`UrllcOptions`.

    Settings of a user, for the tasks that it captures from then on; one that is under way keeps its own:

    - ``cached``: 1 where its tasks are cached at the edge, else 0.
    - ``local_share``: alpha, the part that the device works on, 0..1.
    - ``power_dbm``: transmit power of its UE, -40 dBm to ``max_power_dbm``. At once, for all that it sends.
    - ``ue_ghz``, ``edge_ghz``: nominal rates of device and edge, above 0, at most the option. What this does
      to the rates of users that are not set at the same time, where the edge's are scaled down, begins with
      the tasks that are planned next, at most :data:`PLAN_NS` later.

    By default nothing is cached, the device does half of it at full power and rate, and the edge's rate is
    divided evenly.

    Tables:

    - ``device``: (bytes and nominal cycles of a task, highest rate of the device in GHz, its energy budget
    for
      a task in mJ, its highest transmit power in dBm, 1 where it sends whole tasks, else 0), when the user
      becomes active and every :data:`REPEAT_NS`.
    - ``task``: a row a task, with the time at which it was captured, in their order, once its fate and that
      of those before it is known: (ms in the device, ms up, ms at the edge, ms down, ms in all, mJ of the
      device, 1 where the task was lost, else 0). In the device: from capture until its part was done; up:
      until the edge had the rest. A part that the task did not have, or that was not over by the timeout, is
      NaN, and so is the whole of a lost task. The energy is that of processing alone, theta / 2 alpha C f^2
      with the real cycles and rate: an application does not see for how long the radio sent.

    A user that is not active captures no task; a task that it would have to send after its stop has no row.
    """

    name: ClassVar[str] = "urllc"
    settings: ClassVar[Mapping[str, int]] = dict.fromkeys(SETTINGS, 1)
    tables: ClassVar[Mapping[str, int]] = {"device": 6, "task": 7}

    def __init__(self, users: Sequence[UserSpec], seed: int) -> None:
        super().__init__(users, seed)
        for user in users:
            if user.options != users[0].options:
                raise ValueError(f"flow {user.flow!r}: its options differ from those of {users[0].flow!r}")
        try:
            self.options = o = parse(UrllcOptions, self.name, users[0].options)
        except ValueError as error:
            raise ValueError(f"flow {users[0].flow!r}: {error}") from error
        n = len(users)
        self._timeout_ns = round(o.timeout_ms * 1e6)
        self._phase_ns = (draws.uniforms(seed, _PHASE, self.index, 0) * SECOND_NS / o.task_hz).astype(
            np.int64
        )
        low, high = o.cycles_per_byte
        per_byte = low + (high - low) * draws.uniforms(seed, _CYCLES, self.index, 0)
        self.cycles: FloatArray = per_byte * o.task_bytes
        """Nominal cycles of a device's tasks, [users]."""
        self._set: dict[str, FloatArray] = {
            name: np.array([self.defaults(u)[name][0] for u in range(n)]) for name in SETTINGS
        }
        self._due = 0
        self._planned_ns = np.zeros(n, np.int64)
        self._offered = np.zeros(n, np.int64)
        self._processor_free_ns = np.zeros(n, np.int64)
        self._starts = [np.array([round(start * 1e9) for start, _ in user.active]) for user in users]
        self._device_row_ns = np.array([self._first_start(u, -1) for u in range(n)])
        # Tasks without a row yet, by user and in the order of capture.
        self._tasks: NDArray[np.void] = np.zeros(0, _TASK)
        self._rows: dict[str, list[SampleRows]] = {}

    @property
    def due_ns(self) -> int:
        return self._due

    def offer(self, now_ns: int) -> Exchanges:
        self._report_devices(now_ns)
        self._report_tasks(now_ns)
        if now_ns >= self._due:
            self._due = (now_ns // PLAN_NS + 1) * PLAN_NS
        captured = self._capture(np.maximum(self._planned_ns, now_ns), self._due)
        self._planned_ns[:] = self._due
        if len(captured):
            tasks = np.concatenate((self._tasks, captured))
            self._tasks = tasks[np.argsort(tasks["user"], kind="stable")]
        return self._begin()

    def take(self, times: ExchangeTimes) -> None:
        offered = np.flatnonzero(self._tasks["sequence"] != _NOT_OFFERED)
        key = (self._tasks["user"][offered] << 40) + self._tasks["sequence"][offered]
        order = np.argsort(key)
        key, offered = key[order], offered[order]
        changed = (times.user << 40) + times.sequence
        # Those that timed out have had their row.
        open_ = np.isin(changed, key)
        place = offered[np.searchsorted(key, changed[open_])]
        for name in ("ue_sent", "edge_received", "edge_sent", "ue_received"):
            self._tasks[name][place] = getattr(times, name)[open_]

    def defaults(self, user: int) -> Settings:
        o = self.options
        values = 0.0, 0.5, o.max_power_dbm, o.ue_ghz, o.edge_ghz / len(self.users)
        return {name: (float(value),) for name, value in zip(SETTINGS, values, strict=True)}

    def check(self, user: int, setting: str, values: tuple[float, ...]) -> None:
        o, value = self.options, values[0]
        if setting == "cached":
            if value not in (0.0, 1.0):
                raise ValueError(f"{value:g} is neither 0 nor 1")
        elif setting == "local_share":
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{value:g} is outside 0..1")
        elif setting == "power_dbm":
            if not MIN_POWER_DBM <= value <= o.max_power_dbm:
                raise ValueError(f"{value:g} dBm is outside {MIN_POWER_DBM:g}..{o.max_power_dbm:g}")
        else:
            most = o.ue_ghz if setting == "ue_ghz" else o.edge_ghz
            if not 0.0 < value <= most:
                raise ValueError(f"{value:g} GHz is outside (0, {most:g}]")

    def apply(self, user: int, settings: Settings, now_ns: int, withdrawn: int) -> None:
        for name in SETTINGS:
            self._set[name][user] = settings[name][0]
        self._offered[user] -= withdrawn
        self._planned_ns[user] = now_ns
        t = self._tasks
        self._tasks = t = t[(t["user"] != user) | (t["captured_ns"] < now_ns)]
        of_user = t["user"] == user
        t["sequence"][of_user & (t["begin_ns"] >= now_ns)] = _NOT_OFFERED
        processed = of_user & (t["local_ms"] > 0.0)
        self._processor_free_ns[user] = t["begin_ns"][processed].max(initial=0)

    def power_db(self) -> FloatArray:
        return self._set["power_dbm"] - self.options.max_power_dbm

    def samples(self) -> Mapping[str, SampleRows]:
        rows, self._rows = self._rows, {}
        return joined(rows)

    @classmethod
    def unit_test_cases(cls) -> Iterable[UnitTestCase]:
        refused: tuple[Settings, ...] = (
            {"cached": (0.5,)},
            {"local_share": (-0.1,)},
            {"local_share": (1.01,)},
            {"power_dbm": (23.5,)},
            {"power_dbm": (-40.5,)},
            {"ue_ghz": (0.0,)},
            {"ue_ghz": (1.6,)},
            {"edge_ghz": (0.0,)},
            {"edge_ghz": (30.5,)},
            {"local_share": (0.1, 0.2)},
        )
        # Large enough for the delay to be one of capacity.
        large = {"task_bytes": 20_000, "cycles_per_byte": (10.0, 20.0), "timeout_ms": 500.0}
        yield UnitTestCase({**large, "transmitted": "offloaded"}, {"local_share": (0.1,)}, refused)
        drifting = {
            **large,
            "result_bytes": 15_000,
            "deviation_drift_s": 0.5,
            "deviation": 0.2,
            "work_sd": 0.1,
        }
        yield UnitTestCase(drifting, {"cached": (1.0,), "power_dbm": (20.0,)}, refused)

    # -- tasks ---------------------------------------------------------------------------------------

    def deviations(self, user: IntArray, time_ns: IntArray) -> tuple[FloatArray, FloatArray]:
        """The parts by which the real rates of devices and of the edge for them fall short at a time, [n]."""
        o = self.options
        return (
            o.deviation * self._drift(_UE_DEVIATION, user, time_ns),
            o.edge_deviation * self._drift(_EDGE_DEVIATION, user, time_ns),
        )

    def _drift(self, purpose: int, user: IntArray, time_ns: IntArray) -> FloatArray:
        """Uniform in [-1, 1] at each time, smooth in ``deviation_drift_s``."""
        index, scale_ns = self.index[user], self.options.deviation_drift_s * 1e9
        if scale_ns == 0.0:
            return 2.0 * draws.uniforms(self.seed, purpose, index, 0) - 1.0
        t = time_ns / scale_ns
        k = np.floor(t)
        w = t - k
        a, b = (draws.gaussians(self.seed, purpose, index, k.astype(np.int64) + i) for i in (0, 1))
        normal = ((1.0 - w) * a + w * b) / np.sqrt((1.0 - w) ** 2 + w**2)
        return np.array([1.0 - 2.0 * q_function(z) for z in normal.tolist()])

    def _capture(self, start_ns: IntArray, end_ns: int) -> NDArray[np.void]:
        """Tasks captured from ``start_ns`` (by user) to ``end_ns``, by user and in the order of capture."""
        o = self.options
        period_ns = SECOND_NS / o.task_hz
        # One on either side, for what rounding leaves out.
        first = np.maximum(np.floor((start_ns - self._phase_ns) / period_ns).astype(np.int64), 0)
        number = first[:, None] + np.arange(int(max(end_ns - start_ns.min(), 0) / period_ns) + 3)
        captured = self._phase_ns[:, None] + np.floor(number * period_ns).astype(np.int64)
        user, column = np.nonzero((captured >= start_ns[:, None]) & (captured < end_ns))
        captured, number = captured[user, column], number[user, column]
        active = self.active.contain(user, captured)
        user, captured, number = user[active], captured[active], number[active]
        tasks = np.zeros(len(user), _TASK)
        if len(user) == 0:
            return tasks
        gaussian = draws.gaussians(self.seed, _WORK, self.index[user], number)
        cycles = self.cycles[user] * (1.0 + o.work_sd * np.clip(gaussian, -3.0, 3.0))
        deviation, edge_deviation = self.deviations(user, captured)
        cached, share, ue_ghz = (self._set[name][user] for name in ("cached", "local_share", "ue_ghz"))
        share = np.where(cached == 1.0, 0.0, share)
        ue_ghz = ue_ghz * (1.0 - deviation)
        edge_ghz = self._edge_ghz(user, captured) * (1.0 - edge_deviation)
        local_ns = self._work_ns(share * cycles, ue_ghz)
        start, begin = self._processed(user, captured, local_ns)
        in_time = begin < captured + self._timeout_ns
        # A device that a task's timeout stops has done a part of its part.
        done = np.divide(begin - start, local_ns, out=np.zeros(len(user)), where=local_ns > 0)

        tasks["user"], tasks["captured_ns"], tasks["begin_ns"] = user, captured, begin
        whole = o.transmitted == "whole"
        tasks["offloads"], tasks["expired"] = ((share < 1.0) | whole) & in_time, ~in_time
        tasks["sequence"] = _NOT_OFFERED
        # The share comes from arithmetic: no byte more for the last digit of it.
        upload = np.ceil((1.0 if whole else 1.0 - share) * o.task_bytes - 1e-6)
        tasks["ul_bytes"] = np.where(cached == 1.0, 0, np.maximum(upload, 1))
        tasks["edge_ns"] = self._work_ns((1.0 - share) * cycles, edge_ghz)
        for name in ("ue_sent", "edge_received", "edge_sent", "ue_received"):
            tasks[name] = NOT_YET
        tasks["local_ms"] = np.where(local_ns > 0, (begin - captured) / 1e6, np.nan)
        tasks["energy_mj"] = 0.5e3 * o.theta * share * cycles * (1e9 * ue_ghz) ** 2 * done
        return tasks

    def _work_ns(self, cycles: FloatArray, ghz: FloatArray) -> IntArray:
        """How long cycles take at rates, no more than what loses a task in any case."""
        ns = np.ceil(cycles / np.maximum(ghz, 1e-9))
        return np.minimum(ns, 2.0 * self._timeout_ns).astype(np.int64)

    def _processed(
        self, user: IntArray, captured_ns: IntArray, local_ns: IntArray
    ) -> tuple[IntArray, IntArray]:
        """When the device begins with its part of each task and when it is done, by its timeout at the
        latest."""
        start, end = captured_ns.copy(), captured_ns.copy()
        for i in np.flatnonzero(local_ns).tolist():
            start[i] = max(captured_ns[i], self._processor_free_ns[user[i]])
            end[i] = min(start[i] + local_ns[i], captured_ns[i] + self._timeout_ns)
            self._processor_free_ns[user[i]] = end[i]
        return start, end

    def _edge_ghz(self, user: IntArray, time_ns: IntArray) -> FloatArray:
        """The nominal rates at which the edge works for users at a time, [n]: constraint (6f) holds."""
        rates, o = self._set["edge_ghz"], self.options
        weighted = rates * np.where(self._set["cached"] == 1.0, 1.0, 1.0 - self._set["local_share"])
        if weighted.sum() <= o.edge_ghz:
            return rates[user]
        everyone = np.arange(len(rates))
        active = self.active.contain(np.tile(everyone, len(time_ns)), np.repeat(time_ns, len(rates)))
        total = active.reshape(len(time_ns), len(rates)) @ weighted
        return rates[user] * np.minimum(1.0, o.edge_ghz / np.maximum(total, 1e-12))

    def _begin(self) -> Exchanges:
        """The exchanges of tasks that the devices are done with before the next call."""
        t = self._tasks
        begins = (t["offloads"] == 1) & (t["sequence"] == _NOT_OFFERED) & (t["begin_ns"] < self._due)
        place = np.flatnonzero(begins)
        stopped = place[~self.active.contain(t["user"][place], t["begin_ns"][place])]
        if len(stopped):
            self._tasks = t = np.delete(t, stopped)
            begins = np.delete(begins, stopped)
            place = np.flatnonzero(begins)
        place = place[np.lexsort((t["captured_ns"][place], t["begin_ns"][place], t["user"][place]))]
        user = t["user"][place]
        rank = np.arange(len(place)) - np.searchsorted(user, user)
        t["sequence"][place] = self._offered[user] + rank
        np.add.at(self._offered, user, 1)
        return Exchanges.of(
            user,
            t["begin_ns"][place],
            ul_bytes=t["ul_bytes"][place],
            edge_ns=t["edge_ns"][place],
            dl_bytes=self.options.result_bytes,
        )

    # -- rows ----------------------------------------------------------------------------------------

    def _report_devices(self, now_ns: int) -> None:
        """Rows of devices that are due.

        A start within an NR slot is worked off when the next one begins; no row is there before it.
        """
        o = self.options
        for u in np.flatnonzero(self._device_row_ns <= now_ns - SLOT_NS).tolist():
            while (time_ns := int(self._device_row_ns[u])) <= now_ns - SLOT_NS:
                if self.active.contain(np.array([u]), np.array([time_ns]))[0]:
                    whole = float(o.transmitted == "whole")
                    row = o.task_bytes, self.cycles[u], o.ue_ghz, o.energy_mj, o.max_power_dbm, whole
                    self._add("device", np.array([u]), np.array([time_ns]), np.array([row]))
                self._device_row_ns[u] = min(time_ns + REPEAT_NS, self._first_start(u, time_ns))

    def _first_start(self, user: int, after_ns: int) -> int:
        """When the user next becomes active, later than a time; NEVER where it does not."""
        starts = self._starts[user]
        k = int(np.searchsorted(starts, after_ns, side="right"))
        return int(starts[k]) if k < len(starts) else NEVER

    def _report_tasks(self, now_ns: int) -> None:
        """Rows of the tasks whose fate, and that of all before, is known."""
        t = self._tasks
        if len(t) == 0:
            return
        back = t["ue_received"] != NOT_YET
        in_device = (t["offloads"] == 0) & (t["begin_ns"] < now_ns)
        # What happens within an NR slot is worked off when the next one begins.
        timeout = t["captured_ns"] + self._timeout_ns
        pending = ~(back | in_device | (timeout <= now_ns - SLOT_NS))
        before = np.concatenate(([0], np.cumsum(pending)))
        known = before[1:] == before[np.searchsorted(t["user"], t["user"])]
        if not known.any():
            return
        k, timeout = t[known], timeout[known]
        end = np.where(k["offloads"] == 1, k["ue_received"], k["begin_ns"])
        lost = (end == NOT_YET) | (end > timeout) | (k["expired"] == 1)

        def part(begin: str, end: str) -> FloatArray:
            over = (k[end] != NOT_YET) & (k[end] <= timeout)
            return np.where(over, (k[end] - k[begin]) / 1e6, np.nan)

        values = np.column_stack(
            (
                np.where(k["expired"] == 1, np.nan, k["local_ms"]),
                np.where(k["ul_bytes"] > 0, part("ue_sent", "edge_received"), np.nan),
                part("edge_received", "edge_sent"),
                part("edge_sent", "ue_received"),
                np.where(lost, np.nan, (end - k["captured_ns"]) / 1e6),
                k["energy_mj"],
                lost,
            )
        )
        self._add("task", k["user"], k["captured_ns"], values)
        self._tasks = t[~known]

    def _add(self, table: str, user: IntArray, time_ns: IntArray, values: Any) -> None:
        self._rows.setdefault(table, []).append((user, time_ns, np.asarray(values, np.float64)))

"""Judges a run by windows of equal length, whatever its control slots were."""

from __future__ import annotations

from controller.allocators.ar.delays import Metric, judge
from controller.allocators.ar.options import ArOptions
from controller.allocators.base import SliceView
from controller.config import Config
from controller.core.collector import SlotCollector
from controller.links import codec
from controller.links.qos import FlowBegin, QosItem
from controller.sim import EPOCH_NS
from wire.definitions.nr import SLOT_NS

WINDOW_S = 5.0
"""T of the paper: with control slots of that length a window is a control slot."""


class Windows:
    """Closes a window every ``window_s`` seconds and judges the slice's frames in it as a control slot's.

    An observer of :func:`controller.sim.run` of one slice of service ``ar``. ``met`` has a bit a window, None
    where it cannot be told. ValueError for another service and for a window that is no longer than the guard.
    """

    def __init__(self, config: Config, cell_id: str, slice_id: str, window_s: float = WINDOW_S) -> None:
        of = next(s for c in config.cells if c.id == cell_id for s in c.slices if s.id == slice_id)
        if not isinstance(of.options, ArOptions):
            raise ValueError(f"slice {slice_id}: windows are judged for the service ar, not {of.service}")
        self._guard_ms = config.control.guard_ms
        if window_s * 1e3 <= self._guard_ms:
            raise ValueError(f"guard_ms {self._guard_ms:g} leaves nothing of a window of {window_s:g} s")
        self._slice = slice_id
        self._budgets, self._metric = of.options.budgets.to_budgets(), Metric.parse(of.options.metric)
        self._collector = SlotCollector([slice_id])
        self._flows: set[str] = set()
        self._length = round(window_s * 1e9 / SLOT_NS)
        self.met: list[int | None] = []

    @property
    def next_nr_slot(self) -> int:
        return (len(self.met) + 1) * self._length

    def begin_ns(self, window: int) -> int:
        """CLOCK_REALTIME at which window 0, 1, ... begins."""
        return EPOCH_NS + window * self._length * SLOT_NS

    def take(self, item: QosItem) -> None:
        match item:
            case FlowBegin() if item.flow.slice == self._slice:
                self._collector.flow_start(item.flow)
                self._flows.add(item.flow.flow)
            case codec.FlowEnd() if item.flow in self._flows:
                self._collector.flow_stop(item.flow, item.time_ns)
            case codec.FrameBatch() if item.flow in self._flows:
                self._collector.frames(
                    item.flow, item.columns, item.synchronised, item.received_ns, item.fault
                )

    def look(self, time_ns: int) -> None:
        observation = self._collector.close(
            control_slot=len(self.met) + 1, opened_ns=self.begin_ns(len(self.met)), closed_ns=time_ns
        )
        view = SliceView.of(observation, self._slice, guard_ms=self._guard_ms)
        self.met.append(judge(view, self._budgets, metric=self._metric).met)

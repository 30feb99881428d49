"""Prometheus metrics of the edge agent: the GPUs as they are read when scraped, and what was counted."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agents.gpu.calls import HANG_S
from agents.gpu.device import ERRORS
from agents.gpu.service import EdgeAgent

_COUNTS = {
    "locks": "Clock locks and renewals that the GPU took",
    "releases": "Leases that their holder ended",
    "lapsed_leases": "Leases that ended for want of renewal",
    "lock_errors": "Clock locks and renewals that the GPU refused",
    "release_errors": "Attempts to bring a GPU back to its default clocks that failed",
}

_GAUGES = {
    "sm_mhz": "SM clock, MHz",
    "memory_mhz": "Memory clock, MHz",
    "power_watts": "Power, W",
    "utilisation_ratio": "Share of the time in which a kernel ran, 0..1",
    "temperature_celsius": "Temperature of the GPU, degrees Celsius",
}


READ_S = HANG_S + 0.5
"""A scrape waits so long for the readings (s): who hangs has then begun to count as hanging."""


class AgentCollector(Collector):
    """Reads every GPU at each scrape; a field that a GPU does not report has no sample.

    A GPU that hangs is not waited for: it has no sample but ``gpu_up`` 0 and how long it hangs.
    """

    def __init__(self, agent: EdgeAgent) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        agent = self._agent
        readings = agent.read_all(READ_S)
        up = GaugeMetricFamily("prbandit_agent_gpu_up", "Whether the GPU can be read", labels=["gpu"])
        hang = GaugeMetricFamily(
            "prbandit_agent_gpu_hang_seconds",
            "How long a call to the GPU has not returned, seconds; 0: none hangs",
            labels=["gpu"],
        )
        for gpu in (*(info.uuid for info in agent.infos), *agent.missing):
            up.add_metric([gpu], gpu in readings)
            hang.add_metric([gpu], agent.hanging(gpu))
        yield from (up, hang)
        locked = GaugeMetricFamily(
            "prbandit_agent_gpu_locked_mhz", "Clock that is locked, MHz; 0: none", labels=["gpu"]
        )
        energy = CounterMetricFamily(
            "prbandit_agent_gpu_energy_joules", "Energy since the driver was loaded, J", labels=["gpu"]
        )
        reasons = GaugeMetricFamily(
            "prbandit_agent_gpu_clock_event",
            "Why the clock is what it is: 1 for each",
            labels=["gpu", "reason"],
        )
        gauges = {
            name: GaugeMetricFamily(f"prbandit_agent_gpu_{name}", text, labels=["gpu"])
            for name, text in _GAUGES.items()
        }
        for uuid, (locked_mhz, reading) in readings.items():
            locked.add_metric([uuid], locked_mhz)
            if reading.energy_j is not None:
                energy.add_metric([uuid], reading.energy_j)
            for reason in reading.clock_event_reasons:
                reasons.add_metric([uuid, reason], 1)
            values = (
                reading.sm_mhz,
                reading.memory_mhz,
                reading.power_w,
                reading.utilisation,
                reading.temperature_c,
            )
            for gauge, value in zip(gauges.values(), values, strict=True):
                if value is not None:
                    gauge.add_metric([uuid], value)
        yield from (locked, energy, reasons, *gauges.values())
        yield from self._counters()

    def _counters(self) -> Iterator[Metric]:
        counts = self._agent.counters
        for name, text in _COUNTS.items():
            yield CounterMetricFamily(f"prbandit_agent_{name}", text, value=counts.get(name, 0))
        errors = CounterMetricFamily(
            "prbandit_agent_errors", "GPU calls that failed, by error", labels=["error"]
        )
        for kind in ERRORS:
            errors.add_metric([kind.name], counts.get(f"errors_{kind.name}", 0))
        refused = CounterMetricFamily(
            "prbandit_agent_refused_calls",
            "Calls of the edge link that were refused, by status",
            labels=["code"],
        )
        for name, count in sorted(counts.items()):
            if name.startswith("refused_"):
                refused.add_metric([name.removeprefix("refused_")], count)
        yield from (errors, refused)


def registry(agent: EdgeAgent) -> CollectorRegistry:
    """What :class:`wire.exposition.MetricsServer` serves for ``agent``."""
    made = CollectorRegistry()
    made.register(AgentCollector(agent))
    return made

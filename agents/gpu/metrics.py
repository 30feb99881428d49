"""Prometheus metrics of the edge agent: the GPUs as they are read when scraped, and what was counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agents.gpu.calls import HANG_S
from agents.gpu.device import ERRORS
from agents.gpu.service import EdgeAgent
from wire.families import Families, Family, Registry

_GPU = ("gpu",)
FAMILIES = tuple(
    Family(f"prbandit_agent_{name}", kind, text, labels)
    for name, kind, text, labels in (
        ("gpu_up", "gauge", "Whether the GPU can be read", _GPU),
        (
            "gpu_hang_seconds",
            "gauge",
            "How long a call to the GPU has hung, seconds; 0: none hangs",
            _GPU,
        ),
        ("gpu_locked_hertz", "gauge", "Clock that is locked, Hz; 0: none", _GPU),
        ("gpu_clock_hertz", "gauge", "SM clock, Hz", _GPU),
        ("gpu_memory_clock_hertz", "gauge", "Clock of the GPU's memory, Hz", _GPU),
        ("gpu_power_watts", "gauge", "Power, W", _GPU),
        ("gpu_energy_joules_total", "counter", "Energy since the driver was loaded, J", _GPU),
        ("gpu_utilisation_ratio", "gauge", "Share of the time in which a kernel ran, 0..1", _GPU),
        ("gpu_temperature_celsius", "gauge", "Temperature of the GPU, degrees Celsius", _GPU),
        ("gpu_clock_event", "gauge", "Why the clock is what it is: 1 for each", ("gpu", "reason")),
        ("locks_total", "counter", "Clock locks and renewals that the GPU took", ()),
        ("releases_total", "counter", "Leases that their holder ended", ()),
        ("lapsed_leases_total", "counter", "Leases that ended for want of renewal", ()),
        ("lock_errors_total", "counter", "Clock locks and renewals that the GPU refused", ()),
        (
            "release_errors_total",
            "counter",
            "Attempts to bring a GPU back to its default clocks that failed",
            (),
        ),
        ("errors_total", "counter", "GPU calls that failed, by error", ("error",)),
        (
            "refused_calls_total",
            "counter",
            "Calls of the edge link that were refused, by status",
            ("code",),
        ),
    )
)
_COUNTS = ("locks", "releases", "lapsed_leases", "lock_errors", "release_errors")

READ_S = HANG_S + 0.5
"""A scrape waits so long for the readings (s): who hangs has then begun to count as hanging."""


class AgentCollector(Families):
    """Reads every GPU at each scrape; a field that a GPU does not report has no sample.

    A GPU that hangs is not waited for: it has no sample but ``gpu_up`` 0 and how long it hangs.
    """

    families = FAMILIES

    def __init__(self, agent: EdgeAgent) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Any]:
        made = {f.name.removeprefix("prbandit_agent_"): f.open() for f in FAMILIES}
        self._gpus(made)
        self._counts(made)
        yield from made.values()

    def _gpus(self, made: Mapping[str, Any]) -> None:
        agent = self._agent
        readings = agent.read_all(READ_S)
        for gpu in (*(info.uuid for info in agent.infos), *agent.missing):
            made["gpu_up"].add_metric([gpu], gpu in readings)
            made["gpu_hang_seconds"].add_metric([gpu], agent.hanging(gpu))
        for uuid, (locked_mhz, reading) in readings.items():
            for name, value in (
                ("gpu_locked_hertz", locked_mhz * 1e6),
                ("gpu_clock_hertz", _hertz(reading.sm_mhz)),
                ("gpu_memory_clock_hertz", _hertz(reading.memory_mhz)),
                ("gpu_power_watts", reading.power_w),
                ("gpu_energy_joules_total", reading.energy_j),
                ("gpu_utilisation_ratio", reading.utilisation),
                ("gpu_temperature_celsius", reading.temperature_c),
            ):
                if value is not None:
                    made[name].add_metric([uuid], value)
            for reason in reading.clock_event_reasons:
                made["gpu_clock_event"].add_metric([uuid, reason], 1)

    def _counts(self, made: Mapping[str, Any]) -> None:
        counts = self._agent.counters
        for name in _COUNTS:
            made[f"{name}_total"].add_metric([], counts.get(name, 0))
        for kind in ERRORS:
            made["errors_total"].add_metric([kind.name], counts.get(f"errors_{kind.name}", 0))
        for name, count in sorted(counts.items()):
            if name.startswith("refused_"):
                made["refused_calls_total"].add_metric([name.removeprefix("refused_")], count)


def _hertz(mhz: float | None) -> float | None:
    return None if mhz is None else mhz * 1e6


def registry(agent: EdgeAgent) -> Registry:
    """What :class:`wire.exposition.MetricsServer` serves for ``agent``."""
    made = Registry()
    made.add(AgentCollector(agent))
    return made

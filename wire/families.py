"""Metrics that say what they are: a registry that knows every family that its page may show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    Metric,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

# The Unix time of a counter's first count: a series more for each, that nobody asks for.
disable_created_metrics()

PREFIX = "prbandit_"
UNITS: dict[str, str] = {
    "seconds": "s",
    "timestamp_seconds": "Unix time, s",
    "bytes": "bytes",
    "bits_per_second": "bit/s",
    "hertz": "Hz",
    "watts": "W",
    "joules": "J",
    "celsius": "°C",
    "ratio": "0..1",
    "prb": "PRB",
    "db": "dB",
}
"""What a name ends with, before ``_total``, and the unit that it means; other names count or tell states."""


class Family(NamedTuple):
    """A metric: its name as the page shows it, its type (counter, gauge, histogram, info), its help text, the
    names of its labels.

    >>> Family("prbandit_clock_offset_seconds", "gauge", "Offset of a clock", ("host",)).unit
    's'
    """

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """Its unit, "" where it counts or tells a state."""
        words = self.name.removesuffix("_total")
        fitting = [suffix for suffix in UNITS if words.endswith(f"_{suffix}")]
        return UNITS[max(fitting, key=len)] if fitting else ""

    def open(self) -> GaugeMetricFamily | CounterMetricFamily:
        """It without a sample, for a collector to fill."""
        if self.kind == "counter":
            return CounterMetricFamily(self.name, self.text, labels=self.labels)
        return GaugeMetricFamily(self.name, self.text, labels=self.labels)


class Families(Collector):
    """A collector that fills ``families`` in at each scrape."""

    families: Sequence[Family] = ()

    def describe(self) -> Iterable[Metric]:
        return [family.open() for family in self.families]


class Registry(CollectorRegistry):
    """Makes metrics, or takes collectors of them; ``families`` are all that its page may show."""

    def __init__(self) -> None:
        super().__init__()
        self.families: list[Family] = []

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        self.families.append(Family(PREFIX + name, "gauge", text, labels))
        return Gauge(PREFIX + name, text, labels, registry=self)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """``name`` ends with ``_total``."""
        self.families.append(Family(PREFIX + name, "counter", text, labels))
        return Counter(PREFIX + name, text, labels, registry=self)

    def histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float]) -> Histogram:
        self.families.append(Family(PREFIX + name, "histogram", text, labels))
        return Histogram(PREFIX + name, text, labels, registry=self, buckets=buckets)

    def info(self, name: str, text: str, *labels: str) -> Info:
        """Shown as ``<name>_info``, always 1, with what it tells as ``labels``."""
        self.families.append(Family(f"{PREFIX}{name}_info", "info", text, labels))
        return Info(PREFIX + name, text, registry=self)

    def add(self, collector: Families) -> None:
        """Show what a collector collects."""
        self.families.extend(collector.families)
        self.register(collector)

"""The bounds of the messages of wire/qos.proto: one name each, and both ends import it.

Names are bounded in bytes of UTF-8, the rest in entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

MAX_NAME = 31
"""A UE id, slice, service, table, setting or PTP state: as wire/ran.options less the terminating zero."""
MAX_CELL_ID = 63
MAX_FLOW_NAME = 128
"""A flow or a host."""
MAX_CELL_FLOWS = 1024
"""Flows of a cell that are active, or whose host is away for a while; further ones are refused."""
MAX_FRAMES = 1024
"""Frames of a FrameBatch."""
MAX_SAMPLES = 1024
"""Rows of a Samples."""
MAX_SAMPLE_VALUES = 4096
"""Values of a Samples, all rows together."""
MAX_SETTINGS_FLOWS = 64
"""Flows of a SetSettings."""
MAX_SETTINGS = 32
"""Settings of a FlowSettings."""
MAX_SETTING_VALUES = 64
"""Values of a Setting."""
MAX_SETTINGS_LEASE_MS = 3_600_000
"""Lease of a SetSettings: an hour."""
MAX_REFUSED = 1024
"""Text of a SettingsApplied that refuses."""


def check_name(place: str, field: str, value: str, bound: int) -> None:
    """ValueError, which begins with ``place``, for a name that is empty or longer than ``bound`` bytes."""
    if not value:
        raise ValueError(f"{place}: {field} is empty")
    if len(value.encode()) > bound:
        raise ValueError(f"{place}: {field} {value[:bound]!r}... is longer than {bound} bytes")


def check_settings(settings: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Checks settings, flow -> name -> values, before they are sent and after they have come.

    How many flows there are is not checked here: a sender divides them among several messages.

    Raises:
        ValueError: names flow, setting and value: a name that is empty or too long, too many settings of a
            flow, no value or too many, a value that is NaN, infinite or no number.
    """
    for flow, of_flow in settings.items():
        check_name("settings", "flow", flow, MAX_FLOW_NAME)
        place = f"settings of flow {flow!r}"
        if len(of_flow) > MAX_SETTINGS:
            raise ValueError(f"{place}: {len(of_flow)} settings, more than {MAX_SETTINGS}")
        for name, values in of_flow.items():
            check_name(place, "name", name, MAX_NAME)
            if not 1 <= len(values) <= MAX_SETTING_VALUES:
                raise ValueError(f"{place}: {name}: {len(values)} values, not 1 to {MAX_SETTING_VALUES}")
            for i, value in enumerate(values):
                try:
                    finite = isfinite(value)
                except (TypeError, OverflowError):
                    finite = False
                if not finite:
                    raise ValueError(f"{place}: {name}: value {i} is {value!r}, not a finite number")

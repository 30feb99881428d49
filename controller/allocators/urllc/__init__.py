"""The ``urllc`` service: what devices cache, offload and transmit with, by the URLLC digital-twin paper."""

from __future__ import annotations

from controller.allocators.base import Column, Service
from controller.allocators.urllc.allocator import UrllcAllocator
from controller.allocators.urllc.options import UrllcOptions
from controller.allocators.urllc.solve import solve

SERVICE = Service(
    name="urllc",
    options=UrllcOptions,
    allocator=UrllcAllocator,
    tables={
        "device": (
            Column("task_bytes", "bytes"),
            Column("cycles", "cycles"),
            Column("ue_ghz", "GHz"),
            Column("energy", "mJ"),
            Column("power", "dBm"),
            Column("whole", "1"),
        ),
        "task": (
            Column("local", "ms"),
            Column("uplink", "ms"),
            Column("edge", "ms"),
            Column("downlink", "ms"),
            Column("total", "ms"),
            Column("energy", "mJ"),
            Column("lost", "1"),
        ),
    },
    settings={
        "cached": Column("cached", "1"),
        "local_share": Column("local_share", "1"),
        "power_dbm": Column("power_dbm", "dBm"),
        "ue_ghz": Column("ue_ghz", "GHz"),
        "edge_ghz": Column("edge_ghz", "GHz"),
    },
    solve=solve,
    five_qi=82,  # discrete automation
    unit_test_options=(
        {},
        {"bandwidth": "dedicated", "twin": "none", "min_rate_mbps": 0.1},
    ),
)

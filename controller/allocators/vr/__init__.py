"""The ``vr`` service: frame rates and resolutions of cloud-gaming users, by what they look at."""

from __future__ import annotations

from controller.allocators.base import Column, Service
from controller.allocators.vr.allocator import VrAllocator
from controller.allocators.vr.options import VrOptions
from controller.allocators.vr.solve import solve
from wire.definitions.bounds import MAX_SETTING_VALUES

SERVICE = Service(
    name="vr",
    options=VrOptions,
    allocator=VrAllocator,
    tables={
        "scene": (Column("object", "1"), Column("area", "pixels"), Column("attention", "1")),
        "device": (Column("max_fps", "Hz"), Column("highest_class", "1")),
        "delivered": (
            Column("latency", "ms"),
            Column("frame_rate", "Hz"),
            Column("quality", "1"),
            Column("pixels", "pixels"),
            Column("gpu", "ms"),
        ),
    },
    settings={
        "frame_rate": Column("frame_rate", "Hz"),
        "objects": Column("objects", "1", MAX_SETTING_VALUES),
        "resolutions": Column("resolutions", "1", MAX_SETTING_VALUES),
    },
    solve=solve,
    five_qi=80,  # low-latency eMBB; 89, rendering at the edge, is none that OAI knows
    unit_test_options=({}, {"objective": "printed", "gpu_mhz": [400, 1600], "hysteresis": 0.0}),
)
"""VR cloud gaming: edge servers render what users look at, in the resolutions that it is worth."""

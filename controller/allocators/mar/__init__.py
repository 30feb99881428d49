"""The ``mar`` service: the least spectrum with which a mobile-AR user's experience is kept."""

from __future__ import annotations

from controller.allocators.base import Column, Service
from controller.allocators.mar.allocator import MarAllocator
from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.solve import solve

_POSE = (
    *(Column(axis, "m") for axis in "xyz"),
    *(Column(f"r{axis}", "deg") for axis in "xyz"),
)

SERVICE = Service(
    name="mar",
    options=MarOptions,
    allocator=MarAllocator,
    tables={
        "pose": (*_POSE, Column("latency", "ms")),
        "prediction": _POSE,
        "hits": (Column("vchr", "1"),),
    },
    settings={"upload_hz": Column("upload_hz", "Hz")},
    solve=solve,
    five_qi=80,  # low-latency eMBB, augmented reality
    unit_test_options=(
        {},
        {"upload_hz": [2.0, 10.0], "without_promise": "lowest", "learn_every_s": 1.0, "rho": 0.5},
    ),
)
"""Mobile augmented reality: pose frames go up, the edge predicts where the user will look."""

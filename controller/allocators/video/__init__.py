"""The ``video`` service: digital agents, by the digital-agents paper."""

from __future__ import annotations

from controller.allocators.base import Column, Service
from controller.allocators.video.allocator import VideoAllocator
from controller.allocators.video.options import VideoOptions
from controller.allocators.video.rows import PROFILE, RATING

SERVICE = Service(
    name="video",
    options=VideoOptions,
    allocator=VideoAllocator,
    tables={"profile": PROFILE, "rating": RATING},
    five_qi=6,  # buffered streaming over TCP
    settings={
        "bitrate_kbps": Column("bitrate_kbps", "kbit/s"),
        "prefetch": Column("prefetch", "1"),
        "edge_ghz": Column("edge_ghz", "GHz"),
    },
    unit_test_options=(
        {},
        {"orchestration": "grouped", "models": "general", "window_min": 3, "recurrent": False},
    ),
)

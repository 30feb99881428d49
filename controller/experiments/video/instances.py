"""Instances of ``prbandit solve video``: a moment of the campus, with what its viewers really judge by."""

from __future__ import annotations

from typing import Any, Final

from controller.experiments.video.clairvoyant import true_model
from controller.experiments.video.world import WorldSpec, draw

AT_S: Final = 600


def generate(seed: int, users: int) -> dict[str, Any]:
    """As :class:`controller.allocators.video.instance.Instance` takes it."""
    spec = WorldSpec(users=users, duration_s=AT_S)
    traces = draw(spec, seed)
    cells = [f"cell-{c + 1}" for c in range(spec.cells)]
    rows = []
    for user, viewer in enumerate(traces.viewers):
        state = true_model(viewer).to_state()
        rows.append(
            {
                "id": f"user-{user + 1}",
                "cell": cells[traces.cell[user, AT_S]],
                "ela": round(viewer.ela, 3),
                "kbps_per_prb": round(float(traces.kbps_per_prb[user, AT_S]), 2),
                "environment": round(float(traces.environment[user, AT_S]), 4),
                "swipes_per_min": round(float(traces.swipes_per_min[user, AT_S]), 3),
                "model": {
                    **{key: state[key] for key in ("qos", "s", "context", "shape", "deviation")},
                    "i": [round(w, 4) for w in viewer.weights],
                },
            }
        )
    return {
        "cells": dict.fromkeys(cells, spec.prb),
        "edge_gcycles": spec.edge_mcycles / 1e3,
        "cycles_per_bit": spec.cycles_per_bit,
        "segment_s": spec.segment_s,
        "users": rows,
    }

from __future__ import annotations

from pathlib import Path

SMALL = """
control: {control_slot_s: 1.0, guard_ms: 150.0}
cells:
  - id: cell-1
    slices:
      - id: ar
        actions: {ul_prb: [10, 30, 50, 70, 90], dl_prb: [5, 10, 50], gpu_mhz: [500, 1000, 1600]}
        ues: [ue-1]
emulation:
  duration_s: 60.0
  flows: 2
  on_off: {mean_on_s: 20.0, mean_off_s: 8.0, min_on_s: 15.0, min_off_s: 6.0}
"""
"""A minute with two flows that come and go, a decision a second, few actions."""


def small(folder: Path, text: str = SMALL, name: str = "small.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)

"""A scenario on the virtual clock: its records as they were written, and what they were decided from."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from controller import config, sim
from controller.core.fits import Fit
from controller.core.observation import Observation
from controller.core.spec import LoopSpec
from controller.loop import ControlLoop
from controller.store.models import ModelStore


class Played:
    """``records`` of all control slots; ``fits`` that came meanwhile."""

    def __init__(self, name: str, seconds: float, seed: int = 3) -> None:
        self.models = ModelStore(None)
        self.fits: list[Fit] = []
        self.records: list[dict[str, Any]] = []
        self._observations: list[str] = []

        def on_slot(observation: Any, decision: Any, loop: ControlLoop) -> None:
            self._observations.append(json.dumps(observation.to_dict()))
            self.records.append(decision.to_record())
            self.fits += observation.fits
            self._spec = json.dumps(loop.spec.to_dict())

        scenario = config.load(config.find(name))
        sim.run(scenario, seed, duration_s=seconds, on_slot=on_slot, models=self.models)

    def of(self, slice_id: str) -> list[dict[str, Any]]:
        """What was decided for a slice, control slot by control slot."""
        return [record["slices"][slice_id] for record in self.records]

    def replayed(self, models: Callable[[str], bytes] | None = None) -> list[dict[str, Any]]:
        """What is decided from the same observations, with the run's models or others."""
        loop = ControlLoop(LoopSpec.from_dict(json.loads(self._spec)), models or self.models.get)
        return [loop.step(Observation.from_dict(json.loads(o))).to_record() for o in self._observations]

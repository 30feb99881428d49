"""One control slot in, one decision out. No I/O and no clock: live, emulated and replayed are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from controller.allocators import make as make_allocator
from controller.allocators.base import Allocator, SliceView
from controller.core.budgets import Budgets
from controller.core.decision import Decision, SliceDecision, SliceDemand, SliceOutcome
from controller.core.measure import Reason
from controller.core.observation import (
    HOPS,
    Command,
    GpuReading,
    Hop,
    Mode,
    Observation,
)
from controller.core.qos import Metric, slot_qos
from controller.core.spec import LoopSpec, SliceSpec
from controller.slicing import divide

STATE_VERSION = 1


class ControlLoop:
    """Decides quotas and clock of one cell, control slot by control slot, and learns from what came back.

    :meth:`step` depends on nothing but its argument and what earlier steps left behind. The control slot
    of an observation is the one that the decision before it began.
    """

    def __init__(self, spec: LoopSpec) -> None:
        self.spec = spec
        self.mode = spec.mode
        self.control_slot = 0
        self._slices = {s.slice: s for s in spec.slices}
        self.slices = frozenset(self._slices)
        """Names of the slices that it controls."""
        self._allocators = {s.slice: self._allocator(s) for s in spec.slices}
        self._held: dict[str, SliceDemand] = {}
        self._last: Decision | None = None

    def _allocator(self, s: SliceSpec) -> Allocator:
        return make_allocator(s, self.spec)

    def step(self, observation: Observation) -> Decision:
        """Close ``observation.control_slot`` and decide the next one."""
        mode_changed = any(c.kind == "mode" and Mode(c.value) != self.mode for c in observation.commands)
        views: dict[str, SliceView] = {}
        closed: dict[str, SliceOutcome] = {}
        for name, s in self._slices.items():
            qos = slot_qos(
                observation, name, s.budgets, metric=Metric.parse(s.metric), guard_ms=self.spec.guard_ms
            )
            reasons = self._unattributed(name, observation, mode_changed)
            views[name] = SliceView(name, observation, qos, reasons, self._available(name, observation))
            closed[name] = SliceOutcome(qos, self._allocators[name].learn(views[name]))
        for command in observation.commands:
            self._obey(command)
        self.control_slot = observation.control_slot + 1
        self._last = decision = self._decide(observation, views, closed)
        return decision

    def _decide(
        self, observation: Observation, views: Mapping[str, SliceView], closed: Mapping[str, SliceOutcome]
    ) -> Decision:
        demands: dict[str, SliceDemand] = {}
        for name in self._slices:
            if self.mode is Mode.RELEASED:
                demands[name] = self._full()
            elif self.mode is Mode.FROZEN:
                held = self._held.get(name, self._full())
                demands[name] = replace(
                    held, choices=tuple(replace(c, why="frozen", indices=None) for c in held.choices)
                )
            else:
                demands[name] = self._allocators[name].demand(views[name])
        if self.mode is Mode.ACTIVE:
            self._held = dict(demands)
        elif self.mode is not Mode.FROZEN:
            self._held = {}  # the network is at full resources: there is nothing to hold
        prb = self.spec.n_prb
        ul = divide(
            prb, {n: d.ul_prb for n, d in demands.items()}, {n: d.ul_floor for n, d in demands.items()}
        )
        dl = divide(
            prb, {n: d.dl_prb for n, d in demands.items()}, {n: d.dl_floor for n, d in demands.items()}
        )
        acts = self.mode is Mode.ACTIVE or (self.mode is Mode.FROZEN and bool(self._held))
        return Decision(
            cell=self.spec.cell,
            control_slot=self.control_slot,
            time_ns=observation.closed_ns,
            mode=self.mode,
            quotas={n: (ul[n], dl[n]) for n in demands} if acts else {},
            gpu_mhz=max(d.gpu_mhz for d in demands.values()) if acts and _present(observation.gpu) else None,
            slices=tuple(SliceDecision(n, closed[n], d, ul[n], dl[n]) for n, d in demands.items()),
            prb=prb,
            max_mhz=self.spec.max_mhz,
            clocks=observation.clocks,
        )

    def _full(self) -> SliceDemand:
        return SliceDemand(self.spec.n_prb, self.spec.n_prb, self.spec.max_mhz)

    def _unattributed(self, name: str, obs: Observation, mode_changed: bool) -> dict[Hop, Reason]:
        """Why the slot that closes must not be learned from, by hop; empty where it may."""
        last = self._last
        if last is None or last.control_slot != obs.control_slot:
            return dict.fromkeys(HOPS, Reason.NO_DECISION)
        if last.mode is not Mode.ACTIVE:
            return dict.fromkeys(HOPS, Reason(last.mode.value))
        if mode_changed:
            return dict.fromkeys(HOPS, Reason.MODE_CHANGED)
        mine = next(s for s in last.slices if s.slice == name)
        reasons: dict[Hop, Reason] = {}
        enforcement = obs.enforcement.get(name)
        for hop, asked, granted in (
            (Hop.UL, mine.demand.ul_prb, mine.ul_prb),
            (Hop.DL, mine.demand.dl_prb, mine.dl_prb),
        ):
            if granted < asked:
                reasons[hop] = Reason.ARBITER_CUT
            elif enforcement is None:
                reasons[hop] = Reason.NOT_ACKNOWLEDGED
            elif enforcement.reason:
                reasons[hop] = enforcement.reason
        if obs.gpu is None:
            reasons[Hop.EDGE] = Reason.NO_EDGE_AGENT
        elif obs.gpu.reason:
            reasons[Hop.EDGE] = obs.gpu.reason
        elif last.gpu_mhz is not None and last.gpu_mhz > mine.demand.gpu_mhz:
            reasons[Hop.EDGE] = Reason.CLOCK_RAISED
        return reasons

    def _available(self, name: str, obs: Observation) -> dict[Hop, int]:
        """What the slice really had in the slot that closes, where less than it asked for."""
        if self._last is None or obs.gpu is None:
            mhz: dict[Hop, int] = {}
        else:
            mhz = {Hop.EDGE: obs.gpu.sm_mhz}
        mine = next((s for s in self._last.slices if s.slice == name), None) if self._last else None
        return mhz if mine is None else {**mhz, Hop.UL: mine.ul_prb, Hop.DL: mine.dl_prb}

    def _obey(self, command: Command) -> None:
        if command.kind == "mode":
            self.mode = Mode(command.value)
            return
        names = [command.slice] if command.slice else list(self._slices)
        for name in names:
            s = self._slices[name]
            if command.kind == "policy":
                s = replace(s, policy=command.value, policy_options={})
                self._allocators[name] = self._allocator(s)
            elif command.kind == "budgets":
                s = replace(s, budgets=Budgets(*command.value))
            else:
                raise ValueError(f"unknown command {command.kind!r}")
            self._slices[name] = s

    def check(self, command: Command) -> None:
        """Raise ValueError where :meth:`step` could not carry the command out."""
        if command.kind == "mode":
            if command.value not in list(Mode):
                raise ValueError(f"unknown mode {command.value!r}; modes: {', '.join(Mode)}")
            return
        if command.slice and command.slice not in self._slices:
            raise ValueError(
                f"cell {self.spec.cell} has no slice {command.slice!r}; slices: {', '.join(self._slices)}"
            )
        for name in [command.slice] if command.slice else list(self._slices):
            if command.kind == "policy":
                self._allocator(replace(self._slices[name], policy=command.value, policy_options={}))
            elif command.kind == "budgets":
                Budgets(*command.value)
            else:
                raise ValueError(f"unknown command {command.kind!r}")

    def to_state(self) -> dict[str, Any]:
        """What has been learned and set, as plain JSON values; :meth:`load_state` is the inverse.

        The decision in force is not part of it: after a restart the first control slot is not learned
        from, because what happened in between is not known. What mode frozen holds is part of it.
        """
        configured = {s.slice: s for s in self.spec.slices}
        return {
            "version": STATE_VERSION,
            "control_slot": self.control_slot,
            "mode": self.mode.value,
            "configured_mode": self.spec.mode.value,
            "slices": {
                name: {
                    "set": _settings(s),
                    "configured": _settings(configured[name]),
                    "held": [d.ul_prb, d.dl_prb, d.gpu_mhz] if (d := self._held.get(name)) else None,
                    "allocator": self._allocators[name].to_state(),
                }
                for name, s in self._slices.items()
            },
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; ValueError names what does not fit, and then nothing has changed.

        What an operator had set (mode, policy, budgets) stays, unless the configuration has changed there
        since: then that counts. Learning goes on where the policy is the same. Slices of the state that this
        loop does not have are left out; slices that the state does not have start new.
        """
        try:
            version = state["version"]
            if version != STATE_VERSION:
                raise ValueError(f"loop state has version {version}, this controller reads {STATE_VERSION}")
            slices, allocators = dict(self._slices), dict(self._allocators)
            held: dict[str, SliceDemand] = {}
            for name, saved in state["slices"].items():
                if name not in slices:
                    continue
                s = slices[name]
                kept = {k: v for k, v in saved["set"].items() if saved["configured"][k] == _settings(s)[k]}
                if "policy" in kept:
                    policy, options = kept["policy"]
                    s = replace(s, policy=policy, policy_options=options)
                if "budgets" in kept:
                    s = replace(s, budgets=Budgets(**kept["budgets"]))
                allocator = self._allocator(s)
                if _settings(s)["policy"] == saved["set"]["policy"]:
                    allocator.load_state(saved["allocator"])
                slices[name], allocators[name] = s, allocator
                if saved["held"] is not None:
                    ul_prb, dl_prb, gpu_mhz = saved["held"]
                    held[name] = SliceDemand(int(ul_prb), int(dl_prb), int(gpu_mhz))
            same = state["configured_mode"] == self.spec.mode.value
            mode = Mode(state["mode"]) if same else self.spec.mode
            control_slot = int(state["control_slot"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"cell {self.spec.cell}: loop state is damaged: {error!r}") from error
        self._slices, self._allocators = slices, allocators
        self.mode, self.control_slot = mode, control_slot
        self._last, self._held = None, held


def _present(gpu: GpuReading | None) -> bool:
    """Whether there is an agent that could set a clock; without one none is claimed."""
    return gpu is not None and gpu.reason != Reason.NO_EDGE_AGENT


def _settings(s: SliceSpec) -> dict[str, Any]:
    """What an operator can change of a slice, as plain JSON values."""
    return {"policy": [s.policy, dict(s.policy_options)], "budgets": asdict(s.budgets)}

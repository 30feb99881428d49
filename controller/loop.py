"""One control slot in, one decision out. No I/O and no clock: live, emulated and replayed are the same.

The loop stands above the allocators and the arbiter and knows no service by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from controller import slicing
from controller.allocators import service
from controller.allocators.base import Allocator, Options, Service, SliceView, mistake, no_models
from controller.core.attachment import unmeasured
from controller.core.decision import (
    MAX_MANUAL_S,
    STATE_VERSION,
    Decision,
    Grant,
    ManualQuota,
    Settings,
    SliceDecision,
    SliceDemand,
    Want,
)
from controller.core.fits import Job
from controller.core.measure import RESOURCES, Lever, Outcome, Reason
from controller.core.observation import Command, GpuReading, Mode, Observation
from controller.core.rescue import Rescue
from controller.core.spec import LoopSpec

MAX_FAILURE = 200
"""Characters of what is recorded of an allocator's failure."""

Models = Callable[[str], bytes]
"""Gives the bytes of a model by their digest; KeyError where there are none."""


@dataclass(slots=True)
class _Slice:
    """One slice under control.

    ``configured`` and ``set`` are its options as plain JSON values: as the configuration has them, and with
    what an operator has set. ``state`` is the last state that its allocator gave without failing, ``safe`` is
    the last demand that its allocator gave without failing. ``rescue`` knows when it gets more than that.
    ``manual`` is what an operator has set in place of all that; ``drains`` marks the control slot after it,
    which inherits its queues.
    """

    name: str
    service: Service
    options: Options
    allocator: Allocator
    configured: Mapping[str, Any]
    set: Mapping[str, Any]
    rescue: Rescue | None
    safe: SliceDemand | None = None
    state: Mapping[str, Any] | None = None
    manual: ManualQuota | None = None
    drains: bool = False


class ControlLoop:
    """Decides quotas, clock and settings of one cell, control slot by control slot, and learns from what
    came.

    :meth:`step` depends on nothing but its argument and what earlier steps left behind. The control slot
    of an observation is the one that the decision before it began.

    An allocator that raises harms its own slice alone: nothing is learned about any of its levers where it
    raised in learn, the slice asks for what it asked for last without failing (for all that there is, where
    that never was) where it raised in demand, and its users keep what they were told where it raised in
    settle, until their lease ends.

    ``models`` gives the bytes of a fit's result by their digest. ValueError for a specification with a
    service, an arbiter or options that there are not.
    """

    def __init__(self, spec: LoopSpec, models: Models = no_models) -> None:
        self.spec = spec
        self._models = models
        self.mode = spec.mode
        self.control_slot = 0
        self.slices = frozenset(s.slice for s in spec.slices)
        """Names of the slices that it controls."""
        self._slices: dict[str, _Slice] = {}
        for s in spec.slices:
            of = service(s.service)
            try:
                options = of.options.model_validate(s.options)
                allocator = self._allocator(s.slice, of, options)
            except Exception as error:  # of a plugin too: it must not end who makes the loop
                text = _text(error) if isinstance(error, ValueError) else _failure(error)
                raise ValueError(f"cell {spec.cell}, slice {s.slice}: {text}") from error
            configured = options.to_dict()
            self._slices[s.slice] = _Slice(
                s.slice, of, options, allocator, configured, configured, self._new_rescue()
            )
        self.load_failures: dict[str, str] = {}
        """Slice -> why its learning could not be taken over by the last :meth:`load_state`."""
        self.state_failures: dict[str, str] = {}
        """Slice -> why the state of its allocator could not be had the last time."""
        self._shares = {s.slice: s.share for s in spec.slices}
        self._arbiter = slicing.make(spec.arbiter)
        self._held: dict[str, tuple[SliceDemand, Settings]] = {}
        self._last: Decision | None = None

    def _allocator(self, name: str, of: Service, options: Options) -> Allocator:
        self._check_options(options)
        return of.allocator(name, options, self.spec)

    def _check_options(self, options: Options) -> None:
        """ValueError for what the carrier, its gNB or the GPU do not have."""
        options.check(n_prb=self.spec.n_prb, max_mhz=self.spec.max_mhz, min_prb=self.spec.min_prb)

    def _new_rescue(self) -> Rescue | None:
        return None if self.spec.rescue is None else Rescue(self.spec.rescue)

    # ---- one control slot ---------------------------------------------------------------------------------

    def step(self, observation: Observation) -> Decision:
        """Close ``observation.control_slot`` and decide the next one."""
        mode_changed = any(c.kind == "mode" and Mode(c.value) != self.mode for c in observation.commands)
        failed: dict[str, dict[str, str]] = {name: {} for name in self._slices}
        views = {name: self._view(s, observation, mode_changed) for name, s in self._slices.items()}
        outcomes = {name: self._learn(s, views[name], failed[name]) for name, s in self._slices.items()}
        self._arbiter.close(outcomes)
        if self.mode is Mode.ACTIVE:
            for name, s in self._slices.items():
                # What comes of a quota set by hand says nothing of what the slice asks for.
                if s.rescue is not None and Reason.SET_BY_HAND not in views[name].unattributed.values():
                    more = {lever for lever, reason in views[name].unattributed.items() if reason.more}
                    s.rescue.close(outcomes[name], more, _unseen(views[name], outcomes[name]))
        for s in self._slices.values():
            s.drains = False
        for command in observation.commands:
            self._obey(command, failed)
        self.control_slot = observation.control_slot + 1
        self._last = decision = self._decide(observation, views, outcomes, failed)
        return decision

    def _learn(self, s: _Slice, view: SliceView, failed: dict[str, str]) -> Outcome:
        try:
            outcome = s.allocator.learn(view)
            if not isinstance(outcome, Outcome):
                raise TypeError(f"learn gave {type(outcome).__name__}, no outcome")
            return outcome
        except Exception as error:
            failed["learn"] = _failure(error)
            reasons = dict.fromkeys(_levers(s.service), Reason.ALLOCATOR_FAILED)
            return Outcome(None, bool(view.users), unattributed=reasons)

    def _decide(
        self,
        observation: Observation,
        views: Mapping[str, SliceView],
        outcomes: Mapping[str, Outcome],
        failed: Mapping[str, dict[str, str]],
    ) -> Decision:
        demands = {name: self._demand(s, views[name], failed[name]) for name, s in self._slices.items()}
        rescue = {name: self._rescue(s, demands[name]) for name, s in self._slices.items()}
        wanted = {name: _with(demands[name], floors) for name, floors in rescue.items()}
        ul, dl = self._divide(wanted)
        clock = max(d.gpu_mhz for d in wanted.values())
        grants = {name: Grant(ul[name][0], dl[name][0], clock, ul[name][1], dl[name][1]) for name in demands}
        settings = {
            name: self._settle(s, views[name], grants[name], failed[name]) for name, s in self._slices.items()
        }
        if self.mode is Mode.ACTIVE:
            self._held = {name: (wanted[name], settings[name]) for name in demands}
        elif self.mode is not Mode.FROZEN:
            self._held = {}  # the network is at full resources: there is nothing to hold
        decides = self.mode in (Mode.ACTIVE, Mode.SHADOW)
        acts = self.mode is Mode.ACTIVE or (self.mode is Mode.FROZEN and bool(self._held))
        return Decision(
            cell=self.spec.cell,
            control_slot=self.control_slot,
            time_ns=observation.closed_ns,
            mode=self.mode,
            quotas={name: (g.ul_prb, g.dl_prb) for name, g in grants.items()} if acts else {},
            gpu_mhz=clock if acts and clock and _present(observation.gpu) else None,
            slices=tuple(
                SliceDecision(
                    name,
                    outcomes[name],
                    demands[name],
                    grants[name],
                    settings[name],
                    failed[name],
                    rescue[name],
                    self._slices[name].manual,
                )
                for name in demands
            ),
            prb=self.spec.n_prb,
            max_mhz=self.spec.max_mhz,
            clocks=observation.clocks,
            ended=observation.ended,
            jobs={n: jobs for n, s in self._slices.items() if (jobs := self._jobs(s, failed[n]))}
            if decides
            else {},
        )

    def _divide(self, wanted: Mapping[str, SliceDemand]) -> list[dict[str, tuple[int, str]]]:
        """What the arbiter gives each slice in UL and in DL, with their reservations as minimums.

        A slice whose quota was set by hand has that; the others divide what it leaves.
        """
        out = []
        for i, direction in enumerate(("ul", "dl")):
            by_hand = {n: prb for n, s in self._slices.items() if (prb := _by_hand(s, i)) is not None}
            n_prb = self.spec.n_prb - sum(max(prb, self._shares[n].dedicated) for n, prb in by_hand.items())
            wants = {n: (d.ul, d.dl)[i] for n, d in wanted.items() if n not in by_hand}
            reserved = {n: wanted[n].reserved[i] for n in wants}
            shares = slicing.with_reserved(n_prb, wants, self._shares, reserved)
            divided = self._arbiter.divide(direction, n_prb, wants, shares)
            for n, prb in by_hand.items():
                less = prb < (wanted[n].ul, wanted[n].dl)[i].prb
                divided[n] = prb, Reason.SET_BY_HAND.value if less else ""
            divided = slicing.whole_grants(divided, wants, shares, self.spec.min_prb, self.control_slot)
            out.append({n: divided[n] for n in wanted})
        return out

    def _demand(self, s: _Slice, view: SliceView, failed: dict[str, str]) -> SliceDemand:
        if self.mode is Mode.RELEASED:
            return self._full()
        if self.mode is Mode.FROZEN:
            held = self._held[s.name][0] if s.name in self._held else self._full()
            choices = tuple(replace(c, why="frozen", indices=()) for c in held.choices)
            return replace(held, choices=choices)
        try:
            demand = s.allocator.demand(view)
            for direction, want in (("ul", demand.ul), ("dl", demand.dl)):
                if type(want.prb) is not int or type(want.floor) is not int:
                    raise TypeError(f"{want.prb!r} and {want.floor!r} {direction} PRB: not whole numbers")
                if want.prb > self.spec.n_prb:
                    raise ValueError(f"{want.prb} {direction} PRB of a carrier of {self.spec.n_prb}")
            if any(type(prb) is not int for prb in demand.reserved):
                raise TypeError(f"{demand.reserved!r} reserved PRB: not whole numbers")
            if max(demand.reserved) > self.spec.n_prb:
                raise ValueError(f"{demand.reserved} reserved PRB of a carrier of {self.spec.n_prb}")
            if type(demand.gpu_mhz) is not int:
                raise TypeError(f"{demand.gpu_mhz!r} MHz: not a whole number")
            if demand.gpu_mhz > self.spec.max_mhz:
                raise ValueError(f"{demand.gpu_mhz} MHz of a GPU of {self.spec.max_mhz}")
        except Exception as error:
            failed["demand"] = _failure(error)
            demand = s.safe or self._full()
            choices = tuple(replace(c, why="allocator failed", indices=()) for c in demand.choices)
            return replace(demand, choices=choices)
        s.safe = demand = self._no_smaller_than_a_grant(demand)
        return demand

    def _no_smaller_than_a_grant(self, demand: SliceDemand) -> SliceDemand:
        """Of what is not nothing at least the smallest grant, as less would carry no data."""
        least = self.spec.min_prb
        ul, dl = (_raised(w, least) if 0 < w.prb < least else w for w in (demand.ul, demand.dl))
        return demand if (ul, dl) == (demand.ul, demand.dl) else replace(demand, ul=ul, dl=dl)

    def _rescue(self, s: _Slice, demand: SliceDemand) -> dict[Lever, tuple[int, str]]:
        """The least that the levers get that have a floor above the demand, and why."""
        if s.rescue is None or self.mode not in (Mode.ACTIVE, Mode.SHADOW):
            return {}
        has = {Lever.UL: demand.ul.prb, Lever.EDGE: demand.gpu_mhz, Lever.DL: demand.dl.prb}
        by_hand = {lever for i, lever in enumerate((Lever.UL, Lever.DL)) if _by_hand(s, i) is not None}
        out = {}
        for lever, floor in s.rescue.floors.items():
            if lever in by_hand:
                continue
            most = min(self.spec.n_prb, self._shares[s.name].max)
            least = (
                floor.of(self.spec.max_mhz) if lever is Lever.EDGE else min(floor.of(self.spec.n_prb), most)
            )
            if least > has[lever] and (has[lever] or lever is not Lever.EDGE):
                out[lever] = least, floor.why
        return out

    def _settle(self, s: _Slice, view: SliceView, grant: Grant, failed: dict[str, str]) -> Settings:
        if self.mode is Mode.RELEASED:
            return {}
        if self.mode is Mode.FROZEN:
            return self._held[s.name][1] if s.name in self._held else {}
        try:
            settings = s.allocator.settle(view, grant)
            if settings is not None and not settings:
                return {}
            s.service.check_settings(settings, frozenset(u.flow for u in view.users))
        except Exception as error:
            failed["settle"] = _failure(error)
            return {}
        return {flow: {n: tuple(map(float, v)) for n, v in of.items()} for flow, of in settings.items()}

    def _jobs(self, s: _Slice, failed: dict[str, str]) -> tuple[Job, ...]:
        try:
            jobs = tuple(s.allocator.jobs())
            if wrong := next((job for job in jobs if not isinstance(job, Job)), None):
                raise ValueError(f"{type(wrong).__name__} is no Job")
            return jobs
        except Exception as error:
            failed["jobs"] = _failure(error)
            return ()

    def service_of(self, slice_id: str) -> str | None:
        """The service of a slice; None for one that the loop does not have."""
        s = self._slices.get(slice_id)
        return None if s is None else s.service.name

    def hand_over(self, slice_id: str, flow: str) -> Any:
        """What a slice's allocator knows of a user (:meth:`Allocator.hand_over`). Raises what it raises."""
        return self._slices[slice_id].allocator.hand_over(flow)

    def _full(self) -> SliceDemand:
        return SliceDemand(Want(self.spec.n_prb), Want(self.spec.n_prb), self.spec.max_mhz)

    def early(self, observation: Observation) -> str:
        """Why the control slot in progress should end now, by what is known of it so far; "" where it should
        go on. Changes nothing. Raises what an allocator raises."""
        whole = all(s.options.ends_early for s in self._slices.values())
        if self.mode is not Mode.ACTIVE or self._last is None or not whole:
            return ""
        for part in self._last.slices:
            if part.manual is not None:
                continue  # it holds for its time, whatever comes of it
            view = SliceView.of(observation, part.slice, guard_ms=self.spec.guard_ms, granted=part.grant)
            if why := self._slices[part.slice].allocator.early(view):
                return f"{part.slice}: {why}"
        return ""

    # ---- what an allocator sees ---------------------------------------------------------------------------

    def _view(self, s: _Slice, observation: Observation, mode_changed: bool) -> SliceView:
        last = self._last
        before = None if last is None else next((d for d in last.slices if d.slice == s.name), None)
        settings = before.settings if before is not None and last is not None and last.quotas else {}
        unapplied = {
            flow
            for flow in settings
            if (applied := observation.settings.get(flow)) is None or applied.reason is not None
        }
        going_on = {flow.flow for flow in observation.flows if not flow.stop_ns}
        # Who left in the meantime can do nothing about its settings any more; where that is everybody, nobody
        # applied them.
        missing = unapplied if unapplied == settings.keys() else unapplied & going_on
        return SliceView.of(
            observation,
            s.name,
            guard_ms=self.spec.guard_ms,
            seed=self.spec.seed,
            cell=self.spec.cell,
            granted=None if before is None else self._granted(before.grant, observation),
            settings=settings,
            unattributed=self._unattributed(s, before, observation, mode_changed, missing),
            unapplied=frozenset(unapplied),
            models=self._models,
        )

    def _granted(self, grant: Grant, obs: Observation) -> Grant:
        """What was granted, at the clock that was read back; a step below the one that was played is that."""
        gpu, last = obs.gpu, self._last
        if gpu is None:
            return grant
        played = 0 if gpu.reason or last is None else last.gpu_mhz or 0
        return Grant(grant.ul_prb, grant.dl_prb, max(gpu.sm_mhz, played), grant.ul_why, grant.dl_why)

    def _unattributed(
        self,
        s: _Slice,
        before: SliceDecision | None,
        obs: Observation,
        mode_changed: bool,
        unapplied: set[str],
    ) -> dict[Lever, Reason]:
        """Why the slot that closes must not be learned from, by lever; empty where it may."""
        last = self._last
        levers = _levers(s.service)
        if last is None or before is None or last.control_slot != obs.control_slot:
            return dict.fromkeys(levers, Reason.NO_DECISION)
        if last.mode is not Mode.ACTIVE:
            return dict.fromkeys(levers, Reason(last.mode.value))
        if mode_changed:
            return dict.fromkeys(levers, Reason.MODE_CHANGED)
        # It cuts the control slot short for all slices.
        commanded = any(c.kind == "quota" for c in obs.commands)
        if commanded or s.drains or before.manual is not None:
            return dict.fromkeys(levers, Reason.SET_BY_HAND)
        reasons: dict[Lever, Reason] = {}
        not_seen = unmeasured(obs.flows, obs.frames, obs.reports, s.name)
        enforcement = obs.enforcement.get(s.name)
        for lever, asked, granted in (
            (Lever.UL, before.demand.ul.prb, before.grant.ul_prb),
            (Lever.DL, before.demand.dl.prb, before.grant.dl_prb),
        ):
            if not_seen:
                reasons[lever] = not_seen
            elif granted < asked:
                reasons[lever] = Reason.ARBITER_CUT
            elif enforcement is None:
                reasons[lever] = Reason.NOT_ACKNOWLEDGED
            elif enforcement.reason:
                reasons[lever] = enforcement.reason
            elif granted > asked:
                reasons[lever] = Reason.RESCUED
        if before.demand.gpu_mhz:
            if obs.gpu is None:
                reasons[Lever.EDGE] = Reason.NO_EDGE_AGENT
            elif obs.gpu.reason:
                reasons[Lever.EDGE] = obs.gpu.reason
            elif last.gpu_mhz is not None and last.gpu_mhz > before.demand.gpu_mhz:
                own = Lever.EDGE in before.rescue
                reasons[Lever.EDGE] = Reason.RESCUED if own else Reason.CLOCK_RAISED
        if "demand" in before.failed:
            reasons |= dict.fromkeys(RESOURCES, Reason.ALLOCATOR_FAILED)
        if "settle" in before.failed:
            reasons[Lever.SETTINGS] = Reason.ALLOCATOR_FAILED
        elif unapplied:
            reasons[Lever.SETTINGS] = Reason.SETTINGS_NOT_APPLIED
        return reasons

    # ---- commands -----------------------------------------------------------------------------------------

    def _obey(self, command: Command, failed: Mapping[str, dict[str, str]]) -> None:
        """Carry a command out; a slice for which it cannot be is left as it is, and says so."""
        if command.kind == "mode":
            self.mode = Mode(command.value)
            if self.mode in (Mode.SHADOW, Mode.RELEASED):
                for s in self._slices.values():
                    s.manual = None
            return
        if command.kind == "quota":
            if (named := self._slices.get(command.slice)) is not None:
                _set_manual(named, command.value)
            return
        for s in self._slices.values():
            if _is_for(s, command):
                try:
                    self._set(s, _changes(s.options, command))
                except Exception as error:
                    failed[s.name]["command"] = _failure(error)

    def _set(self, s: _Slice, changes: Mapping[str, Any]) -> None:
        options = _changed(s.options, changes)
        if s.options.anew & changes.keys():
            s.allocator, s.state = self._allocator(s.name, s.service, options), None
        else:
            s.allocator.set(options)
        s.options, s.set = options, options.to_dict()

    def _addressed(self, command: Command) -> list[_Slice]:
        if command.kind not in ("options", "policy", "quota"):
            raise ValueError(f"unknown command {command.kind!r}")
        if not command.slice:
            return list(self._slices.values())
        try:
            return [self._slices[command.slice]]
        except KeyError:
            raise ValueError(
                f"cell {self.spec.cell} has no slice {command.slice!r}; slices: {', '.join(self._slices)}"
            ) from None

    @property
    def played(self) -> list[tuple[str, str, Options]]:
        """Name, service and options of each slice as they are now. Any thread may ask."""
        return [(s.name, s.service.name, s.options) for s in self._slices.values()]

    def check(self, command: Command, before: Sequence[Command] = ()) -> None:
        """Raise ValueError where :meth:`step` could not carry the command out after those ``before`` it."""
        if command.kind == "mode":
            if command.value not in list(Mode):
                raise ValueError(f"unknown mode {command.value!r}; modes: {', '.join(Mode)}")
            return
        for s in self._addressed(command):
            try:
                if command.kind == "quota":
                    self._check_quota(s, command, before)
                else:
                    self._check(s, command, [c for c in before if _is_for(s, c)])
            except ValueError as error:
                raise ValueError(f"cell {self.spec.cell}, slice {s.name}: {error}") from error

    def overtaken(self, command: Command, state: Mapping[str, Any]) -> str:
        """What of that which a command is to change the configuration has changed since ``state``; ""
        nothing: as with what had been set before (:meth:`load_state`), the later one counts."""
        if command.kind == "mode":
            return "" if state["configured_mode"] == self.spec.mode.value else "mode"
        changed: set[str] = set()
        for s in self._addressed(command) if command.kind != "quota" else ():
            if (saved := state["slices"].get(s.name)) is not None:
                changed |= _reconfigured(s, saved) & _changes(s.options, command).keys()
        return ", ".join(sorted(changed))

    def _check(self, s: _Slice, command: Command, before: Sequence[Command]) -> None:
        old = s.options
        for earlier in before:
            old = _changed(old, _changes(old, earlier))
        changes = _changes(old, command)
        options = _changed(old, changes)
        if options.anew & changes.keys():
            self._allocator(s.name, s.service, options)
        else:
            self._check_options(options)
            try:
                self._allocator(s.name, s.service, old).set(options)
            except ValueError:
                raise
            except Exception as error:
                raise ValueError(f"cannot be set: {_failure(error)}") from error

    def _check_quota(self, s: _Slice, command: Command, before: Sequence[Command]) -> None:
        waiting = {c.slice: c.value for c in before if c.kind == "quota"}
        if command.value is None:
            if s.manual is None and not waiting.get(s.name):
                raise ValueError("no quota is set by hand")
            return
        if not 0 < command.value["for_s"] <= MAX_MANUAL_S:
            raise ValueError(f"for {command.value['for_s']:g} s: above 0 s, {MAX_MANUAL_S:g} s (1 h) at most")
        mode = Mode(next((c.value for c in reversed(before) if c.kind == "mode"), self.mode))
        if mode in (Mode.SHADOW, Mode.RELEASED):
            raise ValueError(f"mode is {mode}: no quota is in force, so one set by hand would have no effect")
        if self._last is None or not self._last.quotas:
            raise ValueError("no quota is in force yet; there is one after the next decision")
        given = [(i, d, command.value[d]) for i, d in enumerate(("ul", "dl")) if command.value[d] is not None]
        if not given:
            raise ValueError("neither UL nor DL PRBs are given")
        for i, direction, prb in given:
            text = f"{direction.upper()} {prb} PRB"
            if prb > self.spec.n_prb:
                raise ValueError(f"{text}: the carrier has {self.spec.n_prb}")
            if prb > self._shares[s.name].max:
                raise ValueError(f"{text}: its share is {self._shares[s.name].max} at most (share.max)")
            others = {
                name: max(self._shares[name].dedicated, value[direction])
                if (value := waiting.get(name)) and value[direction] is not None
                else max(self._shares[name].dedicated, self._last.quotas[name][i])
                for name in self._slices
                if name != s.name
            }
            if prb > (left := self.spec.n_prb - sum(others.values())):
                held = ", ".join(f"{name} {n}" for name, n in others.items() if n)
                raise ValueError(f"{text}: the other slices' quotas ({held}) leave {max(0, left)}")

    @property
    def manual(self) -> Mapping[str, ManualQuota]:
        """Slice -> the quotas that an operator has set for it."""
        return {name: s.manual for name, s in self._slices.items() if s.manual is not None}

    # ---- state --------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """What has been learned and set, as plain JSON values; :meth:`load_state` is the inverse.

        The decision in force is not part of it: after a restart the first control slot is not learned
        from, because what happened in between is not known. Neither are quotas set by hand. What mode
        frozen holds is part of it. Of an allocator whose state cannot be had, its last good one; a slice that
        never had one is left out.
        """
        states = {name: state for name, s in self._slices.items() if (state := self._state_of(s)) is not None}
        return {
            "version": STATE_VERSION,
            "control_slot": self.control_slot,
            "mode": self.mode.value,
            "configured_mode": self.spec.mode.value,
            "arbiter": {"name": self.spec.arbiter, "state": self._arbiter.to_state()},
            "slices": {
                name: {
                    "service": s.service.name,
                    "set": s.set,
                    "configured": s.configured,
                    "held": _held(self._held.get(name)),
                    "rescue": None if s.rescue is None else s.rescue.to_state(),
                    "allocator": states[name],
                }
                for name, s in self._slices.items()
                if name in states
            },
        }

    def _state_of(self, s: _Slice) -> Mapping[str, Any] | None:
        try:
            state = s.allocator.to_state()
            json.dumps(state, allow_nan=False)
            s.state = state
        except Exception as error:
            self.state_failures[s.name] = _failure(error)
        else:
            self.state_failures.pop(s.name, None)
        return s.state

    def load_state(self, state: Mapping[str, Any]) -> tuple[str, ...]:
        """Go on from a state; ValueError names what does not fit, and then nothing has changed.

        What an operator had set (mode, options) stays, unless the configuration has changed there since: then
        that counts. Slices of the state that this loop does not have are left out; slices that the state does
        not have, or that have another service or options with which learning starts anew, start new, and so
        does a slice whose allocator cannot take its own over (:attr:`load_failures` says why); the others,
        the mode and what an operator had set go on. Returns the slices that start new.
        """
        try:
            version = state["version"]
            if version != STATE_VERSION:
                raise ValueError(f"loop state has version {version}, this controller reads {STATE_VERSION}")
            slices = {
                name: replace(s, safe=None, rescue=self._new_rescue(), manual=None, drains=False)
                for name, s in self._slices.items()
            }
            held: dict[str, tuple[SliceDemand, Settings]] = {}
            new = set(slices)
            failures: dict[str, str] = {}
            for name, saved in state["slices"].items():
                if name in slices and saved["service"] == slices[name].service.name:
                    try:
                        fits = self._load_slice(slices[name], saved)
                    except Exception as error:
                        failures[name] = _failure(error)
                        continue
                    if fits:
                        new.discard(name)
                    if saved["held"] is not None:
                        held[name] = _from_held(saved["held"])
            arbiter = slicing.make(self.spec.arbiter)
            if state["arbiter"]["name"] == self.spec.arbiter:
                arbiter.load_state(state["arbiter"]["state"])
            same = state["configured_mode"] == self.spec.mode.value
            mode = Mode(state["mode"]) if same else self.spec.mode
            control_slot = int(state["control_slot"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"cell {self.spec.cell}: loop state is damaged: {error!r}") from error
        self.load_failures = failures
        self._slices, self._arbiter = slices, arbiter
        self.mode, self.control_slot = mode, control_slot
        self._last, self._held = None, held
        return tuple(sorted(new))

    def take_over(self, state: Mapping[str, Any]) -> dict[str, str]:
        """Begin with what another loop has learned (its :meth:`to_state`), of another run or cell.

        A slice takes over from the one of its name, else from the only one of its service. Returns, for the
        slices that begin from nothing, why; ValueError for what is no state of this version.
        """
        try:
            if state["version"] != STATE_VERSION:
                raise ValueError(
                    f"loop state has version {state['version']}, this controller reads {STATE_VERSION}"
                )
            known = dict(state["slices"])
            anew = {}
            for name, s in self._slices.items():
                same = [n for n, saved in known.items() if saved["service"] == s.service.name]
                source = name if name in same else same[0] if len(same) == 1 else None
                if source is None:
                    anew[name] = f"no slice of its name, or only one of service {s.service.name}"
                    continue
                saved = known[source]["allocator"]
                try:
                    s.allocator.take_over(saved)
                except Exception as error:
                    anew[name] = str(error) if isinstance(error, ValueError) else _failure(error)
                    s.allocator = self._allocator(s.name, s.service, s.options)
            return anew
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"loop state is damaged: {error!r}") from error

    def _load_slice(self, s: _Slice, saved: Mapping[str, Any]) -> bool:
        """Options and learning of one slice; False where it has to learn anew. Raises what does not fit."""
        options = s.options.model_validate(_kept(s, saved))
        now = options.to_dict()
        allocator = self._allocator(s.name, s.service, options)
        s.options, s.set, s.allocator = options, now, allocator
        if s.rescue is not None and saved.get("rescue") is not None:
            s.rescue.load_state(saved["rescue"])
        if any(now[key] != saved["set"].get(key, now[key]) for key in options.anew - options.in_state):
            return False
        try:
            allocator.load_state(saved["allocator"], self._models)
        except Exception:
            # What was half loaded is no state to go on from.
            s.allocator = self._allocator(s.name, s.service, options)
            raise
        return True


def _with(demand: SliceDemand, floors: Mapping[Lever, tuple[int, str]]) -> SliceDemand:
    """The demand with at least ``floors`` (see :meth:`ControlLoop._rescue`)."""
    if not floors:
        return demand
    ul, dl, mhz = demand.ul, demand.dl, demand.gpu_mhz
    return replace(
        demand,
        ul=_raised(ul, floors[Lever.UL][0]) if Lever.UL in floors else ul,
        dl=_raised(dl, floors[Lever.DL][0]) if Lever.DL in floors else dl,
        gpu_mhz=floors[Lever.EDGE][0] if Lever.EDGE in floors else mhz,
    )


def _raised(want: Want, prb: int) -> Want:
    gain = (*want.gain, *(min(0.0, want.gain[-1]),) * (prb - want.prb)) if want.gain else ()
    return Want(prb, want.floor, gain)


def _unseen(view: SliceView, outcome: Outcome) -> Reason | None:
    """Why an outcome without users is not that of the slice's UEs; None where it is.

    That nobody told of a flow does not mean that there is none: where the UEs have bytes waiting in half of
    the reports or more, or where there is no report, nothing is known.
    """
    if outcome.busy:
        return None
    if not view.reports:
        return Reason.NO_MAC_REPORT
    waiting = sum(any(r.ul.queued_bytes) or any(r.dl.queued_bytes) for r in view.reports)
    return Reason.UNKNOWN_TRAFFIC if 2 * waiting >= len(view.reports) else None


def _present(gpu: GpuReading | None) -> bool:
    """Whether there is an agent that could set a clock; without one none is claimed."""
    return gpu is not None and gpu.reason is not Reason.NO_EDGE_AGENT


def _is_for(s: _Slice, command: Command) -> bool:
    return command.kind in ("options", "policy") and command.slice in ("", s.name)


def _changes(options: Options, command: Command) -> Mapping[str, Any]:
    """Option -> new value, of a command ``options`` or ``policy``."""
    changes: Mapping[str, Any] = command.value
    return options.switched(changes["policy"], changes["hop"]) if command.kind == "policy" else changes


def _by_hand(s: _Slice, direction: int) -> int | None:
    """PRBs that an operator has set in UL (0) or DL (1); None where that is the allocator's."""
    return None if s.manual is None else (s.manual.ul, s.manual.dl)[direction]


def _set_manual(s: _Slice, value: Mapping[str, Any] | None) -> None:
    if value is not None:
        s.manual = ManualQuota(value["ul"], value["dl"])
    elif s.manual is not None:
        s.manual, s.drains = None, True


def _levers(of: Service) -> tuple[Lever, ...]:
    return (*RESOURCES, Lever.SETTINGS) if of.settings else RESOURCES


def _failure(error: Exception) -> str:
    """What is recorded of a failure: the same in a replay, so without what only this process has."""
    return f"{type(error).__name__}: {error}"[:MAX_FAILURE]


def _text(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(": ".join((*_place(e["loc"]), mistake(e))) for e in error.errors())
    return str(error)


def _place(loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """The option that is meant; empty where it is all of them together."""
    return (".".join(map(str, loc)),) if loc else ()


def _changed(options: Options, changes: Mapping[str, Any]) -> Options:
    """The options with some of them changed; ValueError that names the option."""
    try:
        return options.model_validate({**options.to_dict(), **changes})
    except ValidationError as error:
        raise ValueError(_text(error)) from error


def _kept(s: _Slice, saved: Mapping[str, Any]) -> dict[str, Any]:
    """The configured options with what an operator had set and the configuration has not changed since."""
    now, was_set, changed = s.configured, saved["set"], _reconfigured(s, saved)
    return {key: now[key] if key in changed else was_set.get(key, now[key]) for key in now}


def _reconfigured(s: _Slice, saved: Mapping[str, Any]) -> set[str]:
    """The options that the configuration has changed since a state was saved."""
    now, before = s.configured, saved["configured"]
    # An option that there was not then has not been changed since.
    changed = {key for key in now if before.get(key, now[key]) != now[key]}
    for group in s.options.together:
        if changed & group:
            changed |= group
    return changed


def _held(held: tuple[SliceDemand, Settings] | None) -> dict[str, Any] | None:
    if held is None:
        return None
    demand, settings = held
    return {
        "ul": [demand.ul.prb, demand.ul.floor, *map(float, demand.ul.gain)],
        "dl": [demand.dl.prb, demand.dl.floor, *map(float, demand.dl.gain)],
        "reserved": list(demand.reserved),
        "gpu_mhz": demand.gpu_mhz,
        "gpu_share": demand.gpu_share,
        "settings": {flow: {n: list(v) for n, v in of.items()} for flow, of in settings.items()},
    }


def _from_held(data: Mapping[str, Any]) -> tuple[SliceDemand, Settings]:
    ul, dl = data.get("reserved", (0, 0))  # not in the states from before there was any
    demand = SliceDemand(
        _from_want(data["ul"]),
        _from_want(data["dl"]),
        int(data["gpu_mhz"]),
        float(data["gpu_share"]),
        reserved=(int(ul), int(dl)),
    )
    settings = {
        str(flow): {str(n): tuple(map(float, v)) for n, v in of.items()}
        for flow, of in data["settings"].items()
    }
    return demand, settings


def _from_want(data: Sequence[float]) -> Want:
    """From the PRBs, the floor and the gains above it."""
    prb, floor, *gain = data
    return Want(int(prb), int(floor), tuple(map(float, gain)))

"""The contract of a service: what a slice may be told in the configuration, and the mind that acts for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
from pydantic import BaseModel, ConfigDict, field_validator

from controller.core.decision import Grant, Settings, SliceDemand
from controller.core.fits import Fit, Job
from controller.core.measure import MAX_NAMES, Lever, Outcome, Reason
from controller.core.misses import Miss
from controller.core.observation import Flow, Frames, MacReport, Observation, Samples
from controller.core.spec import LoopSpec
from wire.definitions import bounds
from wire.definitions.qos import DEFAULT_FIVE_QI


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, or a setting: its name and its unit ("m", "deg", "1", "ms", "bytes", "mos").

    A setting takes ``length`` values at most.
    """

    name: str
    unit: str
    length: int = 1


class Options(BaseModel):
    """What the configuration may say of a slice beyond id, service, ues and share: a strict model.

    ``anew`` are the options with whose change learning starts anew; those ``in_state`` are compared by
    :meth:`Allocator.load_state`, as what they come to. An operator's setting of one option of a
    group in ``together`` counts for the group.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    anew: ClassVar[frozenset[str]] = frozenset()
    in_state: ClassVar[frozenset[str]] = frozenset()
    together: ClassVar[tuple[frozenset[str], ...]] = ()

    @field_validator("*", mode="before")
    @classmethod
    def _tuples(cls, value: Any) -> Any:
        """YAML and JSON have lists, a frozen model has tuples."""
        return tuple(value) if isinstance(value, list) else value

    @property
    def ends_early(self) -> bool:
        """Whether control slots may end before their time (:meth:`Allocator.early`); where they may not for
        one slice of a cell, they do not for any."""
        return False

    @property
    def policies(self) -> tuple[str, ...]:
        """What the option ``policy`` may name; () where there is no such option."""
        return ()

    @property
    def min_action_prb(self) -> int:
        """The PRBs of a direction without which none of the configured actions can be played; 0: any will
        do."""
        return 0

    @property
    def hops(self) -> tuple[str, ...]:
        """The hops that can have a policy of their own."""
        return ()

    def switched(self, policy: str, hop: str = "") -> dict[str, Any]:
        """The options that change where another policy is to be played, at one hop or ("") at all of them.

        ValueError for a service without policies, and for a hop where it does not have one for each.
        """
        if "policy" not in type(self).model_fields:
            raise ValueError("its service has no policies")
        if hop:
            raise ValueError(f"hop {hop!r}: its service has one policy for all")
        return {"policy": policy, "policy_options": {}}

    def check(self, *, n_prb: int, max_mhz: int, min_prb: int = 1) -> None:
        """:class:`Misfits`, naming each option, for what this carrier and this GPU do not have, and for PRBs
        below the smallest grant of the gNB's scheduler (``min_prb``)."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return self.model_dump(mode="json")


class Misfits(ValueError):
    """Options that the carrier or the GPU does not have: ``found`` has place and text of each.

    A place is the option's path, such as ("actions", "ul_prb").
    """

    def __init__(self, found: Sequence[tuple[tuple[str, ...], str]]) -> None:
        super().__init__("; ".join(text for _, text in found))
        self.found = tuple(found)


_IN_YAML = {
    "tuple_type": "Input should be a valid list",
    "list_type": "Input should be a valid list",
    "model_type": "Input should be a mapping of keys to values",
    "dict_type": "Input should be a mapping of keys to values",
}
"""What is said of types that YAML calls otherwise."""


def mistake(error: Any) -> str:
    """What is wrong, from one entry of a ValidationError's ``errors``; a short value with it."""
    if error["type"] == "extra_forbidden":
        return "unknown key"
    message = _IN_YAML.get(error["type"]) or str(error["msg"]).removeprefix("Value error, ")
    value = error.get("input")
    if error["type"] == "string_type" and isinstance(value, (int, float)):
        return f"Input should be a valid string: write it in quotes (YAML reads {value!r})"
    return f"{message} (is {value!r})" if isinstance(value, (str, int, float, bool)) else message


@dataclass(frozen=True, slots=True)
class Service:
    """All that the rest of the controller knows of a service; each package exports one as ``SERVICE``.

    ``tables`` are what its users send (name -> columns), ``settings`` what they are told (name -> unit);
    ValueError where wire/qos.proto has no room for one of the settings.
    ``allocator`` makes the mind of a slice from its name, its options and the loop's specification;
    ValueError for options that do not fit. ``solve`` answers `prbandit solve NAME`: the values and arrays
    that its command reads in (``controller.experiments.NAME.commands``), plain JSON out. ``miss`` says why a
    control slot missed the slice's promise, None where it did not: one of the ``causes``, which are in their
    order of precedence. ``five_qi`` is the 5QI of a data bearer for it (TS 23.501 Table 5.7.4-1), which its
    UEs have in an emulated cell. ``unit_test_options`` are the cases of the contract test of allocators:
    small ones, whose fits take no longer than a second.
    """

    name: str
    options: type[Options]
    allocator: Callable[[str, Options, LoopSpec], Allocator]
    tables: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)
    settings: Mapping[str, Column] = field(default_factory=dict)
    solve: Callable[[Mapping[str, Any], Options], dict[str, Any]] | None = None
    unit_test_options: Sequence[Mapping[str, Any]] = ({},)
    causes: Sequence[str] = ()
    miss: Callable[[ClosedSlice], Miss | None] | None = None
    five_qi: int = DEFAULT_FIVE_QI

    def __post_init__(self) -> None:
        if len(self.settings) > MAX_NAMES:
            raise ValueError(f"service {self.name}: more than {MAX_NAMES} settings")
        for name, setting in self.settings.items():
            bounds.check_name(f"service {self.name}", "setting", name, bounds.MAX_NAME)
            if not 1 <= setting.length <= bounds.MAX_SETTING_VALUES:
                raise ValueError(
                    f"service {self.name}: setting {name} of {setting.length} values, not 1 to"
                    f" {bounds.MAX_SETTING_VALUES}"
                )

    def check_settings(self, settings: Settings, users: frozenset[str]) -> None:
        """ValueError, naming flow and setting, for settings that are not this service's users' to have."""
        for flow, values in settings.items():
            if flow not in users:
                raise ValueError(f"settings for flow {flow!r}, which is none of the slice's users")
            for name, numbers in values.items():
                column = self.settings.get(name)
                if column is None:
                    known = ", ".join(self.settings) or "none"
                    raise ValueError(
                        f"flow {flow!r}: service {self.name} has no setting {name!r}; settings: {known}"
                    )
                if not 1 <= len(numbers) <= column.length:
                    raise ValueError(
                        f"flow {flow!r}, setting {name}: {len(numbers)} values, it takes 1 to {column.length}"
                    )
                if not np.isfinite(numbers).all():
                    raise ValueError(f"flow {flow!r}, setting {name}: {tuple(numbers)} is not finite")


def no_models(digest: str) -> bytes:
    """Gives no model: KeyError for every digest."""
    raise KeyError(digest)


@dataclass(frozen=True)
class SliceView:
    """What an allocator sees of its slice when a control slot closes. All of it is in the record.

    ``users`` are the flows that were active at some time in the slot, or of which frames came. ``reports`` is
    the MAC state, one report a state sub-interval, this slice's UEs only. ``frames`` are those of its users
    and index them, as do ``samples`` (table -> rows). The slot ran from ``opened_ns`` to ``closed_ns``; it is
    judged from ``begin_ns`` (after the guard) to ``end_ns`` (until which is known what became of the frames).

    ``granted`` and ``settings`` were in force; None and empty where no decision was. ``granted.gpu_mhz`` is
    the clock that the edge agent read back. ``unattributed`` says, for each lever that must not be learned
    about, why; a lever that is not in it was wholly as this allocator wanted it. ``unapplied`` are the users
    whose settings were not in force. ``models`` gives the bytes behind a digest. ``fits`` is what came of
    this slice's jobs since the slot before. ``arrivals`` has, of users who came from another cell in this
    slot, what an allocator of the same service knew of them there (:meth:`Allocator.hand_over`).
    """

    slice: str
    control_slot: int
    opened_ns: int
    closed_ns: int
    begin_ns: int
    end_ns: int
    users: tuple[Flow, ...] = ()
    reports: tuple[MacReport, ...] = ()
    frames: Frames = field(default_factory=Frames.empty)
    samples: Mapping[str, Samples] = field(default_factory=dict)
    granted: Grant | None = None
    settings: Settings = field(default_factory=dict)
    unattributed: Mapping[Lever, Reason] = field(default_factory=dict)
    unapplied: frozenset[str] = frozenset()
    clock_faults: Mapping[str, str] = field(default_factory=dict)
    fits: tuple[Fit, ...] = ()
    arrivals: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    models: Callable[[str], bytes] = no_models
    seed: tuple[int, ...] = (0,)

    @cached_property
    def rng(self) -> np.random.Generator:
        """Randomness of this control slot: from seed, cell, slice and its number, so that a replay draws the
        same."""
        return np.random.default_rng(self.seed)

    @classmethod
    def of(
        cls,
        observation: Observation,
        slice_id: str,
        *,
        guard_ms: float,
        seed: int = 0,
        cell: str = "",
        **more: Any,
    ) -> SliceView:
        """What an observation shows of one slice; ``more`` are the fields that it does not hold.

        ValueError for a guard that is no time, and for a frame whose flow is not one of the observation's.
        """
        if not 0 <= guard_ms < float("inf"):
            raise ValueError(f"guard {guard_ms!r} ms is not a number from 0")
        flows, frames = observation.flows, observation.frames
        if len(frames) and not (frames.flow.min() >= 0 and frames.flow.max() < len(flows)):
            raise ValueError(
                f"control slot {observation.control_slot}: frames of flows "
                f"{frames.flow.min()}..{frames.flow.max()}, the observation has {len(flows)} flows"
            )
        users = tuple(f for f in flows if f.slice == slice_id)
        samples = observation.samples.get(slice_id, {})
        if len(users) < len(flows):
            number = np.full(len(flows), -1, np.int64)
            number[[i for i, f in enumerate(flows) if f.slice == slice_id]] = np.arange(len(users))
            if len(frames):
                rows = np.flatnonzero(number[frames.flow] >= 0)
                frames = frames.take(rows, number[frames.flow[rows]])
            samples = {
                name: Samples(number[table.flow], table.time_ns, table.values)
                for name, table in samples.items()
            }
        return cls(
            slice=slice_id,
            control_slot=observation.control_slot,
            opened_ns=observation.opened_ns,
            closed_ns=observation.closed_ns,
            begin_ns=observation.opened_ns + round(guard_ms * 1e6),
            end_ns=observation.known_ns or observation.closed_ns,
            users=users,
            reports=tuple(_of_slice(r, slice_id) for r in observation.reports),
            frames=frames,
            samples=samples,
            clock_faults=observation.clock_faults,
            fits=tuple(f for f in observation.fits if f.slice == slice_id),
            arrivals={u.flow: a for u in users if (a := observation.arrivals.get(u.flow)) is not None},
            seed=(seed, crc32(cell.encode()), crc32(slice_id.encode()), observation.control_slot),
            **more,
        )


@dataclass(frozen=True, slots=True)
class ClosedSlice:
    """A slice's control slot that is over, as the record has it.

    ``outcome`` is what came of it (:meth:`Outcome.to_record`), with what was unattributed, ``before`` that of
    the control slot before, None where it is not known. ``why`` are the words on each lever's choice
    (:attr:`Choice.why`), ``full`` is all that there is.
    """

    view: SliceView
    outcome: Mapping[str, Any]
    before: Mapping[str, Any] | None
    why: Mapping[Lever, str]
    full: Grant
    options: Options
    loop: LoopSpec


def _of_slice(report: MacReport, slice_id: str) -> MacReport:
    rows = _rows(report.slice, slice_id)
    return report if len(rows) == len(report.slice) else report.take(rows)


@lru_cache(maxsize=256)
def _rows(slices: tuple[str, ...], slice_id: str) -> tuple[int, ...]:
    """A cell's reports name the same slices again and again."""
    return tuple(i for i, name in enumerate(slices) if name == slice_id)


class Allocator(ABC):
    """One slice's mind. Deterministic in (state, view), no I/O, no clock; 64 users in under 10 ms.

    Order in a control slot: :meth:`learn`, :meth:`demand`, :meth:`settle`, then :meth:`jobs`. In the modes
    frozen and released only learn is called. One that raises goes on with what it has in the next control
    slot.

    What is learned of a slot in which no lever is attributed depends neither on the frames, nor on what was
    granted, nor on the settings: only reports, samples and fits may teach then, about users and their radio.
    (A lever that fell short, :attr:`Reason.short`, may tell how much there is. One that had more than was
    asked for, :attr:`Reason.more`, may be learned about at what was granted: what failed with more fails with
    less, what sufficed says nothing about less. Where something was, its reason leaves the outcome; where
    more is missing than that, that reason takes its place.)
    """

    @abstractmethod
    def learn(self, view: SliceView) -> Outcome:
        """Judge the control slot that closed, and learn from what of it was this allocator's own doing."""

    @abstractmethod
    def demand(self, view: SliceView) -> SliceDemand:
        """What the slice wants in the control slot that begins."""

    def early(self, view: SliceView) -> str:
        """Why the control slot in progress should end now; "" where it should go on.

        Asked each state sub-interval, where the options of all slices of the cell say so, and what it says
        changes nothing: ``view`` has the users, the reports and frames so far and what was granted.
        """
        return ""

    def settle(self, view: SliceView, grant: Grant) -> Settings:
        """What each user is to do with what was granted. Must fit the grant, not the wish."""
        return {}

    def jobs(self) -> Sequence[Job]:
        """Fits that are to run beside the loop; done once each, by key."""
        return ()

    def hand_over(self, flow: str) -> Mapping[str, Any] | None:
        """What is known of a user, for an allocator of this service in the cell where it begins now
        (:attr:`SliceView.arrivals`); None: nothing. Plain JSON, a few KiB at most. Changes nothing."""
        return None

    def set(self, options: Options) -> None:
        """An operator changed options that are not in :attr:`Options.anew`; ValueError, and nothing changed,
        for those that cannot be used."""
        raise ValueError("these options can change at a restart alone")

    @abstractmethod
    def to_state(self) -> dict[str, Any]:
        """Plain JSON, below 64 KiB for 64 users: it is written every control slot. Weights go by digest."""

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Begin with what another slice of this service has learned (its :meth:`to_state`), in another cell,
        with other options. ValueError, and nothing changed, where that teaches this one nothing."""
        raise ValueError("what another slice has learned cannot be taken over")

    @abstractmethod
    def load_state(self, state: Mapping[str, Any], models: Callable[[str], bytes]) -> None:
        """Take over a state of :meth:`to_state`; ``models`` gives the bytes behind a digest.

        ValueError where it does not fit this allocator, KeyError where a model is missing.
        """

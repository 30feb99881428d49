"""VR cloud gaming: game servers at the edge render views, encode them and send them down.

For each user a server renders ``frame_rate`` frames a second. A frame's work on the GPU, whose queue all
users share, and its bytes follow from its pixels, which follow from the objects in the user's view and the
resolution class at which each is rendered (:mod:`wire.definitions.cloud_gaming`). Nothing goes up: an
exchange begins at the edge when the frame is due.

A server that is behind skips frames: one is not rendered where ``max_backlog`` earlier ones of its user have
not arrived. What has arrived is looked at every :data:`PLAN_NS`. Without TCP nothing says that a frame is
lost: there a frame is rendered in any case once all before it have been given up.

Scenes are drawn or come from an instance (:class:`DrawnScenes`, :class:`InstanceScenes`).

Source: VR-GX, section 2 and equations (7), (13), (22).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from agents.emulator import draws
from agents.emulator.applications.base import (
    NEVER,
    NOT_YET,
    Application,
    Exchanges,
    ExchangeTimes,
    FloatArray,
    IntArray,
    SampleRows,
    Settings,
    UnitTestCase,
    joined,
)
from agents.emulator.applications.options import check_range, number, parse
from agents.emulator.spec import UDP, UserSpec
from wire.definitions.bounds import MAX_SETTING_VALUES
from wire.definitions.cloud_gaming import (
    BITS_PER_PIXEL,
    FLOP_PER_PIXEL,
    FRAME_RATES_HZ,
    HMD_CLASSES,
    MAX_ATTENTION,
    RESOLUTION_PIXELS,
    VIEW_PIXELS,
    view_quality,
)
from wire.definitions.nr import SLOT_NS

SECOND_NS: Final = 1_000_000_000
PLAN_NS: Final = 5_000_000
"""What is planned in one call; shorter than a frame at the highest rate."""
REPEAT_NS: Final = SECOND_NS
"""After so long a scene that has not changed is sent once more, for a controller that has begun since."""
MAX_OBJECTS: Final = MAX_SETTING_VALUES
"""Of a scene: a setting has to name them all."""
MAX_OBJECT_ID: Final = (1 << 24) - 1
"""Samples carry float32, which has all whole numbers up to here."""
DRAWN_OBJECTS: Final = (3, 20)
"""Fewest and most objects of a drawn scene. Assumed, from the instance in ``../shared/data/vr-gx``."""
LEAVING: Final = 1 / 3
"""Chance of an object to leave at a change of a drawn scene. Assumed."""
LOWEST_CLASS: Final = min(RESOLUTION_PIXELS)
MAX_BACKLOG: Final = 16
"""The shortest ring of a user holds as many exchanges."""

_DRAWS = draws.APPLICATION + 32
_PHASE, _SIZE, _USER, _CHANGE, _LEAVES, _AREA, _ATTENTION = range(_DRAWS, _DRAWS + 7)
_SKIPPED = -1
"""Instead of the sequence of a frame that was not rendered."""

_FRAME = np.dtype(
    [(name, np.int64) for name in ("user", "sequence", "due_ns", "edge_sent", "ue_received")]
    + [(name, np.float64) for name in ("frame_rate", "quality", "pixels")]
)


@dataclass(frozen=True, slots=True)
class VrOptions:
    """Options of the users, the same for all of them. ValueError, which names the option, for one that cannot
    be.

    ``instance``: a JSON file as ``../shared/data/vr-gx/sixteen-users.json``, of whose users the views and
    devices are; empty: both are drawn. Of drawn users: ``objects`` in a view, 0: drawn; ``hmd_resolution``
    "2k", "4k" or "8k", empty: drawn; ``max_fps`` of the device in Hz, 0: drawn; ``scene_s``: mean seconds
    between changes of a scene, 0: it never changes.

    ``bits_per_pixel`` after encoding, ``flop_per_pixel`` of rendering, ``gpu_flops_per_s`` at the highest
    clock: the instance's. ``encoding_ms`` for a frame, on an encoder reserved for the user: assumed.
    ``size_jitter``: relative half-width of the frame sizes, uniform. Assumed. ``default_frame_rate`` in Hz
    and ``default_class``: while nobody sets them, or the highest below them that the device has.
    ``give_up_ms``: a frame later than this never counts as delivered. ``max_backlog``: frames of a user under
    way at most. Both assumed.
    """

    instance: str = ""
    objects: int = 0
    hmd_resolution: str = ""
    max_fps: float = 0.0
    scene_s: float = 30.0
    bits_per_pixel: float = BITS_PER_PIXEL
    flop_per_pixel: float = FLOP_PER_PIXEL
    gpu_flops_per_s: float = 3e12
    encoding_ms: float = 2.0
    size_jitter: float = 0.1
    default_frame_rate: float = FRAME_RATES_HZ[0]
    default_class: int = LOWEST_CLASS
    give_up_ms: float = 500.0
    max_backlog: int = 4

    def __post_init__(self) -> None:
        check_range(
            self,
            {
                "objects": (0, MAX_OBJECTS),
                "max_fps": (0.0, 1000.0),
                "scene_s": (0.0, 1e6),
                "bits_per_pixel": (1e-4, 24.0),
                "flop_per_pixel": (0.0, 1e5),
                "gpu_flops_per_s": (1e9, 1e18),
                "encoding_ms": (0.0, 10_000.0),
                "size_jitter": (0.0, 0.9),
                "give_up_ms": (1.0, 60_000.0),
                "max_backlog": (1, MAX_BACKLOG),
            },
        )
        if self.hmd_resolution and self.hmd_resolution not in HMD_CLASSES:
            raise ValueError(f"hmd_resolution {self.hmd_resolution!r} is none of {', '.join(HMD_CLASSES)}")
        if self.max_fps:
            _check_max_fps(self.max_fps)
        if 0.0 < self.scene_s < 0.01:
            raise ValueError(f"scene_s {self.scene_s:g} is neither 0 nor 0.01 or more")
        if self.default_frame_rate not in FRAME_RATES_HZ:
            raise ValueError(f"default_frame_rate {self.default_frame_rate:g} Hz is none of {_RATES}")
        if self.default_class not in RESOLUTION_PIXELS:
            known = ", ".join(map(str, RESOLUTION_PIXELS))
            raise ValueError(f"default_class {self.default_class} is none of {known}")


_RATES = ", ".join(f"{rate:g}" for rate in FRAME_RATES_HZ)


def _check_max_fps(max_fps: float) -> None:
    if max_fps < FRAME_RATES_HZ[0]:
        raise ValueError(f"max_fps {max_fps:g} is below {FRAME_RATES_HZ[0]:g}, the lowest frame rate")


# -- scenes --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scene:
    """Objects in a view: ``ids`` int64 [n], distinct; ``area`` float64 [n] in pixels of a view of
    :data:`wire.definitions.cloud_gaming.VIEW_PIXELS`; ``attention`` float64 [n], 0..5."""

    ids: IntArray
    area: FloatArray
    attention: FloatArray


@dataclass(frozen=True, slots=True)
class Device:
    """A head-mounted display: the resolution classes that it may be sent, rising, and its highest frame rate
    in Hz."""

    classes: tuple[int, ...]
    max_fps: float


class SceneSource(Protocol):
    """What users (their place among the application's) see. Scenes are numbered from 0 for each user."""

    devices: list[Device]

    def scene(self, user: int, scene: int) -> Scene:
        """The objects of a scene."""
        ...

    def length_ns(self, user: int, scene: int) -> int:
        """How long a scene lasts, whole NR slots; NEVER where it does not end."""
        ...


class DrawnScenes:
    """Users and scenes at random.

    A user's scenes have equally many objects. At a change each leaves with the chance :data:`LEAVING` for a
    new one, and all areas are drawn anew from a Dirichlet distribution of alpha 1/2 (squares of normal
    numbers over their sum), which has small objects and very small ones. The attention of a user to an
    object, a whole number, stays.
    """

    def __init__(self, seed: int, index: IntArray, o: VrOptions) -> None:
        """``index`` are the users' places in the random numbers."""
        self._seed, self._index, self._mean_ns = seed, index, o.scene_s * 1e9
        count, hmd, fps = (draws.uniforms(seed, _USER, index, k).tolist() for k in range(3))
        fewest, most = DRAWN_OBJECTS
        names = tuple(HMD_CLASSES)
        self._objects = [o.objects or fewest + int(u * (most - fewest + 1)) for u in count]
        self.devices = [
            Device(
                HMD_CLASSES[o.hmd_resolution or names[int(h * len(names))]],
                o.max_fps or FRAME_RATES_HZ[int(f * len(FRAME_RATES_HZ))],
            )
            for h, f in zip(hmd, fps, strict=True)
        ]

    def scene(self, user: int, scene: int) -> Scene:
        index, place = self._index[user], np.arange(self._objects[user])
        since = np.zeros(len(place), np.int64)
        for k in range(scene, 0, -1):
            leaves = draws.uniforms(self._seed, _LEAVES, index, k * MAX_OBJECTS + place) < LEAVING
            since[leaves & (since == 0)] = k
            if since.all():
                break
        ids = (since * len(place) + place) % (MAX_OBJECT_ID + 1)
        squares = draws.gaussians(self._seed, _AREA, index, scene * MAX_OBJECTS + place) ** 2
        attention = np.floor(draws.uniforms(self._seed, _ATTENTION, index, ids) * (MAX_ATTENTION + 1))
        return Scene(ids, VIEW_PIXELS * squares / squares.sum(), attention)

    def length_ns(self, user: int, scene: int) -> int:
        if self._mean_ns == 0:
            return NEVER
        u = float(draws.uniforms(self._seed, _CHANGE, self._index[user], scene))
        return max(1, math.ceil(-self._mean_ns * math.log(1.0 - u) / SLOT_NS)) * SLOT_NS


class InstanceScenes:
    """Users of an instance, whose views do not change. User i of the application is user i modulo them."""

    def __init__(self, path: str, index: IntArray) -> None:
        """``index`` are the users' places in the random numbers. ValueError, naming file, user and object,
        for what is no instance."""
        users = read_instance(path)
        self._scenes = [users[i % len(users)][0] for i in index.tolist()]
        self.devices = [users[i % len(users)][1] for i in index.tolist()]

    def scene(self, user: int, scene: int) -> Scene:
        return self._scenes[user]

    def length_ns(self, user: int, scene: int) -> int:
        return NEVER


def read_instance(path: str) -> list[tuple[Scene, Device]]:
    """The users of an instance in the format of ``../shared/data/vr-gx``.

    ValueError, naming file, user and object, for what is none.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON: {error}") from error
    users = content.get("users") if isinstance(content, dict) else None
    if not isinstance(users, list) or not users:
        raise ValueError(f"{path}: no list of users")
    result = []
    for k, user in enumerate(users):
        try:
            result.append(_user(user))
        except ValueError as error:
            raise ValueError(f"{path}: user {k}: {error}") from error
    return result


def _user(user: Any) -> tuple[Scene, Device]:
    hmd, objects = _entry(user, "hmd_resolution"), _entry(user, "objects")
    if not isinstance(hmd, str) or hmd not in HMD_CLASSES:
        raise ValueError(f"hmd_resolution {hmd!r} is none of {', '.join(HMD_CLASSES)}")
    max_fps = float(number("max_fps", False, _entry(user, "max_fps")))
    _check_max_fps(max_fps)
    if not isinstance(objects, list) or not 1 <= len(objects) <= MAX_OBJECTS:
        raise ValueError(f"objects are no list of 1 to {MAX_OBJECTS}")
    rows = []
    for k, o in enumerate(objects):
        try:
            rows.append([_value(o, name) for name in ("id", "pixels", "attention")])
        except ValueError as error:
            raise ValueError(f"object {k}: {error}") from error
    ids = np.array([row[0] for row in rows], np.int64)
    if len(np.unique(ids)) < len(ids):
        raise ValueError("two objects have the same id")
    area, attention = np.array([row[1:] for row in rows], np.float64).T
    return Scene(ids, area, attention), Device(HMD_CLASSES[hmd], max_fps)


def _value(of: Any, name: str) -> float:
    """A number of an object."""
    value = number(name, name == "id", _entry(of, name))
    high = {"id": MAX_OBJECT_ID, "pixels": VIEW_PIXELS, "attention": MAX_ATTENTION}[name]
    if not 0 <= value <= high or (name == "pixels" and value == 0):
        raise ValueError(f"{name} {value:g} is outside {'(' if name == 'pixels' else '['}0, {high:g}]")
    return value


def _entry(of: Any, name: str) -> Any:
    if not isinstance(of, dict) or name not in of:
        raise ValueError(f"there is no {name!r}")
    return of[name]


# -- the application -----------------------------------------------------------------------------------


class Vr(Application):
    """See the module; options: :class:`VrOptions`.

    Settings: ``frame_rate``, Hz, one of 30, 60 and 90 that the device has, or 0: nothing is rendered;
    ``objects``, ids, and ``resolutions``, the class of each of them, of those that the device has: the longer
    one's rest is ignored. An object that is not named is rendered at the default class. One that is not in
    the scene counts when it comes. Frames of a rate are due at multiples of its period after the user's
    phase; another rate or class begins with the next frame.

    Tables:

    - ``scene``: a row an object (id, area in pixels, attention), all of a scene at the same time: when the
      user becomes active, when its scene changes, and a second after the last ones.
    - ``device``: (highest frame rate in Hz, highest resolution class), with each of these.
    - ``delivered``: a row a frame, with the time at which it was due, in their order, once its fate and that
      of those before it is known: (ms until it was received, frame rate in Hz, its quality
      (:func:`wire.definitions.cloud_gaming.view_quality`), its pixels, ms in the GPU's queue and on it). NaN
      for the first where it was skipped, lost or given up, for the last where it was not rendered by then.

    Users that are not active have no frames and no rows.
    """

    name: ClassVar[str] = "vr"
    settings: ClassVar[Mapping[str, int]] = {
        "frame_rate": 1,
        "objects": MAX_OBJECTS,
        "resolutions": MAX_OBJECTS,
    }
    tables: ClassVar[Mapping[str, int]] = {"scene": 3, "device": 2, "delivered": 5}

    def __init__(self, users: Sequence[UserSpec], seed: int) -> None:
        super().__init__(users, seed)
        for user in users:
            if user.options != users[0].options:
                raise ValueError(f"flow {user.flow!r}: its options differ from those of {users[0].flow!r}")
        try:
            self.options = o = parse(VrOptions, self.name, users[0].options)
            self.source: SceneSource = (
                InstanceScenes(o.instance, self.index) if o.instance else DrawnScenes(seed, self.index, o)
            )
        except ValueError as error:
            raise ValueError(f"flow {users[0].flow!r}: {error}") from error
        n = len(users)
        self._encoding_ns = int(o.encoding_ms * 1e6)
        self._give_up_ns = int(o.give_up_ms * 1e6)
        self._lossy = np.array([user.transport == UDP for user in users])
        phase = draws.uniforms(seed, _PHASE, self.index, 0)
        self._phase_ns = (phase * SECOND_NS / FRAME_RATES_HZ[0]).astype(np.int64)
        self._due = 0
        self._planned_ns = np.zeros(n, np.int64)

        self._rate = np.array([self._default_rate(u) for u in range(n)], np.int64)
        self._class_of: list[Mapping[int, int]] = [{} for _ in users]
        self._number = np.zeros(n, np.int64)
        self._scenes = [self.source.scene(u, 0) for u in range(n)]
        self._change_ns = np.array([self.source.length_ns(u, 0) for u in range(n)])
        self._pixels, self._quality = np.zeros(n), np.zeros(n)
        for u in range(n):
            self._choose(u)
        self._starts = [np.array([round(start * 1e9) for start, _ in user.active]) for user in users]
        self._row_ns = np.minimum(self._change_ns, [self._first_start(u, -1) for u in range(n)])

        # Frames of a user that were offered, the first of them that is under way, and how many there may be.
        self._offered = np.zeros(n, np.int64)
        self._underway_from = np.zeros(n, np.int64)
        self._limit = np.zeros(n, np.int64)
        # Those without a row yet, by user and in the order in which they are due.
        self._frames: NDArray[np.void] = np.zeros(0, _FRAME)
        self._rows: dict[str, list[SampleRows]] = {}

    @property
    def due_ns(self) -> int:
        return self._due

    def offer(self, now_ns: int) -> Exchanges:
        o = self.options
        self._report_frames(now_ns)
        self._report_scenes(now_ns)
        if now_ns >= self._due:
            self._limit = self._underway_from + o.max_backlog
            given_up = self._lossy.copy()
            given_up[self._frames["user"][self._frames["sequence"] != _SKIPPED]] = False
            self._limit[given_up] = np.maximum(self._limit, self._offered + 1)[given_up]
            self._due = min((now_ns // PLAN_NS + 1) * PLAN_NS, int(self._change_ns.min()))
        start = np.maximum(self._planned_ns, now_ns)
        self._planned_ns[:] = self._due
        # The first frame from the start on; the next one is due beyond the end.
        rate = np.maximum(self._rate, 1)
        k = -((self._phase_ns - start) * rate // SECOND_NS)
        due = self._phase_ns + k * SECOND_NS // rate
        begins = (self._rate > 0) & (due < self._due)
        user = np.flatnonzero(begins & self.active.contain(np.arange(len(due)), due))
        due = due[user]
        rendered = self._offered[user] < self._limit[user]
        frames = np.zeros(len(user), _FRAME)
        frames["user"], frames["due_ns"] = user, due
        frames["sequence"] = np.where(rendered, self._offered[user], _SKIPPED)
        frames["edge_sent"] = frames["ue_received"] = NOT_YET
        frames["frame_rate"], frames["quality"] = self._rate[user], self._quality[user]
        frames["pixels"] = self._pixels[user]
        if len(frames):
            frames = np.concatenate((self._frames, frames))
            self._frames = frames[np.argsort(frames["user"], kind="stable")]
        user, due = user[rendered], due[rendered]
        self._offered[user] += 1
        pixels = self._pixels[user]
        # A frame's size depends on when it is due alone, whatever frames there were before.
        u = draws.uniforms(self.seed, _SIZE, self.index[user], due)
        size = 1.0 + o.size_jitter * (2.0 * u - 1.0)
        return Exchanges.of(
            user,
            due,
            gpu_ns=np.ceil(pixels * o.flop_per_pixel / o.gpu_flops_per_s * 1e9),
            edge_ns=self._encoding_ns,
            dl_bytes=np.ceil(pixels * o.bits_per_pixel / 8 * size),
        )

    def take(self, times: ExchangeTimes) -> None:
        back = times.ue_received >= 0
        # A user's frames arrive in their order, so that those before are there, or lost.
        np.maximum.at(self._underway_from, times.user[back], times.sequence[back] + 1)
        rendered = np.flatnonzero(self._frames["sequence"] != _SKIPPED)
        key = (self._frames["user"][rendered] << 40) + self._frames["sequence"][rendered]
        changed = (times.user << 40) + times.sequence
        # Those that were given up have had their row.
        open_ = np.isin(changed, key)
        place = rendered[np.searchsorted(key, changed[open_])]
        self._frames["edge_sent"][place] = times.edge_sent[open_]
        self._frames["ue_received"][place] = times.ue_received[open_]

    def defaults(self, user: int) -> Settings:
        return {"frame_rate": (float(self._default_rate(user)),), "objects": (), "resolutions": ()}

    def check(self, user: int, setting: str, values: tuple[float, ...]) -> None:
        device = self.source.devices[user]
        if setting == "frame_rate":
            if values[0] and (values[0] not in FRAME_RATES_HZ or values[0] > device.max_fps):
                raise ValueError(
                    f"{values[0]:g} Hz is neither 0 nor one of {_RATES} up to {device.max_fps:g}"
                )
        elif setting == "objects":
            for value in values:
                if value != int(value) or not 0 <= value <= MAX_OBJECT_ID:
                    raise ValueError(f"{value:g} is no id of an object")
            if len(set(values)) < len(values):
                raise ValueError("an object is named twice")
        else:
            for value in values:
                if value not in device.classes:
                    raise ValueError(f"{value:g} is none of {', '.join(map(str, device.classes))}")

    def apply(self, user: int, settings: Settings, now_ns: int, withdrawn: int) -> None:
        self._offered[user] -= withdrawn
        self._frames = self._frames[(self._frames["user"] != user) | (self._frames["due_ns"] < now_ns)]
        self._planned_ns[user] = now_ns
        self._rate[user] = int(settings["frame_rate"][0])
        pairs = zip(settings["objects"], settings["resolutions"], strict=False)
        self._class_of[user] = {int(id_): int(class_) for id_, class_ in pairs}
        self._choose(user)

    def samples(self) -> Mapping[str, SampleRows]:
        rows, self._rows = self._rows, {}
        return joined(rows)

    @classmethod
    def unit_test_cases(cls) -> Iterable[UnitTestCase]:
        refused: tuple[Settings, ...] = (
            {"frame_rate": (45.0,)},
            {"objects": (1.5,)},
            {"objects": (3.0, 3.0)},
            {"objects": tuple(map(float, range(MAX_OBJECTS + 1)))},
            {"resolutions": (3.0,)},
            {"fps": (30.0,)},
        )
        drawn = {"hmd_resolution": "4k", "max_fps": 90, "bits_per_pixel": 0.05, "scene_s": 0.5}
        yield UnitTestCase(drawn, {"frame_rate": (60.0,)}, (*refused, {"resolutions": (2.0, 12.0)}))
        finer = {"frame_rate": (30.0,), "objects": (0.0, 1.0, 2.0), "resolutions": (8.0, 8.0, 8.0)}
        still = {**drawn, "objects": 3, "bits_per_pixel": 0.02, "scene_s": 0, "max_fps": 30, "max_backlog": 2}
        yield UnitTestCase(still, finer, (*refused, {"frame_rate": (60.0,)}))

    # -- what is rendered ----------------------------------------------------------------------------

    def _default_rate(self, user: int) -> int:
        """Hz."""
        highest = min(self.options.default_frame_rate, self.source.devices[user].max_fps)
        return int(max(rate for rate in FRAME_RATES_HZ if rate <= highest))

    def _choose(self, user: int) -> None:
        """Pixels and quality of a user's frames from here on."""
        scene, of = self._scenes[user], self._class_of[user]
        allowed = self.source.devices[user].classes
        default = max(c for c in allowed if c <= self.options.default_class)
        classes = [of.get(id_, default) for id_ in scene.ids.tolist()]
        pixels = np.array([RESOLUTION_PIXELS[c] for c in classes], np.float64)
        self._pixels[user] = scene.area @ pixels / VIEW_PIXELS
        self._quality[user] = view_quality(classes, scene.attention, LOWEST_CLASS)

    # -- rows ----------------------------------------------------------------------------------------

    def _report_scenes(self, now_ns: int) -> None:
        """Rows of scenes, and the scenes that begin, up to now.

        A start within an NR slot is worked off when the next one begins; no row is there before it.
        """
        for u in np.flatnonzero(self._row_ns <= now_ns).tolist():
            while (time_ns := int(self._row_ns[u])) <= now_ns - SLOT_NS * (time_ns < self._change_ns[u]):
                if time_ns == self._change_ns[u]:
                    self._number[u] += 1
                    self._scenes[u] = self.source.scene(u, int(self._number[u]))
                    self._change_ns[u] += self.source.length_ns(u, int(self._number[u]))
                    self._choose(u)
                if self.active.contain(np.array([u]), np.array([time_ns]))[0]:
                    scene, device = self._scenes[u], self.source.devices[u]
                    values: FloatArray = np.column_stack((scene.ids, scene.area, scene.attention))
                    self._add("scene", np.full(len(values), u), np.full(len(values), time_ns), values)
                    limits = np.array([[device.max_fps, device.classes[-1]]], np.float64)
                    self._add("device", np.array([u]), np.array([time_ns]), limits)
                self._row_ns[u] = min(
                    time_ns + REPEAT_NS, int(self._change_ns[u]), self._first_start(u, time_ns)
                )

    def _first_start(self, user: int, after_ns: int) -> int:
        """When the user next becomes active, later than a time; NEVER where it does not."""
        starts = self._starts[user]
        k = int(np.searchsorted(starts, after_ns, side="right"))
        return int(starts[k]) if k < len(starts) else NEVER

    def _report_frames(self, now_ns: int) -> None:
        """Rows of the frames whose fate, and that of all before, is known."""
        f = self._frames
        if len(f) == 0:
            return
        latency = f["ue_received"] - f["due_ns"]
        back = f["ue_received"] != NOT_YET
        skipped = f["sequence"] == _SKIPPED
        # What happens within an NR slot is worked off when the next one begins.
        given_up = f["due_ns"] + self._give_up_ns <= now_ns - SLOT_NS
        pending = ~np.where(skipped, f["due_ns"] < now_ns, back | given_up)
        before = np.concatenate(([0], np.cumsum(pending)))
        known = before[1:] == before[np.searchsorted(f["user"], f["user"])]
        if not known.any():
            return
        gpu = f["edge_sent"] - f["due_ns"] - self._encoding_ns
        rendered = (f["edge_sent"] != NOT_YET) & (gpu + self._encoding_ns <= self._give_up_ns)
        values = np.column_stack(
            (
                np.where(back & (latency <= self._give_up_ns), latency / 1e6, np.nan),
                f["frame_rate"],
                f["quality"],
                f["pixels"],
                np.where(rendered, gpu / 1e6, np.nan),
            )
        )
        self._add("delivered", f["user"][known], f["due_ns"][known], values[known])
        self._frames = f[~known]

    def _add(self, table: str, user: IntArray, time_ns: IntArray, values: FloatArray) -> None:
        self._rows.setdefault(table, []).append((user, time_ns, values))

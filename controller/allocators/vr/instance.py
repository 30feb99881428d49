"""What VR-GX is to be solved for: base stations, compute nodes, games, users and what they look at.

An instance is a mapping as JSON has it, in the units that its keys name::

    {"base_stations": [{"id": 0, "bandwidth_hz": 1e8}],
     "compute_nodes": [{"id": 0, "gpu_flops_per_s": 3e12, "latency_ms_to_bs": [0.5]}],
     "users": [{"id": 0, "hmd_resolution": "2k", "max_fps": 60, "game": 1, "sinr_db": [18.5],
                "objects": [{"id": 0, "pixels": 66526, "attention": 5}]}]}

``latency_ms_to_bs`` and ``sinr_db`` have an entry a base station. Where an entry is itself a list it holds
the latencies of all paths, of which the highest counts (equation 21), or the SINR of each spatial stream
(equation 15); a single SINR is that of all ``mimo_streams``. The SINR is measured: channel vectors and
transmit powers are in it. null or NaN: out of reach.

These may be there beside:

- of a base station ``processing_bits_per_s`` (rho of equation 19) and ``processing_packets_per_s`` (rho of
  equation 20); of a compute node ``cpu``, ``memory_gb`` and ``network_bits_per_s``; without them there is no
  such limit;
- ``games``: ``[{"id", "cpu", "memory_gb", "cpu_per_pixel_s", "memory_gb_per_pixel"}]``, what each player of a
  game takes of its node (C and M of equations 8 and 9), all 0 by default;
- of a user ``distance_m``, with an entry a base station (d of equation 17);
- ``bits_per_pixel`` (0.25), ``flop_per_pixel`` (440), ``mimo_streams`` (4), ``packet_bits`` (12,000),
  ``fixed_latency_s`` (0), which every frame takes on top of the terms of equations (17) to (22),
  ``resolution_pixels`` ("2K" -> pixels of a view), ``allowed_resolutions`` (display -> resolutions) and
  ``frame_rates``, by default those of :mod:`wire.definitions.cloud_gaming`.

A user who cannot be read is left out with a reason, as is an entry of a station or a node that is no number
or not from LEAST to MOST: they have no capacity. Only an instance that has no lists of stations, nodes and
users is no instance.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite, log2
from typing import Any, Final

from wire.definitions import cloud_gaming

LEAST: Final = 1e-18
MOST: Final = 1e18
"""Numbers other than 0 are from LEAST to MOST: products of them neither vanish nor overflow."""
MAX_CLASSES: Final = 256
"""Of resolutions: a front counts them in a byte."""


@dataclass(frozen=True, slots=True)
class Station:
    """A base station; ``fault`` says why it has no capacity, "" where it has."""

    id: Hashable
    bandwidth_hz: float
    processing_bits_per_s: float = inf
    processing_packets_per_s: float = inf
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A compute node; ``latency_s`` is that to each base station, inf where there is no path."""

    id: Hashable
    gpu_flops_per_s: float
    latency_s: tuple[float, ...]
    cpu: float = inf
    memory_gb: float = inf
    network_bits_per_s: float = inf
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Game:
    """What a player of a game takes of its compute node."""

    cpu: float = 0.0
    memory_gb: float = 0.0
    cpu_per_pixel_s: float = 0.0
    memory_gb_per_pixel: float = 0.0


@dataclass(frozen=True, slots=True)
class Object:
    """``pixels`` of the reference view, ``attention`` lambda."""

    id: Hashable
    pixels: float
    attention: float


@dataclass(frozen=True, slots=True)
class User:
    """A player and the display: which ``resolutions`` (classes, ascending) and ``frame_rates_hz`` it takes.

    ``spectral_efficiency`` has an entry a base station: bit/s/Hz over all streams (equation 14), 0 out of
    reach. ``fault`` says why the user cannot be served at all.
    """

    id: Hashable
    game: Hashable = None
    resolutions: tuple[int, ...] = ()
    frame_rates_hz: tuple[float, ...] = ()
    spectral_efficiency: tuple[float, ...] = ()
    distance_m: tuple[float, ...] = ()
    objects: tuple[Object, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """See the module. ``resolution_pixels``: class -> pixels of a whole view."""

    stations: tuple[Station, ...]
    nodes: tuple[Node, ...]
    users: tuple[User, ...]
    games: Mapping[Hashable, Game] = field(default_factory=dict)
    resolution_pixels: Mapping[int, float] = field(
        default_factory=lambda: dict(cloud_gaming.RESOLUTION_PIXELS)
    )
    bits_per_pixel: float = cloud_gaming.BITS_PER_PIXEL
    flop_per_pixel: float = cloud_gaming.FLOP_PER_PIXEL
    packet_bits: float = 12_000.0
    fixed_latency_s: float = 0.0

    @property
    def lowest(self) -> int:
        """The lowest resolution class: at it an object has quality 1."""
        return min(self.resolution_pixels)

    def game(self, user: User) -> Game:
        return self.games.get(user.game, Game())

    def first(self, users: int) -> Instance:
        """The same with the first ``users`` alone. ValueError for more than there are, and for fewer than
        1."""
        if not 1 <= users <= len(self.users):
            raise ValueError(f"users: {users} is not from 1 to the instance's {len(self.users)}")
        return replace(self, users=self.users[:users])

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Instance:
        """Reads an instance. ValueError, naming the place, for what is none."""
        return _Reader(data).instance()


class _Reader:
    """Reads one instance."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        if not isinstance(data, Mapping):
            raise ValueError(f"instance: a mapping is needed, not {type(data).__name__}")
        self._data = data

    def instance(self) -> Instance:
        stations = tuple(self._stations(self._list("base_stations")))
        nodes = tuple(self._nodes(self._list("compute_nodes"), len(stations)))
        pixels = {
            self._class(name): self._scalar(value, f"resolution_pixels.{name}", above=0.0)
            for name, value in self._mapping(
                "resolution_pixels", {f"{k}K": v for k, v in cloud_gaming.RESOLUTION_PIXELS.items()}
            ).items()
        }
        if not 1 <= len(pixels) <= MAX_CLASSES:
            raise ValueError(f"resolution_pixels: {len(pixels)} resolutions are not from 1 to {MAX_CLASSES}")
        allowed = {
            str(display): tuple(sorted({self._class(name) for name in self._names(display, names)}))
            for display, names in self._mapping(
                "allowed_resolutions",
                {d: [f"{k}K" for k in classes] for d, classes in cloud_gaming.HMD_CLASSES.items()},
            ).items()
        }
        for display, classes in allowed.items():
            if unknown := sorted(set(classes) - pixels.keys()):
                raise ValueError(f"allowed_resolutions.{display}: {unknown[0]}K has no pixels")
        rates = self._data.get("frame_rates", cloud_gaming.FRAME_RATES_HZ)
        if not isinstance(rates, Sequence) or isinstance(rates, str) or not rates:
            raise ValueError("frame_rates: a list of Hz is needed")
        rates = tuple(sorted({self._scalar(f, "frame_rates", above=0.0) for f in rates}))
        streams = self._data.get("mimo_streams", 4)
        if type(streams) is not int or not 1 <= streams <= MOST:
            raise ValueError(f"mimo_streams: {streams!r} is not a whole number from 1")
        seen: set[Hashable] = set()
        users = tuple(
            self._user(i, user, seen, len(stations), allowed, rates, streams)
            for i, user in enumerate(self._list("users"))
        )
        return Instance(
            stations,
            nodes,
            users,
            self._games(),
            pixels,
            self._scalar(
                self._data.get("bits_per_pixel", cloud_gaming.BITS_PER_PIXEL), "bits_per_pixel", 0.0
            ),
            self._scalar(self._data.get("flop_per_pixel", cloud_gaming.FLOP_PER_PIXEL), "flop_per_pixel"),
            self._scalar(self._data.get("packet_bits", 12_000.0), "packet_bits", 0.0),
            self._scalar(self._data.get("fixed_latency_s", 0.0), "fixed_latency_s"),
        )

    def _list(self, key: str) -> Sequence[Any]:
        value = self._data.get(key)
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError(f"{key}: a list is needed, not {type(value).__name__}")
        return value

    def _mapping(self, key: str, default: Mapping[str, Any]) -> Mapping[str, Any]:
        value = self._data.get(key, default)
        if not isinstance(value, Mapping):
            raise ValueError(f"{key}: a mapping is needed, not {type(value).__name__}")
        return value

    def _names(self, display: str, names: Any) -> Sequence[Any]:
        if not isinstance(names, Sequence) or isinstance(names, str):
            raise ValueError(f"allowed_resolutions.{display}: a list is needed, not {type(names).__name__}")
        return names

    def _class(self, name: Any) -> int:
        return cloud_gaming.class_of(str(name))

    def _scalar(self, value: Any, place: str, above: float | None = None) -> float:
        """A finite number from 0, or greater than ``above``, up to MOST."""
        number = _number(value)
        if number is None or not isfinite(number) or number < 0.0 or (above is not None and number <= above):
            raise ValueError(
                f"{place}: {value!r} is not a finite number {'above' if above is not None else 'from'} 0"
            )
        if not _in_bounds(number):
            raise ValueError(f"{place}: {value!r} is neither 0 nor from {LEAST:g} to {MOST:g}")
        return number

    def _stations(self, entries: Sequence[Any]) -> list[Station]:
        out: list[Station] = []
        seen: set[Hashable] = set()
        for i, entry in enumerate(entries):
            place = f"base_stations[{i}]"
            identity, fault = _identity(entry, place, seen)
            values = {}
            for key, default in (
                ("bandwidth_hz", None),
                ("processing_bits_per_s", inf),
                ("processing_packets_per_s", inf),
            ):
                values[key], why = _capacity(entry, key, default, place)
                fault = fault or why
            out.append(Station(identity, **values, fault=fault))
        return out

    def _nodes(self, entries: Sequence[Any], stations: int) -> list[Node]:
        out: list[Node] = []
        seen: set[Hashable] = set()
        for i, entry in enumerate(entries):
            place = f"compute_nodes[{i}]"
            identity, fault = _identity(entry, place, seen)
            values = {}
            for key, default in (
                ("gpu_flops_per_s", None),
                ("cpu", inf),
                ("memory_gb", inf),
                ("network_bits_per_s", inf),
            ):
                values[key], why = _capacity(entry, key, default, place)
                fault = fault or why
            paths = entry.get("latency_ms_to_bs") if isinstance(entry, Mapping) else None
            if not isinstance(paths, Sequence) or isinstance(paths, str) or len(paths) != stations:
                fault = (
                    fault or f"{place}.latency_ms_to_bs: an entry for each of {stations} stations is needed"
                )
                paths = [None] * stations
            latency = tuple(_highest(path) / 1e3 for path in paths)
            out.append(Node(identity, latency_s=latency, **values, fault=fault))
        return out

    def _games(self) -> dict[Hashable, Game]:
        games: dict[Hashable, Game] = {}
        entries = self._data.get("games", [])
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise ValueError(f"games: a list is needed, not {type(entries).__name__}")
        for i, entry in enumerate(entries):
            place = f"games[{i}]"
            if not isinstance(entry, Mapping) or not _is_id(entry.get("id")):
                raise ValueError(f"{place}: a mapping with an id is needed")
            if entry["id"] in games:
                raise ValueError(f"{place}: game {entry['id']!r} is there twice")
            games[entry["id"]] = Game(
                *(self._scalar(entry.get(key, 0.0), f"{place}.{key}") for key in Game.__dataclass_fields__)
            )
        return games

    def _user(
        self,
        i: int,
        entry: Any,
        seen: set[Hashable],
        stations: int,
        allowed: Mapping[str, tuple[int, ...]],
        rates: tuple[float, ...],
        streams: int,
    ) -> User:
        place = f"users[{i}]"
        identity, fault = _identity(entry, place, seen)
        if fault:
            return User(identity, fault=fault)
        try:
            game = entry.get("game", ("alone", identity))
            if not _is_id(game) and "game" in entry:
                raise ValueError(f"{place}.game: {game!r} is no id")
            display = entry.get("hmd_resolution")
            if not isinstance(display, str) or display not in allowed:
                raise ValueError(
                    f"{place}.hmd_resolution: {display!r} is none of {', '.join(allowed) or 'none'}"
                )
            if not allowed[display]:
                raise ValueError(f"the display {display!r} allows no resolution")
            most = self._scalar(entry.get("max_fps"), f"{place}.max_fps", above=0.0)
            allows = tuple(f for f in rates if f <= most)
            if not allows:
                raise ValueError(f"the display's {most:g} Hz allow no frame rate, the lowest is {rates[0]:g}")
            efficiency = tuple(
                _efficiency(s, streams) for s in _entries(entry, "sinr_db", stations, place, None)
            )
            distance = tuple(
                self._scalar(d, f"{place}.distance_m")
                for d in _entries(entry, "distance_m", stations, place, [0.0] * stations)
            )
            objects = self._objects(entry.get("objects"), place)
        except ValueError as error:
            return User(identity, fault=str(error))
        return User(identity, game, allowed[display], allows, efficiency, distance, objects)

    def _objects(self, entries: Any, place: str) -> tuple[Object, ...]:
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise ValueError(f"{place}.objects: a list is needed, not {type(entries).__name__}")
        if not entries:
            raise ValueError("there is no object to render")
        out: list[Object] = []
        seen: set[Hashable] = set()
        for j, entry in enumerate(entries):
            where = f"{place}.objects[{j}]"
            identity, fault = _identity(entry, where, seen)
            if fault:
                raise ValueError(fault)
            pixels = self._scalar(entry.get("pixels"), f"{where}.pixels")
            attention = self._scalar(entry.get("attention"), f"{where}.attention")
            out.append(Object(identity, pixels, attention))
        if not sum(o.pixels for o in out) > 0.0:
            raise ValueError("its objects have no pixels")
        return tuple(out)


def _is_id(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def _identity(entry: Any, place: str, seen: set[Hashable]) -> tuple[Hashable, str]:
    """The id of an entry, its place where it has none; and what is wrong with it."""
    if not isinstance(entry, Mapping):
        return place, f"{place}: a mapping is needed, not {type(entry).__name__}"
    identity = entry.get("id")
    if not _is_id(identity):
        return place, f"{place}.id: {identity!r} is neither a string nor a whole number"
    if identity in seen:
        return identity, f"{place}.id: {identity!r} is there twice"
    seen.add(identity)
    return identity, ""


def _number(value: Any) -> float | None:
    """A float, inf or NaN included; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _in_bounds(number: float) -> bool:
    return number == 0.0 or LEAST <= number <= MOST


def _capacity(entry: Any, key: str, default: float | None, place: str) -> tuple[float, str]:
    """A capacity, and what is wrong with it; 0 where something is."""
    value = entry.get(key, default) if isinstance(entry, Mapping) else None
    number = _number(value)
    if number is None or not number >= 0.0 or (number == inf and default is None):
        return 0.0, f"{place}.{key}: {value!r} is not a number from 0"
    if default is not None and number > MOST:
        return inf, ""
    if not _in_bounds(number):
        return 0.0, f"{place}.{key}: {value!r} is neither 0 nor from {LEAST:g} to {MOST:g}"
    return number, ""


def _highest(path: Any) -> float:
    """The highest latency of the paths, inf where one is not known."""
    values = (
        [_number(p) for p in path]
        if isinstance(path, Sequence) and not isinstance(path, str)
        else [_number(path)]
    )
    known = [v for v in values if v is not None and v >= 0.0]
    return max(known) if known and len(known) == len(values) else inf


def _efficiency(sinr_db: Any, streams: int) -> float:
    """Bit/s/Hz over all streams, from one SINR or one a stream; 0 where it is not known."""
    if isinstance(sinr_db, Sequence) and not isinstance(sinr_db, str):
        values, times = [_number(s) for s in sinr_db], 1
    else:
        values, times = [_number(sinr_db)], streams
    total = 0.0
    for value in values:
        if value is None or not isfinite(value):
            return 0.0
        total += times * log2(1.0 + 10.0 ** (min(value, 300.0) / 10.0))
    return total


def _entries(entry: Mapping[str, Any], key: str, stations: int, place: str, default: Any) -> Sequence[Any]:
    values = entry.get(key, default)
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != stations:
        raise ValueError(f"{place}.{key}: an entry for each of {stations} stations is needed")
    return values

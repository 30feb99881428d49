"""Short videos: users watch, swipe on and rate what they saw; the edge transcodes segments for them.

An exchange is a segment: a request up, transcoding at the edge, which takes ``cycles_per_bit`` for each bit
at the rate granted to the user, and the segment down. A user has one request under way; the next one goes out
when the whole segment is there and the player wants more (:mod:`agents.emulator.applications.player`). A
segment under way at a swipe comes to its end and is thrown away then.

Who a user is, when it swipes and how it rates (:mod:`wire.definitions.viewing`) follow from ``UserSpec.seed``
and its place in the random numbers, not from what the network does nor from the cell.

The edge's rates are reserved: where active users are granted more than the edge has, all rates are scaled
down in proportion.

Source: Revolutionizing QoE-driven Network Management with Digital Agents in 6G, sections III and IV.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from agents.emulator import draws
from agents.emulator.applications.base import (
    NEVER,
    Application,
    Exchanges,
    ExchangeTimes,
    FloatArray,
    SampleRows,
    Settings,
    UnitTestCase,
    joined,
)
from agents.emulator.applications.options import check_range, parse
from agents.emulator.applications.player import Player, Segment
from agents.emulator.spec import UDP, UserSpec
from wire.definitions import mos, viewing
from wire.definitions.nr import SLOT_NS

SECOND_NS: Final = 1_000_000_000
SETTINGS: Final = ("bitrate_kbps", "prefetch", "edge_ghz")
ENVIRONMENT_SD: Final = 0.05
"""Of the complexity of the environment round that of the speed. Assumed."""
FIRST_S: Final = 4096.0
"""Of behaviour that is drawn at first; twice as much each time that it does not suffice."""
MAX_SEGMENTS: Final = 1 << 20
"""Of a video."""

_DRAWS = draws.APPLICATION + 64
_PHASE, _SIZE, _SCORE, _ENVIRONMENT, _DRIFT, _PERSON = range(_DRAWS, _DRAWS + 6)


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """Options of the users, the same for all of them. ValueError, which names the option, for one that cannot
    be.

    ``bitrate_kbps``, ``prefetch``, ``edge_ghz``: the settings while nobody sets them; ``edge_ghz_at_most`` is
    that of the edge, all users together. Section IV has 10 Gcycle/s. ``requests_per_min``, ``segment_s``,
    ``cycles_per_bit``: see :mod:`wire.definitions.viewing`. ``request_bytes``; ``size_jitter``: relative
    half-width of the segments' sizes, uniform; ``rating_s``: a user rates each interval of this length. All
    three assumed. ``ela`` (0: drawn) and ``principle`` (empty: drawn) are those of all users. ``speed_kmh``
    of users without a :class:`Track`. ``give_up_s``: over UDP a segment that is not there by then is asked
    for anew.

    Drift: from ``swipe_factor_at_s`` on users swipe ``swipe_factor`` times as often.
    """

    bitrate_kbps: float = 1000.0
    prefetch: int = 1
    edge_ghz: float = 0.625
    edge_ghz_at_most: float = 10.0
    requests_per_min: float = viewing.REQUESTS_PER_MIN
    segment_s: float = viewing.SEGMENT_S
    cycles_per_bit: float = viewing.CYCLES_PER_BIT
    request_bytes: int = 300
    size_jitter: float = 0.15
    rating_s: float = 10.0
    ela: float = 0.0
    principle: str = ""
    speed_kmh: float = 2.0
    give_up_s: float = 10.0
    swipe_factor_at_s: float = 0.0
    swipe_factor: float = 1.0

    def __post_init__(self) -> None:
        check_range(
            self,
            {
                "prefetch": (0, viewing.MAX_PREFETCH),
                "edge_ghz_at_most": (1e-3, 1e5),
                "edge_ghz": (1e-3, self.edge_ghz_at_most),
                "requests_per_min": (0.1, 60.0),
                "segment_s": (0.1, 60.0),
                "cycles_per_bit": (0.0, 1e6),
                "request_bytes": (1, 1_000_000),
                "size_jitter": (0.0, 0.9),
                "rating_s": (1.0, 3600.0),
                "speed_kmh": (0.0, 500.0),
                "give_up_s": (0.1, 3600.0),
                "swipe_factor_at_s": (0.0, 1e6),
                "swipe_factor": (0.1, 10.0),
            },
        )
        _check_bitrate(self.bitrate_kbps, "bitrate_kbps ")
        if self.ela and not mos.SCALE[0] <= self.ela <= mos.SCALE[1]:
            raise ValueError(f"ela {self.ela:g} is neither 0 nor within {mos.SCALE[0]:g}..{mos.SCALE[1]:g}")
        if self.principle and self.principle not in mos.PRINCIPLES:
            raise ValueError(f"principle {self.principle!r} is none of {', '.join(mos.PRINCIPLES)}")


def _check_bitrate(value: float, name: str = "") -> None:
    if value not in mos.BITRATES_KBPS:
        raise ValueError(
            f"{name}{value:g} is none of {', '.join(f'{b:g}' for b in mos.BITRATES_KBPS)} kbit/s"
        )


class Person:
    """Who a user is and when it swipes, by ``seed`` and the user's ``index`` in it alone."""

    def __init__(self, seed: int, index: int, options: VideoOptions) -> None:
        self.seed, self.index, self._options = seed, index, options
        viewer = viewing.draw_viewer(self._rng(0))
        ela, principle = options.ela or viewer.ela, options.principle or viewer.principle
        self.viewer = viewing.Viewer(ela, principle, viewer.impact, viewer.weights)
        self._draw(FIRST_S)

    def swipes_s(self, until_s: float) -> FloatArray:
        """The times of all swipes before one."""
        self._reach(until_s)
        swipes_s = self._behaviour.swipes_s
        return swipes_s[swipes_s < until_s]

    def swipes_per_min(self, time_s: float) -> float:
        """How often it swiped of late (:meth:`wire.definitions.viewing.Behaviour.swipes_per_min`)."""
        self._reach(time_s + 1.0)
        return float(self._behaviour.swipes_per_min(np.array([time_s]))[0])

    def swipe_ns(self, k: int) -> int:
        """The time of swipe k."""
        while k >= len(self._swipes_ns):
            self._draw(2.0 * self._drawn_s)
        return self._swipes_ns[k]

    def _rng(self, part: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, _PERSON, self.index, part))

    def _reach(self, until_s: float) -> None:
        while self._drawn_s < until_s:
            self._draw(2.0 * self._drawn_s)

    def _draw(self, seconds: float) -> None:
        """Behaviour until a time; what was drawn of it before comes out as it was."""
        o = self._options
        # Thinned to the rate before the drift and after it (Lewis and Shedler).
        most = max(1.0, o.swipe_factor)
        drawn = viewing.draw_behaviour(self._rng(1), seconds, most * o.requests_per_min)
        swipes_s = drawn.swipes_s
        if o.swipe_factor != 1.0:
            kept = np.where(swipes_s < o.swipe_factor_at_s, 1.0, o.swipe_factor) / most
            u = draws.uniforms(self.seed, _DRIFT, self.index, np.arange(len(swipes_s)))
            swipes_s = swipes_s[u < kept]
        self._drawn_s = seconds
        self._behaviour = viewing.Behaviour(drawn.since_s, drawn.state, swipes_s)
        self._swipes_ns: list[int] = np.round(swipes_s * 1e9).astype(np.int64).tolist()


@dataclass(slots=True)
class _Fetch:
    """A request under way."""

    sequence: int
    due_ns: int
    segment: Segment
    player: Player


class _User:
    """One user: its player while it is active, and what is to be rated."""

    def __init__(self, spec: UserSpec, person: Person, rating_ns: int) -> None:
        self.spec, self.person = spec, person
        edges = [(round(t * 1e9), t == start) for start, stop in spec.active for t in (start, stop)]
        self._edges = list(reversed(edges))
        u = float(draws.uniforms(person.seed, _PHASE, person.index, 0))
        self.rating_ns, self.phase_ns = rating_ns, int(u * rating_ns)
        self.player: Player | None = None
        self.fetch: _Fetch | None = None
        self.sequence = 0
        self.rated_ns = 0
        self._before = (0, 0.0, 0.0)
        self._delays_ns: list[int] = []
        self._bytes = 0
        self.rate_ns = NEVER

    @property
    def edge_ns(self) -> int:
        """The next start or stop."""
        return self._edges[-1][0] if self._edges else NEVER

    def edge(self, segment_ns: int) -> bool:
        """The user starts (True) or stops."""
        time_ns, start = self._edges.pop()
        self.player = Player(segment_ns, self.person.swipe_ns, time_ns) if start else None
        self.rate_ns = NEVER
        if start:
            k = -((self.phase_ns - time_ns) // self.rating_ns)
            self.rate_ns = max(k, 0) * self.rating_ns + self.phase_ns
            self.rated_ns = time_ns
            self._clear()
        return start

    def received(self, fetch: _Fetch, time_ns: int, delay_ns: int) -> None:
        """A segment of the present player is there."""
        fetch.player.receive(fetch.segment)
        self._delays_ns.append(delay_ns)
        self._bytes += fetch.segment.size

    def _clear(self) -> None:
        assert self.player is not None
        self._before = self.player.stalled_ns, self.player.quality_ns, self.player.wasted_bytes
        self._delays_ns, self._bytes = [], 0

    def rate(self, options: VideoOptions) -> tuple[float, ...] | None:
        """The row of the interval that ends, and a new one begins; None where the user was not there for all
        of it."""
        player, person, end_ns = self.player, self.person, self.rate_ns
        assert player is not None
        begin_ns = end_ns - self.rating_ns
        whole = begin_ns >= self.rated_ns
        stalled_ns, quality_ns, wasted = (
            now - then
            for now, then in zip(
                (player.stalled_ns, player.quality_ns, player.wasted_bytes), self._before, strict=True
            )
        )
        delays, size = np.array(self._delays_ns, np.float64), self._bytes
        self._clear()
        self.rate_ns += self.rating_ns
        if not whole:
            return None
        k, end_s, per_min = end_ns // self.rating_ns, end_ns / 1e9, 60e9 / self.rating_ns
        recent = person.swipes_s(end_s)
        swipes = int(np.count_nonzero(recent >= begin_ns / 1e9))
        behaviour = float(mos.behaviour(person.swipes_per_min(end_s)))
        track = self.spec.track
        speed, x, y = options.speed_kmh, np.nan, np.nan
        if track is not None:
            speed = track.mean_speed_kmh(begin_ns / 1e9, end_s)
            x, y = track.position_m(end_s)
        noise = float(draws.gaussians(person.seed, _ENVIRONMENT, person.index, k))
        environment = float(mos.environment(speed)) + ENVIRONMENT_SD * noise
        environment = min(max(environment, mos.FACTOR_RANGE[0]), mos.FACTOR_RANGE[1])
        stalled, quality = stalled_ns / 1e9 * per_min, quality_ns / self.rating_ns
        uniform = float(draws.uniforms(person.seed, _SCORE, person.index, k))
        some = len(delays) > 0
        return (
            person.viewer.score(stalled, quality, behaviour, environment, uniform),
            stalled,
            quality,
            float(delays.mean()) / 1e6 if some else np.nan,
            float(delays.std()) / 1e6 if some else np.nan,
            8e3 * size / float(delays.sum()) if some else np.nan,
            behaviour,
            environment,
            speed,
            swipes * per_min,
            player.buffered_ns / 1e9,
            player.prefetched,
            8e6 * wasted / self.rating_ns,
            x,
            y,
        )


class Video(Application):
    """See the module; options: :class:`VideoOptions`.

    Settings of a user, for the segments that it asks for from then on:

    - ``bitrate_kbps``: one of :data:`wire.definitions.mos.BITRATES_KBPS`.
    - ``prefetch``: of how many next videos the first segment is fetched ahead, 0 to
      :data:`wire.definitions.viewing.MAX_PREFETCH`. Those that are there are not thrown away for a lower one.
    - ``edge_ghz``: rate of transcoding, above 0, at most the edge's.

    Tables:

    - ``profile``: (ELA on the scale of opinions, s of a segment, cycles per bit, lowest and highest bitrate
      in kbit/s, segments ahead), when the user becomes active and with each rating.
    - ``rating``: a row at the end of each interval of ``rating_s`` in which the user was active all the time;
      they begin at a phase of the user's own. Score (1..5); stalled (s in a minute, the start of videos
      included); quality (Q over the interval, 0 while nothing is played); mean and standard deviation of the
      time of fetching the segments that came in it, ms; their throughput, Mbit/s while fetching; B; C; mean
      speed, km/h; swipes, in a minute; buffered of the current video at the end, s; prefetched segments at
      the end; wasted (thrown away at swipes, kbit/s); position at the end, m. NaN: times and throughput
      without a segment, the position of a user without a track.

    B is that of the swipes of the last minute, C that of the mean speed with normal noise; the score is drawn
    from both as they are in the row, and from a number that is the same under every allocation.

    With its stop a user leaves everything; at a start it begins with an empty player, in another cell too:
    what it has prefetched is lost. A segment that is queued for it then is still sent, as its connection
    stays: that takes 1.8 % of the users' PRBs where they change cell (scenario ``video-campus``, 4 minutes).
    """

    name: ClassVar[str] = "video"
    settings: ClassVar[Mapping[str, int]] = dict.fromkeys(SETTINGS, 1)
    tables: ClassVar[Mapping[str, int]] = {"profile": 6, "rating": 15}
    wakes: ClassVar[bool] = True

    def __init__(self, users: Sequence[UserSpec], seed: int) -> None:
        super().__init__(users, seed)
        self.options = o = _options(users)
        rating_ns, self._segment_ns = round(o.rating_s * 1e9), round(o.segment_s * 1e9)
        self._users = [
            _User(u, Person(seed if u.seed is None else u.seed, int(i), o), rating_ns)
            for u, i in zip(users, self.index, strict=True)
        ]
        self._set: dict[str, list[float]] = {
            name: [self.defaults(u)[name][0] for u in range(len(users))] for name in SETTINGS
        }
        self._user_due = [u.edge_ns for u in self._users]
        self._due = 0
        self._now_ns = 0
        self._rows: dict[str, list[SampleRows]] = {}

    @property
    def due_ns(self) -> int:
        return self._due

    def offer(self, now_ns: int) -> Exchanges:
        # What happens within an NR slot is worked off when the next one begins.
        horizon_ns = now_ns - SLOT_NS
        asking = []
        for i, user in enumerate(self._users):
            if self._user_due[i] <= now_ns:
                self._run(i, horizon_ns)
                if self._asks(user, now_ns):
                    asking.append(i)
                self._user_due[i] = self._next_ns(user, now_ns)
        self._due = max(now_ns + 1, min(self._user_due))
        return self._fetches(asking, now_ns)

    def take(self, times: ExchangeTimes) -> None:
        for k in np.flatnonzero(times.ue_received >= 0).tolist():
            i, received_ns = int(times.user[k]), int(times.ue_received[k])
            user = self._users[i]
            if user.fetch is None or user.fetch.sequence != times.sequence[k]:
                continue
            self._run(i, received_ns)
            fetch, user.fetch = user.fetch, None
            if fetch.player is user.player:
                user.received(fetch, received_ns, received_ns - int(times.ue_sent[k]))
            self._user_due[i] = 0

    def defaults(self, user: int) -> Settings:
        o = self.options
        values = o.bitrate_kbps, o.prefetch, o.edge_ghz
        return {name: (float(value),) for name, value in zip(SETTINGS, values, strict=True)}

    def check(self, user: int, setting: str, values: tuple[float, ...]) -> None:
        value = values[0]
        if setting == "bitrate_kbps":
            _check_bitrate(value)
        elif setting == "prefetch":
            if value != int(value) or not 0 <= value <= viewing.MAX_PREFETCH:
                raise ValueError(f"{value:g} is no whole number from 0 to {viewing.MAX_PREFETCH}")
        elif not 0.0 < value <= self.options.edge_ghz_at_most:
            raise ValueError(f"{value:g} GHz is outside (0, {self.options.edge_ghz_at_most:g}]")

    def apply(self, user: int, settings: Settings, now_ns: int, withdrawn: int) -> None:
        for name in SETTINGS:
            self._set[name][user] = settings[name][0]
        if withdrawn:
            self._users[user].fetch = None
            self._users[user].sequence -= withdrawn
        self._user_due[user] = 0

    def samples(self) -> Mapping[str, SampleRows]:
        rows, self._rows = self._rows, {}
        return joined(rows)

    @classmethod
    def handover_points(
        cls, options: Mapping[str, Any], seed: int, index: int, until_s: float
    ) -> Sequence[float]:
        """Its swipes: there a user begins a new video."""
        return Person(seed, index, parse(VideoOptions, cls.name, options)).swipes_s(until_s).tolist()

    @classmethod
    def unit_test_cases(cls) -> Iterable[UnitTestCase]:
        refused: tuple[Settings, ...] = (
            {"bitrate_kbps": (1200.0,)},
            {"prefetch": (1.5,)},
            {"prefetch": (-1.0,)},
            {"prefetch": (viewing.MAX_PREFETCH + 1.0,)},
            {"edge_ghz": (0.0,)},
            {"edge_ghz": (10.5,)},
            {"prefetch": (1.0, 2.0)},
        )
        quick = {"segment_s": 0.5, "requests_per_min": 60.0, "rating_s": 1.0, "edge_ghz": 10.0}
        yield UnitTestCase({**quick, "bitrate_kbps": 2000.0}, {"bitrate_kbps": (500.0,)}, refused)
        drifting = {**quick, "prefetch": 4, "swipe_factor": 3, "swipe_factor_at_s": 1, "bitrate_kbps": 2500.0}
        yield UnitTestCase(drifting, {"bitrate_kbps": (1000.0,), "prefetch": (0.0,)}, refused)

    # -- users ---------------------------------------------------------------------------------------

    def _run(self, i: int, until_ns: int) -> None:
        """A user until a time: its player, starts, stops and ratings."""
        user = self._users[i]
        while (time_ns := min(user.rate_ns, user.edge_ns)) <= until_ns:
            if user.player is not None:
                user.player.advance(time_ns)
            if time_ns == user.rate_ns:
                if (row := user.rate(self.options)) is not None:
                    self._add("rating", i, time_ns, row)
                    self._profile(i, time_ns)
            elif user.edge(self._segment_ns):
                self._profile(i, time_ns)
        if user.player is not None:
            user.player.advance(until_ns)
        fetch = user.fetch
        if fetch is not None and user.spec.transport == UDP and self._give_up_ns(fetch) <= until_ns:
            user.fetch = None

    def _give_up_ns(self, fetch: _Fetch) -> int:
        return fetch.due_ns + round(self.options.give_up_s * 1e9)

    def _asks(self, user: _User, now_ns: int) -> bool:
        """Whether the user is there, and nothing of it is under way."""
        return user.player is not None and user.fetch is None and user.edge_ns > now_ns

    def _next_ns(self, user: _User, now_ns: int) -> int:
        """When the user is to be looked at next."""
        due = min(user.edge_ns, user.rate_ns)
        if user.fetch is None:
            due = min(due, user.player.next_ns if user.player else NEVER)
        elif user.spec.transport == UDP:
            due = min(due, self._give_up_ns(user.fetch))
        return min(due, NEVER - SLOT_NS) + SLOT_NS

    def _fetches(self, asking: Sequence[int], now_ns: int) -> Exchanges:
        o = self.options
        user, edge_ns, size = [], [], []
        scale = self._edge_scale(now_ns) if asking else 1.0
        for i in asking:
            u = self._users[i]
            assert u.player is not None
            wanted = u.player.wanted(int(self._set["prefetch"][i]))
            if wanted is None:
                continue
            segment = self._segment(u.person, *wanted, self._set["bitrate_kbps"][i])
            u.fetch = _Fetch(u.sequence, now_ns, segment, u.player)
            u.sequence += 1
            user.append(i)
            size.append(segment.size)
            ghz = self._set["edge_ghz"][i] * scale
            edge_ns.append(min(8 * segment.size * o.cycles_per_bit / ghz, 3600e9))
            self._user_due[i] = self._next_ns(u, now_ns)
        if user:
            self._due = max(now_ns + 1, min(self._user_due))
        return Exchanges.of(user, now_ns, ul_bytes=o.request_bytes, edge_ns=edge_ns or 0, dl_bytes=size or 1)

    def _segment(self, person: Person, video: int, number: int, bitrate_kbps: float) -> Segment:
        u = float(draws.uniforms(person.seed, _SIZE, person.index, video * MAX_SEGMENTS + number))
        size = (
            bitrate_kbps * 125.0 * self.options.segment_s * (1.0 + self.options.size_jitter * (2.0 * u - 1.0))
        )
        return Segment(video, number, max(1, round(size)), float(mos.quality(bitrate_kbps)))

    def _edge_scale(self, now_ns: int) -> float:
        """What of the rates granted the edge has for active users, all of it being 1."""
        everyone = np.arange(len(self._users))
        active = self.active.contain(everyone, np.full(len(everyone), now_ns))
        granted = float(np.array(self._set["edge_ghz"])[active].sum())
        return min(1.0, self.options.edge_ghz_at_most / granted) if granted > 0 else 1.0

    # -- rows ----------------------------------------------------------------------------------------

    def _profile(self, i: int, time_ns: int) -> None:
        o, low, high = self.options, mos.BITRATES_KBPS[0], mos.BITRATES_KBPS[-1]
        ela = self._users[i].person.viewer.ela
        self._add("profile", i, time_ns, (ela, o.segment_s, o.cycles_per_bit, low, high, viewing.AHEAD))

    def _add(self, table: str, i: int, time_ns: int, values: Sequence[float]) -> None:
        row = np.array([i]), np.array([time_ns]), np.array([values], np.float64)
        self._rows.setdefault(table, []).append(row)


def _options(users: Sequence[UserSpec]) -> VideoOptions:
    """The options that all users have; ValueError names the flow."""
    for user in users:
        if user.options != users[0].options:
            raise ValueError(f"flow {user.flow!r}: its options differ from those of {users[0].flow!r}")
    try:
        return parse(VideoOptions, Video.name, users[0].options)
    except ValueError as error:
        raise ValueError(f"flow {users[0].flow!r}: {error}") from error

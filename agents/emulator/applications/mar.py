"""Mobile augmented reality: pose frames go up, the edge estimates and predicts poses and prepares content.

A user captures 30 frames a second and uploads every k-th of them, ``upload_hz`` of them a second. The edge
knows the pose of an uploaded frame from the time on at which it begins to answer, so that a frame that queues
comes too late for the predictions in between. At every frame f it predicts the pose of frame f + W from the
uploads of (f - H, f] that it knows by then (:func:`wire.definitions.poses.line_weights`; with fewer than two
of them it holds the newest pose that it knows) and prepares the cells of the content that are visible from
there. The virtual content hit rate of a frame compares these with what is visible from its true pose.

Poses come from traces or are drawn (:class:`Traces`, :class:`Walks`). Coordinates, units and the numbering of
frames: :mod:`wire.definitions.poses`. Frame f of a user is captured f / 30 s after the start of the run and
the user's phase, which is drawn within a frame.

Source: Digital-twin-based QoE-CSP, section II, equations (4) to (6). Equation (5) has upload k of frame
k lambda, which is a frame with lambda as an interval; here it is of frame 30 k / lambda, lambda in Hz.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

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
from agents.emulator.applications.options import check_range, parse
from agents.emulator.spec import UserSpec
from wire.definitions import vchr
from wire.definitions.nr import SLOT_NS
from wire.definitions.poses import (
    FRAME_RATE_HZ,
    HISTORY_FRAMES,
    LOOKAHEAD_FRAMES,
    POSE,
    line_weights,
    unwrapped,
)
from wire.pose_files import read_poses

SECOND_NS: Final = 1_000_000_000
FRAMES_PER_S: Final = round(FRAME_RATE_HZ)
HORIZON_NS: Final = 200_000_000
"""What is planned in one call, and how often predictions and hits are worked out: as the mock publishes."""
MAX_WINDOW_FRAMES: Final = 900
"""Of history and lookahead, half a minute."""
MAX_FRAME_BYTES: Final = 10_000_000

_PHASE = draws.APPLICATION
_NOISE = draws.APPLICATION + 1
_PERSON = draws.APPLICATION + 2
_START = draws.APPLICATION + 3
_MOTION = draws.APPLICATION + 4


@dataclass(frozen=True, slots=True)
class MarOptions:
    """Options of the users, the same for all of them. ValueError, which names the option, for one that cannot
    be.

    ``traces``: an .npz file with the array ``pose``, float [users, frames, 6]; empty: poses are drawn.
    ``upload_hz``: Hz, where nobody sets it. ``frame_bytes`` go up with a frame and ``content_bytes`` back;
    ``estimation_ms`` takes the edge for its pose, on a CPU reserved for the user. All three are assumed.
    ``pose_noise_m`` and ``pose_noise_deg``: standard deviation of the estimated pose, for each coordinate.
    ``history`` H and ``lookahead`` W in frames. ``content_m``: the box of content along x, y, z in metres,
    divided into ``cells``; it stands on the floor at (``content_x``, ``content_z``) or, where they are not
    given, where the gaze of all users of the traces converges, and at the origin for drawn poses.
    ``field_of_view_deg``: horizontal, vertical.
    """

    traces: str = ""
    upload_hz: float = FRAME_RATE_HZ
    frame_bytes: int = 6000
    content_bytes: int = 2000
    estimation_ms: float = 5.0
    pose_noise_m: float = 0.0
    pose_noise_deg: float = 0.0
    history: int = HISTORY_FRAMES
    lookahead: int = LOOKAHEAD_FRAMES
    content_m: tuple[float, ...] = vchr.Content(0.0, 0.0).size_m
    cells: tuple[int, ...] = vchr.Content(0.0, 0.0).cells
    field_of_view_deg: tuple[float, ...] = vchr.FIELD_OF_VIEW_DEG
    content_x: float | None = None
    content_z: float | None = None

    def __post_init__(self) -> None:
        check_upload_hz(self.upload_hz)
        check_range(
            self,
            {
                "frame_bytes": (1, MAX_FRAME_BYTES),
                "content_bytes": (1, MAX_FRAME_BYTES),
                "estimation_ms": (0.0, 10_000.0),
                "pose_noise_m": (0.0, 10.0),
                "pose_noise_deg": (0.0, 180.0),
                "history": (1, MAX_WINDOW_FRAMES),
                "lookahead": (0, MAX_WINDOW_FRAMES),
            },
        )
        if (self.content_x is None) != (self.content_z is None):
            raise ValueError("content_x and content_z: neither can do without the other")


def check_upload_hz(hz: float) -> None:
    """ValueError for an upload frequency that cameras of 30 frames a second do not have."""
    if not 0.0 < hz <= FRAME_RATE_HZ:
        raise ValueError(f"upload frequency {hz:g} Hz is outside (0, {FRAME_RATE_HZ:g}]")


# -- poses ---------------------------------------------------------------------------------------------


class PoseSource(Protocol):
    """True poses of users. Angles go on beyond 360 degrees instead of jumping."""

    def poses(self, user: IntArray, frame: IntArray) -> FloatArray:
        """Float64 [..., 6] of users (their place among the application's) and frames that broadcast."""
        ...


def read_traces(path: str) -> FloatArray:
    """The poses of an .npz file, float64 [users, frames, 6]; ValueError, naming it, where it has none."""
    try:
        return read_poses(Path(path))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error


class Traces:
    """People who walked. User i of the application walks as user i modulo those of the traces.

    A trace is played forwards, then backwards, and so on, without a jump: a run that is longer than the trace
    repeats it, and what is learned in one passage is known in the next.
    """

    def __init__(self, poses: FloatArray, index: IntArray) -> None:
        """``poses`` as of :func:`read_traces`; ``index`` are the users' places in the random numbers."""
        self._poses = unwrapped(poses)
        self._trace = index % len(poses)

    def poses(self, user: IntArray, frame: IntArray) -> FloatArray:
        last = self._poses.shape[1] - 1
        passed = np.mod(frame, 2 * last)
        return self._poses[self._trace[user], last - np.abs(last - passed)]


BEARING, DISTANCE, HEIGHT, YAW, PITCH, ROLL = range(6)

MOTION: Final = np.array(
    (
        (BEARING, 45.0, 9.0),
        (BEARING, 5.0, 1.2),
        (BEARING, 0.5, 0.3),
        (DISTANCE, 0.5, 5.0),
        (DISTANCE, 0.15, 1.0),
        (DISTANCE, 0.02, 0.3),
        (HEIGHT, 0.03, 1.2),
        (HEIGHT, 0.004, 0.3),
        (YAW, 9.0, 2.5),
        (YAW, 5.0, 0.8),
        (YAW, 1.6, 0.3),
        (PITCH, 9.0, 2.2),
        (PITCH, 5.5, 0.8),
        (PITCH, 1.6, 0.3),
        (ROLL, 3.5, 0.9),
        (ROLL, 0.8, 0.3),
    )
)
"""What is added to a coordinate: the coordinate, a standard deviation (degrees; of the height metres; of the
distance as in :class:`Walks`), a time scale in s. Assumed: chosen by how much the poses of
``../shared/data/pose-traces`` change within 1/30, 1/3, 1 and 4 s."""


class Walks:
    """People who walk round the content, look at it and turn their heads; every number is assumed.

    Bearing and distance wander, the latter between 0.8 and 2 m; the eyes are 1.6 m above the floor, 0.07 m
    more or less from person to person. The gaze rests on a point over the middle of the content, at 0.72 of
    its height; on it comes the motion of the head in several time scales (:data:`MOTION`), as large as
    exp(0.3 n) times the common one for a person with the standard normal draw n. Every pose is a function of
    seed, user and frame, whatever was asked for before.
    """

    def __init__(self, seed: int, index: IntArray, content: vchr.Content) -> None:
        """``index`` are the users' places in the random numbers."""
        self._seed, self._index, self._content = seed, index, content
        tall, restless, near = (draws.gaussians(seed, _PERSON, index, k) for k in range(3))
        self._start = 360.0 * draws.uniforms(seed, _START, index, 0)
        self._tall = 1.6 + 0.07 * tall
        self._restless, self._near = np.exp(0.3 * restless), 0.4 * near
        # Compiles now rather than while the cell runs.
        self.poses(np.zeros(1, np.int64), np.zeros(1, np.int64))

    def poses(self, user: IntArray, frame: IntArray) -> FloatArray:
        user, frame = np.broadcast_arrays(user, frame)
        added = np.zeros((6, frame.size))
        add_motion(self._seed, self._index[user].ravel(), frame.ravel() / FRAME_RATE_HZ, MOTION, added)
        added = added.reshape(6, *frame.shape)
        bearing = np.radians(self._start[user] + added[BEARING])
        distance = 1.4 + 0.6 * np.tanh(self._near[user] + added[DISTANCE])
        height = self._tall[user] + added[HEIGHT]
        down = np.arctan2(height - 0.72 * self._content.size_m[1], distance)
        restless = self._restless[user]
        return np.stack(
            (
                self._content.x + distance * np.sin(bearing),
                height,
                self._content.z + distance * np.cos(bearing),
                np.degrees(down) + restless * added[PITCH],
                np.degrees(bearing) + 180.0 + restless * added[YAW],
                restless * added[ROLL],
            ),
            axis=-1,
        )


@draws.compiled
def add_motion(seed: int, index: Any, t: Any, motion: Any, out: Any) -> None:
    """Adds to row ``out[c]`` at times ``t`` (s) of users ``index`` the processes of ``motion`` for coordinate
    c: normal, of a standard deviation, smooth in a time scale.

    Such a process is :func:`agents.emulator.draws.smooth` without its corners.
    """
    for m in range(len(motion)):
        row, deviation, scale_s = int(motion[m, 0]), motion[m, 1], motion[m, 2]
        for i in range(len(t)):
            x = t[i] / scale_s
            k = int(x)
            w = x - k
            w = w * w * (3.0 - 2.0 * w)
            a = draws.gaussian(seed, _MOTION + m, index[i], k)
            b = draws.gaussian(seed, _MOTION + m, index[i], k + 1)
            out[row, i] += deviation * ((1.0 - w) * a + w * b) / math.sqrt((1.0 - w) ** 2 + w * w)


# -- the application -----------------------------------------------------------------------------------


class Mar(Application):
    """See the module; options: :class:`MarOptions`.

    Setting ``upload_hz``: Hz, above 0, at most 30. The users' uploads are spread evenly over the period that
    they have in common; another frequency begins with its next frame, without regard to the last upload.

    Tables, each row with the time at which the frame was captured, in the order of frames:

    - ``pose``: the six columns of an estimated pose, then ms from the capture of the frame until the edge
      knew its pose. An upload that is lost has no row.
    - ``prediction``: the six columns of the pose that had been predicted for the frame.
    - ``hits``: the virtual content hit rate of the frame, 0..1: 0 where nothing was prepared, as nothing had
      been predicted; NaN where nothing was to be seen and nothing had been prepared.

    A frame that is captured while its user is not active has no row, and nothing is predicted at it. Rows of
    a frame come with the call after the one NR slot in which the edge may still learn of poses by its time.
    """

    name: ClassVar[str] = "mar"
    settings: ClassVar[Mapping[str, int]] = {"upload_hz": 1}
    tables: ClassVar[Mapping[str, int]] = {"pose": len(POSE) + 1, "prediction": len(POSE), "hits": 1}

    def __init__(self, users: Sequence[UserSpec], seed: int) -> None:
        super().__init__(users, seed)
        for user in users:
            if user.options != users[0].options:
                raise ValueError(f"flow {user.flow!r}: its options differ from those of {users[0].flow!r}")
        try:
            self.options = o = parse(MarOptions, self.name, users[0].options)
            self.content, self.source = _scene(o, seed, self.index)
        except ValueError as error:
            raise ValueError(f"flow {users[0].flow!r}: {error}") from error
        n = len(users)
        frame, upload = (draws.uniforms(seed, _PHASE, self.index, k) for k in (0, 1))
        self._phase_ns = (frame * SECOND_NS / FRAME_RATE_HZ).astype(np.int64)
        self._upload_phase = upload
        self._hz = np.full(n, o.upload_hz)
        self._due = 0
        self._planned_ns = np.zeros(n, np.int64)
        self._known_until_ns = -1
        # Of the H - 1 frames before the next one to be worked out: the estimated pose and the first frame at
        # which it is known; of the W before it: what was predicted for W frames later.
        self._next = 0
        self._estimated = np.zeros((n, o.history - 1, len(POSE)))
        self._usable = np.full((n, o.history - 1), NEVER)
        self._predicted = np.full((n, o.lookahead, len(POSE)), np.nan)
        self._newest = np.full(n, -1)
        self._arrived = np.empty((0, 3), np.int64)
        self._rows: dict[str, list[SampleRows]] = {}

    @property
    def due_ns(self) -> int:
        return self._due

    def offer(self, now_ns: int) -> Exchanges:
        # What happens within an NR slot is worked off when the next one begins.
        self._known_until_ns = now_ns - SLOT_NS
        self._work_out()
        self._due = (now_ns // HORIZON_NS + 1) * HORIZON_NS
        user, frame = self._uploads(np.maximum(self._planned_ns, now_ns), self._due)
        self._planned_ns[:] = self._due
        o = self.options
        return Exchanges.of(
            user,
            self._captured_ns(user, frame),
            ul_bytes=o.frame_bytes,
            edge_ns=o.estimation_ms * 1e6,
            dl_bytes=o.content_bytes,
        )

    def take(self, times: ExchangeTimes) -> None:
        # Each change of an exchange comes here; by the call before all was known until this time.
        new = times.edge_sent > max(self._known_until_ns, NOT_YET)
        user, known_ns = times.user[new], times.edge_sent[new]
        frame = self._frame_at(user, times.ue_sent[new])
        latency_ms = (known_ns - times.ue_sent[new]) / 1e6
        values = np.column_stack((self._estimate(user, frame), latency_ms))
        self._add("pose", user, frame, values)
        arrived = np.stack((user, frame, self._frame_at(user, known_ns)), axis=1)
        self._arrived = np.concatenate((self._arrived, arrived))

    def defaults(self, user: int) -> Settings:
        return {"upload_hz": (float(self.options.upload_hz),)}

    def check(self, user: int, setting: str, values: tuple[float, ...]) -> None:
        check_upload_hz(values[0])

    def apply(self, user: int, settings: Settings, now_ns: int, withdrawn: int) -> None:
        self._hz[user] = settings["upload_hz"][0]
        # All that was planned from here on has been taken back.
        self._planned_ns[user] = now_ns

    def samples(self) -> Mapping[str, SampleRows]:
        rows, self._rows = self._rows, {}
        return joined(rows)

    @classmethod
    def unit_test_cases(cls) -> Iterable[UnitTestCase]:
        refused: tuple[Settings, ...] = ({"upload_hz": (0.0,)}, {"upload_hz": (30.5,)}, {"fps": (5.0,)})
        yield UnitTestCase({}, {"upload_hz": (5.0,)}, refused)
        noisy = {"upload_hz": 20, "frame_bytes": 9000, "pose_noise_m": 0.01, "pose_noise_deg": 1.0}
        yield UnitTestCase(noisy, {"upload_hz": (7.0,)}, refused)

    # -- frames and times ----------------------------------------------------------------------------

    def _captured_ns(self, user: IntArray, frame: IntArray) -> IntArray:
        """When frames were captured."""
        return self._phase_ns[user] + frame * SECOND_NS // FRAMES_PER_S

    def _frame_at(self, user: IntArray, time_ns: IntArray) -> IntArray:
        """The first frame that is captured at a time or later."""
        return -(-(time_ns - self._phase_ns[user]) * FRAMES_PER_S // SECOND_NS)

    def _uploads(self, start_ns: IntArray, end_ns: int) -> tuple[IntArray, IntArray]:
        """Users and frames that are uploaded of those captured from ``start_ns`` (by user) to ``end_ns``."""
        everyone = np.arange(len(self.users))
        start = np.maximum(self._frame_at(everyone, start_ns), 0)
        end = self._frame_at(everyone, np.full(len(everyone), end_ns))
        frame = start[:, None] + np.arange(max(0, int((end - start).max())))
        # As many uploads come before frame f as multiples of the period, from the phase on, come before f.
        before, after = (
            np.ceil((frame + k) * (self._hz / FRAME_RATE_HZ)[:, None] - self._upload_phase[:, None] - 1e-9)
            for k in (0, 1)
        )
        user, column = np.nonzero((after > before) & (frame < end[:, None]))
        frame = frame[user, column]
        active = self.active.contain(user, self._captured_ns(user, frame))
        return user[active], frame[active]

    # -- the edge ------------------------------------------------------------------------------------

    def _estimate(self, user: IntArray, frame: IntArray, true: FloatArray | None = None) -> FloatArray:
        """The poses that the edge estimates from frames, whose ``true`` ones may be known."""
        poses = self.source.poses(user, frame) if true is None else true.copy()
        for columns, deviation in (
            (slice(0, 3), self.options.pose_noise_m),
            (slice(3, 6), self.options.pose_noise_deg),
        ):
            if deviation:
                column = np.arange(columns.start, columns.stop)
                index = np.asarray(self.index[user])[..., None]
                counter = np.asarray(frame)[..., None] * len(POSE) + column
                poses[..., columns] += deviation * draws.gaussians(self.seed, _NOISE, index, counter)
        return poses

    def _work_out(self) -> None:
        """Predicts at all frames of which is known what had arrived by then, and judges them."""
        o, n = self.options, len(self.users)
        everyone = np.arange(n)
        # A frame captured at the very last known instant is one of them.
        ready = self._frame_at(everyone, np.full(n, self._known_until_ns + 1))
        count = int(ready.min()) - self._next
        if count <= 0:
            return
        user, frame = everyone[:, None], self._next + np.arange(count)[None, :]
        time_ns = self._captured_ns(user, frame)
        active = self.active.contain(np.broadcast_to(user, time_ns.shape).ravel(), time_ns.ravel()).reshape(
            time_ns.shape
        )
        true = self.source.poses(user, frame)
        predicted = self._predict(user, frame, true)
        predicted[~active] = np.nan
        predicted = np.concatenate((self._predicted, predicted), axis=1)
        self._predicted, predicted = predicted[:, count:], predicted[:, :count]
        exists = ~np.isnan(predicted[..., 0]) & active
        view = o.field_of_view_deg[0], o.field_of_view_deg[1]
        seen = vchr.visible(true[active], self.content, view)
        prepared = np.zeros_like(seen)
        prepared[exists[active]] = vchr.visible(predicted[exists], self.content, view)
        for table, rows, values in (
            ("prediction", exists, predicted[exists]),
            ("hits", active, vchr.hit_rate(seen, prepared)[:, None]),
        ):
            of, column = np.nonzero(rows)
            self._add(table, of, frame[0, column], values)
        self._next += count

    def _predict(self, user: IntArray, frame: IntArray, true: FloatArray) -> FloatArray:
        """What the edge predicts at the next frames [1, n] for W frames later, float64 [users, n, 6].

        NaN where it knows no pose yet. Takes up the uploads that arrived meanwhile.
        """
        o, count = self.options, frame.shape[1]
        first = self._next - (o.history - 1)
        estimated = np.concatenate((self._estimated, self._estimate(user, frame, true)), axis=1)
        usable = np.concatenate((self._usable, np.full((len(user), count), NEVER)), axis=1)
        now = self._arrived[:, 2] < self._next + count
        arrived, self._arrived = self._arrived[now], self._arrived[~now]
        newest = np.full((len(user), count), -1)
        newest[:, 0] = self._newest
        # Frames that no window holds any more can still be the newest that is known.
        at = np.maximum(arrived[:, 2] - self._next, 0)
        np.maximum.at(newest, (arrived[:, 0], at), arrived[:, 1])
        newest = np.maximum.accumulate(newest, axis=1)
        within = arrived[arrived[:, 1] >= first]
        usable[within[:, 0], within[:, 1] - first] = within[:, 2]
        known = sliding_window_view(usable, o.history, axis=1) <= frame[..., None]
        weights = line_weights(np.arange(1.0 - o.history, 1.0), known, o.lookahead)
        window = sliding_window_view(estimated, o.history, axis=1)
        predicted: FloatArray = np.einsum("unh,unch->unc", weights, window)
        held = np.count_nonzero(known, axis=-1) < 2
        of, column = np.nonzero(held & (newest >= 0))
        predicted[of, column] = self._estimate(of, newest[of, column])
        predicted[held & (newest < 0)] = np.nan
        self._estimated, self._usable = estimated[:, count:], usable[:, count:]
        self._newest = newest[:, -1]
        return predicted

    def _add(self, table: str, user: IntArray, frame: IntArray, values: FloatArray) -> None:
        self._rows.setdefault(table, []).append((user, self._captured_ns(user, frame), values))


def _scene(o: MarOptions, seed: int, index: IntArray) -> tuple[vchr.Content, PoseSource]:
    """Where the content stands, and who walks round it."""
    traces = read_traces(o.traces) if o.traces else None
    x, z = o.content_x, o.content_z
    if x is None or z is None:
        x, z = 0.0, 0.0
        if traces is not None:
            try:
                x, _, z = vchr.gaze_point(traces).tolist()
            except ValueError as error:
                raise ValueError(f"{o.traces}: {error}; content_x and content_z say where it is") from error
    size, cells = o.content_m, o.cells
    content = vchr.Content(x, z, (size[0], size[1], size[2]), (cells[0], cells[1], cells[2]))
    # Says what is wrong with the field of view.
    vchr.visible(np.zeros((1, len(POSE))), content, (o.field_of_view_deg[0], o.field_of_view_deg[1]))
    return content, Walks(seed, index, content) if traces is None else Traces(traces, index)

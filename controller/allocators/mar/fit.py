"""What runs beside the loop: twins learn from the poses of a control slot.

The application's predictor is cloned from what it was given and what it answered (equation 9). From the
poses that users uploaded follows then what lower upload frequencies would have come to: the clone is given
every k-th of them, and where a true pose is known VCHR is too. So each user teaches about its own frequency
and all below it. What its VCHR will be at any frequency is asked of the network at the poses that it passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from controller.allocators.mar.clone import KEPT, Inputs, LinearClone, joined
from controller.allocators.mar.features import NAMES, features
from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.traces import FIRST_FRAME, Observed, observe, pose_error
from controller.allocators.mar.twin import (
    CORRELATED_FRAMES,
    PRIOR_WEIGHT,
    BoolArray,
    ErrorModel,
    Model,
    bin_edges,
    bins_of,
)
from controller.twins.packing import pack_arrays, unpack_arrays
from controller.twins.softmax import SoftmaxNetwork, Training
from wire.definitions.poses import (
    FRAME_RATE_HZ,
    MAX_STEP_M,
    MAX_TURN_DEG,
    POSE,
    FloatArray,
    IntArray,
    turned,
    unwrapped,
)
from wire.definitions.vchr import Content, gaze_equations, meeting_point

LEAST_ROWS = 200
"""Before there are so many the network is not trained."""
ROWS_OF_USER = 6
"""At a frequency, from one control slot; and poses at which the network is asked."""
PAIRS_OF_USER = 60
"""What the predictor was given and answered, from one control slot."""
LONGEST = 45
"""Frames of the longest window of which the predictor may be a regression."""
FAITHFUL_M, FAITHFUL_DEG = 0.01, 1.0
"""A clone that is no further from the predictor in the mean square is kept."""
FORGET = 0.9
"""What errors of prediction weigh when new ones come."""
REMEMBER = 0.5
"""What is expected of a user weighs so much beside what its latest poses say."""
TRAINING = Training(steps=400)
USUAL = np.diag([0.05**2] * 3 + [4.0**2] * 3)
"""Covariance of a prediction's error before any is known, m and degrees: assumed."""
FARTHEST_M = 1000.0
"""From the origin, along each axis: content that is placed where users look would be drawn away by those who
are further."""
MAX_USERS = 256
"""Of whom something is remembered."""
VERSION = 2


@dataclass
class Memory:
    """What twins know: rows of frames, errors of prediction, the network, what is expected of each user.

    ``x`` [n, features], ``vchr`` [n] and ``frequency`` [n], the place among the frequencies. Of the errors,
    sums and weights in independent errors: ``total`` [F, 6, 6], ``weight`` [F]; of users ``own`` [U, F, 6],
    ``own_weight`` [U, F]. ``content`` stands where all users so far looked: ``gaze`` [3, 4] are the equations
    of that point. Rows that were computed for an earlier place are as good: they say how VCHR follows from
    geometry. ``expected`` [U, F]: probability of a hit; NaN where not known. ``clone`` of the predictor, and
    its ``fidelity``: root mean square m and degrees between what both predicted the last time. ``left_out``:
    flows whose poses could not be used then, and why.
    """

    frequencies: int
    content: Content | None = None
    users: list[str] = field(default_factory=list)
    x: NDArray[np.float16] = field(default_factory=lambda: np.empty((0, len(NAMES)), np.float16))
    vchr: FloatArray = field(default_factory=lambda: np.empty(0, np.float64))
    frequency: NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    total: FloatArray = field(init=False)
    weight: FloatArray = field(init=False)
    own: FloatArray = field(init=False)
    own_weight: FloatArray = field(init=False)
    expected: FloatArray = field(init=False)
    gaze: FloatArray = field(default_factory=lambda: np.zeros((3, 4)))
    network: SoftmaxNetwork | None = None
    clone: LinearClone | None = None
    fidelity: tuple[float, float] | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.total = np.zeros((self.frequencies, 6, 6))
        self.weight = np.zeros(self.frequencies)
        self.own = np.zeros((0, self.frequencies, 6))
        self.own_weight = np.zeros((0, self.frequencies))
        self.expected = np.full((0, self.frequencies), np.nan)

    def expected_of(self, flow: str) -> FloatArray | None:
        """Probability of a hit at each frequency, [F]; None where nothing is known of the user."""
        try:
            row: FloatArray = self.expected[self.users.index(flow)]
        except ValueError:
            return None
        return row if np.isfinite(row).all() else None

    def to_bytes(self) -> bytes:
        c = self.content
        values = {
            "version": VERSION,
            "frequencies": self.frequencies,
            "content": None if c is None else [c.x, c.z, list(c.size_m), list(c.cells)],
            "users": self.users,
            "left_out": self.left_out,
            "clone": None if self.clone is None else [self.clone.history, self.clone.order],
            "fidelity": self.fidelity,
        }
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _ARRAYS}
        if self.network is not None:
            arrays |= {f"network_{name}": a for name, a in self.network.arrays().items()}
        return pack_arrays(values, arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Memory:
        """ValueError for bytes that are none of :meth:`to_bytes`."""
        values, arrays = unpack_arrays(data)
        try:
            if values["version"] != VERSION:
                raise ValueError(f"twins of version {values['version']!r}, not {VERSION}")
            shape = (len(values["users"]), values["frequencies"])
            if arrays["expected"].shape != shape:
                raise ValueError("users and what is expected of them do not fit one another")
            memory = cls(shape[1], users=[str(u) for u in values["users"]])
            if (c := values["content"]) is not None:
                memory.content = Content(c[0], c[1], tuple(c[2]), tuple(c[3]))
            for name in _ARRAYS:
                setattr(memory, name, arrays[name])
            if "network_b2" in arrays:
                weights = {n.removeprefix("network_"): a for n, a in arrays.items() if "network_" in n}
                memory.network = SoftmaxNetwork.of_arrays(weights)
            memory.left_out = dict(values["left_out"])
            if (clone := values["clone"]) is not None:
                memory.clone = LinearClone(int(clone[0]), int(clone[1]))
            if (fidelity := values["fidelity"]) is not None:
                memory.fidelity = (float(fidelity[0]), float(fidelity[1]))
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"no twins: {error!r}") from None
        return memory

    def deviation(self) -> FloatArray:
        """Lower Cholesky factors [U, F, 6, 6] of the errors' covariances; a frequency of which nothing is
        known has those of the next lower one that is known, whose errors are larger, or of a higher one."""
        known = np.flatnonzero(self.weight > 0.0)
        common = np.tile(USUAL, (self.frequencies, 1, 1))
        if len(known):
            nearest = known[np.maximum(np.searchsorted(known, np.arange(self.frequencies), "right") - 1, 0)]
            common = self.total[nearest] / self.weight[nearest][:, None, None] + 1e-4 * USUAL
        shared = np.diagonal(common, axis1=1, axis2=2)
        weight = self.own_weight[..., None]
        variance = (self.own + PRIOR_WEIGHT * shared) / (weight + PRIOR_WEIGHT)
        return ErrorModel(common, variance).deviation()


_ARRAYS = ("x", "vchr", "frequency", "total", "weight", "own", "own_weight", "expected", "gaze")


def learn(
    before: bytes,
    flows: Sequence[str],
    user: IntArray,
    time_ns: IntArray,
    pose: FloatArray,
    opened_ns: int,
    closed_ns: int,
    options: Mapping[str, Any],
    seed: int,
    latency_ms: FloatArray | None = None,
    predicted: tuple[IntArray, IntArray, FloatArray] | None = None,
) -> bytes:
    """What is known after a control slot: :meth:`Memory.to_bytes`.

    ``before``: what was, empty for nothing. ``user`` [n] indexes ``flows``; of each uploaded frame the time
    of its capture [n], its estimated pose [n, 6] and ``latency_ms`` [n] until the edge knew it.
    ``predicted``: user [m], time of the frame that was predicted [m] and its pose [m, 6]. ValueError where
    the content's place is not given and the gazes of these users do not tell it.
    """
    o = MarOptions.model_validate(dict(options))
    memory = Memory.from_bytes(before) if before else Memory(len(o.upload_hz))
    memory.left_out = {}
    frames = int((closed_ns - opened_ns) * FRAME_RATE_HZ // 1_000_000_000)
    first = max(FIRST_FRAME, o.lookahead_frames)
    tracks, names, uploads = [], [], []
    for i, flow in enumerate(flows):
        rows = user == i
        at = _frames(time_ns[rows], opened_ns)
        try:
            found = _track(at, np.asarray(pose[rows], np.float64), frames)
        except ValueError as error:
            memory.left_out[flow] = str(error)
            continue
        if found is not None:
            tracks.append(found[0])
            uploads.append(found[1])
            names.append(flow)
    if predicted is not None and latency_ms is not None:
        left_out = [i for i, flow in enumerate(flows) if flow in memory.left_out]
        known = (user, _frames(time_ns, opened_ns), np.asarray(pose, np.float64), np.asarray(latency_ms))
        used = ~np.isin(predicted[0], left_out)
        answered = _frames(predicted[1][used], opened_ns)
        answers = (predicted[0][used], answered, np.asarray(predicted[2][used], np.float64))
        _imitate(memory, o, known, answers)
    if not tracks or frames <= first:
        return memory.to_bytes()
    poses, uploaded = np.stack(tracks), np.stack(uploads)
    memory.gaze += gaze_equations(poses)
    memory.content = _content(o, memory.gaze)
    observed = observe(
        poses,
        o.upload_hz,
        memory.content,
        field_of_view_deg=o.field_of_view_deg,
        history=_history(memory, o),
        lookahead=o.lookahead_frames,
        first=first,
    )
    place = _places(memory, names)
    _learn(memory, o, observed, uploaded, place, seed)
    return memory.to_bytes()


def _track(at: IntArray, pose: FloatArray, frames: int) -> tuple[FloatArray, BoolArray] | None:
    """The poses of all frames [frames, 6], straight between uploads, and which frames were uploaded.

    None for fewer than two uploads; ValueError for what no head does.
    """
    good = np.isfinite(pose).all(axis=1) & (at >= 0) & (at < frames)
    at, first = np.unique(at[good], return_index=True)
    if len(at) < 2:
        return None
    known = unwrapped(pose[good][first])
    if (np.abs(known[:, :3]) > FARTHEST_M).any():
        raise ValueError(f"further than {FARTHEST_M:g} m from the origin")
    apart = np.diff(at)
    if (np.linalg.norm(np.diff(known[:, :3], axis=0), axis=1) > MAX_STEP_M * apart).any():
        raise ValueError("moved faster than a head does")
    if (turned(known[:-1], known[1:]) > np.minimum(MAX_TURN_DEG * apart, 181.0)).any():
        raise ValueError("turned faster than a head does")
    every = np.arange(frames)
    track = np.stack([np.interp(every, at, known[:, c]) for c in range(len(POSE))], axis=1)
    return track, np.isin(every, at)


def _frames(time_ns: IntArray, opened_ns: int) -> IntArray:
    """Times as frames since the control slot was opened."""
    return np.rint((time_ns - opened_ns) * FRAME_RATE_HZ / 1e9).astype(np.int64)


def _history(memory: Memory, o: MarOptions) -> int:
    """H of the cloned predictor; that of the options where it is no line through a window."""
    if memory.clone is None or memory.clone.order > 1:
        return o.history_frames
    return memory.clone.history if memory.clone.order else 1


def _imitate(
    memory: Memory,
    o: MarOptions,
    known: tuple[IntArray, IntArray, FloatArray, FloatArray],
    answers: tuple[IntArray, IntArray, FloatArray],
) -> None:
    """Clones the predictor, or sees whether the clone is still faithful; a clone that is not is made anew.

    ``known``: user, frame, pose and latency of uploads; ``answers``: user, frame and pose of predictions."""
    parts: list[Inputs] = []
    targets: list[FloatArray] = []
    for user in np.unique(answers[0]):
        rows = (known[0] == user) & np.isfinite(known[2]).all(axis=1)
        rows &= np.isfinite(known[3]) & (known[3] >= 0.0)
        order = np.argsort(known[1][rows], kind="stable")
        captured, poses = known[1][rows][order], known[2][rows][order]
        # An upload is known from the first frame on that is captured when it has arrived.
        arrived = np.maximum.accumulate(
            captured + np.ceil(known[3][rows][order] * FRAME_RATE_HZ / 1e3 - 1e-6)
        )
        mine = (answers[0] == user) & np.isfinite(answers[2]).all(axis=1)
        now, wanted = answers[1][mine] - o.lookahead_frames, answers[2][mine]
        if not len(captured):
            continue
        latest = np.searchsorted(arrived, now, side="right") - 1
        # Before the window has filled within this slot, what the predictor was given is not all known.
        full = (latest >= 0) & (now - captured[0] >= LONGEST)
        every = max(1, int(full.sum()) // PAIRS_OF_USER)
        now, wanted, latest = (a[full][::every] for a in (now, wanted, latest))
        if not len(now):
            continue
        place = latest[:, None] - np.arange(KEPT)
        there = np.maximum(place, 0)
        age = np.where(place >= 0, now[:, None] - captured[there], np.nan).astype(np.float64)
        parts.append(Inputs(unwrapped(poses)[there], age, np.full(len(now), float(o.lookahead_frames))))
        targets.append(wanted)
    if not parts:
        return
    given, target = joined(parts), np.concatenate(targets)
    if memory.clone is not None:
        memory.fidelity = _apart(memory.clone, given, target)
    if memory.fidelity is None or memory.fidelity[0] > FAITHFUL_M or memory.fidelity[1] > FAITHFUL_DEG:
        memory.clone = LinearClone.fit(given, target, LONGEST)
        memory.fidelity = _apart(memory.clone, given, target)


def _apart(clone: LinearClone, given: Inputs, target: FloatArray) -> tuple[float, float]:
    """Root mean square of what lies between the poses of clone and predictor, m and degrees."""
    error = pose_error(target, clone.predict(given))
    return float(np.sqrt((error[:, :3] ** 2).sum(1).mean())), float(
        np.sqrt((error[:, 3:] ** 2).sum(1).mean())
    )


def _content(o: MarOptions, gaze: FloatArray) -> Content:
    if o.content_x is not None and o.content_z is not None:
        return Content(o.content_x, o.content_z, o.content_m, o.cells)
    x, _, z = meeting_point(gaze)
    return Content(float(x), float(z), o.content_m, o.cells)


def _places(memory: Memory, names: Sequence[str]) -> IntArray:
    """Where users stand in the memory, int64 [len(names)]; who is new gets a place. Beyond
    :data:`MAX_USERS` those who are not here are forgotten, the longest known first."""
    absent = [u for u in memory.users if u not in names]
    forgotten = set(absent[: max(0, len(absent) + len(names) - MAX_USERS)])
    kept = [i for i, u in enumerate(memory.users) if u not in forgotten]
    new = [name for name in dict.fromkeys(names) if name not in memory.users]
    for attribute, fill in (("own", 0.0), ("own_weight", 0.0), ("expected", np.nan)):
        old = getattr(memory, attribute)
        more = np.full((len(new), *old.shape[1:]), fill)
        setattr(memory, attribute, np.concatenate([old[kept], more]))
    memory.users = [memory.users[i] for i in kept] + new
    return np.array([memory.users.index(name) for name in names], np.int64)


def _learn(
    memory: Memory, o: MarOptions, observed: Observed, uploaded: BoolArray, place: IntArray, seed: int
) -> None:
    hz = np.array(o.upload_hz)
    edges = bin_edges(o.vchr, o.bins)
    # Known is what came at a frame that was uploaded, predicted from uploads that there were.
    now = observed.frame - o.lookahead_frames
    begun = now >= uploaded.argmax(axis=1)[:, None]
    judged = uploaded[:, observed.frame] & begun
    apart = _widest_gap(uploaded, o.history_frames)[:, now]
    known = judged[:, None, :] & (apart[:, None, :] <= (1.01 * FRAME_RATE_HZ / hz)[:, None])
    seldom = _usual_gap(uploaded)
    error = np.where(known[..., None], observed.error, 0.0)
    independent = known.sum(axis=2) * np.minimum(1.0, seldom / CORRELATED_FRAMES)[:, None]
    scale = independent / np.maximum(known.sum(axis=2), 1)
    memory.total *= FORGET
    memory.weight *= FORGET
    memory.own *= FORGET
    memory.own_weight *= FORGET
    memory.total += np.einsum("uf,ufni,ufnj->fij", scale, error, error)
    memory.weight += independent.sum(axis=0)
    # A flow that stopped and began again is there twice.
    np.add.at(memory.own, place, scale[..., None] * (error**2).sum(axis=2))
    np.add.at(memory.own_weight, place, independent)
    deviation = memory.deviation()[place]

    def rows(users: IntArray, frequency: IntArray, frame: IntArray) -> FloatArray:
        assert memory.content is not None
        return features(
            observed.situation[users, frequency, frame],
            hz[frequency],
            deviation[users, frequency],
            memory.content,
            o.field_of_view_deg,
            o.vchr,
        )

    rng = np.random.default_rng(seed)
    order = np.where(known & np.isfinite(observed.vchr), rng.random(known.shape), 2.0)
    few = np.sort(np.argsort(order, axis=2, kind="stable")[:, :, :ROWS_OF_USER], axis=2)
    u, f, k = np.nonzero(np.take_along_axis(order, few, axis=2) < 2.0)
    n = few[u, f, k]
    if len(u):
        memory.x = np.concatenate([memory.x, rows(u, f, n).astype(np.float16)])
        memory.vchr = np.concatenate([memory.vchr, observed.vchr[u, f, n]])
        memory.frequency = np.concatenate([memory.frequency, f.astype(np.int8)])
        _forget_rows(memory, o.memory_rows)
    if len(memory.x) >= LEAST_ROWS:
        memory.network = SoftmaxNetwork.fit(
            memory.x.astype(np.float64),
            bins_of(memory.vchr, edges),
            len(edges) - 1,
            seed,
            TRAINING,
        )
    if memory.network is None or memory.content is None:
        return
    model = Model(memory.network, edges, o.vchr, memory.content, o.field_of_view_deg)
    users, frequencies = len(place), len(hz)
    everybody = np.arange(users)
    asked = np.linspace(0, len(observed.frame) - 1, ROWS_OF_USER).round().astype(np.int64)
    u, f, n = (a.ravel() for a in np.meshgrid(everybody, np.arange(frequencies), asked, indexing="ij"))
    p = model.hit(memory.network.predict(rows(u, f, n))).reshape(users, frequencies, -1).mean(axis=2)
    old = memory.expected[place]
    memory.expected[place] = np.where(np.isfinite(old), REMEMBER * old + (1.0 - REMEMBER) * p, p)


def _widest_gap(uploaded: BoolArray, window: int) -> FloatArray:
    """The most frames from an upload to the next one within the last ``window`` frames, float64 [U, frames];
    infinite before the first upload and after the last one."""
    frame = np.arange(uploaded.shape[1])
    before = np.maximum.accumulate(np.where(uploaded, frame, -1), axis=1)
    after = np.minimum.accumulate(np.where(uploaded, frame, 1 << 40)[:, ::-1], axis=1)[:, ::-1]
    gap = np.where((before >= 0) & (after < 1 << 40), after - before, np.inf)
    padded = np.concatenate([np.repeat(gap[:, :1], window - 1, axis=1), gap], axis=1)
    return np.asarray(sliding_window_view(padded, window, axis=1).max(axis=2), np.float64)


def _usual_gap(uploaded: BoolArray) -> FloatArray:
    """Frames from an upload to the next in the median, float64 [U]."""
    return np.array([np.median(np.diff(np.flatnonzero(of))) if of.sum() > 1 else 1.0 for of in uploaded])


def _forget_rows(memory: Memory, most: int) -> None:
    """Keeps the latest ``most`` rows of each frequency."""
    keep = np.zeros(len(memory.x), np.bool_)
    for f in range(memory.frequencies):
        keep[np.flatnonzero(memory.frequency == f)[-most:]] = True
    memory.x, memory.vchr, memory.frequency = memory.x[keep], memory.vchr[keep], memory.frequency[keep]

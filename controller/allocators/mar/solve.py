"""``prbandit solve mar``: from traces to the least bandwidth for each user, and what really came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from controller.allocators.base import Options
from controller.allocators.mar import qoe_csp, traces
from controller.allocators.mar.learning import STRIDE, learn, share_of_hits, was_kept
from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.promise import with_correlation
from controller.allocators.mar.radio import Uplink, prb_hz, prbs
from controller.allocators.mar.splits import split
from controller.allocators.mar.twin import bins_of, every
from controller.core.hops import Carrier
from wire.definitions import nr

CORRELATION = 0.15
"""Of the hits of two frames, where too few windows are known to learn a margin: frames within half a second
of one another hit together, for some seconds. Assumed."""
TWIN = "softmax on the geometry at the predicted pose, all users; errors of prediction of each user"


def solve(instance: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """Twins from a part of the frames; for the others the promise, frequency and bandwidth of each user.

    As in the paper the predicted poses of the frames that are judged are given; what comes of them is not.

    Args:
        instance: ``poses`` [U, frames, 6]; ``users``: whom to serve; ``snr_db``: samples of each of the U
            users; ``tdd``: name of a pattern; ``n_prb``: a limit or None; ``split`` and ``seed``.
        options: of the slice.

    Returns:
        For each user ``user, upload_hz, bandwidth_hz, prb, reliability`` (P of the promise at that frequency,
        by the twin), ``feasible, why``, ``granted_hz`` (frequency within
        ``n_prb``) and ``short_prb``; of the frames that the twin never saw ``realised_share`` that hit at
        ``upload_hz``, ``met``, and ``hindsight_hz``: the lowest frequency that would have kept the promise,
        None for none. Over all: ``total_prb``, ``total_bandwidth_hz``, ``hindsight_prb``, ``accepted``,
        ``met``, ``without_promise`` (the rule for the others), ``twin``, ``split``, and of the unseen frames
        ``accuracy`` and ``log_loss`` of the bins, and the ``majority`` class's accuracy.
    """
    assert isinstance(options, MarOptions)
    poses = np.asarray(instance["poses"], np.float64)
    carrier = Carrier(tdd=nr.TDD_PATTERNS[instance["tdd"]])
    content = content_of(options, poses)
    observed = traces.observe(
        poses,
        options.upload_hz,
        content,
        field_of_view_deg=options.field_of_view_deg,
        history=options.history_frames,
        lookahead=options.lookahead_frames,
        first=max(traces.FIRST_FRAME, options.lookahead_frames),
    )
    known, judged = split(
        len(observed.frame),
        instance["split"],
        int(instance["seed"]),
        history=options.history_frames,
        lookahead=options.lookahead_frames,
    )
    twins = learn(observed, known, len(judged), content, options, seed=int(instance["seed"]))
    chosen = np.array(instance["users"], np.int64)
    theirs = observed.of(chosen)
    unseen = every(judged, STRIDE)
    probabilities = twins.probabilities(observed, unseen)
    expected = twins.model.hit(probabilities).mean(axis=-1)[chosen]
    margin = twins.margin(options.rho)
    if margin is not None:
        reliability = margin.reliability(expected, options.rho)
    else:
        hits = twins.model.hit(probabilities)[chosen]
        reliability = with_correlation(hits, options.rho, CORRELATION)
    uplink = Uplink.of_users([Uplink.from_snr_db(options.frame_bits, instance["snr_db"][u]) for u in chosen])
    frequencies = np.array(options.upload_hz)
    bandwidth = uplink.bandwidth_hz(frequencies[:, None], options.latency_ms / 1e3).T
    plan = qoe_csp.least_bandwidth(reliability, expected, bandwidth, options.epsilon, options.without_promise)
    limit = np.inf if instance.get("n_prb") is None else instance["n_prb"] * prb_hz(carrier)
    allotment = qoe_csp.within(plan, bandwidth, limit)
    share = share_of_hits(theirs.vchr[:, :, judged], options.vchr)
    # Nothing to render is nothing missed.
    would = was_kept(np.nan_to_num(share, nan=1.0), options.rho) > 0.0
    at = np.arange(len(chosen))
    untried = (
        "" if margin is not None else " (too few users and frames to learn how far the twin may be trusted)"
    )
    users = []
    for i, u in enumerate(chosen.tolist()):
        k, fits = int(plan.choice[i]), bool(allotment.kept[i])
        users.append(
            {
                "user": u,
                "upload_hz": float(frequencies[k]),
                "bandwidth_hz": float(bandwidth[i, k]),
                "prb": int(prbs(bandwidth[i, k], carrier)),
                "reliability": _number(reliability[i, k]),
                "feasible": bool(plan.promised[i]) and fits,
                "why": _why(options, reliability[i], frequencies, bool(plan.promised[i]), fits) + untried,
                "granted_hz": float(frequencies[allotment.choice[i]]),
                "short_prb": round(float(allotment.short_hz[i]) / prb_hz(carrier), 2),
                "realised_share": _number(share[i, k]),
                "met": bool(would[i, k]),
                "hindsight_hz": float(frequencies[would[i].argmax()]) if would[i].any() else None,
            }
        )
    hindsight = np.where(would.any(axis=1), would.argmax(axis=1), plan.choice)
    promised = plan.promised
    return {
        "users": users,
        "total_prb": int(prbs(bandwidth[at, plan.choice].sum(), carrier)),
        "total_bandwidth_hz": float(bandwidth[at, plan.choice].sum()),
        "promised_prb": int(prbs(bandwidth[at, plan.choice][promised].sum(), carrier)),
        "hindsight_prb": int(prbs(bandwidth[at, hindsight].sum(), carrier)),
        "granted_prb": int(prbs(allotment.total_hz, carrier)),
        "fits": allotment.fits,
        "accepted": int(promised.sum()),
        "met": int((promised & would[at, plan.choice]).sum()),
        "hindsight_servable": int(would.any(axis=1).sum()),
        "without_promise": options.without_promise,
        "twin": TWIN,
        "split": instance["split"],
        "margin_windows": 0 if margin is None else margin.windows,
        **scores(
            probabilities[chosen], theirs.vchr[:, :, unseen], observed.of(chosen), known, twins.model.edges
        ),
    }


def content_of(options: MarOptions, poses: Any) -> Any:
    """Where the options say, else where the users of ``poses`` look; ValueError where their gazes never
    meet."""
    if options.content_x is not None and options.content_z is not None:
        return traces.Content(options.content_x, options.content_z, options.content_m, options.cells)
    return traces.place(poses, size_m=options.content_m, cells=options.cells)


def scores(
    probabilities: Any, vchr: Any, observed: traces.Observed, known: Any, edges: Any
) -> dict[str, Any]:
    """Accuracy and log loss of bins on unseen frames, and the accuracy of the most frequent bin of the known
    ones; None where there is nothing to render in any of them."""
    actual = bins_of(vchr, edges)
    judged = actual >= 0
    seen = bins_of(observed.vchr[:, :, known], edges)
    if not judged.any() or not (seen >= 0).any():
        return {"accuracy": None, "log_loss": None, "majority": None}
    p, y = probabilities[judged], actual[judged]
    common = np.bincount(seen[seen >= 0], minlength=len(edges) - 1).argmax()
    return {
        "accuracy": float((p.argmax(axis=-1) == y).mean()),
        "log_loss": float(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-12)).mean()),
        "majority": float((y == common).mean()),
    }


def _why(options: MarOptions, reliability: Any, frequencies: Any, promised: bool, fits: bool) -> str:
    if promised:
        return "least that keeps the promise" if fits else "the cell has too few PRBs for this promise"
    best = int(np.argmax(reliability))
    return (
        f"no frequency keeps it: {reliability[best]:.2f} at best, at {frequencies[best]:g} Hz;"
        f" gets the {options.without_promise}"
    )


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None

"""Whether a solution of VR-GX is one: every constraint, from the instance alone, and what it is worth.

No solver's arithmetic is used here. Equations are those of the paper, with these corrections:

- (1) see :mod:`wire.definitions.cloud_gaming`; ``objective="printed"`` is the equation as it stands, in which
  an object without attention (ln 0) is left out.
- (16) compares the bits of a frame with bits a second; here the load is that of the frame rate.
- (18) to (20): a frame's packets are its bits over ``packet_bits``, a user's packets arrive at that times the
  frame rate, and a station queues those of its own users, not of everybody.
- (22) multiplies pixels over pixels a second with the frame rate, which is no time. A frame takes
  pixels x FLOP a pixel / (FLOP a second). That frames of several users wait for one another at a GPU is not
  in the model; equation (7) only sees to it that the GPU is not overloaded.

``constraints="published-code"`` are those that the authors' code has: of the latency only transmission,
routing and ``fixed_latency_s``, of the node's capacities only the GPU.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import inf, isfinite, log
from typing import Final, Literal

from controller.allocators.vr.instance import Instance, User
from wire.definitions import cloud_gaming

Constraints = Literal["full", "published-code"]
Objective = Literal["weighted", "printed"]
CONSTRAINTS: Final[tuple[Constraints, ...]] = ("full", "published-code")
OBJECTIVES: Final[tuple[Objective, ...]] = ("weighted", "printed")

LIGHT_M_S: Final = 299_792_458.0
TOLERANCE: Final = 1e-9
"""Relative, for sums of floating-point numbers."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What an admitted user gets. ``station`` and ``node`` index those of the instance; ``resolutions`` has a
    class for each of the user's objects."""

    station: int
    node: int
    frame_rate_hz: float
    bandwidth_hz: float
    resolutions: tuple[int, ...]


Solution = Mapping[int, Placement]
"""Index of an admitted user -> what the user gets."""


@dataclass(frozen=True, slots=True)
class Served:
    """What an admitted user has: ``latency_s`` by term, their sum against ``budget_s`` (equation 23)."""

    qoe: float
    pixels: float
    bits: float
    latency_s: Mapping[str, float]
    budget_s: float

    @property
    def total_latency_s(self) -> float:
        return sum(self.latency_s.values())


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``violations`` names each constraint that does not hold, by equation; () for a solution.

    ``objective`` is the sum of the QoE of the admitted users (equation 2); ``served`` is by user.
    """

    objective: float
    served: Mapping[int, Served]
    violations: tuple[str, ...] = ()
    bandwidth_hz: tuple[float, ...] = ()
    gpu_flops_per_s: tuple[float, ...] = ()


def weights(user: User, objective: Objective) -> tuple[float, ...]:
    """By what ln(tau) of each object counts."""
    if objective == "weighted":
        return tuple(o.attention for o in user.objects)
    return tuple(1.0 if o.attention > 0.0 else 0.0 for o in user.objects)


def constant(user: User, objective: Objective) -> float:
    """What a user's QoE has at 30 frames a second and quality 1, whatever is chosen."""
    if objective == "weighted":
        return 0.0
    seen = sum(log(o.attention) for o in user.objects if o.attention > 0.0)
    return log(cloud_gaming.FRAME_RATES_HZ[0]) + seen


def evaluate(
    instance: Instance,
    solution: Solution,
    constraints: Constraints = "full",
    objective: Objective = "weighted",
) -> Evaluation:
    """All constraints and the objective; ValueError for a user, station or node that the instance lacks."""
    full = constraints == "full"
    found: list[str] = []
    for i, p in solution.items():
        _in_range(i, p, instance)
        found += _of_domain(instance, i, p)
    # Of a user with a fault the instance knows nothing more.
    solution = {i: p for i, p in solution.items() if not instance.users[i].fault}
    pixels = {i: _pixels(instance, instance.users[i], p) for i, p in solution.items()}
    bits = {i: p * instance.bits_per_pixel for i, p in pixels.items()}
    bandwidth = [0.0] * len(instance.stations)
    packets = [0.0] * len(instance.stations)
    used = {key: [0.0] * len(instance.nodes) for key in ("gpu", "cpu", "memory", "network")}
    node_of: dict[Hashable, int] = {}
    for i, p in solution.items():
        user, f = instance.users[i], p.frame_rate_hz
        game = instance.game(user)
        bandwidth[p.station] += p.bandwidth_hz
        packets[p.station] += bits[i] / instance.packet_bits * f
        used["gpu"][p.node] += pixels[i] * instance.flop_per_pixel * f
        used["cpu"][p.node] += game.cpu + game.cpu_per_pixel_s * pixels[i] * f
        used["memory"][p.node] += game.memory_gb + game.memory_gb_per_pixel * pixels[i]
        used["network"][p.node] += bits[i] * f
        if node_of.setdefault(user.game, p.node) != p.node:
            found.append(f"(6) user {user.id!r}: game {user.game!r} runs on two compute nodes")
    for m, node in enumerate(instance.nodes):
        limits = {
            "gpu": ("(7)", node.gpu_flops_per_s),
            "cpu": ("(8)", node.cpu),
            "memory": ("(9)", node.memory_gb),
            "network": ("(10)", node.network_bits_per_s),
        }
        for key in limits if full else ("gpu",):
            equation, limit = limits[key]
            if _exceeds(used[key][m], limit):
                found.append(f"{equation} node {node.id!r}: {key} {used[key][m]:.9g} of {limit:.9g}")
    for b, station in enumerate(instance.stations):
        if _exceeds(bandwidth[b], station.bandwidth_hz):
            found.append(f"(12) station {station.id!r}: {bandwidth[b]:.9g} of {station.bandwidth_hz:.9g} Hz")
    served: dict[int, Served] = {}
    for i, p in solution.items():
        user, f = instance.users[i], p.frame_rate_hz
        offered = p.bandwidth_hz * user.spectral_efficiency[p.station]
        if _exceeds(bits[i] * f, offered):
            found.append(f"(16) user {user.id!r}: {bits[i] * f:.9g} bit/s, {offered:.9g} are offered")
        latency = _latency(instance, user, p, pixels[i], bits[i], offered, packets[p.station], full)
        budget = 1.0 / f if f > 0.0 else 0.0
        if _exceeds(sum(latency.values()), budget):
            found.append(f"(24) user {user.id!r}: {sum(latency.values()):.9g} of {budget:.9g} s")
        served[i] = Served(_qoe(instance, user, p, objective), pixels[i], bits[i], latency, budget)
    total = sum(s.qoe for s in served.values())
    return Evaluation(total, served, tuple(found), tuple(bandwidth), tuple(used["gpu"]))


def _in_range(i: int, p: Placement, instance: Instance) -> None:
    for what, index, of in (
        ("user", i, instance.users),
        ("station", p.station, instance.stations),
        ("node", p.node, instance.nodes),
    ):
        if not 0 <= index < len(of):
            raise ValueError(f"solution: {what} {index} is outside 0..{len(of) - 1}")
    objects = len(instance.users[i].objects)
    if len(p.resolutions) != objects:
        raise ValueError(f"solution: user {i}: {len(p.resolutions)} resolutions for {objects} objects")
    if unknown := set(p.resolutions) - instance.resolution_pixels.keys():
        raise ValueError(f"solution: user {i}: resolution {min(unknown)}K has no pixels")


def _of_domain(instance: Instance, i: int, p: Placement) -> list[str]:
    """Constraints (3), (4), (5) and (11), which a placement keeps by its form, on what may be chosen."""
    user = instance.users[i]
    found = []
    if user.fault:
        found.append(f"user {user.id!r} cannot be served: {user.fault}")
        return found
    if bad := sorted(set(p.resolutions) - set(user.resolutions)):
        found.append(f"(3) user {user.id!r}: the display does not take {bad[0]}K")
    if p.frame_rate_hz not in user.frame_rates_hz:
        found.append(f"(4) user {user.id!r}: the display does not take {p.frame_rate_hz:g} Hz")
    for equation, what in (("(5)", instance.nodes[p.node]), ("(11)", instance.stations[p.station])):
        if what.fault:
            found.append(f"{equation} user {user.id!r}: {what.fault}")
    if not (isfinite(p.bandwidth_hz) and p.bandwidth_hz > 0.0):
        found.append(f"(11) user {user.id!r}: a bandwidth of {p.bandwidth_hz!r} Hz")
    return found


def _pixels(instance: Instance, user: User, p: Placement) -> float:
    """Psi of all objects: pixels of a frame."""
    views = zip(user.objects, p.resolutions, strict=True)
    return sum(o.pixels * instance.resolution_pixels[k] / cloud_gaming.VIEW_PIXELS for o, k in views)


def _latency(
    instance: Instance,
    user: User,
    p: Placement,
    pixels: float,
    bits: float,
    offered_bps: float,
    packets_per_s: float,
    full: bool,
) -> dict[str, float]:
    """The terms of equation (24) in seconds."""
    station, node = instance.stations[p.station], instance.nodes[p.node]
    terms = {
        "transmission": bits / offered_bps if offered_bps > 0.0 else inf,
        "routing": node.latency_s[p.station],
        "fixed": instance.fixed_latency_s,
    }
    if not full:
        return terms
    terms["propagation"] = user.distance_m[p.station] / LIGHT_M_S
    terms["processing"] = bits / station.processing_bits_per_s if station.processing_bits_per_s > 0.0 else inf
    slack = station.processing_packets_per_s - packets_per_s
    terms["queue"] = 1.0 / slack if slack > 0.0 else inf
    work = pixels * instance.flop_per_pixel
    terms["rendering"] = work / node.gpu_flops_per_s if node.gpu_flops_per_s > 0.0 else (inf if work else 0.0)
    return terms


def _qoe(instance: Instance, user: User, p: Placement, objective: Objective) -> float:
    rate = log(p.frame_rate_hz / cloud_gaming.FRAME_RATES_HZ[0]) if p.frame_rate_hz > 0.0 else -inf
    views = zip(weights(user, objective), p.resolutions, strict=True)
    return constant(user, objective) + rate + sum(w * log(k / instance.lowest) for w, k in views)


def _exceeds(value: float, limit: float) -> bool:
    return not value <= limit * (1.0 + TOLERANCE)

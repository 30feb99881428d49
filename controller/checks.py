"""What of a configuration cannot be though each of its values can: between its parts, and on a host.

Whoever takes a configuration asks here through :func:`controller.config.load`: check-config, the daemon at
its start, on a reload and when a gNB reports its carrier, and the emulated gNB.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from controller import slicing
from controller.allocators.base import Misfits
from wire.definitions.nr import MAX_PRB, SMALLEST_GRANT_PRB
from wire.security import Kind, address_fault, address_parts, key_faults, shared_ports

if TYPE_CHECKING:
    from controller.config import CellModel, Config

Place = tuple[str | int, ...]
"""The path of a key: names, and numbers in lists."""

KEYS = "security.keys"


@dataclass(frozen=True, slots=True)
class Mistake:
    """``text`` says what is wrong at ``place``; it is none where one of ``depends`` is wrong itself."""

    place: Place
    text: str
    depends: tuple[Place, ...] = ()


class Limits(NamedTuple):
    """PRBs of a carrier, and of the smallest grant of its gNB's scheduler."""

    n_prb: int
    min_prb: int = 1


WIDEST = Limits(MAX_PRB)


def mistakes(config: Config, carriers: Mapping[str, Limits] | int | None = None) -> list[Mistake]:
    """All that can be said without leaving the process.

    ``carriers``: the PRBs of every cell's carrier, or what is known of cells by their id; of others it is the
    emulation's carrier, or without one the widest that there is.
    """
    known: Mapping[str, Limits] = {}
    if isinstance(carriers, int):
        known = {c.id: Limits(carriers) for c in config.cells}
    elif carriers is not None:
        known = carriers
    found = [*_addresses(config)]
    for i, cell in enumerate(config.cells):
        depends: tuple[Place, ...] = ()
        limits = known.get(cell.id)
        if limits is None and config.emulation is not None:
            limits = Limits(config.emulation.prb, SMALLEST_GRANT_PRB)
            depends = (("emulation", "prb"),)
        for m in misfits(cell, limits or WIDEST):
            own = (("cells", i, *place) for place in m.depends)
            found.append(Mistake(("cells", i, *m.place), m.text, (*depends, *own)))
    return [*found, *_gpu_shares(config)]


def misfits(cell: CellModel, limits: Limits) -> Iterator[Mistake]:
    """What of a cell does not fit its carrier, gNB and GPU; places are within the cell."""
    n_prb = limits.n_prb
    for i, s in enumerate(cell.slices):
        depends: tuple[Place, ...] = (("max_mhz",), ("slices", i, "service"))
        try:
            s.options.check(n_prb=n_prb, max_mhz=cell.max_mhz, min_prb=limits.min_prb)
        except Misfits as error:
            for place, text in error.found:
                yield Mistake(("slices", i, *place), text, depends)
        except ValueError as error:
            yield Mistake(("slices", i), str(error), depends)
        least = s.options.min_action_prb
        most = s.share.max
        if 0 < most < limits.min_prb:
            text = f"max {most} is below {limits.min_prb}, the smallest grant of the gNB"
            yield Mistake(("slices", i, "share", "max"), text)
        elif least > most:
            text = f"max {most} is below {least}, the least of the slice's actions"
            yield Mistake(("slices", i, "share", "max"), text, (("slices", i, "actions"),))
    shares = [s.share for s in cell.slices]
    yield from _crowded_out(cell, limits)
    for name, what, parts in (
        ("dedicated", "dedicated to slices", [s.dedicated for s in shares]),
        ("min", "promised to slices as their minimum", [max(s.dedicated, s.min) for s in shares]),
    ):
        if sum(parts) > n_prb:
            last = max(i for i, part in enumerate(parts) if part)
            text = f"{sum(parts)} PRB are {what}, the carrier has {n_prb}"
            yield Mistake(("slices", last, "share", name), text)
            break
    try:
        slicing.make(cell.arbiter)
    except ValueError as error:
        yield Mistake(("arbiter",), str(error))


def _crowded_out(cell: CellModel, limits: Limits) -> Iterator[Mistake]:
    """Slices whose least does not fit beside what is dedicated to others."""
    whole = sum(s.share.dedicated for s in cell.slices)
    for i, s in enumerate(cell.slices):
        left = limits.n_prb - (whole - s.share.dedicated)
        least = max(limits.min_prb, s.options.min_action_prb)
        if s.share.max and s.share.dedicated <= left < least:
            text = (
                f"{whole - s.share.dedicated} of {limits.n_prb} PRB are dedicated to other slices: what is"
                f" left is below {least}, the least that this one can be given"
            )
            yield Mistake(("slices", i), text, (("slices", i, "actions"), ("slices", i, "share")))


def _gpu_shares(config: Config) -> Iterator[Mistake]:
    """Slices that are on one GPU have no more of its time than there is."""
    own = sorted(
        (cell.gpu, i, j, share)
        for i, cell in enumerate(config.cells)
        for j, s in enumerate(cell.slices)
        if (share := getattr(s.options, "gpu_share", 0.0))
    )
    for gpu, of in groupby(own, key=lambda entry: entry[0]):
        parts = list(of)
        whole = sum(share for *_, share in parts)
        if whole > 1 + 1e-9:
            _, i, j, _ = parts[-1]
            text = f"slices have {whole:g} times the time of {f'GPU {gpu}' if gpu else 'the GPU'} in all"
            yield Mistake(("cells", i, "slices", j, "gpu_share"), text)


# ---- addresses ------------------------------------------------------------------------------------------


def servers(config: Config) -> Mapping[str, tuple[str, Kind]]:
    """Where the controller listens, by the link's name."""
    links = config.links
    every: dict[str, tuple[str | None, Kind]] = {
        "ran": (links.ran.address, "zmq"),
        "qos": (links.qos.address, "grpc"),
        "operator": (links.operator.address, "grpc"),
        "metrics": (links.metrics.address, "tcp"),
        "page": (links.page.address, "tcp"),
    }
    return {name: (address, kind) for name, (address, kind) in every.items() if address}


def _addresses(config: Config) -> Iterator[Mistake]:
    secured = bool(config.security.keys)
    listening = servers(config)
    for name, (address, kind) in listening.items():
        fault = address_fault(address, kind, secured=secured, missing=KEYS, listens=True)
        if fault is not None:
            yield Mistake(("links", name, "address"), str(fault), (("security", "keys"),))
    edge = config.links.edge.address
    if edge:
        fault = address_fault(edge, "grpc", secured=secured, missing=KEYS)
        if fault is not None:
            yield Mistake(("links", "edge", "address"), str(fault), (("security", "keys"),))
    for name, other in shared_ports({**listening, **({"edge": (edge, "grpc")} if edge else {})}).items():
        text = f"links.{other}.address has this port already"
        yield Mistake(("links", name, "address"), text, (("links", other, "address"),))


# ---- the host -------------------------------------------------------------------------------------------


def host_mistakes(config: Config) -> list[Mistake]:
    """What keeps the controller from running on this host: hosts that it does not know, and key files."""
    found = []
    for name, (address, kind) in servers(config).items():
        if why := _unknown_host(address, kind):
            found.append(Mistake(("links", name, "address"), f"cannot listen on {address}: {why}"))
    if keys := config.security.keys:
        cells = [cell.id for cell in config.cells]
        found += [
            Mistake(("security", "keys"), fault) for fault in key_faults(keys, "controller", cells=cells)
        ]
    return found


def _unknown_host(address: str, kind: Kind) -> str:
    try:
        parts = address_parts(address, kind)
    except ValueError:
        return ""  # that has been told
    if parts is None:
        return ""
    try:
        socket.getaddrinfo(*parts, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        interface = parts[0] in (name for _, name in socket.if_nameindex())
        return "this is a network interface; give an address of it" if interface else str(error.strerror)
    return ""

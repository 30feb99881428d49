"""Reads a network in OpenVINO's intermediate representation (IR) version 6: an XML file and its weights.

The XML names layers, their parameters, edges between their ports, and for each blob of weights an offset and
a size in the .bin file. Blobs are little-endian FP16 or FP32, as the layer's ``precision`` says.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

VERSION = "6"
_LARGEST = 65_536
"""No size, stride or pad of a layer is larger."""
_PRECISIONS: dict[str, np.dtype[Any]] = {"FP16": np.dtype("<f2"), "FP32": np.dtype("<f4")}


class StyleError(ValueError):
    """A style that cannot be used; the text names the file, and the layer and offset where there is one."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. ``sources`` are the ids of the layers that feed it, in the order of its input ports;
    ``blobs`` maps ``weights`` and ``biases`` to (offset, size) in bytes."""

    id: int
    name: str
    type: str
    precision: str
    data: dict[str, str]
    sources: tuple[int, ...]
    out_dims: tuple[int, ...]
    blobs: dict[str, tuple[int, int]]

    def __str__(self) -> str:
        return f"layer {self.id} {self.name!r} ({self.type})"


@dataclass(frozen=True)
class Network:
    """A network whose ``layers`` come after the layers that feed them; the first is its only input and the
    last its only output."""

    name: str
    xml: Path
    bin: Path
    layers: tuple[Layer, ...]
    weights: bytes

    def blob(self, layer: Layer, which: str, shape: tuple[int, ...]) -> FloatArray:
        """A layer's ``weights`` or ``biases`` as float32 of ``shape``.

        Raises:
            StyleError: the blob is missing, of another size, beyond the end of the file or not finite.
        """
        if which not in layer.blobs:
            raise StyleError(f"{self.xml}: {layer}: has no {which}")
        offset, size = layer.blobs[which]
        kind = _PRECISIONS[layer.precision]
        place = f"{self.bin}: {which} of {layer} at offset {offset}"
        wanted = math.prod(shape) * kind.itemsize
        if size != wanted:
            raise StyleError(
                f"{self.xml}: {layer}: {which} of {size} bytes, {wanted} for {shape} in {layer.precision}"
            )
        if offset < 0 or offset + size > len(self.weights):
            raise StyleError(
                f"{place}: {size} bytes are beyond the end of the file, which holds {len(self.weights)} bytes"
            )
        values = np.frombuffer(self.weights, kind, math.prod(shape), offset).astype(np.float32)
        if not np.isfinite(values).all():
            raise StyleError(f"{place}: holds a value that is not a number")
        return values.reshape(shape)


def integers(network: Network, layer: Layer, key: str, count: int, *, low: int = 0) -> tuple[int, ...]:
    """A comma-separated parameter of a layer.

    Raises:
        StyleError: it is missing, not integers from ``low`` to 65536, or not ``count`` of them.
    """
    text = layer.data.get(key)
    try:
        if text is None:
            raise ValueError
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise StyleError(f"{network.xml}: {layer}: {key} {text!r} is not a list of integers") from None
    if len(values) != count:
        raise StyleError(f"{network.xml}: {layer}: {key} {text!r} has {len(values)} values, not {count}")
    if not all(low <= value <= _LARGEST for value in values):
        raise StyleError(f"{network.xml}: {layer}: {key} {text!r} is not from {low} to {_LARGEST}")
    return values


def number(network: Network, layer: Layer, key: str, default: str | None = None) -> float:
    """A parameter of a layer that is one number; StyleError where it is none, or not finite."""
    text = layer.data.get(key, default)
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise StyleError(f"{network.xml}: {layer}: {key} {text!r} is not a number")
    return value


def read(xml: Path, weights: Path) -> Network:
    """The network of an IR version 6 file pair.

    Raises:
        StyleError: names what cannot be: another version, XML that is none, a layer that nothing feeds, a
            precision that is not FP16 or FP32, a blob beyond the end of the weights, weights that the layers
            do not use up.
        OSError: a file cannot be read.
    """
    try:
        root = ET.fromstring(xml.read_bytes())
    except ET.ParseError as error:
        line, column = error.position
        raise StyleError(f"{xml}: line {line}, column {column}: not XML: {error}") from None
    except (ValueError, LookupError) as error:
        raise StyleError(f"{xml}: not XML: {error}") from None
    if root.tag != "net" or "version" not in root.attrib:
        raise StyleError(f"{xml}: <{root.tag}> is not an OpenVINO network")
    if root.attrib["version"] != VERSION:
        raise StyleError(f"{xml}: IR version {root.attrib['version']}, only version {VERSION} can be read")
    data = weights.read_bytes()
    try:
        layers = {layer.id: layer for layer in _layers(root, _edges(root))}
    except (KeyError, AttributeError, ValueError) as error:
        if isinstance(error, StyleError):
            raise
        raise StyleError(f"{xml}: a layer or an edge lacks a field or is no number: {error}") from None
    network = Network(root.attrib.get("name", xml.stem), xml, weights, _ordered(xml, layers), data)
    _check(network)
    return network


def _edges(root: ET.Element) -> dict[tuple[int, int], int]:
    """(layer, input port) -> the layer whose output feeds it."""
    return {
        (int(e.attrib["to-layer"]), int(e.attrib["to-port"])): int(e.attrib["from-layer"])
        for e in root.iterfind("edges/edge")
    }


def _layers(root: ET.Element, edges: dict[tuple[int, int], int]) -> Iterator[Layer]:
    for element in root.iterfind("layers/layer"):
        number = int(element.attrib["id"])
        data = element.find("data")
        ports = [int(port.attrib["id"]) for port in element.iterfind("input/port")]
        out = [
            tuple(int(dim.text or "") for dim in port.iterfind("dim"))
            for port in element.iterfind("output/port")
        ]
        yield Layer(
            id=number,
            name=element.attrib["name"],
            type=element.attrib["type"],
            precision=element.attrib.get("precision", ""),
            data=dict(data.attrib) if data is not None else {},
            sources=tuple(edges[number, port] for port in ports),
            out_dims=out[0] if len(out) == 1 else (),
            blobs={
                blob.tag: (int(blob.attrib["offset"]), int(blob.attrib["size"]))
                for blob in element.iterfind("blobs/*")
            },
        )


def _ordered(xml: Path, layers: dict[int, Layer]) -> tuple[Layer, ...]:
    done: dict[int, Layer] = {}
    waiting = dict(layers)
    while waiting:
        ready = [layer for layer in waiting.values() if all(s in done for s in layer.sources)]
        if not ready:
            stuck = next(iter(waiting.values()))
            raise StyleError(f"{xml}: {stuck}: is fed by a layer that is not there, or by itself")
        for layer in ready:
            done[layer.id] = waiting.pop(layer.id)
    return tuple(done.values())


def _check(network: Network) -> None:
    xml = network.xml
    inputs = [layer for layer in network.layers if layer.type == "Input"]
    fed = {source for layer in network.layers for source in layer.sources}
    outputs = [layer for layer in network.layers if layer.id not in fed]
    if len(inputs) != 1 or len(outputs) != 1:
        raise StyleError(f"{xml}: {len(inputs)} inputs and {len(outputs)} outputs, a style has one of each")
    used = 0
    for layer in network.layers:
        if layer.precision not in _PRECISIONS:
            raise StyleError(f"{xml}: {layer}: precision {layer.precision!r} is none of {list(_PRECISIONS)}")
        for which, (offset, size) in layer.blobs.items():
            if offset < 0 or offset + size > len(network.weights):
                raise StyleError(
                    f"{network.bin}: {which} of {layer} at offset {offset}: {size} bytes are beyond the end"
                    f" of the file, which holds {len(network.weights)} bytes"
                )
            used = max(used, offset + size)
    if used != len(network.weights):
        raise StyleError(
            f"{network.bin}: {len(network.weights)} bytes, but the layers of {xml} end at offset {used}:"
            " these are the weights of another network"
        )

"""An evaluator of OpenVINO IR version 6 in NumPy and float64, written for the tests alone.

It shares nothing with openrtist: it reads the XML and the weights by itself, layer by layer as they stand.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]


def evaluate(xml: Path, weights: Path, planes: Array) -> Array:
    """What the network makes of ``planes`` [3, height, width]; cut to the size of the input."""
    net = ET.parse(xml).getroot()
    data = weights.read_bytes()
    wires = {(e.get("to-layer"), e.get("to-port")): e.get("from-layer") for e in net.findall("./edges/edge")}
    values: dict[str | None, Array] = {}
    last: Array = planes
    for layer in net.findall("./layers/layer"):
        key = layer.get("id")
        inputs = [values[wires[key, port.get("id")]] for port in layer.findall("./input/port")]
        parameters = layer.find("data")
        given = {} if parameters is None else dict(parameters.attrib)

        def blob(name: str, of: ET.Element = layer, where: Path = weights, content: bytes = data) -> Array:
            found = of.find(f"./blobs/{name}")
            assert found is not None, where
            start, size = int(found.attrib["offset"]), int(found.attrib["size"])
            kind = {"FP16": "<f2", "FP32": "<f4"}[of.attrib["precision"]]
            return np.frombuffer(content[start : start + size], kind).astype(np.float64)

        def pair(name: str, values_of: dict[str, str] = given) -> list[int]:
            return [int(x) for x in values_of[name].split(",")]

        match layer.get("type"):
            case "Input":
                out = planes
            case "Pad":
                begin, end = pair("pads_begin"), pair("pads_end")
                out = np.pad(inputs[0], list(zip(begin, end, strict=True))[1:], mode=given["pad_mode"])
            case "Convolution":
                (rows, columns), (down, right) = pair("kernel"), pair("strides")
                top, left = pair("pads_begin")
                bottom, far = pair("pads_end")
                x = np.pad(inputs[0], [(0, 0), (top, bottom), (left, far)])
                windows = sliding_window_view(x, (rows, columns), axis=(1, 2))[:, ::down, ::right]
                kernels = blob("weights").reshape(int(given["output"]), x.shape[0], rows, columns)
                out = np.tensordot(kernels, windows, axes=([1, 2, 3], [0, 3, 4]))
                if layer.find("./blobs/biases") is not None:
                    out = out + blob("biases")[:, None, None]
            case "MVN":
                x = inputs[0]
                middle = x.mean(axis=(1, 2), keepdims=True)
                spread = ((x - middle) ** 2).mean(axis=(1, 2), keepdims=True)
                out = (x - middle) / np.sqrt(spread + float(given["eps"]))
            case "ScaleShift":
                out = inputs[0] * blob("weights")[:, None, None] + blob("biases")[:, None, None]
            case "ReLU":
                out = np.where(inputs[0] > 0, inputs[0], 0.0)
            case "Eltwise":
                assert given["operation"] == "sum"
                out = inputs[0] + inputs[1]
            case "Resample":
                n = int(float(given["factor"]))
                out = inputs[0].repeat(n, axis=1).repeat(n, axis=2)
            case other:
                raise AssertionError(f"the reference knows no {other}")
        values[key] = last = out
    return last[:, : planes.shape[1], : planes.shape[2]]

"""Small networks in IR version 6, made on the spot; the real weights are for the tests of the real style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np


@dataclass
class Layer:
    """``sources`` are indices of earlier layers."""

    type: str
    sources: Sequence[int] = ()
    data: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, np.ndarray] = field(default_factory=dict)


def conv(source: int, weights: np.ndarray, biases: np.ndarray, stride: int = 1) -> Layer:
    outputs, _, rows, columns = weights.shape
    data = {
        "dilations": "1,1",
        "group": "1",
        "kernel": f"{rows},{columns}",
        "output": str(outputs),
        "pads_begin": "0,0",
        "pads_end": "0,0",
        "strides": f"{stride},{stride}",
    }
    return Layer("Convolution", [source], data, {"weights": weights, "biases": biases})


def pad(source: int, n: int) -> Layer:
    size = f"0,0,{n},{n}"
    data = {"pad_mode": "reflect", "pad_value": "0", "pads_begin": size, "pads_end": size}
    return Layer("Pad", [source], data)


def write(
    folder: Path, name: str, layers: Sequence[Layer], *, version: str = "6", kind: str = "FP16"
) -> tuple[Path, Path]:
    """The XML and the weights of a network whose first layer is its input."""
    dtype = {"FP16": "<f2", "FP32": "<f4"}[kind]
    data = b""
    out, edges = [], []
    for number, layer in enumerate(layers):
        parameters = "".join(f" {key}={quoteattr(value)}" for key, value in layer.data.items())
        ports = "".join(f'<port id="{port}"/>' for port in range(len(layer.sources)))
        edges += [
            f'<edge from-layer="{source}" from-port="9" to-layer="{number}" to-port="{port}"/>'
            for port, source in enumerate(layer.sources)
        ]
        blobs = ""
        for key, values in layer.blobs.items():
            raw = np.asarray(values).astype(dtype).tobytes()
            blobs += f'<{key} offset="{len(data)}" size="{len(raw)}"/>'
            data += raw
        dims = "<dim>1</dim><dim>3</dim><dim>24</dim><dim>32</dim>" if number == 0 else ""
        out.append(
            f'<layer id="{number}" name="l{number}" precision="{kind}" type="{layer.type}">'
            + (f"<data{parameters}/>" if parameters else "")
            + (f"<input>{ports}</input>" if ports else "")
            + f'<output><port id="9">{dims}</port></output>'
            + (f"<blobs>{blobs}</blobs>" if blobs else "")
            + "</layer>"
        )
    xml, weights = folder / f"{name}.xml", folder / f"{name}.bin"
    xml.write_text(
        f'<?xml version="1.0"?>\n<net batch="1" name="{name}" version="{version}">\n<layers>\n'
        + "\n".join(out)
        + "\n</layers>\n<edges>"
        + "".join(edges)
        + "</edges>\n</net>\n"
    )
    weights.write_bytes(data)
    return xml, weights


def every_layer(seed: int = 1) -> list[Layer]:
    """A network with all that the converter supports: two strides, a residual block, two upsamplings."""
    rng = np.random.default_rng(seed)

    def weights(outputs: int, inputs: int, size: int) -> np.ndarray:
        return rng.normal(0, (inputs * size * size) ** -0.5, (outputs, inputs, size, size))

    def normalised(layers: list[Layer], channels: int) -> None:
        eps = {"across_channels": "0", "eps": "1e-05", "normalize_variance": "1"}
        layers.append(Layer("MVN", [len(layers) - 1], eps))
        scale = {"weights": rng.uniform(0.5, 2, channels), "biases": rng.normal(0, 1, channels)}
        layers.append(Layer("ScaleShift", [len(layers) - 1], {}, scale))

    def up() -> Layer:
        kind = "caffe.ResampleParameter.NEAREST"
        data = {"antialias": "0", "factor": "2.0", "height": "0", "type": kind, "width": "0"}
        return Layer("Resample", [len(layers) - 1], data)

    layers = [Layer("Input")]
    for inputs, outputs in ((3, 8), (8, 12)):
        layers.append(pad(len(layers) - 1, 1))
        layers.append(conv(len(layers) - 1, weights(outputs, inputs, 3), rng.normal(0, 1, outputs), 2))
        normalised(layers, outputs)
        layers.append(Layer("ReLU", [len(layers) - 1]))
    before = len(layers) - 1
    layers.append(pad(before, 1))
    layers.append(conv(len(layers) - 1, weights(12, 12, 3), rng.normal(0, 1, 12)))
    # Normalised twice, and a scale that follows no normalisation: neither is fused.
    eps = {"across_channels": "0", "eps": "0.01", "normalize_variance": "1"}
    layers.append(Layer("MVN", [len(layers) - 1], eps))
    layers.append(Layer("ReLU", [len(layers) - 1]))
    scale = {"weights": rng.uniform(0.5, 2, 12), "biases": rng.normal(0, 1, 12)}
    layers.append(Layer("ScaleShift", [len(layers) - 1], {}, scale))
    layers.append(Layer("Eltwise", [before, len(layers) - 1], {"operation": "sum"}))
    layers.append(up())
    layers.append(up())
    layers.append(pad(len(layers) - 1, 2))
    layers.append(conv(len(layers) - 1, 40 * weights(3, 12, 5), rng.uniform(80, 160, 3)))
    return layers


def plain(gain: float = 255.0) -> list[Layer]:
    """Gives back the picture that it gets: fast, and easy to tell."""
    return [Layer("Input"), conv(0, gain * np.eye(3).reshape(3, 3, 1, 1), np.zeros(3))]


def inverse() -> list[Layer]:
    """The negative."""
    return [Layer("Input"), conv(0, -255 * np.eye(3).reshape(3, 3, 1, 1), np.full(3, 255.0))]

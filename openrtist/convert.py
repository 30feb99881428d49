"""OpenVINO IR version 6 to ONNX, for the networks that OpenRTiST ships.

The ONNX model keeps the network's contract: ``image`` float32 [1, 3, H, W], RGB scaled to 0..1, to
``stylised`` float32 [1, 3, H, W], RGB in 0..255 and beyond (the caller clips). The shapes that the IR has
baked in are not used: pads, strides and scale factors say all that is needed for another resolution.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from openrtist.ir import Layer, Network, StyleError, integers, number, read

OPSET = 17
_ONNX_IR_VERSION = 8
_INPUT, _OUTPUT = "image", "stylised"


def import_style(xml: Path, weights: Path, *, width: int | None = None, height: int | None = None) -> bytes:
    """The ONNX model of a style, serialised.

    ``width`` and ``height`` in pixels fix the model's resolution; without them it takes any.

    Raises:
        StyleError: see :func:`openrtist.ir.read`, and for a layer that is not supported.
    """
    if (width is None) != (height is None):
        raise ValueError("a fixed resolution needs both a width and a height")
    network = read(xml, weights)
    model = _Builder(network).build(width, height)
    for key, value in (
        ("style", weights.stem),
        ("input", "RGB, 0..1"),
        ("output", "RGB, 0..255"),
        ("source", f"{xml.name} of IR version 6, {weights.name}"),
        ("weights_sha256", hashlib.sha256(network.weights).hexdigest()),
    ):
        model.metadata_props.add(key=key, value=value)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        why = " ".join(str(error).split())
        raise StyleError(f"{xml}: its layers do not make a network: {why[:300]}") from None
    return bytes(model.SerializeToString())


class _Builder:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._users: dict[int, list[Layer]] = {}
        for layer in network.layers:
            for source in layer.sources:
                self._users.setdefault(source, []).append(layer)
        self._fused: set[int] = set()
        self._channels: dict[int, int] = {}

    def build(self, width: int | None, height: int | None) -> onnx.ModelProto:
        rows: int | str = height or "height"
        columns: int | str = width or "width"
        value = self._value
        for layer in self._network.layers:
            if layer.type not in _OPERATIONS:
                raise StyleError(f"{self._network.xml}: {layer}: layers of this type are not supported")
            _, inputs = _OPERATIONS[layer.type]
            if len(layer.sources) != inputs:
                raise StyleError(f"{self._network.xml}: {layer}: {len(layer.sources)} inputs, not {inputs}")
        for layer in self._network.layers:
            if layer.id not in self._fused:
                convert, _ = _OPERATIONS[layer.type]
                convert(self, layer)
        # Two strides and two upsamplings round a size up to a multiple of four.
        last = self._network.layers[-1]
        if self._channels[last.id] != 3:
            raise StyleError(
                f"{self._network.xml}: {last}: {self._channels[last.id]} channels, a picture has 3"
            )
        self._add("Shape", [_INPUT], "size", start=2, end=4)
        starts, axes = self._constant("starts", [0, 0]), self._constant("axes", [2, 3])
        self._add("Slice", [value(last.id), starts, "size", axes], _OUTPUT)
        graph = helper.make_graph(
            self._nodes,
            self._network.bin.stem,
            [helper.make_tensor_value_info(_INPUT, TensorProto.FLOAT, [1, 3, rows, columns])],
            [helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, [1, 3, rows, columns])],
            list(self._constants.values()),
        )
        return helper.make_model(
            graph,
            producer_name="prbandit",
            ir_version=_ONNX_IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )

    # ---- parts ------------------------------------------------------------------------------------------

    def _value(self, layer_id: int) -> str:
        return f"layer_{layer_id}"

    def _source(self, layer: Layer) -> str:
        return self._value(layer.sources[0])

    def _add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(op, inputs, [output], name=f"{op}_{output}", **attributes))

    def _constant(self, name: str, values: Any, kind: Any = np.int64) -> str:
        self._constants[name] = numpy_helper.from_array(np.asarray(values, kind), name)
        return name

    def _keep(self, layer: Layer) -> int:
        """Notes that a layer has as many channels as its source, and returns them."""
        channels = self._channels[layer.id] = self._channels[layer.sources[0]]
        return channels

    def _refuse(self, layer: Layer, key: str) -> StyleError:
        value = layer.data.get(key)
        return StyleError(f"{self._network.xml}: {layer}: {key} {value!r} is not supported")

    # ---- layers -----------------------------------------------------------------------------------------

    def _input(self, layer: Layer) -> None:
        if len(layer.out_dims) != 4 or layer.out_dims[:2] != (1, 3):
            raise StyleError(
                f"{self._network.xml}: {layer}: shape {layer.out_dims} is not one picture of 3 channels"
            )
        self._channels[layer.id] = 3
        self._add("Identity", [_INPUT], self._value(layer.id))

    def _pad(self, layer: Layer) -> None:
        modes = {"reflect": "reflect", "constant": "constant", "edge": "edge"}
        mode = modes.get(layer.data.get("pad_mode", ""))
        if mode is None:
            raise self._refuse(layer, "pad_mode")
        begin = integers(self._network, layer, "pads_begin", 4)
        end = integers(self._network, layer, "pads_end", 4)
        if any(begin[:2] + end[:2]):
            raise self._refuse(layer, "pads_begin" if any(begin[:2]) else "pads_end")
        inputs = [self._source(layer), self._constant(f"pads_{layer.id}", begin + end)]
        if mode == "constant":
            value = number(self._network, layer, "pad_value", "0")
            inputs.append(self._constant(f"pad_value_{layer.id}", value, np.float32))
        self._add("Pad", inputs, self._value(layer.id), mode=mode)
        self._keep(layer)

    def _convolution(self, layer: Layer) -> None:
        if layer.data.get("auto_pad", "explicit") not in ("", "explicit"):
            raise self._refuse(layer, "auto_pad")
        network = self._network
        kernel = integers(network, layer, "kernel", 2, low=1)
        (outputs,) = integers(network, layer, "output", 1, low=1)
        (group,) = integers(network, layer, "group", 1, low=1)
        inputs = self._channels[layer.sources[0]]
        if inputs % group or outputs % group:
            raise self._refuse(layer, "group")
        weights = network.blob(layer, "weights", (outputs, inputs // group, *kernel))
        names = [self._source(layer), self._constant(f"weights_{layer.id}", weights, np.float32)]
        if "biases" in layer.blobs:
            biases = network.blob(layer, "biases", (outputs,))
            names.append(self._constant(f"biases_{layer.id}", biases, np.float32))
        self._add(
            "Conv",
            names,
            self._value(layer.id),
            kernel_shape=kernel,
            strides=integers(network, layer, "strides", 2, low=1),
            dilations=integers(network, layer, "dilations", 2, low=1),
            pads=integers(network, layer, "pads_begin", 2) + integers(network, layer, "pads_end", 2),
            group=group,
        )
        self._channels[layer.id] = outputs

    def _mvn(self, layer: Layer) -> None:
        """Mean-variance normalisation, together with the scale and shift that follow it."""
        for key, wanted in (("across_channels", "0"), ("normalize_variance", "1")):
            if layer.data.get(key) != wanted:
                raise self._refuse(layer, key)
        channels = self._keep(layer)
        users = self._users.get(layer.id, [])
        output, scale, shift = layer, np.ones(channels), np.zeros(channels)
        if len(users) == 1 and users[0].type == "ScaleShift":
            output = users[0]
            scale, shift = self._scale_and_shift(output, channels)
            self._fused.add(output.id)
            self._keep(output)
        names = [
            self._source(layer),
            self._constant(f"scale_{output.id}", scale, np.float32),
            self._constant(f"shift_{output.id}", shift, np.float32),
        ]
        epsilon = number(self._network, layer, "eps")
        if epsilon < 0:
            raise self._refuse(layer, "eps")
        self._add("InstanceNormalization", names, self._value(output.id), epsilon=epsilon)

    def _scaleshift(self, layer: Layer) -> None:
        channels = self._keep(layer)
        scale, shift = self._scale_and_shift(layer, channels)
        shape = (1, channels, 1, 1)
        scaled = f"scaled_{layer.id}"
        factor = self._constant(f"scale_{layer.id}", scale.reshape(shape), np.float32)
        offset = self._constant(f"shift_{layer.id}", shift.reshape(shape), np.float32)
        self._add("Mul", [self._source(layer), factor], scaled)
        self._add("Add", [scaled, offset], self._value(layer.id))

    def _scale_and_shift(self, layer: Layer, channels: int) -> tuple[Any, Any]:
        scale = self._network.blob(layer, "weights", (channels,))
        if "biases" not in layer.blobs:
            return scale, np.zeros(channels)
        return scale, self._network.blob(layer, "biases", (channels,))

    def _relu(self, layer: Layer) -> None:
        if number(self._network, layer, "negative_slope", "0") != 0.0:
            raise self._refuse(layer, "negative_slope")
        self._add("Relu", [self._source(layer)], self._value(layer.id))
        self._keep(layer)

    def _eltwise(self, layer: Layer) -> None:
        ops = {"sum": "Add", "mul": "Mul", "max": "Max"}
        op = ops.get(layer.data.get("operation", ""))
        if op is None or "coeff" in layer.data:
            raise self._refuse(layer, "operation" if op is None else "coeff")
        first, second = layer.sources
        if self._channels[first] != self._channels[second]:
            raise StyleError(
                f"{self._network.xml}: {layer}: inputs of {self._channels[first]} and"
                f" {self._channels[second]} channels"
            )
        self._add(op, [self._value(first), self._value(second)], self._value(layer.id))
        self._keep(layer)

    def _resample(self, layer: Layer) -> None:
        if layer.data.get("type") != "caffe.ResampleParameter.NEAREST":
            raise self._refuse(layer, "type")
        if layer.data.get("antialias", "0") != "0":
            raise self._refuse(layer, "antialias")
        factor = number(self._network, layer, "factor")
        if not 1.0 <= factor <= 64.0 or factor != int(factor):
            raise self._refuse(layer, "factor")
        scales = self._constant(f"scales_{layer.id}", [1.0, 1.0, factor, factor], np.float32)
        self._add(
            "Resize",
            [self._source(layer), "", scales],
            self._value(layer.id),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        self._keep(layer)


_OPERATIONS: dict[str, tuple[Callable[[_Builder, Layer], None], int]] = {
    "Input": (_Builder._input, 0),
    "Pad": (_Builder._pad, 1),
    "Convolution": (_Builder._convolution, 1),
    "MVN": (_Builder._mvn, 1),
    "ScaleShift": (_Builder._scaleshift, 1),
    "ReLU": (_Builder._relu, 1),
    "Eltwise": (_Builder._eltwise, 2),
    "Resample": (_Builder._resample, 1),
}
"""The types of layers that are supported, and how many inputs each has."""

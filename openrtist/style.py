"""Styles: ONNX models that turn a picture into a painting, run by ONNX Runtime."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from openrtist.ir import StyleError
from openrtist.picture import Picture

log = logging.getLogger(__name__)

MIN_SIDE = 16
"""Pixels; below it a reflected border would be wider than the picture at the network's coarsest layer."""

Range = tuple[float, float]
UNIT, BYTES, SIGNED = (0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)
RANGES: Mapping[str, Range] = {"0..1": UNIT, "0..255": BYTES, "-1..1": SIGNED}
_WINDOWS_ML = {"NominalRange_0_255": BYTES, "Normalized_0_1": UNIT, "Normalized_1_1": SIGNED}
_TYPES = {"tensor(float)": "f4", "tensor(float16)": "f2", "tensor(double)": "f8", "tensor(uint8)": "u1"}
_LEAST_APART = 4.0
"""Grey levels, in the mean; two test pictures are 85 apart."""
_ROUNDED = 8
"""Pixels by which a painting may be larger or smaller than its picture."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The values of black and white that a network takes and gives, and whether in the order B, G, R."""

    takes: Range = UNIT
    gives: Range = BYTES
    bgr: bool = False
    why: str = ""
    """How it is known; empty where it is assumed."""

    def __str__(self) -> str:
        names = {of: name for name, of in RANGES.items()}
        order = "BGR" if self.bgr else "RGB"
        return f"{order} {names[self.takes]} to {names[self.gives]}"


_RANGES = (
    Scale(UNIT, BYTES),
    Scale(BYTES, BYTES),
    Scale(SIGNED, SIGNED),
    Scale(UNIT, UNIT),
    Scale(BYTES, UNIT),
)
"""What a trial tries, in the order of preference."""

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class Style:
    """One model, loaded. ``provider`` is ``cuda`` or ``cpu``, whichever really runs it."""

    def __init__(
        self, path: Path, *, threads: int = 0, provider: str = "auto", scale: Scale | None = None
    ) -> None:
        """``threads`` of the CPU, 0: one a core. ``provider``: ``auto`` takes CUDA where it is there.
        ``scale``: without one it is what the model's metadata say, or found by a trial.

        Raises:
            StyleError: names the file that is no ONNX model, is cut off or is not a style's model, and CUDA
                where it was asked for and is not there.
            OSError: the file cannot be read.
        """
        self.path = path
        self.name = path.stem
        available = ort.get_available_providers()
        if provider == "cuda" and _CUDA not in available:
            raise StyleError(f"{path}: CUDA was asked for, ONNX Runtime has {', '.join(available)}")
        wanted = [p for p in (_CUDA, _CPU) if p in available and (p == _CPU or provider != "cpu")]
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # A thread that spins between two frames takes the CPU from those that receive and send them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(path.read_bytes(), options, providers=wanted)
        except OSError:
            raise
        except Exception as error:
            raise StyleError(f"{path}: not an ONNX model: {str(error).splitlines()[0]}") from None
        self.provider = "cuda" if _CUDA in self._session.get_providers() else "cpu"
        if provider == "cuda" and self.provider != "cuda":
            raise StyleError(f"{path}: CUDA was asked for and could not be started")
        if _CUDA in wanted and self.provider != "cuda":
            log.warning("style %s: CUDA could not be started, so the CPU paints, much slower", self.name)
        self._check()
        self.scale = self._find_scale(scale)

    def _check(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shown = [v for v in outputs if _channels_at(v.shape) is not None]
        if (
            len(inputs) != 1
            or not shown
            or _channels_at(inputs[0].shape) is None
            or inputs[0].type not in _TYPES
        ):
            shapes = [tuple(value.shape) for value in (*inputs, *outputs)]
            kinds = sorted({value.type for value in (*inputs, *outputs)})
            raise StyleError(f"{self.path}: not a style: its inputs and outputs are {shapes} of {kinds}")
        self._input, self._output = inputs[0].name, shown[0].name
        self._gives_bytes = shown[0].type == "tensor(uint8)"
        self._type = np.dtype(_TYPES[inputs[0].type])
        self._planes_first = _channels_at(inputs[0].shape) == 1
        height, width = inputs[0].shape[2:] if self._planes_first else inputs[0].shape[1:3]
        self.size = (width, height) if isinstance(width, int) and isinstance(height, int) else None
        """(width, height) where the model has a fixed one."""

    def paint(self, picture: Picture) -> Picture:
        """The stylised picture, of the same size.

        Raises:
            StyleError: the picture is smaller than 16 pixels or not of the size that the model is fixed to.
        """
        height, width = picture.shape[:2]
        if min(height, width) < MIN_SIDE:
            raise StyleError(f"a picture of {width}x{height}: {MIN_SIDE} pixels a side are the least")
        if self.size and self.size != (width, height):
            raise StyleError(
                f"style {self.name!r} takes {self.size[0]}x{self.size[1]}, the picture is {width}x{height}"
            )
        return self._paint(picture, self.scale)

    def _paint(self, picture: Picture, scale: Scale) -> Picture:
        shown = self._raw(picture, scale)
        low, high = scale.gives
        if (low, high) != (0, 255):
            shown = np.rint((shown.astype(np.float32) - low) * (255 / (high - low)))
        shown = np.nan_to_num(np.clip(shown, 0, 255)).astype(np.uint8)
        if scale.bgr:
            shown = shown[:, :, ::-1]
        height, width = picture.shape[:2]
        return np.ascontiguousarray(_of_size(shown, height, width, self.name))

    def _raw(self, picture: Picture, scale: Scale) -> NDArray[Any]:
        """What the network gives, [rows, columns, 3]."""
        if scale.bgr:
            picture = picture[:, :, ::-1]
        if self._planes_first:
            picture = picture.transpose(2, 0, 1)
        low, high = scale.takes
        values = np.ascontiguousarray(picture[None], np.float32)
        if high - low != 255:
            values *= np.float32((high - low) / 255)
        if low:
            values += np.float32(low)
        out = self._session.run([self._output], {self._input: values.astype(self._type, copy=False)})[0]
        planes = out[0] if out.ndim == 4 else out
        return planes.transpose(1, 2, 0) if planes.shape[0] == 3 else planes

    def _find_scale(self, wanted: Scale | None) -> Scale:
        known = _metadata_scale(self._session.get_modelmeta().custom_metadata_map)
        if wanted is not None:
            return replace(wanted, bgr=wanted.bgr or (known is not None and known.bgr))
        if self._type == np.uint8:  # there is one range only of whole numbers
            known = replace(known or Scale(BYTES, BYTES), takes=BYTES, why="as its input is of bytes")
            return known if known.gives == BYTES and self._gives_bytes else self._tried(known)
        return known if known is not None and known.why else self._tried(known)

    def _tried(self, known: Scale | None) -> Scale:
        """The ranges under which two different pictures become two different paintings.

        A network that gets far less than it was trained on paints the same (black, most often) whatever the
        picture, and one that gets far more paints what is beyond white: either way the paintings are alike.
        Of the ranges that do not, the first is taken: that of OpenRTiST's own styles, as a network that
        normalises its input takes any. One whose values stay within -1 and 1 whatever it gets ends in a
        tanh, and takes what it gives.
        """
        pictures = _test_pictures(self.size or (64, 64))
        assumed = known or Scale()
        ranges = [s for s in _RANGES if known is None or not known.why or s.takes == known.takes]
        ranges = [replace(s, bgr=assumed.bgr) for s in ranges]
        try:
            utmost = self._raw(pictures[0], Scale((-255.0, 255.0)))
            if not (-1.01 < utmost.min() < -0.01 and utmost.max() < 1.01):
                ranges = [s for s in ranges if s.gives != SIGNED]
            apart = [self._apart(pictures, scale) for scale in ranges]
        except Exception as error:  # of ONNX Runtime, for a size that the network cannot take
            why = str(error).splitlines()[0]
            log.warning("style %s: no trial picture could be painted: %s", self.name, why)
            return assumed
        if max(apart) < _LEAST_APART:
            log.warning(
                "style %s paints nearly the same whatever the picture, in every range of values tried (%s):"
                " say which it takes by --range, such as --range 0..255",
                *(self.name, ", ".join(map(str, ranges))),
            )
            return assumed
        found = next(scale for scale, a in zip(ranges, apart, strict=True) if a >= 0.4 * max(apart))
        return replace(found, why="found by a trial")

    def _apart(self, pictures: Sequence[Picture], scale: Scale) -> float:
        """How far two paintings are apart, in grey levels."""
        one, other = (self._paint(p, scale).astype(np.float32) for p in pictures)
        return float(np.abs(one - other).mean())


def _channels_at(shape: Sequence[Any]) -> int | None:
    """Where the three channels of a batch of one picture, or of a picture, are; None where it is none."""
    if len(shape) != 4 or not (shape[0] in (1, None) or isinstance(shape[0], str)):
        return None
    return 1 if shape[1] == 3 else 3 if shape[3] == 3 else None


def _of_size(shown: Picture, height: int, width: int, name: str) -> Picture:
    """Cut or continued at its right and bottom edges: networks that halve and double round a side."""
    if abs(shown.shape[0] - height) > _ROUNDED or abs(shown.shape[1] - width) > _ROUNDED:
        raise StyleError(
            f"style {name!r} makes {shown.shape[1]}x{shown.shape[0]} of {width}x{height}: no style"
        )
    shown = shown[:height, :width]
    more = height - shown.shape[0], width - shown.shape[1]
    return np.pad(shown, ((0, more[0]), (0, more[1]), (0, 0)), mode="edge") if any(more) else shown


def _metadata_scale(metadata: Mapping[str, str]) -> Scale | None:
    """What a model's metadata say: those of ``import-style``, or of Windows ML; ``why`` is empty without a
    range."""
    own = [re.fullmatch(r"(RGB|BGR), (.+)", metadata.get(key, "")) for key in ("input", "output")]
    if own[0] and own[1]:
        takes, gives = own[0][2], own[1][2]
        if takes in RANGES and gives in RANGES:
            return Scale(RANGES[takes], RANGES[gives], own[0][1] == "BGR", "by its metadata")
    bgr = metadata.get("Image.BitmapPixelFormat", "").lower().startswith("bgr")
    told = _WINDOWS_ML.get(metadata.get("Image.NominalPixelRange", ""))
    if told:
        return Scale(told, told, bgr, "by its metadata")
    return Scale(bgr=True) if bgr else None


def scale_of(text: str, channels: str = "rgb") -> Scale:
    """From ``TAKES`` or ``TAKES:GIVES``, such as ``0..255`` or ``-1..1:0..255``. ValueError.

    Without GIVES it is 0..255, and -1..1 for a network that takes this.
    """
    takes, _, gives = text.partition(":")
    gives = gives or ("-1..1" if takes == "-1..1" else "0..255")
    if takes not in RANGES or gives not in RANGES:
        raise ValueError(f"{text!r} is no range, or two with a colon, of {', '.join(RANGES)}")
    return Scale(RANGES[takes], RANGES[gives], channels == "bgr", "as told")


def _test_pictures(size: tuple[int, int]) -> list[Picture]:
    """Two pictures of coloured squares."""
    width, height = size
    rng = np.random.default_rng(1)
    tiles = rng.integers(0, 256, (2, -(-height // 8), -(-width // 8), 3)).astype(np.uint8)
    return [np.kron(t, np.ones((8, 8, 1), np.uint8))[:height, :width] for t in tiles]


def load(
    paths: Sequence[Path], *, threads: int = 0, provider: str = "auto", scale: Scale | None = None
) -> dict[str, Style]:
    """Styles by name, from files and folders of ``*.onnx``, in the order given; the rest as of
    :class:`Style`.

    Raises:
        StyleError: as :class:`Style`; and for a folder without a style, and for two of one name.
    """
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
        if not found:
            raise StyleError(
                f"{path}: no *.onnx in the folder (`prbandit openrtist import-style` writes them)"
            )
        files += found
    styles: dict[str, Style] = {}
    for file in files:
        style = Style(file, threads=threads, provider=provider, scale=scale)
        if style.name in styles:
            raise StyleError(f"{file}: style {style.name!r} is also in {styles[style.name].path}")
        styles[style.name] = style
        size = "" if style.size is None else f", pictures of {style.size[0]}x{style.size[1]} alone"
        log.info("style %s on %s, %s (%s)%s", style.name, style.provider, style.scale, style.scale.why, size)
    return styles

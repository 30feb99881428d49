"""Styles: ONNX models that turn a picture into a painting, run by ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from openrtist.ir import StyleError
from openrtist.picture import Picture

log = logging.getLogger(__name__)

MIN_SIDE = 16
"""Pixels; below it a reflected border would be wider than the picture at the network's coarsest layer."""

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class Style:
    """One model, loaded. ``provider`` is ``cuda`` or ``cpu``, whichever really runs it."""

    def __init__(self, path: Path, *, threads: int = 0, provider: str = "auto") -> None:
        """``threads`` of the CPU, 0: one a core. ``provider``: ``auto`` takes CUDA where it is there.

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

    def _check(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shapes = [tuple(value.shape) for value in (*inputs, *outputs)]
        kinds = {value.type for value in (*inputs, *outputs)}
        if (
            len(shapes) != 2
            or any(len(s) != 4 or s[:2] != (1, 3) for s in shapes)
            or kinds != {"tensor(float)"}
        ):
            raise StyleError(
                f"{self.path}: not a style: its inputs and outputs are {shapes} of {sorted(kinds)}"
            )
        self._input = inputs[0].name
        height, width = shapes[0][2:]
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
        planes = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32)
        planes *= np.float32(1 / 255)
        out = self._session.run(None, {self._input: planes})[0]
        return np.ascontiguousarray(np.clip(out[0], 0, 255).astype(np.uint8).transpose(1, 2, 0))


def load(paths: Sequence[Path], *, threads: int = 0, provider: str = "auto") -> dict[str, Style]:
    """Styles by name, from files and folders of ``*.onnx``, in the order given.

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
        style = Style(file, threads=threads, provider=provider)
        if style.name in styles:
            raise StyleError(f"{file}: style {style.name!r} is also in {styles[style.name].path}")
        styles[style.name] = style
        log.info("style %s on %s", style.name, style.provider)
    return styles

"""The cognitive engine: one frame in, the same frame in another style out."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gabriel_protocol.v1 import gabriel_pb2
from gabriel_server import cognitive_engine

from openrtist import picture
from openrtist.ir import StyleError
from openrtist.payload import MAX_CLOCK_MHZ, BadPayload, Frame, Reply
from openrtist.style import Style

log = logging.getLogger(__name__)


@dataclass(slots=True)
class EmulatedGpu:
    """Stretches the network's time as a GPU at a lower clock would: t at the highest clock is t * max / f.

    ``sm_mhz`` reads the clock that the edge agent read back, 0 while it is not known: then the GPU counts as
    running at ``max_mhz``. ValueError for a ``max_mhz`` that is not 1 to 65535.
    """

    max_mhz: int
    sm_mhz: Callable[[], int]
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if not 1 <= self.max_mhz <= MAX_CLOCK_MHZ:
            raise ValueError(f"an emulated GPU of {self.max_mhz} MHz: 1 to {MAX_CLOCK_MHZ}")

    def stretch(self, seconds: float) -> tuple[float, int]:
        """Wait for the rest of the time; returns the whole time in seconds and the clock in MHz."""
        mhz = min(self.sm_mhz() or self.max_mhz, self.max_mhz)
        whole = seconds * self.max_mhz / mhz
        if whole > seconds:
            self.sleep(whole - seconds)
        return whole, mhz


class StyleEngine(cognitive_engine.Engine):
    """Stylises one frame at a time; never raises for a frame that cannot be."""

    def __init__(self, styles: dict[str, Style], *, gpu: EmulatedGpu | None = None) -> None:
        if not styles:
            raise StyleError("a server without a style")
        self._styles = styles
        self._default = next(iter(styles))
        self._gpu = gpu
        # Seconds of the inferences that have ended, and when the one that runs began: one value, as another
        # thread reads it.
        self._busy: tuple[float, float | None] = (0.0, None)
        self.counters: Counter[str] = Counter()

    @property
    def busy_s(self) -> float:
        """Seconds that the network has been running, the inference of this moment included; any thread."""
        ended, begun = self._busy
        return ended if begun is None else ended + time.monotonic() - begun

    def handle(self, input_frame: gabriel_pb2.InputFrame, client_info: Any) -> cognitive_engine.Result:
        """See :class:`gabriel_server.cognitive_engine.Engine`; the edge's times are the caller's to add."""
        start = time.monotonic()
        try:
            frame = Frame.unpack(input_frame.byte_payload)
            name = frame.style or self._default
            style = self._styles.get(name)
            if style is None:
                raise BadPayload(f"style {name!r} is not here; there are {', '.join(self._styles)}")
            original = picture.decode(frame.jpeg)
            painted, inference, mhz = self._infer(style, original)
            jpeg = picture.encode(painted, picture.DOWN_QUALITY)
            data = Reply(
                sequence=frame.sequence,
                edge_received_ns=0,
                edge_sent_ns=0,
                inference_us=round(inference * 1e6),
                engine_us=round((time.monotonic() - start) * 1e6),
                clock_mhz=mhz,
                emulated=self._gpu is not None,
                jpeg=jpeg,
            ).pack()
        except (BadPayload, picture.BadPicture, StyleError) as error:
            self.counters["refused"] += 1
            return _failed(gabriel_pb2.StatusCode.WRONG_INPUT_FORMAT, str(error))
        except Exception as error:
            # What ONNX Runtime raises for a frame must not end the server.
            self.counters["errors"] += 1
            log.exception("frame of %d bytes", len(input_frame.byte_payload))
            return _failed(gabriel_pb2.StatusCode.ENGINE_ERROR, f"{type(error).__name__}: {error}")
        self.counters["frames"] += 1
        return cognitive_engine.Result(
            status=gabriel_pb2.Status(code=gabriel_pb2.StatusCode.SUCCESS), payload=data
        )

    def _infer(self, style: Style, original: picture.Picture) -> tuple[picture.Picture, float, int]:
        """The stylised picture, the network's time in seconds and the emulated clock in MHz."""
        ended, begun = self._busy[0], time.monotonic()
        self._busy = ended, begun
        try:
            painted = style.paint(original)
            inference, mhz = time.monotonic() - begun, 0
            if self._gpu is not None:
                inference, mhz = self._gpu.stretch(inference)
        finally:
            self._busy = ended + time.monotonic() - begun, None
        return painted, inference, mhz


def _failed(code: Any, message: str) -> cognitive_engine.Result:
    return cognitive_engine.Result(status=gabriel_pb2.Status(code=code, message=message))

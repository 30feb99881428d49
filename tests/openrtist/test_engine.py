"""The engine by itself: the time that it says the GPU was busy, and that no frame ends it."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from tests.e2e.harness import until
from tests.openrtist import needs

needs.extra()

from gabriel_protocol.v1 import gabriel_pb2  # noqa: E402

from openrtist import payload, picture  # noqa: E402
from openrtist.engine import EmulatedGpu, StyleEngine  # noqa: E402

JPEG = picture.encode(np.full((32, 32, 3), 100, np.uint8), 90)
FRAME = gabriel_pb2.InputFrame(byte_payload=payload.Frame(9, "", JPEG).pack())
STYLE = SimpleNamespace(paint=lambda shown: shown)


def engine(gpu: EmulatedGpu | None = None) -> StyleEngine:
    return StyleEngine({"plain": STYLE}, gpu=gpu)  # type: ignore[dict-item]


def test_the_inference_that_runs_counts_as_busy_so_far() -> None:
    go_on = threading.Event()
    gpu = EmulatedGpu(1600, lambda: 500, lambda _: (go_on.wait(60), None)[1])
    running = engine(gpu)
    assert running.busy_s == 0
    thread = threading.Thread(target=running.handle, args=(FRAME, None))
    thread.start()
    try:
        until(lambda: running.busy_s > 0.2, "a busy GPU")
        assert not running.counters, "the frame is under way still"
    finally:
        go_on.set()
        thread.join()
    busy = running.busy_s
    time.sleep(0.01)
    assert running.busy_s == busy > 0.2 and running.counters == {"frames": 1}


def test_a_style_that_fails_leaves_the_gpu_idle() -> None:
    def paint(shown: np.ndarray) -> np.ndarray:
        raise RuntimeError("no memory")

    running = StyleEngine({"plain": SimpleNamespace(paint=paint)})  # type: ignore[dict-item]
    result = running.handle(FRAME, None)
    assert result.status.code == gabriel_pb2.StatusCode.ENGINE_ERROR
    assert result.status.message == "RuntimeError: no memory" and running.counters == {"errors": 1}
    busy = running.busy_s
    time.sleep(0.01)
    assert running.busy_s == busy


def test_a_reply_that_cannot_be_packed_is_an_error_of_the_frame() -> None:
    gpu = EmulatedGpu(65_535, lambda: 0)
    assert payload.Reply.unpack(engine(gpu).handle(FRAME, None).payload).clock_mhz == 65_535
    gpu.max_mhz = 100_000
    running = engine(gpu)
    result = running.handle(FRAME, None)
    assert result.status.code == gabriel_pb2.StatusCode.ENGINE_ERROR
    assert "a clock of 100000 MHz, 65535 at most" in result.status.message
    assert running.counters == {"errors": 1}


@pytest.mark.parametrize("mhz", [0, 65_536])
def test_a_gpu_whose_clock_no_reply_can_tell_is_refused(mhz: int) -> None:
    with pytest.raises(ValueError, match=f"an emulated GPU of {mhz} MHz: 1 to 65535"):
        EmulatedGpu(mhz, lambda: 0)

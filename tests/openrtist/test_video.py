"""Sources of frames: files that end, loop or do not decode, and live ones."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.openrtist import needs

needs.extra()

import av  # noqa: E402

from openrtist import video  # noqa: E402
from openrtist.video import LiveSource, VideoError, open_source  # noqa: E402

FPS = 10


def make(path: Path, n: int, width: int = 64, height: int = 48, form: str | None = None) -> Path:
    """A video of ``n`` textured grey frames at 10 a second, each brighter than the one before."""
    texture = np.random.default_rng(1).integers(-12, 13, (height, width, 3))
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 2_000_000
        for i in range(n):
            shown = (grey(i, n) + texture).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def grey(i: int, n: int) -> int:
    return 20 + 200 * i // n


def number(shown: np.ndarray | None, n: int) -> int | None:
    """Which frame of :func:`make` it is."""
    if shown is None:
        return None
    return round((float(shown.mean()) - 20) * n / 200)


def test_a_file_gives_the_frame_of_each_time_and_ends(tmp_path: Path) -> None:
    source = open_source(str(make(tmp_path / "v.mp4", 10)), None, None, loop=False)
    assert [number(source.at(t), 10) for t in (0.0, 0.05, 0.1, 0.15, 0.55, 0.9, 0.95)] == [
        0,
        0,
        1,
        1,
        5,
        9,
        9,
    ]
    assert source.at(1.05) is None and source.at(5.0) is None and source.errors == 0
    source.close()


def test_a_file_is_played_at_any_rate_and_size(tmp_path: Path) -> None:
    source = open_source(str(make(tmp_path / "v.mp4", 10)), 32, 16, loop=False)
    shown = [source.at(i / 25) for i in range(24)]
    assert all(s is not None and s.shape == (16, 32, 3) for s in shown)
    assert [number(s, 10) for s in shown[::5]] == [0, 2, 4, 6, 8]


def test_a_loop_begins_again(tmp_path: Path) -> None:
    source = open_source(str(make(tmp_path / "v.mp4", 10)), None, None, loop=True)
    got = [number(source.at(i / FPS + 0.01), 10) for i in range(25)]
    assert got == [i % 10 for i in range(25)]
    source.close()


def test_a_loop_goes_over_the_passes_that_nobody_sees(tmp_path: Path) -> None:
    one = open_source(str(make(tmp_path / "one.mp4", 1)), None, None, loop=True)
    # 0.1 s of video, tens of thousands of times.
    assert [number(one.at(t), 1) for t in (0.0, 40.0, 4000.05)] == [0, 0, 0]
    one.close()
    many = open_source(str(make(tmp_path / "v.mp4", 10)), None, None, loop=True)
    assert [number(many.at(t), 10) for t in (0.01, 70.31, 70.71, 1000.51)] == [0, 3, 7, 5]
    many.close()


@pytest.mark.parametrize("writer", [False, True])
def test_a_pipe_that_stays_silent_is_an_error_in_time(tmp_path: Path, writer: bool) -> None:
    pipe = tmp_path / "camera"
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR) if writer else None
    errors: list[Exception] = []

    def play() -> None:
        try:
            LiveSource(str(pipe), None, None, device=False, silent_s=0.3)
        except VideoError as error:
            errors.append(error)

    # In a thread, as it would hang for ever where it is broken.
    player = threading.Thread(target=play, daemon=True)
    player.start()
    player.join(30)
    # Whoever still waits for the pipe gets its end.
    os.close(os.open(pipe, os.O_RDWR) if held is None else held)
    assert [str(error) for error in errors] == [f"{pipe}: no picture within 0.3 s"]


def test_what_a_live_source_fails_with_is_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "v.mp4", 10)
    there = threading.Event()

    def pictures(container: Any, *_arguments: Any, **_options: Any) -> Iterator[Any]:
        yield next(container.decode(video=0))
        there.wait(30)
        raise MemoryError("no room")

    monkeypatch.setattr(video, "_pictures", pictures)
    source = LiveSource(str(path), None, None, device=False, silent_s=60)
    assert number(source.at(0.0), 10) == 0
    there.set()
    source._thread.join(30)
    with pytest.raises(VideoError, match=r"v\.mp4: .*no room"):
        source.at(0.1)


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video at all\n" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    whole = make(tmp_path / "v.mp4", 30).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index is at the end, so it is gone
    with av.open(str(tmp_path / "tone.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    for name in ("text.mp4", "empty.mp4", "cut.mp4", "tone.wav"):
        with pytest.raises(VideoError, match=rf"{name}: (not a video|holds no video|no picture)"):
            open_source(str(tmp_path / name), None, None, loop=False)
    with pytest.raises(VideoError, match=r"nowhere\.mp4: No such file"):
        open_source(str(tmp_path / "nowhere.mp4"), None, None, loop=False)


def test_packets_that_do_not_decode_are_counted_and_the_rest_is_played(tmp_path: Path) -> None:
    path = make(tmp_path / "v.ts", 60, 320, 240, form="mpegts")
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    for at in range(len(data) // 3, len(data) // 2, 188):
        data[at + 20 : at + 188] = rng.integers(0, 256, 168).astype(np.uint8).tobytes()
    path.write_bytes(bytes(data))
    source = open_source(str(path), None, None, loop=False)
    got = [number(source.at(i / FPS + 0.01), 60) for i in range(60)]
    assert got[0] == 0 and got[-1] is not None and got[-1] >= 55


def test_a_live_source_gives_the_newest_frame_and_ends_with_it(tmp_path: Path) -> None:
    pipe = tmp_path / "camera"
    os.mkfifo(pipe)
    n = 40
    data = make(tmp_path / "v.ts", n, 320, 240, form="mpegts").read_bytes()
    go_on = threading.Event()

    def feed() -> None:
        with pipe.open("wb", buffering=0) as out:
            out.write(data)
            go_on.wait(20)

    feeder = threading.Thread(target=feed)
    feeder.start()
    source = open_source(str(pipe), 160, 120, loop=False)
    assert isinstance(source, LiveSource)
    try:
        end = time.monotonic() + 20
        # All frames were there at once: a reader that took one after another would show the first ones. What
        # the container's parser keeps back until the next packet is not there yet.
        while (number(source.at(0.0), n) or 0) < n - 5 and time.monotonic() < end:
            time.sleep(0.02)
        shown = source.at(0.0)
        assert shown is not None and shown.shape == (120, 160, 3)
        assert (number(shown, n) or 0) >= n - 5, "not the newest"
        go_on.set()
        while source.at(0.0) is not None and time.monotonic() < end:
            time.sleep(0.02)
        assert source.at(0.0) is None
    finally:
        go_on.set()
        feeder.join()
        source.close()

"""Sources of frames: files that end, loop or do not decode, and live ones."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.openrtist import needs

needs.extra()

import av  # noqa: E402
from av.stream import Disposition  # noqa: E402

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

    def pictures(container: Any, _stream: Any, *_arguments: Any, **_options: Any) -> Iterator[Any]:
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


MATRICES = {
    "none": ((1, 0, 0, 1), lambda shown: shown),
    "90": ((0, 1, -1, 0), lambda shown: np.rot90(shown, -1)),
    "180": ((-1, 0, 0, -1), lambda shown: np.rot90(shown, 2)),
    "270": ((0, -1, 1, 0), lambda shown: np.rot90(shown, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda shown: shown[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda shown: shown[::-1]),
    "transposed": ((0, 1, 1, 0), lambda shown: shown.transpose(1, 0, 2)),
    "transposed the other way": ((0, -1, -1, 0), lambda shown: np.rot90(shown, 2).transpose(1, 0, 2)),
}


def corners(width: int, height: int) -> np.ndarray:
    """A picture that tells how it lies: its quarters are red, green, blue and white."""
    shown = np.zeros((height, width, 3), np.uint8)
    shown[: height // 2, : width // 2, 0] = shown[: height // 2, width // 2 :, 1] = 240
    shown[height // 2 :, : width // 2, 2] = 240
    shown[height // 2 :, width // 2 :] = 240
    return shown


def film(
    path: Path,
    shown: np.ndarray,
    *,
    matrix: tuple[int, int, int, int] | None = None,
    pixel: Fraction | None = None,
    times: Iterable[int] = range(5),
    codec: str = "libx264",
    pixels: str = "yuv420p",
) -> Path:
    """A film of one picture at ``times`` in tenths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = shown.shape[1], shown.shape[0], pixels
        stream.time_base = stream.codec_context.time_base = Fraction(1, FPS)
        if pixel:
            stream.codec_context.sample_aspect_ratio = pixel
        if matrix:
            a, b, c, d = (65536 * value for value in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for t in times:
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
            frame.pts = t
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def first(path: Path, width: int | None = None, height: int | None = None) -> np.ndarray:
    source = open_source(str(path), width, height, loop=False)
    shown = source.at(0.0)
    source.close()
    assert shown is not None
    return shown


@pytest.mark.parametrize("name", MATRICES)
def test_a_film_is_shown_as_it_is_held(name: str, tmp_path: Path) -> None:
    matrix, upright = MATRICES[name]
    path = film(tmp_path / "v.mp4", corners(96, 64), matrix=matrix)
    wanted = upright(corners(96, 64)).astype(int)
    shown = first(path)
    assert shown.shape == wanted.shape and np.abs(shown - wanted).mean() < 12
    # To a size, it is that of the upright picture.
    small = first(path, 40, 20)
    assert small.shape == (20, 40, 3)
    centres = [(h * wanted.shape[0] // 4, w * wanted.shape[1] // 4) for h in (1, 3) for w in (1, 3)]
    for (y, x), (at, to) in zip(centres, [(5, 10), (5, 30), (15, 10), (15, 30)], strict=True):
        assert np.abs(small[at, to].astype(int) - wanted[y, x]).max() < 40


@pytest.mark.parametrize(("pixel", "width"), [(Fraction(4, 3), 128), (Fraction(1, 2), 48), (None, 96)])
def test_pixels_that_are_not_square_are_made_so(pixel: Fraction | None, width: int, tmp_path: Path) -> None:
    assert first(film(tmp_path / "v.mp4", corners(96, 64), pixel=pixel)).shape == (64, width, 3)
    turned = film(tmp_path / "t.mp4", corners(96, 64), pixel=pixel, matrix=(0, 1, -1, 0))
    assert first(turned).shape == (width, 64, 3)


def with_cover(path: Path, film_too: bool) -> Path:
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=FPS)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        moving = container.add_stream("mpeg4", rate=FPS) if film_too else None
        if moving is not None:
            moving.width, moving.height, moving.pix_fmt = 64, 48, "yuv420p"
        grey_frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 9, np.uint8), format="rgb24")
        container.mux(cover.encode(grey_frame.reformat(format="yuvj420p")) + cover.encode())
        if moving is not None:
            shown = av.VideoFrame.from_ndarray(corners(64, 48), format="rgb24")
            container.mux([p for k in range(5) for p in moving.encode(_at(shown, k))] + moving.encode())
    return path


def _at(frame: Any, pts: int) -> Any:
    frame.pts = pts
    return frame


def test_a_cover_picture_is_not_the_film(tmp_path: Path) -> None:
    for name in ("v.mkv", "v.mp4"):
        assert first(with_cover(tmp_path / name, True)).shape == (48, 64, 3)
    with av.open(str(tmp_path / "v.mkv")) as container:
        assert [s.codec_context.name for s in container.streams.video] == ["mjpeg", "mpeg4"]
    with pytest.raises(VideoError, match=r"music\.mp4: holds no video, only a cover picture"):
        open_source(str(with_cover(tmp_path / "music.mp4", False)), None, None, loop=False)


def test_a_film_of_no_fixed_rate_is_played_by_its_own_times(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, ms in enumerate((500, 530, 1500, 1600)):
            shown = np.full((48, 64, 3), grey(i, 4), np.uint8)
            container.mux(stream.encode(_at(av.VideoFrame.from_ndarray(shown, format="rgb24"), ms)))
        container.mux(stream.encode())
    source = open_source(str(path), None, None, loop=False)
    assert [number(source.at(t), 4) for t in (0.0, 0.02, 0.05, 0.99, 1.05, 1.11)] == [0, 0, 1, 1, 2, 3]
    source.close()


def test_odd_sizes_and_ten_bits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    odd = film(tmp_path / "odd.mkv", corners(65, 49), codec="ffv1", pixels="yuv444p")
    assert first(odd).shape == (49, 65, 3)
    ten = first(film(tmp_path / "ten.mkv", corners(64, 48), codec="ffv1", pixels="yuv420p10le"))
    assert np.abs(ten.astype(int) - corners(64, 48)).mean() < 12
    assert not caplog.records


@needs.field_case("rotated-90.mp4")
def test_a_phones_portrait_is_upright() -> None:
    shown = first(needs.FIELD / "rotated-90.mp4")
    assert shown.shape == (160, 96, 3)
    # What is the first row in the file is the last column of the picture.
    assert shown[:, -1].mean() > 200 > 150 > shown[:, 0].mean()


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

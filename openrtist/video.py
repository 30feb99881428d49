"""Where frames come from: a video file by its own clock, or a live source (camera, stream) at its newest."""

from __future__ import annotations

import logging
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition

from openrtist.picture import Picture

log = logging.getLogger(__name__)


_STILLS = frozenset(("mjpeg", "png", "apng", "bmp", "webp", "tiff", "jpeg2000", "jpegls", "gif"))


class VideoError(ValueError):
    """A video that cannot be played; the text names it."""


class Source(Protocol):
    """Pictures of one size."""

    name: str
    """What messages call it."""
    errors: int
    """Packets that did not decode."""

    def at(self, seconds: float) -> Picture | None:
        """The picture at a time since the start; None after the end. Times never go back.

        Raises:
            VideoError: it can no longer be played.
        """

    def close(self) -> None: ...


def open_source(name: str, width: int | None, height: int | None, *, loop: bool) -> Source:
    """A file, or a live source: a V4L2 device (``/dev/video0``), a pipe, or a URL such as ``rtsp://...``.

    ``width`` and ``height`` in pixels scale the picture; without them it keeps its size.

    Raises:
        VideoError: there is no such source, or it holds no picture that decodes.
    """
    path = Path(name)
    try:
        mode = path.stat().st_mode if "://" not in name else 0
    except OSError as error:
        raise VideoError(f"{name}: {error.strerror}") from None
    if mode == 0 or stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
        return LiveSource(name, width, height, device=stat.S_ISCHR(mode))
    return FileSource(path, width, height, loop=loop)


def _error(name: object, error: Exception) -> VideoError:
    return VideoError(f"{name}: not a video that can be decoded: {getattr(error, 'strerror', None) or error}")


def _film(container: Any, name: object) -> Any:
    """The stream of moving pictures of a container: a cover picture, of music or of a film, is none.

    Not every container marks it as one: of several streams, one of a codec of stills is the last choice.
    """
    stills = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    films = [s for s in container.streams.video if not s.disposition & stills]
    if not films:
        only = ", only a cover picture" if container.streams.video else ""
        raise VideoError(f"{name}: holds no video{only}")
    moving = [s for s in films if s.codec_context.name not in _STILLS] or films
    best = container.streams.best("video")
    return best if best in moving else moving[0]


def _pictures(container: Any, stream: Any, counted: Any, *, threads: str) -> Iterator[Any]:
    """The decoded frames of a container's stream; what does not decode is counted and left out.

    ``threads``: AUTO is fast, SLICE keeps no frame back.
    """
    stream.thread_type = threads
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            counted.errors += 1
            log.warning("%s: the rest cannot be read: %s", container.name, error.strerror)
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except FFmpegError as error:
            counted.errors += 1
            if counted.errors == 1:
                log.warning("%s: a packet does not decode: %s", container.name, error.strerror)


class FileSource:
    """A video file. ``loop`` begins again at its end."""

    def __init__(self, path: Path, width: int | None, height: int | None, *, loop: bool) -> None:
        self._path = path
        self.name = str(path)
        self._size = (width, height)
        self._loop = loop
        self._offset = 0.0
        self.errors = 0
        self._container: Any = None
        self._open()
        _warn_of_hdr(self._current, self.name)
        self._shown: Any = None
        self._picture: Picture | None = None

    def _open(self) -> None:
        try:
            self._container = av.open(str(self._path))
            stream = _film(self._container, self._path)
            rate = float(stream.average_rate or stream.guessed_rate or 30)
        except FFmpegError as error:
            raise _error(self._path, error) from None
        self._frame_s = 1.0 / rate
        self._pixel = _pixel_aspect(stream)
        self._frames = _pictures(self._container, stream, self, threads="AUTO")
        self._current = self._next = next(self._frames, None)
        if self._next is None:
            self._container.close()
            raise VideoError(f"{self._path}: no picture of it decodes ({self.errors} packets failed)")
        self._first = self._time(self._next, 0.0)
        self._last = 0.0

    def _time(self, frame: Any, default: float) -> float:
        return float(frame.time) if frame is not None and frame.time is not None else default

    def at(self, seconds: float) -> Picture | None:
        """See :class:`Source`."""
        while not self._play_to(seconds):
            if not self._loop:
                return None
            # Passes that nobody sees are not played.
            length = self._last + self._frame_s
            self._offset += length * max(1, int((seconds - self._offset) / length))
            self._container.close()
            self._open()
        if self._shown is not self._current:
            self._shown = self._current
            self._picture = _scaled(self._current, *self._size, self._pixel)
            # Pictures of one size, even where the film changes its own.
            self._size = self._picture.shape[1], self._picture.shape[0]
        return self._picture

    def _play_to(self, seconds: float) -> bool:
        """Go on to the picture of a time; False where the file ends before it."""
        while self._next is not None:
            self._last = max(self._last, self._time(self._next, self._last + self._frame_s) - self._first)
            if self._offset + self._last > seconds:
                return True
            self._current, self._next = self._next, next(self._frames, None)
        return seconds < self._offset + self._last + self._frame_s

    def close(self) -> None:
        if self._container is not None:
            self._container.close()


class LiveSource:
    """The newest picture of a source that has its own clock.

    A thread of its own opens and reads it: a pipe without a writer blocks both for as long as it likes. Where
    no picture comes within ``silent_s`` seconds, that is a VideoError, and later the end.
    """

    def __init__(
        self, name: str, width: int | None, height: int | None, *, device: bool, silent_s: float = 5.0
    ) -> None:
        self.name = name
        self._size = (width, height)
        self._silent_s = silent_s
        self.errors = 0
        self._format = "v4l2" if device else None
        self._options = {"video_size": f"{width}x{height}"} if device and width and height else {}
        self._changed = threading.Condition()
        self._newest: Any = None
        self._pixel = 1.0
        self._read_at = time.monotonic()
        self._opened = self._ended = False
        self._error: VideoError | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="live-video", daemon=True)
        self._thread.start()
        with self._changed:
            if self._changed.wait_for(lambda: self._opened or self._ended, silent_s):
                self._changed.wait_for(lambda: self._newest is not None or self._ended, silent_s)
            found, error = self._newest is not None, self._error
        if not found:
            self._closed = True
            raise error or VideoError(f"{name}: no picture within {silent_s:g} s")

    def _run(self) -> None:
        try:
            self._read()
        except VideoError as error:
            self._error = error
        except Exception as error:
            self._error = _error(self.name, error)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read(self) -> None:
        with av.open(
            self.name, format=self._format, options=self._options, timeout=self._silent_s
        ) as container:
            stream = _film(container, self.name)
            self._pixel = _pixel_aspect(stream)
            with self._changed:
                self._opened = True
                self._changed.notify_all()
            for frame in _pictures(container, stream, self, threads="SLICE"):
                with self._changed:
                    self._newest, self._read_at = frame, time.monotonic()
                    self._changed.notify_all()
                if self._closed:
                    return
        if self._newest is None:
            raise VideoError(f"{self.name}: no picture of it decodes ({self.errors} packets failed)")

    def at(self, seconds: float) -> Picture | None:
        """See :class:`Source`; a source that has been silent for ``silent_s`` has ended."""
        with self._changed:
            frame = self._newest
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            if time.monotonic() - self._read_at > self._silent_s:
                log.warning("%s: no picture for %g s", self.name, self._silent_s)
                return None
        return _scaled(frame, *self._size, self._pixel)

    def close(self) -> None:
        """See :class:`Source`. A thread that is stuck in the source ends with the process."""
        self._closed = True
        self._thread.join(1.0)


def _pixel_aspect(stream: Any) -> float:
    """How much wider than high the pixels of a stream are."""
    return float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)


def _scaled(frame: Any, width: int | None, height: int | None, pixel_aspect: float) -> Picture:
    """The picture upright, in square pixels, of a size."""
    turned, mirrored, upside_down = _orientation(frame)
    own = max(1, round(frame.width * pixel_aspect)), frame.height
    wide, high = own[::-1] if turned else own
    wide, high = width or wide, height or high
    before = (high, wide) if turned else (wide, high)
    pixels = frame.reformat(width=before[0], height=before[1], format="rgb24").to_ndarray()
    if turned:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1])


def _orientation(frame: Any) -> tuple[bool, bool, bool]:
    """How a frame is to be shown: with rows for columns, then from right to left, from bottom to top.

    Its display matrix (ISO 14496-12 8.3.2: 3 x 3, the point (x, y) goes to (a x + c y, b x + d y)), to the
    nearest right angle.
    """
    matrix = next((bytes(s) for s in frame.side_data if s.type == SideData.DISPLAYMATRIX), None)
    if matrix is None or len(matrix) < 36:
        return False, False, False
    a, b, _, c, d = np.frombuffer(matrix, "=i4")[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _warn_of_hdr(frame: Any, name: str) -> None:
    transfer = {16: "PQ", 18: "HLG"}.get(int(frame.color_trc or 0))
    if transfer:
        log.warning("%s: HDR (%s) is shown without tone mapping, so its pictures are pale", name, transfer)

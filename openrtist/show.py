"""Writes what a client shows: a video, numbered pictures in a folder, or the last picture."""

from __future__ import annotations

import logging
import queue
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image

from openrtist import picture

log = logging.getLogger(__name__)

VIDEOS = (".mp4", ".mkv")
PICTURES = (".png", ".jpg")


class Saver:
    """Saves stylised frames in a thread of its own; what it has no time for is left out and counted.

    ``path`` ending in .mp4 or .mkv is a video, in .png or .jpg the last picture, anything else a folder of
    ``SEQUENCE.png``. ValueError for another ending. OSError where it cannot be written.
    """

    def __init__(self, path: Path, fps: float, *, waiting: int = 64) -> None:
        if path.suffix not in ("", *VIDEOS, *PICTURES):
            raise ValueError(f"{path}: neither a folder nor one of {', '.join((*VIDEOS, *PICTURES))}")
        self._path = path
        self._fps = fps
        self._queue: queue.Queue[tuple[int, bytes] | None] = queue.Queue(waiting)
        self._video: Any = None
        self._first = self._next = 0
        self._last: picture.Picture | None = None
        self.saved = 0
        self.left_out = 0
        self.error = ""
        folder = path if path.suffix == "" else path.parent
        folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._run, name="saver", daemon=True)
        self._thread.start()

    def put(self, sequence: int, jpeg: bytes) -> None:
        """Save a frame soon; never blocks."""
        try:
            self._queue.put_nowait((sequence, jpeg))
        except queue.Full:
            self.left_out += 1

    def close(self) -> None:
        """Save what waits and finish the file."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self.error:
                self.left_out += 1
                continue
            try:
                self._save(item[0], picture.decode(item[1]))
                self.saved += 1
            except (picture.BadPicture, OSError) as error:
                self.left_out += 1
                self.error = f"{self._path}: {error}"
                log.error("%s: nothing more is saved", self.error)
        try:
            if self._last is not None:
                Image.fromarray(self._last).save(self._path)
            if self._video is not None:
                container, stream = self._video
                for packet in stream.encode():
                    container.mux(packet)
                container.close()
        except OSError as error:
            self.error = f"{self._path}: {error}"
            log.error("%s", self.error)

    def _save(self, sequence: int, shown: picture.Picture) -> None:
        if self._path.suffix in PICTURES:
            self._last = shown
        elif self._path.suffix in VIDEOS:
            self._add_to_video(sequence, shown)
        else:
            Image.fromarray(shown).save(self._path / f"{sequence:06d}.png")

    def _add_to_video(self, sequence: int, shown: picture.Picture) -> None:
        if self._video is None:
            rate = Fraction(self._fps).limit_denominator(1001)
            container = av.open(str(self._path), "w")
            stream = container.add_stream("mpeg4", rate=rate)
            stream.width, stream.height = shown.shape[1], shown.shape[0]
            stream.pix_fmt = "yuv420p"
            stream.bit_rate = max(1_000_000, shown.shape[0] * shown.shape[1] * 8)
            stream.codec_context.time_base = 1 / rate
            self._video = container, stream
            self._first = self._next = sequence
        if sequence < self._next:
            self.left_out += 1  # late: its place has been passed
            return
        self._next = sequence + 1
        container, stream = self._video
        frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
        frame.pts = sequence - self._first
        for packet in stream.encode(frame):
            container.mux(packet)

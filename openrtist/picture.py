"""JPEG in and out. Pictures are uint8 arrays [height, width, 3], RGB."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Picture = NDArray[np.uint8]

UP_QUALITY = 95
"""JPEG quality of frames that a client sends: what OpenRTiST's client, which leaves it to OpenCV, uses."""
DOWN_QUALITY = 67
"""JPEG quality of stylised frames: OpenRTiST's server."""
MAX_PIXELS = 4096 * 4096

Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class BadPicture(ValueError):
    """Bytes that are no picture."""


def encode(picture: Picture, quality: int) -> bytes:
    """A picture as JPEG with 4:2:0 chroma; ``quality`` is 1..100."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=quality, subsampling=2)
    return out.getvalue()


def decode(jpeg: bytes) -> Picture:
    """The picture of a JPEG.

    Raises:
        BadPicture: the bytes are no JPEG, are cut off, or hold more than 4096 x 4096 pixels.
    """
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadPicture(f"a picture of {image.width}x{image.height}")
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        if isinstance(error, BadPicture):
            raise
        raise BadPicture(f"{len(jpeg)} bytes are no JPEG: {error}") from None

"""Inputs as people look at them: arrays as small PNG files, texts as their first words."""

import struct
import zlib

import numpy as np
from jaxtyping import Shaped, UInt8

# Pixels of the longer side of a picture, and characters of a text, at most.
MOST_PIXELS, MOST_CHARACTERS = 32, 280
_CHANNELS = (1, 3, 4)


def as_pictures(values: Shaped[np.ndarray, "points ..."]) -> Shaped[np.ndarray, "points height width ..."] | None:
    """Return an array as (points, height, width) or (points, height, width, channels); None if it holds no pictures.

    Three dimensions are gray pictures; of four, the channels are last or come before height and width.

    Examples
    --------
    >>> as_pictures(np.zeros((5, 3, 8, 8))).shape, as_pictures(np.zeros((5, 64))) is None
    ((5, 8, 8, 3), True)
    """
    if values.ndim == 3:
        return values
    if values.ndim != 4:
        return None
    if values.shape[3] in _CHANNELS:
        return values
    return np.moveaxis(values, 1, -1) if values.shape[1] in _CHANNELS else None


def in_bytes(pictures: Shaped[np.ndarray, "points height width ..."]) -> UInt8[np.ndarray, "points height width ..."]:
    """Return pictures as bytes: as they are, or from their lowest value, black, to their highest."""
    if pictures.dtype == np.uint8:
        return pictures
    values = np.nan_to_num(pictures.astype(np.float64))
    low, high = values.min(initial=0.0), values.max(initial=0.0)
    return np.rint(255 * (values - low) / ((high - low) or 1.0)).astype(np.uint8)


def png(picture: UInt8[np.ndarray, "height width ..."]) -> bytes:
    """Return a picture as the bytes of a PNG file, gray or in color, its longer side `MOST_PIXELS` at most.

    Large pictures lose pixels, evenly over rows and columns; of four channels the last is left out.
    """
    height, width = picture.shape[:2]
    scale = max(1.0, max(height, width) / MOST_PIXELS)
    rows, columns = (_evenly(size, max(1, round(size / scale))) for size in (height, width))
    small = np.ascontiguousarray(picture[rows][:, columns])
    small = small.reshape(*small.shape[:2], -1)
    small = small[..., :3] if small.shape[2] >= 3 else small[..., :1]
    lines = np.hstack([np.zeros((len(small), 1), dtype=np.uint8), small.reshape(len(small), -1)])
    header = struct.pack(">IIBBBBB", small.shape[1], small.shape[0], 8, 2 if small.shape[2] == 3 else 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _evenly(n: int, n_kept: int) -> np.ndarray:
    return np.floor((np.arange(n_kept) + 0.5) * n / n_kept).astype(int)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def first_words(text: str) -> str:
    """Return the beginning of a text on one line, at most `MOST_CHARACTERS` characters."""
    # Of a long text only the beginning is looked at.
    line = " ".join(text[: 4 * MOST_CHARACTERS].split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1].rstrip()}…"

"""A matrix as a small picture, PNG, without a drawing library."""

import struct
import zlib

import numpy as np
from jaxtyping import Float

MOST_PIXELS = 256  # a side: below 66 kB whatever the values
# Nine points of viridis (CC0, https://bids.github.io/colormap), dark to light.
_VIRIDIS = np.array(
    [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99],
     [170, 220, 50], [253, 231, 37]]
)  # fmt: skip
_MISSING = 255
_GREY = (190, 190, 190)


def matrix_png(values: Float[np.ndarray, "rows columns"]) -> bytes:
    """Return a picture of values in [0, 1], dark to light, grey where there is none; of large ones block means."""
    values = _block_means(values)
    steps = np.rint(np.clip(np.nan_to_num(values), 0, 1) * (_MISSING - 1))
    pixels = np.where(np.isfinite(values), steps, _MISSING).astype(np.uint8)
    enlarged = max(1, MOST_PIXELS // max(values.shape))
    pixels = pixels.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    # https://www.w3.org/TR/png-3/: every line begins with its filter, 0 for none; colour type 3 looks up a palette.
    lines = np.pad(pixels, ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", _palette()), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _block_means(values: np.ndarray) -> np.ndarray:
    for axis in (0, 1):
        n = values.shape[axis]
        if n > MOST_PIXELS:
            starts = np.arange(MOST_PIXELS) * n // MOST_PIXELS
            known = np.isfinite(values)
            sums = np.add.reduceat(np.where(known, values, 0.0), starts, axis=axis)
            counts = np.add.reduceat(known.astype(float), starts, axis=axis)
            values = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return values


def _palette() -> bytes:
    places = np.linspace(0, len(_VIRIDIS) - 1, _MISSING)
    colours = [np.interp(places, np.arange(len(_VIRIDIS)), channel).round() for channel in _VIRIDIS.T]
    return np.vstack([np.stack(colours, axis=1), _GREY]).astype(np.uint8).tobytes()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

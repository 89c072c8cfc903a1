"""Decodes images by Pillow: the formats that need no other program, of a size that fits into memory, as RGB."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lfm_tasks.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

# Of Pillow's decoders those that run no other program and read one file.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
# Pillow's own limit, beyond which it suspects a bomb.
MAX_PIXELS = 89_478_485


def decode(content: bytes, name: str) -> "Image":
    """Return an encoded image as RGB.

    Raises
    ------
    DataError
        ``bad_inputs``, with ``name``, for what is no image, is cut off, has too many pixels or more than 8 bits.
    """
    from PIL import ImageOps

    with _opened(io.BytesIO(content), name) as image:
        _check_size(image, name)
        image.load()
        turned = ImageOps.exif_transpose(image)
        return turned.convert("RGB")


def check_header(file: Any, name: str) -> None:
    """Raise DataError ``bad_inputs`` unless an open file looks like an image that `decode` takes.

    Where the format has checksums (PNG), they are compared: nothing is decoded.
    """
    with _opened(file, name) as image:
        _check_size(image, name)
        image.verify()


@contextmanager
def _opened(file: Any, name: str) -> Iterator["Image"]:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Metadata that Pillow repairs, and sizes, which are checked here.
            warnings.simplefilter("ignore")
            with Image.open(file, formats=_FORMATS) as image:
                yield image
    except UnidentifiedImageError as error:
        raise DataError("bad_inputs", f"{name}: {_no_image(file)}, or leave it out") from error
    except Image.DecompressionBombError as error:
        raise _too_large(name, "more") from error
    except DataError:
        raise
    except Exception as error:  # decoders raise what their formats come to
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        problem = f"got an image that cannot be decoded ({reason}), expected a whole one"
        raise DataError("bad_inputs", f"{name}: {problem}. Copy the file again, or leave it out") from error


# How files of each format begin.
_BEGINNINGS = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF"}


def _no_image(file: Any) -> str:
    """Return the kind of a file that Pillow does not read as an image, and the first half of an advice."""
    file.seek(0)
    start = file.read(16)
    kind = next((kind for beginning, kind in _BEGINNINGS.items() if start.startswith(beginning)), None)
    if kind is not None:
        return f"got a {kind} image whose header is damaged, expected a whole one. Copy the file again"
    if not start:
        return "got an empty file, expected an image. Copy the file again"
    return f"got no image (it begins with {start!r}), expected one of {', '.join(_FORMATS)}. Convert the file"


def _check_size(image: "Image", name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width} × {height}")
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        problem = f"got pixels of more than 8 bits (mode {image.mode}), expected 8 bits a channel"
        raise DataError("bad_inputs", f"{name}: {problem}. Convert the image: its values would be cut off")


def _too_large(name: str, found: str) -> DataError:
    problem = f"got {found} pixels, expected at most {MAX_PIXELS:,}"
    return DataError("bad_inputs", f"{name}: {problem}. Shrink the image, or leave it out")

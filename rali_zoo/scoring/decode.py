"""Images as the models want them: exactly as in training, or fast.

``exact`` is what training does (:func:`rali_zoo.data.images.load_image` and the module's view): Pillow
decodes the whole image and resizes it. ``fast`` reads a JPEG that is far larger than needed at a half, a
quarter or an eighth of its size, as its 8x8 blocks allow, decodes other JPEGs whole, and resizes in 8-bit
arithmetic with torch. Whatever is no plain and faultless JPEG is decoded by :func:`load_image`, so both modes
give the same reason where there is no image. It needs simplejpeg (libjpeg-turbo), the extra ``fast``.
"""

from __future__ import annotations

import io
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from rali_zoo.data.colour import profile_of, to_srgb
from rali_zoo.data.images import MAX_PIXELS, exif_turn, load_image
from rali_zoo.types import Colour
from rali_zoo.views import levels

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


_JPEG = b"\xff\xd8\xff"
_FLIPS: dict[Image.Transpose, tuple[bool, tuple[int, ...]]] = {
    # whether rows and columns are exchanged, then the axes that are mirrored
    Image.Transpose.FLIP_LEFT_RIGHT: (False, (2,)),
    Image.Transpose.ROTATE_180: (False, (1, 2)),
    Image.Transpose.FLIP_TOP_BOTTOM: (False, (1,)),
    Image.Transpose.TRANSPOSE: (True, ()),
    Image.Transpose.ROTATE_270: (True, (2,)),
    Image.Transpose.TRANSVERSE: (True, (1, 2)),
    Image.Transpose.ROTATE_90: (True, (1,)),
}


class Decoded(NamedTuple):
    """An image, perhaps at reduced size."""

    pixels: Tensor  #: (3, h, w) uint8
    height: int  #: of the image in full
    width: int  #: of the image in full


def decode_fast(
    source: str | bytes,
    least: Callable[[int, int], tuple[int, int] | None],
    max_pixels: int = MAX_PIXELS,
    colour: Colour = "srgb",
) -> Decoded:
    """Decode one image, a large JPEG at reduced size.

    Args:
        source: a path, or the bytes of a file.
        least: (width, height) of the upright image to the smallest (width, height) that will do;
            ``None`` asks for every pixel.
        max_pixels: refuse images of more pixels than this.
        colour: as for :func:`~rali_zoo.data.images.load_image`.

    Raises:
        ImageDecodeError: as :func:`~rali_zoo.data.images.load_image` raises it.
    """
    data = source if isinstance(source, bytes) else _read_jpeg(source)
    decoded = _jpeg(data, least, max_pixels, colour) if data is not None and data[:3] == _JPEG else None
    if decoded is not None:
        return decoded
    image = load_image(source, max_pixels, colour)
    return Decoded(levels(image), image.height, image.width)


def _read_jpeg(path: str) -> bytes | None:
    """The bytes of a regular file that begins as a JPEG does; what else there is, load_image knows."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            head = file.read(len(_JPEG))
            return head + file.read() if head == _JPEG else None
    except (OSError, ValueError):
        return None


def _jpeg(
    data: bytes, least: Callable[[int, int], tuple[int, int] | None], max_pixels: int, colour: Colour
) -> Decoded | None:
    """The image, or ``None`` where Pillow has to decide."""
    import torch
    from simplejpeg import decode_jpeg

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            (width, height), mode, turn = image.size, image.mode, exif_turn(image)
            profile = profile_of(image, None) if colour == "srgb" else b""
        if mode not in ("RGB", "L") or width * height > max_pixels:
            return None
        if profile and to_srgb(profile, mode) is not None:
            return None
        exchanged = turn is not None and _FLIPS[turn][0]
        upright = (height, width) if exchanged else (width, height)
        by = _reduction(upright, least(*upright))
        # Recoverable damage is an error here, and Pillow's to judge.
        array = decode_jpeg(data, min_height=-(-height // by), min_width=-(-width // by), strict=True)
        if array.shape != (-(-height // by), -(-width // by), 3):
            return None
    except Exception:  # damaged in a way that load_image will name
        return None
    decoded = torch.from_numpy(array).permute(2, 0, 1)
    return Decoded(decoded if turn is None else _upright(decoded, turn), upright[1], upright[0])


def _reduction(full: tuple[int, int], least: tuple[int, int] | None) -> int:
    """By how much an image can be divided; other eighths than these are slower to decode than the whole."""
    if least is None:
        return 1
    return max(
        by for by in (1, 2, 4, 8) if by == 1 or all(f // by >= s for f, s in zip(full, least, strict=True))
    )


def _upright(image: Tensor, turn: Image.Transpose) -> Tensor:
    exchange, mirrored = _FLIPS[turn]
    return (image.transpose(1, 2) if exchange else image).flip(mirrored)

"""One function that turns whatever a user calls an image into 8-bit RGB, or says why it cannot.

What is decided here, once, for every caller:

- 16-bit grey and colour keep their high byte; float pixels must lie in [0, 1] and are scaled by 255.
- Transparency is composited on white, the page an image is usually seen on.
- EXIF orientation is applied (a block that cannot be read has none).
- Of an animation the first frame is taken.
- Colour profiles are not applied: the pixels are the stored ones, as in the field's data sets.
- The number of pixels is read from the header and checked before anything is decoded.

A JPEG whose compressed data were altered in the middle decodes to a wrong image without any sign of it;
no decoder we know of tells.
"""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from rali_zoo.errors import ImageDecodeError

if TYPE_CHECKING:
    from torch import Tensor

    ImageSource = str | Path | bytes | Image.Image | np.ndarray | Tensor

#: Pillow refuses at twice its own ``MAX_IMAGE_PIXELS`` in any case, so this is the largest useful limit.
MAX_PIXELS = 178_956_970

# Raster formats only: EPS and WMF run other programs, and the exotic rest widens what a bad file can reach.
_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "DIB",
    "TIFF",
    "AVIF",
    "JPEG2000",
    "PPM",
    "TGA",
    "ICO",
    "QOI",
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode one image to mode ``RGB``, 8 bits a channel.

    Args:
        source: a path; the bytes of a file; a Pillow image; an array (H, W, 3) or (H, W), uint8 or float in
            [0, 1]; or a tensor (3, H, W), uint8 or float in [0, 1].
        max_pixels: refuse images of more pixels than this.

    Raises:
        ImageDecodeError: whatever is wrong with this one image; the text is the reason and is the same
            in every run.
    """
    try:
        if isinstance(source, Image.Image):
            return _finish(source, max_pixels)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return _decode(io.BytesIO(source), max_pixels)
        if isinstance(source, (str, os.PathLike)):
            return _from_path(os.fspath(source), max_pixels)
        return _from_array(_as_array(source), max_pixels)
    except ImageDecodeError:
        raise
    except Exception as error:  # a decoder fed with garbage raises nearly anything
        raise ImageDecodeError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file (or a link that leads nowhere)"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    # Object addresses differ from run to run.
    text = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "the file", text).strip()
    return f"cannot be decoded: {text or type(error).__name__}"


def _from_path(path: str, max_pixels: int) -> Image.Image:
    mode = os.stat(path).st_mode  # before opening it: to open a pipe is to wait
    if stat.S_ISDIR(mode):
        raise ImageDecodeError("is a folder, not an image")
    if not stat.S_ISREG(mode):
        raise ImageDecodeError("is no regular file")
    with open(path, "rb") as file:
        return _decode(file, max_pixels)


def _decode(file: IO[bytes], max_pixels: int) -> Image.Image:
    head = file.read(64)
    file.seek(0)
    if not head:
        raise ImageDecodeError("the file is empty")
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and b"avif" not in head[8:40]:
        return _finish(_open_heif(file), max_pixels)
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        start = head.lstrip()[:14].lower()
        what = (
            "it is a web page"
            if start.startswith((b"<!doctype html", b"<html"))
            else "damaged, or none we read"
        )
        raise ImageDecodeError(f"no known image format: {what}") from None
    with image:
        return _finish(image, max_pixels)


def _open_heif(file: IO[bytes]) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise ImageDecodeError("HEIC images need pillow-heif: pip install 'rali-zoo[heif]'") from None
    return cast("Image.Image", HeifImageFile(file))


def _finish(image: Image.Image, max_pixels: int) -> Image.Image:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageDecodeError(f"has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise ImageDecodeError(f"{width}x{height} is {width * height:,} pixels; the limit is {max_pixels:,}")
    image.load()
    turn = exif_turn(image)
    rgb = _to_rgb(image)  # always an image of its own, never the one that was handed over
    if turn is not None:
        rgb = rgb.transpose(turn)
    # Metadata ends here: an orientation left behind would be applied a second time.
    rgb.info = {}
    rgb.getexif().clear()
    return rgb


def exif_turn(image: Image.Image) -> Image.Transpose | None:
    """What sets the image upright, as its EXIF block says; ``None`` if it is, or if nothing is said."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # an EXIF block that cannot be read asks for no turn; the pixels are whole
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _from_16_bit(image)
    if image.mode == "I":
        raise ImageDecodeError("32-bit integer pixels have no agreed range; store 8 or 16 bits")
    if image.mode == "F":
        return _from_array(np.asarray(image), sys.maxsize)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(page, layer).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """High byte of each grey value, which is what Pillow itself does to 16-bit colour."""
    values = np.asarray(image).astype(np.int64)
    bits = 16
    if image.format == "TIFF":
        bits = int(cast("Any", image).tag_v2.get(258, (16,))[0])  # BitsPerSample: cameras write 12
    if values.min() < 0 or values.max() >= 2**bits:
        raise ImageDecodeError(f"grey values {values.min()} to {values.max()} do not fit {bits} bits")
    grey = values >> (bits - 8)
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def _as_array(source: object) -> np.ndarray:
    """(H, W, 3) or (H, W) of an array or a tensor."""
    if isinstance(source, np.ndarray):
        return source
    torch = sys.modules.get("torch")  # whoever hands over a tensor has imported it
    if torch is not None and isinstance(source, torch.Tensor):
        if source.ndim != 3 or source.shape[0] != 3:
            raise ImageDecodeError(f"a tensor of shape {tuple(source.shape)}; expected (3, H, W)")
        tensor = cast("Tensor", source).detach().permute(1, 2, 0).cpu()
        # NumPy has no bfloat16.
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    raise ImageDecodeError(
        f"{type(source).__name__!r} is no image; give a path, bytes, a Pillow image, an array or a tensor"
    )


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ImageDecodeError(f"an array of shape {array.shape}; expected (H, W, 3) or (H, W)")
    height, width = array.shape[:2]
    if height < 1 or width < 1:
        raise ImageDecodeError(f"has no pixels ({width}x{height})")
    if height * width > max_pixels:
        raise ImageDecodeError(f"{width}x{height} is {width * height:,} pixels; the limit is {max_pixels:,}")
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= -1e-6 and high <= 1 + 1e-6):  # also false for NaN
            raise ImageDecodeError(f"float pixels from {low:g} to {high:g}; expected [0, 1] (or uint8)")
        array = np.rint(np.clip(array, 0, 1).astype(np.float64) * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageDecodeError(f"pixels of type {array.dtype}; expected uint8, or float in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")

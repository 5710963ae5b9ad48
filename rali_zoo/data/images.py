"""One function that turns whatever a user calls an image into 8-bit sRGB, or says why it cannot.

What is decided here, once, for every caller:

- Colours are converted to sRGB by the embedded profile (:mod:`rali_zoo.data.colour`); ``colour="stored"`` leaves
  the stored values, as the field's data sets are read. High dynamic range (PQ, HLG) is refused, gain maps are
  ignored, and so are EXIF's colour space and PNG's gamma.
- 16-bit grey and colour keep their high byte; float pixels must lie in [0, 1] and are scaled by 255.
- Transparency is composited on white, the page an image is usually seen on; an alpha that is zero everywhere in
  a BMP, TGA or ICO is a byte nobody set, and ignored.
- EXIF orientation is applied (a block that cannot be read has none).
- Of an animation the first frame is taken. Camera raw is refused, not scored by its preview.
- The number of pixels is read from the header and checked before anything is decoded. Beside what the decoder
  itself keeps, memory is that of the result and of a strip.

A JPEG whose compressed data were altered in the middle decodes to a wrong image without any sign of it;
no decoder we know of tells.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from rali_zoo.data.formats import FORMATS
from rali_zoo.errors import ImageDecodeError, ImageUnavailableError
from rali_zoo.types import Colour
from rali_zoo.views import unit

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rali_zoo.data.video import Clip
    from rali_zoo.types import ImageSource, Preprocess
    from rali_zoo.views import View

#: Pillow refuses at twice its own ``MAX_IMAGE_PIXELS`` in any case, so this is the largest useful limit.
MAX_PIXELS = 178_956_970

#: What other programs write raw data of a sensor with; (place, bytes).
_RAW = (
    (8, b"CR\x02"), (0, b"IIRO"), (0, b"IIRS"), (0, b"MMOR"), (0, b"IIU\0"), (0, b"FUJIFILMCCD-RAW"),
    (4, b"ftypcrx "),
)  # fmt: skip
#: Formats in which programs leave the fourth byte at zero.
_LOOSE_ALPHA = ("BMP", "DIB", "TGA", "ICO")
#: Failures of the machine, not of the file.
_ENVIRONMENT = frozenset(
    (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.ESTALE,
     errno.ETIMEDOUT, errno.EAGAIN, errno.ENOTCONN, errno.ENODEV)
)  # fmt: skip
_STRIP = 1 << 21  # pixels that are converted at once
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


def load_image(source: ImageSource, max_pixels: int = MAX_PIXELS, colour: Colour = "srgb") -> Image.Image:
    """Decode one image to mode ``RGB``, 8 bits a channel.

    Args:
        source: a path; the bytes of a file; a Pillow image; an array (H, W, 3) or (H, W), uint8 or float in
            [0, 1]; or a tensor (3, H, W), uint8 or float in [0, 1].
        max_pixels: refuse images of more pixels than this.
        colour: ``srgb`` = converted by the embedded profile; ``stored`` = the values as they are stored.

    Raises:
        ImageUnavailableError: a failure of this machine (a library that is missing, no memory, a disk that
            cannot be read), which may be over the next time.
        ImageDecodeError: whatever is wrong with this one image; the text is the reason and is the same
            in every run.
    """
    try:
        if isinstance(source, Image.Image):
            return _finish(source, max_pixels, colour)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return _decode(io.BytesIO(source), max_pixels, colour)
        if isinstance(source, (str, os.PathLike)):
            with open_regular(source) as file:
                return _decode(file, max_pixels, colour)
        return _from_array(_as_array(source), max_pixels)
    except ImageDecodeError:
        raise
    except Exception as error:  # a decoder fed with garbage raises nearly anything
        raise as_decode_error(error) from error


def as_decode_error(error: Exception) -> ImageDecodeError:
    """What an exception of a decoder says of an image: its own fault, or that of the machine."""
    if isinstance(error, FileNotFoundError):
        return ImageDecodeError("no such file (or a link that leads nowhere)")
    if isinstance(error, MemoryError):
        return ImageUnavailableError("not enough memory to decode it")
    # FFmpeg calls a file that ends too early EIO.
    ours = isinstance(error, OSError) and not type(error).__module__.startswith("av")
    kind = (
        ImageUnavailableError if ours and getattr(error, "errno", None) in _ENVIRONMENT else ImageDecodeError
    )
    text = getattr(error, "strerror", None) or str(error)
    # Object addresses differ from run to run.
    text = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "the file", text).strip()
    return kind(f"cannot be decoded: {text or type(error).__name__}")


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file to read; raises :class:`ImageDecodeError` for a folder, a pipe or a device."""
    mode = os.stat(path).st_mode  # before opening it: to open a pipe is to wait
    if stat.S_ISDIR(mode):
        raise ImageDecodeError("is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise ImageDecodeError("is no regular file")
    return open(path, "rb")


def _decode(file: IO[bytes], max_pixels: int, colour: Colour) -> Image.Image:
    head = file.read(64)
    file.seek(0)
    if not head:
        raise ImageDecodeError("the file is empty")
    if any(head[place : place + len(sign)] == sign for place, sign in _RAW):
        _refuse_raw()
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and b"avif" not in head[8:40]:
        image = _open_heif(file)
    else:
        try:
            image = Image.open(file, formats=tuple(FORMATS))
        except UnidentifiedImageError:
            start = head.lstrip()[:14].lower()
            page = start.startswith((b"<!doctype html", b"<html"))
            what = "it is a web page" if page else "damaged, or none we read"
            if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                what = (
                    "a TIFF that is damaged, or of a pixel type we do not read (8 and 16 bits, grey float32)"
                )
            raise ImageDecodeError(f"no known image format: {what}") from None
    with image:
        return _finish(image, max_pixels, colour, file)


def _refuse_raw() -> None:
    raise ImageDecodeError(
        "it is camera raw, which needs developing, and what else lies in it is a preview; export it as TIFF or JPEG"
    )


def _open_heif(file: IO[bytes]) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise ImageUnavailableError("HEIC images need pillow-heif: pip install 'rali-zoo[heif]'") from None
    return cast("Image.Image", HeifImageFile(file))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageDecodeError(f"has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise ImageDecodeError(f"{width}x{height} is {width * height:,} pixels; the limit is {max_pixels:,}")


def _check_tiff(tags: Mapping[int, Any], swapped: bool) -> None:
    """Refuse raw, and what Pillow would decode to something else without a word."""
    kind, bits = tags.get(262), max(tags.get(258, (1,)))  # PhotometricInterpretation, BitsPerSample
    previewed = tags.get(254, 0) & 1 and 330 in tags  # a page of reduced size, before pages below it
    if 50706 in tags or kind in (32803, 34892) or previewed:  # DNG; colour filter array, linear raw
        _refuse_raw()
    if 2 in tags.get(339, ()):  # SampleFormat
        raise ImageDecodeError(
            "signed integer pixels have no agreed range; store 8 or 16 bits without a sign"
        )
    if 3 in tags.get(339, ()) and swapped and tags.get(259, 1) != 1:
        raise ImageDecodeError("compressed big-endian float pixels are not read here; save it little-endian")
    if tags.get(259, 1) == 1 and (kind == 6 or (tags.get(284) == 2 and bits > 8)):
        raise ImageDecodeError(
            "an uncompressed TIFF in YCbCr, or with 16-bit planes one after another, is not read here; save it "
            "as RGB, with the channels of a pixel together"
        )


def _finish(
    image: Image.Image, max_pixels: int, colour: Colour, file: IO[bytes] | None = None
) -> Image.Image:
    """An image of its own, never the one that was handed over; one opened from a file is used up."""
    _check_size(*image.size, max_pixels)
    if image.format == "TIFF":
        tags = cast("Any", image).tag_v2
        _check_tiff(tags, swapped=tags.prefix == b"MM")
    if colour == "srgb":
        from rali_zoo.data.colour import profile_of

        profile = profile_of(image, file)
    else:
        profile = b""
    image.load()
    turn = exif_turn(image)
    if image.mode == "RGB" and not profile and "transparency" not in image.info:
        # A file's pixels are nobody else's: to copy them is a tenth of the time that a large JPEG takes.
        own = image._new(image.im) if file is not None else image.copy()
        rgb = own if turn is None else image.transpose(turn)
        rgb = rgb if type(rgb) is Image.Image else rgb.convert("RGB")
    else:
        rgb = _to_rgb(image, profile)
        if file is not None:
            image.close()  # its pixels are not needed beside the turned ones
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


def _to_rgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Any mode to RGB, strip by strip: whole planes in between would multiply the memory that is needed."""
    flat, convert = _levels(image), _colours(image.mode, profile)
    clear = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if clear and image.format in _LOOSE_ALPHA and "transparency" not in image.info:
        clear = image.getchannel("A").getextrema()[1] != 0
    rows = max(1, _STRIP // image.width)
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        part = flat(image.crop((0, top, image.width, min(top + rows, image.height))))
        if clear:
            layer = part.convert("RGBA")
            base = (
                part.convert({"LA": "L", "La": "L"}.get(part.mode, part.mode)) if part.mode != "PA" else layer
            )
            solid = convert(base if base.mode in ("L", "CMYK") else layer.convert("RGB"))
            page = Image.new("RGBA", layer.size, (255, 255, 255, 255))
            solid.putalpha(layer.getchannel("A"))
            part = Image.alpha_composite(page, solid).convert("RGB")
        else:
            part = convert(part)
        rgb.paste(part, (0, top))
    return rgb


def _levels(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """From strips of an image to strips of 8 bits a channel."""
    tags = cast("Any", image).tag_v2 if image.format == "TIFF" else {}
    negative = tags.get(262) == 0  # white is zero, which Pillow turns round for 8 bits and fewer
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        bits = int(tags.get(258, (16,))[0])  # BitsPerSample: cameras write 12
        return lambda strip: _from_16_bit(strip, bits, negative)
    if image.mode == "I":
        raise ImageDecodeError("32-bit integer pixels have no agreed range; store 8 or 16 bits")
    if image.mode == "F":
        return lambda strip: Image.fromarray(_unit_to_8_bit(np.asarray(strip), negative))
    return lambda strip: strip


def _colours(mode: str, profile: bytes) -> Callable[[Image.Image], Image.Image]:
    """From strips of 8 bits a channel, without alpha, to RGB."""
    from rali_zoo.data.colour import lab_to_srgb, to_srgb

    if mode == "LAB":
        return cast("Callable[[Image.Image], Image.Image]", lab_to_srgb().apply)
    grey = mode in ("1", "L", "LA", "La", "F") or mode.startswith("I")
    base = "L" if grey else "CMYK" if mode == "CMYK" else "RGB"
    way = to_srgb(profile, base) if profile else None
    if way is None:
        return lambda strip: strip.convert("RGB")
    return lambda strip: cast("Image.Image", way.apply(strip.convert(base)))


def _from_16_bit(strip: Image.Image, bits: int, negative: bool) -> Image.Image:
    """High byte of each grey value, which is what Pillow itself does to 16-bit colour."""
    values = np.asarray(strip)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 2**bits:
        raise ImageDecodeError(f"grey values {low} to {high} do not fit {bits} bits")
    grey = (values >> (bits - 8)).astype(np.uint8)
    if negative:
        grey = 255 - grey
    if isinstance(clear := strip.info.pop("transparency", None), int):
        grey[values == clear] = 255
    return Image.fromarray(grey)


def _unit_to_8_bit(values: np.ndarray, negative: bool = False) -> np.ndarray:
    """Float pixels in [0, 1] of any shape as uint8; raises :class:`ImageDecodeError` for others."""
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # also false for NaN
        raise ImageDecodeError(f"float pixels from {low:g} to {high:g}; expected [0, 1] (or uint8)")
    out = np.empty(values.shape, np.uint8)
    for row in range(len(values)):
        unit = np.clip(values[row], 0, 1).astype(np.float64)
        out[row] = np.rint((1 - unit if negative else unit) * 255)
    return out


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
    _check_size(width, height, max_pixels)
    if np.issubdtype(array.dtype, np.floating):
        array = _unit_to_8_bit(array)
    elif array.dtype != np.uint8:
        raise ImageDecodeError(f"pixels of type {array.dtype}; expected uint8, or float in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def image_size(path: str) -> tuple[int, int] | None:
    """(width, height) as a file's header has them; ``None`` where there is none, as of a video."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def load_views(
    source: ImageSource, view: View, preprocess: Preprocess, draw: torch.Generator | None = None
) -> Tensor:
    """As :func:`load_levels`, for a network.

    Args:
        source: of an image or a video.
        view: how it is cut.
        preprocess: what the backbone expects.
        draw: for whatever is random in the view.

    Returns:
        (3, H, W) or (V, 3, H, W) float32 in [0, 1].
    """
    return unit(load_levels(source, view, preprocess, draw=draw))


def load_levels(
    source: ImageSource,
    view: View,
    preprocess: Preprocess,
    clip: Clip | None = None,
    draw: torch.Generator | None = None,
) -> Tensor:
    """An image or a video as a model sees it: the frames of a video are so many views.

    Networks average the scores of views, so that they train on videos and score them as they do images, with
    ``mean`` pooling.

    Args:
        source: what :func:`load_image` takes, or the path of a video.
        view: how an image or a frame is cut, and in which colours it is read.
        preprocess: what the backbone expects.
        clip: which frames.
        draw: for whatever is random in the view.

    Returns:
        (3, H, W) of an image under a single view, else (V, 3, H, W); uint8.

    Raises:
        ImageDecodeError: what is wrong with it.
    """
    from rali_zoo.data.video import is_video, sample_frames

    if not is_video(source):
        return view.cut(load_image(source, colour=view.colour), preprocess, draw)
    import torch

    cut = [view.cut(frame, preprocess, draw) for frame in sample_frames(cast("str | Path", source), clip)]
    return torch.stack(cut) if cut[0].ndim == 3 else torch.cat(cut)

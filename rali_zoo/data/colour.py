"""What a file says of its colours: embedded profiles, the code points of AVIF, HEIF and PNG, high dynamic range.

Conversion is by LittleCMS, relative colorimetric with black point compensation: colours that sRGB holds stay,
the others are clipped to it. A profile that cannot be read, or is of another kind than the pixels, says nothing.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from rali_zoo.errors import ImageDecodeError

_HEAD = 1 << 20  # bytes in which the boxes or chunks that say something lie
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
#: A profile that moves no colour further than this (of 255) is sRGB in other words: pixels stay bit for bit.
_SAME = 2
#: Chromaticities of red, green and blue by code point (ITU-T H.273, table 2): BT.2020, DCI-P3 on D65.
_PRIMARIES = {
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_HDR = {16: "PQ", 18: "HLG"}  # transfer functions, table 3


class _Code(NamedTuple):
    """Code points of ITU-T H.273."""

    primaries: int
    transfer: int


def profile_of(image: Image.Image, file: IO[bytes] | None) -> bytes:
    """The ICC profile that an image's colours are in; empty where it says sRGB or nothing.

    Args:
        image: opened, not necessarily loaded.
        file: what it was opened from, if anything.

    Raises:
        ImageDecodeError: the image is of high dynamic range (PQ or HLG), which has no agreed sRGB.
    """
    profile = image.info.get("icc_profile")
    profile = profile if isinstance(profile, bytes) else b""
    code = _code_of_file(image, file) or _code_of_profile(profile)
    if code is None:
        return profile
    if code.transfer in _HDR:
        raise ImageDecodeError(
            f"it is of high dynamic range ({_HDR[code.transfer]}), which is not tone-mapped here; save it as a "
            "standard-range image first"
        )
    return profile or (_matrix_profile(code.primaries) if code.primaries in _PRIMARIES else b"")


@lru_cache(maxsize=8)  # profiles come in few kinds, and to read one takes longer than a small image
def to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The way from a profile to sRGB for pixels of a mode; ``None`` where they can stay as they are."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES.get(mode):
            return None
        way = _transform(source, mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode == "RGB":
        axis = np.arange(0, 256, 15, dtype=np.uint8)
        steps = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(len(axis), -1, 3)
        moved = np.asarray(way.apply(Image.fromarray(steps))).astype(int) - steps
        return way if np.abs(moved).max() > _SAME else None
    return way


@lru_cache(maxsize=1)
def lab_to_srgb() -> ImageCms.ImageCmsTransform:
    """The way from 8-bit CIELab (D50) to sRGB."""
    return _transform(ImageCms.createProfile("LAB", 5000), "LAB")


def _transform(source: object, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        source,  # type: ignore[arg-type]  # both of Pillow's kinds of profile
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


# ---- code points -------------------------------------------------------------------------------


def _code_of_file(image: Image.Image, file: IO[bytes] | None) -> _Code | None:
    if file is None or image.format not in ("PNG", "AVIF", "HEIF"):
        return None
    place = file.tell()
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(place)
    try:
        return _cicp(head) if image.format == "PNG" else _nclx(head)
    except (struct.error, IndexError):  # cut short: whoever decodes it will say so
        return None


def _code_of_profile(profile: bytes) -> _Code | None:
    """The tag ``cicp`` of an ICC profile (version 4.4)."""
    if len(profile) < 132:
        return None
    for start in range(132, min(132 + 12 * struct.unpack_from(">I", profile, 128)[0], len(profile) - 11), 12):
        name, place = struct.unpack_from(">4sI", profile, start)
        if name == b"cicp" and place + 10 <= len(profile):
            return _Code(profile[place + 8], profile[place + 9])
    return None


def _cicp(head: bytes) -> _Code | None:
    """The chunk ``cICP`` of a PNG."""
    place = 8
    while place + 8 <= len(head):
        length, name = struct.unpack_from(">I4s", head, place)
        if name == b"cICP":
            return _Code(head[place + 8], head[place + 9])
        if name == b"IDAT":
            return None
        place += 12 + length
    return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the boxes of an ISO base media file, one level."""
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        body = 8
        if size == 1:
            size, body = struct.unpack_from(">Q", data, place + 8)[0], 16
        if 0 < size < body:
            return
        stop = place + size if size else len(data)
        yield kind, data[place + body : stop]
        place = stop


def _inside(data: bytes, kind: bytes) -> bytes:
    return next((content for name, content in _boxes(data) if name == kind), b"")


def _nclx(head: bytes) -> _Code | None:
    """The colour property of the primary item of an AVIF or HEIF; those of other items (gain maps) do not count."""
    meta = _inside(head, b"meta")[4:]
    primary_box, properties = _inside(meta, b"pitm"), _inside(meta, b"iprp")
    if not primary_box or not properties:
        return None
    wide = primary_box[0] > 0
    primary = struct.unpack_from(">I" if wide else ">H", primary_box, 4)[0]
    contents = list(_boxes(_inside(properties, b"ipco")))
    for place in _properties_of(primary, _inside(properties, b"ipma")):
        kind, content = contents[place - 1] if 0 < place <= len(contents) else (b"", b"")
        if kind == b"colr" and content[:4] == b"nclx":
            return _Code(*struct.unpack_from(">HH", content, 4))
    return None


def _properties_of(item: int, box: bytes) -> list[int]:
    """Numbers, from 1, of an item's properties in the box ``ipma``."""
    if not box:
        return []
    wide_ids, wide = box[0] > 0, box[3] & 1
    count, place = struct.unpack_from(">I", box, 4)[0], 8
    for _ in range(count):
        owner = struct.unpack_from(">I" if wide_ids else ">H", box, place)[0]
        place += 4 if wide_ids else 2
        number = box[place]
        kind, width = (">H", 2) if wide else (">B", 1)
        found = [v for (v,) in struct.iter_unpack(kind, box[place + 1 : place + 1 + width * number])]
        place += 1 + width * number
        if owner == item:
            return [value & (0x7FFF if wide else 0x7F) for value in found]
    return []


@lru_cache(maxsize=4)
def _matrix_profile(code: int) -> bytes:
    """An ICC profile (version 2) of code point primaries with sRGB's curve, white D65."""

    def xyz(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1, (1 - x - y) / y])

    cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    white, d50 = xyz(0.3127, 0.3290), np.array([0.9642, 1.0, 0.8249])
    adapt = np.linalg.inv(cone) @ np.diag((cone @ d50) / (cone @ white)) @ cone  # Bradford
    columns = np.stack([xyz(*p) for p in _PRIMARIES[code]], axis=1)
    matrix = adapt @ (columns * np.linalg.solve(columns, white))
    share = np.linspace(0, 1, 1024)
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    curve = b"curv" + struct.pack(">II", 0, 1024) + np.rint(linear * 65535).astype(">u2").tobytes()

    def place(value: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + np.rint(value * 65536).astype(">i4").tobytes()

    tags = [(b"wtpt", place(d50))]
    tags += [(name, place(matrix[:, i])) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))]
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, content in tags:
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content
    head = struct.pack(
        ">I4xI4s4s4s12x4s28x3i", start + len(body), 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp",
        *np.rint(d50 * 65536).astype(int).tolist(),
    )  # fmt: skip
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body

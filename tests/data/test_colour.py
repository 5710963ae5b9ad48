"""Colours as files state them: profiles, code points, photometric interpretations, alpha that nobody set."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from rali_zoo.data.colour import _matrix_profile
from rali_zoo.data.formats import FORMATS, IMAGE_SUFFIXES
from rali_zoo.data.images import load_image, load_views
from rali_zoo.errors import ConfigError, ImageDecodeError, ImageUnavailableError
from rali_zoo.types import Preprocess
from rali_zoo.views import View

Y, X = np.mgrid[0:48, 0:64]
RGB = np.stack([Y * 5, X * 4, 255 - Y * 5], -1).astype(np.uint8)
GREY = (X * 4).astype(np.uint8)
P3 = _matrix_profile(12)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(source, **options) -> np.ndarray:
    return np.asarray(load_image(source, **options)).astype(int)


def p3_to_srgb(values: np.ndarray) -> np.ndarray:
    """(..., 3) Display P3 to sRGB by the matrices of both standards (W3C, CSS Color 4), clipped; no library."""
    share = values / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    matrix = np.array(
        [[1.2249401, -0.2249402, 0.0], [-0.0420569, 1.0420571, 0.0], [-0.0196376, -0.0786361, 1.0982735]]
    )
    linear = np.clip(linear @ matrix.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_profile_is_converted_and_stored_is_the_bit_exact_choice(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(Image.fromarray(RGB), kind, icc_profile=P3, **options)
    assert np.array_equal(pixels(data, colour="stored"), RGB)
    assert np.abs(pixels(data) - p3_to_srgb(RGB)).max() <= 3
    assert np.abs(pixels(data) - RGB).max() > 20
    turned = Image.open(io.BytesIO(data))
    assert np.array_equal(pixels(turned), pixels(data))


def test_srgb_profiles_and_no_profile_leave_the_pixels_alone():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(pixels(encode(Image.fromarray(RGB), icc_profile=srgb)), RGB)
    assert np.array_equal(pixels(encode(Image.fromarray(RGB))), RGB)


@pytest.mark.parametrize("profile", [b"nonsense", P3[:200], b"\0" * 400, P3[:16] + b"CMYK" + P3[20:]])
def test_a_broken_or_foreign_profile_says_nothing(profile):
    assert np.array_equal(pixels(encode(Image.fromarray(RGB), icc_profile=profile)), RGB)
    assert np.array_equal(pixels(encode(Image.fromarray(GREY), icc_profile=P3))[..., 0], GREY)


def test_profiles_of_other_modes():
    """Alpha stays beside a profile, a palette is converted; 16 bits too."""
    rgba = Image.fromarray(RGB).convert("RGBA")
    rgba.putalpha(128)
    want = p3_to_srgb(RGB) * (128 / 255) + 127
    assert np.abs(pixels(encode(rgba, icc_profile=P3)) - want).max() <= 3
    palette = Image.fromarray(RGB).quantize(64)
    want = p3_to_srgb(np.asarray(palette.convert("RGB")))
    assert np.abs(pixels(encode(palette, icc_profile=P3)) - want).max() <= 3


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_code_points_of_png():
    plain = encode(Image.fromarray(RGB))
    cut = plain.index(b"IHDR") + 4 + 13 + 4
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        data = plain[:cut] + _png_chunk(b"cICP", bytes([9, transfer, 0, 1])) + plain[cut:]
        with pytest.raises(ImageDecodeError, match=rf"high dynamic range \({name}\)"):
            load_image(data)
        assert np.array_equal(pixels(data, colour="stored"), RGB)
    data = plain[:cut] + _png_chunk(b"cICP", bytes([12, 13, 0, 1])) + plain[cut:]
    assert np.abs(pixels(data) - p3_to_srgb(RGB)).max() <= 3


def _nclx(data: bytes, primaries: int, transfer: int) -> bytes:
    place = data.index(b"colrnclx") + 8
    return data[:place] + struct.pack(">HH", primaries, transfer) + data[place + 4 :]


def test_code_points_of_avif():
    data = encode(Image.fromarray(RGB), "AVIF", quality=100, subsampling="4:4:4")
    plain = pixels(data)
    with pytest.raises(ImageDecodeError, match="high dynamic range"):
        load_image(_nclx(data, 9, 16))
    assert np.abs(pixels(_nclx(data, 12, 13)) - p3_to_srgb(plain)).max() <= 4


def test_code_points_of_heif():
    heif = pytest.importorskip("pillow_heif", reason="the extra 'heif' is not installed")
    buffer = io.BytesIO()
    heif.from_pillow(Image.fromarray(RGB)).save(buffer, quality=95)
    data = buffer.getvalue()
    if b"colrnclx" not in data:
        pytest.skip("this encoder writes no code points")
    with pytest.raises(ImageDecodeError, match="high dynamic range"):
        load_image(_nclx(data, 9, 18))


# ---- photometric interpretations, against what tifffile wrote --------------------------------------------


def tiff(array: np.ndarray, **options) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("packed", [{}, {"compression": "zlib"}])
@pytest.mark.parametrize("name", [
    "grey8", "white8", "grey16", "white16", "float", "rgb8", "rgb16", "planes8", "planes16", "cmyk8", "cmyk16",
    "palette", "alpha8", "alpha16", "premultiplied", "unspecified", "ycbcr", "signed", "rgbfloat", "double",
])  # fmt: skip
def test_every_kind_of_tiff_is_read_as_it_was_written_or_refused(name, packed, order):
    grey3 = np.repeat(GREY[..., None], 3, -1)
    half = np.full((48, 64, 1), 128, np.uint8)
    over = np.rint(RGB * (128 / 255) + 127)
    inks = np.concatenate([255 - RGB, np.zeros_like(half)], -1)
    table = np.stack([np.arange(256), np.arange(255, -1, -1), np.full(256, 128)]).astype(np.uint16) * 257
    wide = np.uint16(257)
    array, options, want = {
        "grey8": (GREY, {"photometric": "minisblack"}, grey3),
        "white8": (GREY, {"photometric": "miniswhite"}, 255 - grey3),
        "grey16": (GREY * wide, {"photometric": "minisblack"}, grey3),
        "white16": (GREY * wide, {"photometric": "miniswhite"}, 255 - grey3),
        "float": ((GREY / 255).astype("f4"), {"photometric": "minisblack"}, grey3),
        "double": (GREY / 255, {"photometric": "minisblack"}, grey3),
        "signed": (GREY.astype("i2"), {"photometric": "minisblack"}, grey3),
        "rgb8": (RGB, {"photometric": "rgb"}, RGB),
        "rgb16": (RGB * wide, {"photometric": "rgb"}, RGB),
        "rgbfloat": ((RGB / 255).astype("f4"), {"photometric": "rgb"}, RGB),
        "planes8": (np.moveaxis(RGB, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}, RGB),
        "planes16": (np.moveaxis(RGB, -1, 0) * wide, {"photometric": "rgb", "planarconfig": "separate"}, RGB),
        "cmyk8": (inks, {"photometric": "separated"}, RGB),
        "cmyk16": (inks * wide, {"photometric": "separated"}, RGB),
        "palette": (GREY, {"photometric": "palette", "colormap": table},
                    np.stack([GREY, 255 - GREY, np.full_like(GREY, 128)], -1)),
        "alpha8": (np.concatenate([RGB, half], -1), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, over),
        "alpha16": (np.concatenate([RGB, half], -1) * wide,
                    {"photometric": "rgb", "extrasamples": ["unassalpha"]}, over),
        "premultiplied": (np.concatenate([(RGB * (128 / 255)).astype(np.uint8), half], -1),
                          {"photometric": "rgb", "extrasamples": ["assocalpha"]}, over),
        "unspecified": (np.concatenate([RGB, half], -1),
                        {"photometric": "rgb", "extrasamples": ["unspecified"]}, RGB),
        "ycbcr": (np.asarray(Image.fromarray(RGB).convert("YCbCr")),
                  {"photometric": "ycbcr", "subsampling": (1, 1)}, RGB),
    }[name]  # fmt: skip
    data = tiff(array, byteorder=order, **options, **packed)
    try:
        got = pixels(data)
    except ImageDecodeError as error:
        assert name in ("signed", "rgbfloat", "double", "ycbcr", "planes16", "float", "white16"), error
        assert any(word in str(error) for word in ("range", "not read", "do not read"))
    else:
        assert np.abs(got - want).max() <= (3 if name == "ycbcr" else 2)


def test_cielab_is_that_of_print():
    """D50, as TIFF 6.0 has it; white, mid grey and black are the same in any white point."""
    lab = np.zeros((4, 3, 3), np.uint8)
    lab[:, :, 0] = [255, 128, 0]
    grey = pixels(tiff(lab, photometric="cielab"))[0]
    assert np.abs(grey - [[255] * 3, [120] * 3, [0] * 3]).max() <= 2


@pytest.mark.parametrize("case", ["dng", "preview", "cr2", "cr3", "raf"])
def test_camera_raw_is_not_scored_by_its_preview(case):
    tifffile = pytest.importorskip("tifffile")
    if case == "dng":
        data = tiff(RGB, photometric="rgb", extratags=[(50706, "B", 4, bytes([1, 4, 0, 0]), True)])
    elif case == "preview":
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as writer:
            writer.write(RGB, photometric="rgb", subfiletype=1, subifds=1)
            writer.write(np.zeros((480, 640), np.uint16), photometric="minisblack")
        data = buffer.getvalue()
    else:
        start = {
            "cr2": b"II*\0\x10\0\0\0CR\x02\0",
            "cr3": b"\0\0\0\x18ftypcrx ",
            "raf": b"FUJIFILMCCD-RAW 0201",
        }
        data = start[case] + bytes(100)
    with pytest.raises(ImageDecodeError, match="camera raw"):
        load_image(data)


# ---- alpha -----------------------------------------------------------------------------------------------


def _bgra(alpha: int) -> bytes:
    return np.dstack([RGB[::-1, :, ::-1], np.full(RGB.shape[:2], alpha, np.uint8)]).tobytes()


def _bmp(header: int, alpha: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", header, 64, 48, 1, 32, 3, 48 * 64 * 4, 2835, 2835, 0, 0)
    head = (head + struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)).ljust(header, b"\0")
    return (
        b"BM" + struct.pack("<IHHI", 14 + len(head) + 48 * 64 * 4, 0, 0, 14 + len(head)) + head + _bgra(alpha)
    )


def _tga(alpha: int) -> bytes:
    return bytes([0, 0, 2, 0, 0, 0, 0, 0]) + struct.pack("<HHHHBB", 0, 0, 64, 48, 32, 8) + _bgra(alpha)


@pytest.mark.parametrize(
    "make", [lambda a: _bmp(108, a), lambda a: _bmp(124, a), _tga], ids=["V4", "V5", "TGA"]
)
def test_an_alpha_that_nobody_set_is_ignored(make):
    assert np.array_equal(pixels(make(0)), RGB)
    assert np.abs(pixels(make(128)) - np.rint(RGB * (128 / 255) + 127)).max() <= 1


def test_a_clear_png_is_the_page_it_lies_on():
    clear = Image.fromarray(RGB).convert("RGBA")
    clear.putalpha(0)
    assert pixels(encode(clear)).min() == 255


# ---- suffixes, memory, the machine -----------------------------------------------------------------------


def test_every_suffix_of_every_format_is_listed():
    Image.init()
    known = {s for s, kind in Image.registered_extensions().items() if kind in (*FORMATS, "MPO")}
    assert known - IMAGE_SUFFIXES == set()


@pytest.mark.parametrize("kind", ["grey16", "turned", "alpha", "profile"])
def test_memory_of_a_decode(kind, tmp_path):
    """At most four times the pixels of the result (3 bytes each); a 16-bit PNG took 27 bytes a pixel."""
    side, exif = 2500, Image.Exif()
    exif[0x0112] = 6
    rows, columns = np.mgrid[0:side, 0:side]
    image = Image.fromarray(np.stack([rows % 256, columns % 256, rows % 256], -1).astype(np.uint8))
    path = tmp_path / f"{kind}.png"
    if kind == "grey16":
        Image.fromarray(((rows + columns) * 13).astype(np.uint16)).save(path, compress_level=1)
    elif kind == "alpha":
        image.putalpha(100)
        image.save(path, compress_level=1)
    else:
        more = {"exif": exif, "icc_profile": P3 if kind == "profile" else None}
        image.save(path := path.with_suffix(".jpg"), **more)
    code = (
        "import sys, resource, numpy as np; from rali_zoo.data.images import load_image; import rali_zoo.data.colour\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); image = load_image(sys.argv[1]); print((peak() - before) * 1024 / image.width / image.height)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 4 * 3 + 2.5  # strips, and what the allocator keeps


def test_failures_of_the_machine_are_not_the_images(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.fromarray(RGB)))

    def fail(error):
        def opened(*_):
            raise error

        monkeypatch.setattr("builtins.open", opened)

    for error in (OSError(5, "Input/output error"), OSError(24, "Too many open files"), MemoryError()):
        fail(error)
        with pytest.raises(ImageUnavailableError):
            load_image(path)
    monkeypatch.undo()
    with pytest.raises(ImageDecodeError) as caught:
        load_image(tmp_path / "gone.png")
    assert not isinstance(caught.value, ImageUnavailableError)


def test_the_view_carries_the_choice(tmp_path):
    path = tmp_path / "p3.png"
    path.write_bytes(encode(Image.fromarray(RGB), icc_profile=P3))
    rules = Preprocess((48, 64), resize="none")
    stored, srgb = (load_views(path, View(colour=c), rules) * 255 for c in ("stored", "srgb"))
    assert np.array_equal(stored.round().permute(1, 2, 0).numpy(), RGB)
    assert np.abs(srgb.permute(1, 2, 0).numpy() - p3_to_srgb(RGB)).max() <= 3
    assert View().colour == "srgb" and View.from_state({"kind": "whole"}).colour == "stored"
    assert View.from_state({"colour": "srgb"}).colour == "srgb"
    with pytest.raises(ConfigError, match="srgb, stored"):
        View(colour="p3")


def test_the_fast_decoder_hands_profiles_over(tmp_path):
    pytest.importorskip("simplejpeg", reason="the extra 'fast' is not installed")
    from rali_zoo.scoring.decode import decode_fast
    from rali_zoo.views import levels

    path = Path(tmp_path / "p3.jpg")
    Image.fromarray(RGB).save(path, quality=95, icc_profile=P3)
    found = decode_fast(str(path), lambda width, height: None).pixels
    assert np.array_equal(found.numpy(), levels(load_image(path)).numpy())
    stored = decode_fast(str(path), lambda width, height: None, colour="stored").pixels
    assert np.array_equal(stored.numpy(), levels(load_image(path, colour="stored")).numpy())

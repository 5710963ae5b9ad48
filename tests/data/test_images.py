"""Every kind of image a folder of the wild holds: decoded rightly, or one clear error."""

import io
import os
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rali_zoo.data.images import load_image
from rali_zoo.errors import ImageDecodeError

GRADIENT = np.linspace(0, 1, 48 * 64).reshape(48, 64)


def _encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _colour():
    rows, columns = np.mgrid[0:48, 0:64]
    return Image.fromarray(np.stack([rows * 5, columns * 4, 255 - rows * 5], -1).astype(np.uint8))


def _png(width, height, depth, colour, raw, extra=b""):
    """A PNG file by hand, for depths that Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _array(source):
    image = load_image(source)
    assert image.mode == "RGB" and type(image) is Image.Image
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_lossless_formats_are_exact(kind):
    assert np.array_equal(_array(_encode(_colour(), kind)), np.asarray(_colour()))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_lossy_formats_are_close(kind):
    assert np.abs(_array(_encode(_colour(), kind)) - np.asarray(_colour())).mean() < 4


@pytest.mark.parametrize("mode,tolerance", [("L", 1), ("1", 255), ("CMYK", 6), ("P", 40)])
def test_modes_become_rgb(mode, tolerance):
    source = _colour().convert(mode)
    data = _encode(source, "JPEG", quality=100) if mode == "CMYK" else _encode(source, "PNG")
    wanted = np.asarray(source.convert("RGB")).astype(int)
    assert np.abs(_array(data) - wanted).max() <= tolerance
    if mode in ("1", "L"):
        assert np.array_equal(_array(data), wanted)
        assert np.ptp(_array(data), axis=-1).max() == 0


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bit_grey_is_scaled_not_saturated(kind):
    values = np.rint(GRADIENT * 65535).astype(np.uint16)
    decoded = _array(_encode(Image.fromarray(values), kind))
    assert np.abs(decoded[..., 0] - GRADIENT * 255).max() <= 1.0
    assert decoded.min() == 0 and decoded.max() == 255


@pytest.mark.parametrize("colour,channels", [(2, 3), (6, 4)])
def test_16_bit_colour_is_scaled(colour, channels):
    values = np.rint(
        np.stack([GRADIENT, GRADIENT[::-1], GRADIENT[:, ::-1], np.ones_like(GRADIENT)], -1) * 65535
    )
    values = values[..., :channels]
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    assert np.abs(_array(_png(64, 48, 16, colour, raw)) - values[..., :3] / 257).max() <= 1.0


def test_12_bit_tiff_uses_its_own_range():
    """Two samples in three bytes; a camera's white is 4095, not 65535."""
    values = [0, 4095, 2048, 1024]
    strip = bytes([values[0] >> 4, (values[0] & 15) << 4 | values[1] >> 8, values[1] & 255])
    strip += bytes([values[2] >> 4, (values[2] & 15) << 4 | values[3] >> 8, values[3] & 255])
    tags = [
        (256, 4),
        (257, 1),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8 + 2 + 9 * 12 + 4),
        (277, 1),
        (278, 1),
        (279, 6),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags)
    data = b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0) + strip
    assert _array(data)[0, :, 0].tolist() == [0, 255, 128, 64]


def test_alpha_is_composited_on_white():
    alpha = np.zeros((2, 2), np.uint8)
    alpha[0], alpha[1, 0] = 255, 128
    rgba = Image.merge("RGBA", [*Image.new("RGB", (2, 2), (10, 20, 30)).split(), Image.fromarray(alpha)])
    decoded = _array(_encode(rgba, "PNG"))
    assert decoded[0, 0].tolist() == [10, 20, 30]
    assert decoded[1, 1].tolist() == [255, 255, 255]
    assert np.abs(decoded[1, 0] - [132, 137, 142]).max() <= 1
    grey = Image.merge("LA", [Image.new("L", (2, 2), 10), Image.fromarray(alpha)])
    assert _array(_encode(grey, "PNG"))[:, 1, 0].tolist() == [10, 255]


def test_transparent_colours_become_white():
    palette = Image.new("P", (4, 1))
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.putpixel((1, 0), 1)
    assert _array(_encode(palette, "PNG", transparency=0))[0, :2].tolist() == [[255] * 3, [200, 0, 0]]
    assert _array(_encode(palette, "GIF", transparency=0))[0, :2].tolist() == [[255] * 3, [200, 0, 0]]
    wide = struct.pack(">H", 1000)
    key = struct.pack(">I", 2) + b"tRNS" + wide + struct.pack(">I", zlib.crc32(b"tRNS" + wide))
    raw = b"\0" + np.array([1000, 1001], ">u2").tobytes()
    assert _array(_png(2, 1, 16, 0, raw, key))[0, :, 0].tolist() == [255, 3]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    """An image turned as a camera would hold it comes back upright, once and not twice."""
    upright = Image.new("RGB", (64, 32), "white")
    upright.paste((255, 0, 0), (0, 0, 16, 16))
    flips = Image.Transpose
    held = {
        2: flips.FLIP_LEFT_RIGHT, 3: flips.ROTATE_180, 4: flips.FLIP_TOP_BOTTOM, 5: flips.TRANSPOSE,
        6: flips.ROTATE_90, 7: flips.TRANSVERSE, 8: flips.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(held[orientation]) if orientation in held else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _encode(stored, kind, exif=exif)
    first = load_image(data)
    assert first.size == (64, 32)
    assert first.getpixel((8, 8))[1] < 60 and first.getpixel((50, 8))[1] > 200
    assert np.array_equal(np.asarray(load_image(first)), np.asarray(first))
    assert np.array_equal(_array(Image.open(io.BytesIO(data))), np.asarray(first).astype(int))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    "block", [b"Exif\0\0garbagegarbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0"]
)
def test_a_broken_exif_block_turns_nothing(block):
    assert np.array_equal(_array(_encode(_colour(), "PNG", exif=block)), np.asarray(_colour()))


@pytest.mark.parametrize("kind,options", [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_animations_give_their_first_frame(kind, options):
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue", "lime")]
    data = _encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert _array(data)[0, 0].tolist() == [255, 0, 0]


def test_float_tiff_in_the_unit_range():
    values = GRADIENT.astype(np.float32)
    assert np.abs(_array(_encode(Image.fromarray(values), "TIFF"))[..., 0] - GRADIENT * 255).max() <= 0.51
    with pytest.raises(ImageDecodeError, match=r"from 0 to 300; expected \[0, 1\]"):
        load_image(_encode(Image.fromarray(values * 300), "TIFF"))


def test_32_bit_integers_are_refused():
    with pytest.raises(ImageDecodeError, match="no agreed range"):
        load_image(_encode(Image.fromarray(np.arange(16, dtype=np.int32).reshape(4, 4)), "TIFF"))


def test_heic(monkeypatch):
    heif = pytest.importorskip("pillow_heif", reason="the extra 'heif' is not installed")
    buffer = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (32, 20), (200, 10, 10))).save(buffer)
    assert np.abs(_array(buffer.getvalue())[3, 3] - [200, 10, 10]).max() <= 4
    with pytest.raises(ImageDecodeError):
        load_image(buffer.getvalue()[:300])
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageDecodeError, match=r"pip install 'rali-zoo\[heif\]'"):
        load_image(buffer.getvalue())


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_tiny_and_thin(size):
    assert load_image(_encode(Image.new("RGB", size), "PNG")).size == size


def test_bombs_are_refused_before_they_are_decoded():
    """The header promises more than there is: were the limit read later, the error would be another."""
    bomb = _png(15_000, 15_000, 8, 2, b"")
    with pytest.raises(ImageDecodeError, match="pixels"):
        load_image(bomb)
    with pytest.raises(ImageDecodeError, match="64x48 is 3,072 pixels; the limit is 3,000"):
        load_image(_encode(_colour(), "PNG"), max_pixels=3000)
    for source in (_colour(), np.asarray(_colour()), torch.zeros(3, 48, 64)):
        with pytest.raises(ImageDecodeError, match="the limit is 3,000"):
            load_image(source, max_pixels=3000)
    assert load_image(_encode(_colour(), "PNG"), max_pixels=3072).size == (64, 48)


@pytest.mark.parametrize("data,message", [
    (b"", "empty"),
    (b"<!DOCTYPE html><html>404</html>", "web page"),
    (b"\n <HTML>", "web page"),
    (b"hello", "no known image format"),
    (_encode(_colour(), "JPEG")[:200], "cannot be decoded"),
    (_encode(_colour(), "PNG")[:80], "cannot be decoded"),
    (b"\xff\xd8\xff" + b"\0" * 50, "no known image format|cannot be decoded"),
])  # fmt: skip
def test_damaged_files(data, message):
    with pytest.raises(ImageDecodeError, match=message) as caught:
        load_image(data)
    assert " at 0x" not in str(caught.value)


def test_paths(tmp_path):
    good = tmp_path / "Ünïcode 图片 #1.png"
    good.write_bytes(_encode(_colour(), "PNG"))
    assert load_image(good).size == load_image(str(good)).size == (64, 48)
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    os.mkfifo(tmp_path / "pipe.png")
    cases = {
        "page.jpg": "web page", "loop.png": "symbolic links", "gone.png": "no such file",
        "absent.png": "no such file", "pipe.png": "no regular file",
        ".": "folder", "a\0b": "null", "x" * 5000: "too long",
    }  # fmt: skip
    for name, message in cases.items():
        with pytest.raises(ImageDecodeError, match=message):
            load_image(tmp_path / name)
    wrong_name = tmp_path / "really_a_png.jpg"
    wrong_name.write_bytes(good.read_bytes())
    assert np.array_equal(_array(wrong_name), np.asarray(_colour()))


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_unreadable_file(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(_encode(_colour(), "PNG"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(ImageDecodeError, match="Permission denied"):
        load_image(path)


def test_arrays_and_tensors():
    array = np.asarray(_colour())
    for source in (array, array / 255, (array / 255).astype(np.float32), np.asfortranarray(array), _colour()):
        assert np.array_equal(_array(source), array)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for source in (tensor, tensor / 255, (tensor / 255).double().requires_grad_()):
        assert np.array_equal(_array(source), array)
    assert np.abs(_array((tensor / 255).bfloat16()) - array).max() <= 1
    assert np.array_equal(_array(array[..., 0])[..., 2], array[..., 0])


@pytest.mark.parametrize("source,message", [
    (np.zeros((4, 4, 4), np.uint8), r"expected \(H, W, 3\)"),
    (np.zeros((3, 4, 4), np.uint8), r"expected \(H, W, 3\)"),
    (np.zeros((0, 4, 3), np.uint8), "no pixels"),
    (np.zeros((4, 4), np.uint16), "uint16"),
    (np.full((4, 4), 255.0), "from 255 to 255"),
    (np.full((4, 4), -0.5), "from -0.5"),
    (np.full((4, 4), np.nan), "nan"),
    (torch.zeros(4, 4, 3), r"expected \(3, H, W\)"),
    (torch.zeros(1, 3, 4, 4), r"expected \(3, H, W\)"),
    (torch.zeros(3, 4, 4, dtype=torch.int64), "int64"),
    (7, "'int' is no image"),
    (None, "'NoneType' is no image"),
])  # fmt: skip
def test_arrays_that_are_no_images(source, message):
    with pytest.raises(ImageDecodeError, match=message):
        load_image(source)


def test_a_lazy_image_that_turns_out_broken():
    with pytest.raises(ImageDecodeError, match="cannot be decoded"):
        load_image(Image.open(io.BytesIO(_encode(_colour(), "PNG")[:80])))


def test_torch_is_not_imported():
    code = "import sys, rali_zoo.data.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


_RGBA = _colour().convert("RGBA")
_RGBA.putalpha(100)
_SEEDS = [
    *(
        _encode(_colour().resize((16, 12)), kind)
        for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "TGA", "PPM")
    ),
    _encode(_RGBA.resize((16, 12)), "PNG"),
    _encode(_colour().resize((16, 12)), "TIFF", compression="tiff_lzw"),
    _encode(Image.fromarray((GRADIENT[:8, :8] * 65535).astype(np.uint16)), "PNG"),
    _encode(_colour().resize((16, 12)), "GIF", save_all=True, append_images=[Image.new("RGB", (16, 12))]),
    _encode(_colour().resize((16, 12)), "ICO"),
    _encode(_colour().resize((16, 12)), "JPEG2000"),
    _encode(_colour().resize((16, 12)), "AVIF"),
    _encode(_colour().convert("CMYK").resize((16, 12)), "JPEG"),
]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(_SEEDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    st.floats(0, 1),
    st.booleans(),
)
def test_any_garbage_is_an_image_or_one_error(data, flips, end, in_header):
    """Bytes changed anywhere (or in the header only), then cut: never another exception, never an address."""
    garbled = bytearray(data)
    for place, value in flips:
        garbled[int(place * (min(len(garbled), 64) if in_header else len(garbled)))] = value
    cut = bytes(garbled[: int(len(garbled) * end) if end > 0.2 else len(garbled)])
    try:
        image = load_image(cut, max_pixels=1_000_000)
    except ImageDecodeError as error:
        assert not re.search(r"0x[0-9a-f]{6,}", str(error)) and str(error).strip()
    else:
        assert image.mode == "RGB" and image.width * image.height <= 1_000_000
        assert np.asarray(image).shape == (image.height, image.width, 3)

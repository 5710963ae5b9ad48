"""The fast mode: close to Pillow where it decodes in full, honest where it does not, safe on anything."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("simplejpeg", reason="the extra 'fast' is not installed")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rali_zoo.data.images import load_image
from rali_zoo.errors import ConfigError, ImageDecodeError, MissingExtraError
from rali_zoo.scoring.decode import decode_fast
from rali_zoo.scoring.preprocess import FastView
from rali_zoo.types import Preprocess
from rali_zoo.views import View, levels

CLIP = Preprocess((224, 224), resize="center_crop")
SQUASH = Preprocess((96, 128))


def jpeg(array, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def every_pixel(width, height):
    return None


def difference(data, view, preprocess):
    exact = view.cut(load_image(data), preprocess)
    fast = FastView(view, preprocess).prepare(data)
    assert fast.shape == exact.shape and fast.dtype == exact.dtype == torch.uint8
    return (fast.float() - exact.float()).abs()


@pytest.mark.parametrize("encode", [jpeg, png])
@pytest.mark.parametrize("view", [
    View(), View("whole"), View("center_crop"), View("grid", size=64, crops=5),
    View("multi", size=64, crops=3), View("grid", size=400, crops=2),
])  # fmt: skip
@pytest.mark.parametrize("preprocess", [CLIP, SQUASH, Preprocess((192, 192), resize="none")])
def test_images_that_are_not_reduced_differ_by_two_levels_at_most(photo, encode, view, preprocess):
    assert difference(encode(photo(190, 254)), view, preprocess).max() <= 2


def test_a_1024x768_jpeg_is_not_reduced(photo):
    data = jpeg(photo(768, 1024))
    assert decode_fast(data, FastView(View(), CLIP).least).pixels.shape == (3, 768, 1024)
    assert difference(data, View(), CLIP).max() <= 2


@pytest.mark.parametrize("size", [(333, 500), (301, 224), (225, 1001)])
def test_crops_begin_at_the_same_pixel(photo, size):
    for rule in ("floor", "round"):
        rules = Preprocess((224, 224), resize="center_crop", crop_rule=rule)
        assert difference(png(photo(*size)), View(), rules).max() <= 2


def test_large_jpegs_are_read_reduced_and_stay_close(photo):
    large = np.asarray(Image.fromarray(photo(600, 800)).resize((3201, 2400), Image.Resampling.BICUBIC))
    data = jpeg(large)
    fast = FastView(View(), CLIP)
    decoded = decode_fast(data, fast.least)
    assert tuple(decoded.pixels.shape) == (3, 600, 801) and (decoded.height, decoded.width) == (2400, 3201)
    change = difference(data, View(), CLIP)
    assert change.max() <= 8 and change.square().mean().sqrt() < 1
    whole = decode_fast(data, FastView(View("multi", size=64), CLIP).least)
    assert tuple(whole.pixels.shape) == (3, 2400, 3201)


def test_full_decoding_is_pillows(photo):
    for options in ({}, {"subsampling": 0}, {"progressive": True}, {"optimize": True}):
        data = jpeg(photo(203, 301), **options)
        assert torch.equal(decode_fast(data, every_pixel).pixels, levels(load_image(data)))
    grey = jpeg(photo(64, 48)[..., 0])
    assert torch.equal(decode_fast(grey, every_pixel).pixels, levels(load_image(grey)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("least", [every_pixel, lambda width, height: (width // 4, height // 4)])
def test_orientation(photo, orientation, least):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(np.asarray(Image.fromarray(photo(12, 16)).resize((640, 480))), exif=exif)
    decoded = decode_fast(data, least)
    upright = load_image(data)
    assert (decoded.width, decoded.height) == upright.size
    small = np.asarray(upright.resize((16, 12) if orientation < 5 else (12, 16), Image.Resampling.BOX))
    reduced = Image.fromarray(decoded.pixels.permute(1, 2, 0).numpy().copy())
    found = np.asarray(reduced.resize((small.shape[1], small.shape[0]), Image.Resampling.BOX))
    assert np.abs(found.astype(int) - small).mean() < 2


def test_paths_and_reasons_are_those_of_the_exact_mode(photo, tmp_path):
    good = tmp_path / "ünïcode ☂.jpg"
    good.write_bytes(jpeg(photo()))
    assert torch.equal(decode_fast(str(good), every_pixel).pixels, levels(load_image(good)))
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:600])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "dir.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name in ("cut.jpg", "empty.jpg", "dir.jpg", "loop.jpg", "gone.jpg", "a\0b.jpg"):
        reasons = []
        for read in (load_image, lambda p: decode_fast(p, every_pixel)):
            with pytest.raises(ImageDecodeError) as caught:
                read(str(tmp_path / name))
            reasons.append(str(caught.value))
        assert reasons[0] == reasons[1]
    with pytest.raises(ImageDecodeError, match="the limit is 100"):
        decode_fast(str(good), every_pixel, max_pixels=100)


def test_cmyk_and_others_go_through_pillow(photo):
    buffer = io.BytesIO()
    Image.fromarray(photo()).convert("CMYK").save(buffer, "JPEG")
    cases = [buffer.getvalue(), png(photo())]
    for data in cases:
        assert torch.equal(decode_fast(data, every_pixel).pixels, levels(load_image(data)))


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (2, 5000), (5000, 2)])
@pytest.mark.parametrize("view", [View(), View("whole"), View("grid", size=32, crops=4)])
def test_thin_images(size, view):
    """Noise shrunk to a 22nd of one side is where rounding shows most; else these are Pillow's own pixels."""
    array = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    assert difference(png(array), view, CLIP).max() <= (4 if view.kind == "whole" else 0)


def peak_memory() -> int:
    """Bytes; the highest since the counter was set back."""
    status = Path("/proc/self/status").read_text()
    return int(next(x for x in status.splitlines() if x.startswith("VmHWM")).split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read as Linux has it")
@pytest.mark.parametrize("size", [(2, 5000), (5000, 2), (1, 60_000)])
@pytest.mark.parametrize("view", [View(), View("grid", size=224, crops=4)])
def test_thin_images_cost_no_memory(size, view):
    """Resized before they are cut, these would take from 0.3 to 9 GB."""
    data = png(np.zeros((*size, 3), np.uint8))
    FastView(view, CLIP).prepare(data)  # imports what there is to import
    for prepare in (lambda d: view(load_image(d), CLIP), FastView(view, CLIP).prepare):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
        before = peak_memory()
        prepare(data)
        assert peak_memory() - before < 50 * 2**20


def test_random_views_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="random"):
        FastView(View("random_crop"), CLIP)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rali-zoo\[fast\]'"):
        FastView(View(), CLIP)


_PHOTO = np.kron(
    np.random.default_rng(1).integers(0, 255, (6, 8, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8)
)
_EXIF = Image.Exif()
_EXIF[0x0112] = 6
_SEEDS = [
    jpeg(_PHOTO), jpeg(_PHOTO, progressive=True), jpeg(_PHOTO, subsampling=0), jpeg(_PHOTO[..., 0]),
    jpeg(_PHOTO, exif=_EXIF), jpeg(_PHOTO, restart_marker_rows=1), png(_PHOTO),
]  # fmt: skip
_FAST = FastView(View(), Preprocess((8, 8), resize="center_crop"))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.binary(max_size=400).map(lambda b: b"\xff\xd8\xff" + b)))
def test_random_bytes(data):
    image = _FAST.prepare(data)
    assert isinstance(image, ImageDecodeError) or image.shape == (3, 8, 8)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(_SEEDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    st.floats(0, 1),
    st.booleans(),
)
def test_damaged_files_are_images_or_errors(data, changes, end, in_header):
    """Changed bytes, then a cut: what the fast mode refuses, the exact one does too, for the same reason."""
    garbled = bytearray(data)
    for place, value in changes:
        garbled[int(place * (min(len(garbled), 200) if in_header else len(garbled)))] = value
    cut = bytes(garbled[: int(len(garbled) * end) if end > 0.2 else len(garbled)])
    try:
        decoded = decode_fast(cut, _FAST.least, max_pixels=1_000_000)
    except ImageDecodeError as error:
        with pytest.raises(ImageDecodeError) as exact:
            load_image(cut, max_pixels=1_000_000)
        assert str(exact.value) == str(error) != ""
    else:
        assert decoded.pixels.dtype == torch.uint8 and decoded.pixels.shape[0] == 3
        assert _FAST.cut(decoded).dtype == torch.uint8
        assert decoded.height * decoded.width <= 1_000_000


@pytest.mark.filterwarnings("ignore")
def test_blocks_moved_about_in_a_file():
    """Coarser damage than single bytes: pieces cut out, doubled and exchanged."""
    rng = random.Random(0)
    for _ in range(100):
        data = rng.choice(_SEEDS)
        a, b = sorted(rng.sample(range(len(data)), 2))
        image = _FAST.prepare(rng.choice([data[:a] + data[b:], data[:b] + data[a:], data[b:] + data[:a]]))
        assert isinstance(image, ImageDecodeError) or image.shape == (3, 8, 8)

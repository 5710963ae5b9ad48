"""Every kind of bad or odd input through the command's own stages: what docs/scoring.md says it gives."""

from __future__ import annotations

import importlib.util
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rali_zoo
from rali_zoo.data.sources import find_items
from rali_zoo.scoring.pipeline import make_stages, run, slices

DOCS = Path(__file__).resolve().parents[2] / "docs" / "scoring.md"
#: a score
OK = None


def png(width, height, depth, colour, raw):
    """A PNG file by hand: what its header says need not be in it."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def cases(tmp_path_factory, photo):
    """A folder of everything, and for each name what its error says (:data:`OK` for a score)."""
    folder = tmp_path_factory.mktemp("odd")
    image = Image.fromarray(photo(96, 128))
    wanted: dict[str, str | None] = {}

    def save(name, photo, expected=OK, **options):
        photo.save(folder / name, **options)
        wanted[name] = expected

    def write(name, data, expected):
        (folder / name).write_bytes(data)
        wanted[name] = expected

    save("plain.jpg", image)
    save("ünïcode ☂ 图片.jpg", image)
    save("cmyk.jpg", image.convert("CMYK"))
    save("grey.jpg", image.convert("L"))
    save("palette.png", image.convert("P"))
    save("bits.png", image.convert("1"))
    save("16.png", Image.fromarray(photo(96, 128)[..., 0].astype(np.uint16) * 257))
    save("32.tif", Image.fromarray(photo(96, 128)[..., 0].astype(np.int32)), "no agreed range")
    save("float.tif", Image.fromarray(photo(96, 128)[..., 0].astype(np.float32)), "expected [0, 1]")
    rgba = image.copy()
    rgba.putalpha(90)
    save("alpha.png", rgba)
    exif = Image.Exif()
    exif[0x0112] = 6
    save("turned.jpg", image, exif=exif)
    for kind in ("gif", "webp", "png"):
        save(f"moving.{kind}", image, save_all=True, append_images=[image.rotate(90), image])
    save("new.avif", image)
    save("one.png", image.resize((1, 1)))
    save("line.png", image.resize((1, 300)))
    save("thin.png", image.resize((5000, 2)))
    whole = (folder / "plain.jpg").read_bytes()
    write("truncated.jpg", whole[: len(whole) // 2], "cannot be decoded")
    write("no suffix that fits.png", whole, OK)
    garbled = bytearray(whole)
    garbled[len(whole) // 2 : len(whole) // 2 + 20] = bytes(20)
    write("garbled.jpg", bytes(garbled), OK)
    write("zero.jpg", b"", "the file is empty")
    write("page.jpg", b"<html>404</html>", "no known image format")
    write("noise.jpg", bytes(range(256)), "no known image format")
    write("bomb.png", png(20_000, 20_000, 8, 2, b""), "pixels")
    with_heif = importlib.util.find_spec("pillow_heif") is not None
    if with_heif:
        import pillow_heif

        buffer = io.BytesIO()
        pillow_heif.from_pillow(image).save(buffer)
        write("phone.heic", buffer.getvalue(), OK)
    (folder / "x.jpg").mkdir()
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "gone.jpg").symlink_to(folder / "nothing")
    wanted |= {"x.jpg": "is a folder", "loop.jpg": "symbolic links", "gone.jpg": "no such file"}
    if os.name == "posix":
        os.mkfifo(folder / "pipe.jpg")
        wanted["pipe.jpg"] = "no regular file"
        (folder / "above").symlink_to(folder)
        write("secret.jpg", whole, OK if os.geteuid() == 0 else "Permission denied")
        (folder / "secret.jpg").chmod(0)
    return folder, wanted


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decode", ["exact", "fast"])
def test_each_costs_one_row(cases, model, decode):
    if decode == "fast":
        pytest.importorskip("simplejpeg", reason="the extra 'fast' is not installed")
    folder, wanted = cases
    items = list(find_items([str(folder)]))
    scorer = rali_zoo.load_model(model)
    scores = [s for _, found in run(slices([(0, items)], 8), make_stages(scorer, decode), 2) for s in found]
    assert [s.path for s in scores] == [i.path for i in items] == sorted(str(folder / n) for n in wanted)
    for score in scores:
        expected = wanted[Path(score.path).name]
        if expected is None:
            assert score.error is None and 1 <= score.score <= 5, score
        else:
            assert score.score is None and expected in score.error and " at 0x" not in score.error, score
    # The good ones score as they do alone: nothing of a bad neighbour is in them.
    (alone,) = scorer.score([str(folder / "turned.jpg")])
    assert alone.score == pytest.approx(next(s.score for s in scores if "turned" in s.path), abs=0.05)


def test_models_of_native_sizes_refuse_an_image_and_go_on(cases):
    import torch

    from rali_zoo.models.regression import RegressionNetwork
    from rali_zoo.models.scorer import NetworkScorer
    from rali_zoo.types import Preprocess

    folder, _ = cases
    torch.manual_seed(0)
    module = RegressionNetwork("rali:tiny")
    module.backbone.preprocess = Preprocess((32, 32), resize="none")
    names = ["one.png", "plain.jpg", "zero.jpg", "moving.png"]
    scores = NetworkScorer(module, "native").score([folder / n for n in names])
    assert "the model cannot take 1x1 pixels" in scores[0].error and "empty" in scores[2].error
    assert scores[1].score is not None and scores[3].score is not None


def test_the_page_names_every_case():
    text = DOCS.read_text(encoding="utf-8").lower()
    for word in ("truncated", "zero bytes", "cmyk", "16-bit", "palette", "alpha", "exif", "animated", "grey",
                 "avif", "heic", "1×1", "20000×20000", "x.jpg", "permission", "link to itself"):  # fmt: skip
        assert word in text

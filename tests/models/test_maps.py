"""Where an image is bad: maps of any scorer, and whether they point to the quarter that was damaged."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from rali_zoo.cli.main import main
from rali_zoo.data.images import load_image
from rali_zoo.models.maps import overlay, region_images, regions, where, with_map
from rali_zoo.types import Score


class Sharpness:
    """A toy: mean step between neighbours, at most 5."""

    name, score_range = "toy", (0.0, 5.0)

    def __init__(self, texts: bool = False) -> None:
        self.texts = texts

    def score(self, images, batch_size=16, progress=None):
        found = []
        for image in images:
            pixels = np.asarray(load_image(image).convert("L"), float)
            value = min(5.0, float(np.abs(np.diff(pixels)).mean() / 4))
            said = ((1.0, value, (f"steps of {value:.0f}",)),) if self.texts else ()
            found.append(Score(value, explanation=said))
        return found


def damaged(image: Image.Image, kind: str, quarter: int, rng: np.random.Generator) -> Image.Image:
    """The image with one quarter blurred (by a hundredth of its width) or noisy (40 of 255)."""
    width, height = image.width // 2, image.height // 2
    left, top = quarter % 2 * width, quarter // 2 * height
    part = image.crop((left, top, left + width, top + height))
    if kind == "blur":
        part = part.filter(ImageFilter.GaussianBlur(image.width / 100))
    else:
        pixels = np.asarray(part, float) + rng.normal(0, 40, (part.height, part.width, 3))
        part = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    out = image.copy()
    out.paste(part, (left, top))
    return out


def worst_quarter(score: Score) -> int:
    quarters = score.map.reshape(2, 2, 2, 2).mean(axis=(1, 3))
    return int(quarters.argmin())


@pytest.mark.parametrize("quarter", range(4))
def test_any_scorer_has_a_map(photo, quarter):
    texture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (203, 301, 3), dtype=np.uint8))
    image = damaged(texture, "blur", quarter, np.random.default_rng(0))
    (score,) = Sharpness(texts=True).score([image])
    found = with_map(Sharpness(texts=True), image, score)
    assert found.map.shape == (4, 4) and found.map.dtype == np.float32 and worst_quarter(found) == quarter
    row, column = divmod(int(found.map.argmin()), 4)
    assert (row // 2, column // 2) == divmod(quarter, 2) and found.map_texts[row][column] in where(found)
    assert found == score  # a map changes nothing else
    assert with_map(Sharpness(), image, score).map_texts == ()


def test_the_overlay_is_orange_where_it_is_bad(photo):
    image = Image.new("RGB", (400, 200), (128, 128, 128))
    values = np.full((4, 4), 3.0, np.float32)
    values[3, 0], values[0, 3], values[1, 1] = 1.0, 5.0, np.nan
    drawn = overlay(image, Score(3.0, map=values), side=200)
    assert drawn.size == (200, 100) and image.getpixel((10, 190)) == (128, 128, 128)
    (red, _, blue), (other_red, _, other_blue) = drawn.getpixel((4, 97)), drawn.getpixel((196, 3))
    assert red > 180 > 90 > blue and other_blue > 180 > 100 > other_red
    assert drawn.getpixel((75, 97))[0] < 160
    with pytest.raises(ValueError, match="no map"):
        overlay(image, Score(3.0))


def test_what_has_no_map(photo_folder, tmp_path):
    assert regions(95, 400) == []
    boxes = regions(301, 203)
    assert len(boxes) == 16 and sum((r - x) * (b - y) for x, y, r, b in boxes) == 301 * 203
    (path,) = photo_folder(1)  # 48 pixels high
    for score in (Score(3.0), Score(None, error="why")):
        assert with_map(Sharpness(), str(path), score).map is None
    assert with_map(Sharpness(), str(tmp_path / "gone.jpg"), Score(3.0)).map is None
    assert where(Score(3.0)) == ""
    corner = np.ones((4, 4), np.float32)
    corner[3, 0] = 0.5
    assert where(Score(3.0, map=corner)) == "lowest bottom, left (0.50)"


def test_scores_of_a_network_have_maps(photo):
    from rali_zoo.zoo import load_model

    scorer = load_model("rali-tiny-synthetic")
    image = photo(160, 128)
    plain, mapped = scorer.score(image)[0], scorer.score([image], maps=True)[0]
    assert plain.map is None and mapped == plain
    assert mapped.map.shape == (4, 4) and all(text for row in mapped.map_texts for text in row)
    corner = scorer.score(region_images(Image.fromarray(image))[0])[0]
    assert mapped.map[0, 0] == pytest.approx(corner.score, abs=1e-5)


@pytest.mark.parametrize("size", [(96, 96), (301, 203), (2100, 1400), (4000, 100)])
def test_a_region_fills_the_image_mirrored(size):
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    found = region_images(Image.fromarray(pixels))
    assert len(found) == 16
    assert all(
        abs(max(one.size) - min(max(size), max(1024, 96 * max(size) / min(size)))) <= 4 for one in found
    )
    first = np.asarray(found[0])
    height, width = first.shape[0] // 4, first.shape[1] // 4
    region = first[:height, :width]
    if max(size) <= 1024:
        np.testing.assert_array_equal(region, pixels[:height, :width])
    np.testing.assert_array_equal(first[:height, width : 2 * width], region[:, ::-1])  # no seam
    np.testing.assert_array_equal(first[height : 2 * height, :width], region[::-1])


def test_the_command_writes_overlays(photo_folder, tmp_path, capsys):
    folder = photo_folder(3, height=128, width=128)[0].parent
    (folder / "bad.jpg").write_bytes(b"")
    small = photo_folder(1, tmp_path / "small")[0]
    maps = tmp_path / "maps"
    words = ["score", str(folder), str(small), "--model=rali-tiny-synthetic", f"--maps={maps}"]
    assert main([*words, "--worst=2"]) == 0
    out = capsys.readouterr().out
    assert out.count("lowest") == len(list(maps.iterdir())) <= 2
    assert main(words) == 1 and "no empty folder" in capsys.readouterr().err
    assert main([*words, "--overwrite", f"--sheet={tmp_path / 's.html'}"]) == 0
    out, err = capsys.readouterr()
    assert len(list(maps.glob("*.png"))) == 3 and "3 maps" in err and "no map of" in err
    with Image.open(next(maps.iterdir())) as image:
        assert image.size == (128, 128)
    assert (tmp_path / "s.html").read_text().count("<summary>Where") == 3


def photographs(shared) -> list[Image.Image]:
    from skimage import data

    found = [Image.fromarray(getattr(data, name)()) for name in ("astronaut", "coffee", "chelsea", "rocket")]
    for path in sorted((shared / "data" / "pristine").glob("*.png")):
        if path.stem.isdigit() or path.stem.startswith("pexels"):  # others are drawings
            with Image.open(path) as image:
                found.append(image.convert("RGB"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["blur", "noise"])
def test_the_damaged_quarter_is_the_worst(shared, kind):
    from rali_zoo.zoo import DEFAULT_MODEL, load_model

    if DEFAULT_MODEL != "photo":
        pytest.skip(f"the default model is {DEFAULT_MODEL}, which is no judge of photographs")
    scorer, rng, hits = load_model(DEFAULT_MODEL), np.random.default_rng(0), []
    for i, image in enumerate(photographs(shared)):
        quarter = i % 4
        (score,) = scorer.score([damaged(image, kind, quarter, rng)], maps=True)
        hits.append(worst_quarter(score) == quarter)
    print(f"{kind}: {sum(hits)} of {len(hits)}")  # stands in docs/maps.md
    assert np.mean(hits) >= 0.9, f"{sum(hits)} of {len(hits)}"

"""Degraded photographs: order, splits, determinism, refusals."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rali_zoo.data.samplers import chains_of
from rali_zoo.data.synthetic import degraded
from rali_zoo.data.tables import load_table
from rali_zoo.errors import ConfigError, RaliZooError, UriError


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A folder of four small photographs, and a table that rates them from 0 to 1."""
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        small = rng.integers(0, 255, (12, 16, 3)).astype(np.uint8)
        Image.fromarray(small).resize((96, 72), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(4)], "mos": [0.1, 0.5, 0.7, 0.9]})
    table.assign(split=["train", "train", "train", "test"]).to_csv(folder / "scores.csv", index=False)
    return folder


def test_chains_have_a_content_a_distortion_and_rising_levels(photographs):
    table = load_table(
        f"degraded:{photographs}?types=gaussian_blur,jpeg,warp&each=2&protocol=random&ratio=0.75&val_fraction=0.34"
    )
    frame = table.frame
    assert len(frame) == 4 * (1 + 2 * 5) and frame["mos"].isna().all()
    assert frame.groupby("content")["split"].nunique().eq(1).all()
    assert frame.drop_duplicates("content")["split"].value_counts().to_dict() == {
        "train": 2,
        "val": 1,
        "test": 1,
    }
    chains = chains_of(frame)
    assert len(chains) == 8 and all(
        frame["level"].iloc[chain].tolist() == [0, 1, 2, 3, 4, 5] for chain in chains
    )
    again = load_table(
        f"degraded:{photographs}?types=gaussian_blur,jpeg,warp&each=2&protocol=random&ratio=0.75&val_fraction=0.34&workers=1"
    )
    pd.testing.assert_frame_equal(again.frame, frame)


def test_images_are_made_alike_by_any_number_of_workers(photographs, tmp_path, monkeypatch):
    ref = f"degraded:{photographs}?types=all&each=3&size=48"
    pixels = []
    for workers in (1, 2):
        monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / f"cache{workers}"))
        frame = load_table(f"{ref}&workers={workers}").frame
        pixels.append([np.asarray(Image.open(p)) for p in frame["path"]])
    assert all(image.shape == (48, 48, 3) for image in pixels[0])
    assert all(np.array_equal(a, b) for a, b in zip(*pixels, strict=True))


def test_photographs_of_a_table_by_their_mos(photographs):
    frame = load_table(
        f"degraded:{photographs}/scores.csv?types=jpeg&least=0.5&val_fraction=0&mos_range=0,1"
    ).frame
    assert sorted(set(frame["source"])) == ["1.png", "2.png"]  # 3.png is a test row
    few = load_table(
        f"degraded:{photographs}/scores.csv?types=jpeg&contents=1&protocol=whole&mos_range=0,1"
    ).frame
    assert few["content"].nunique() == 1


@pytest.mark.parametrize("kind", degraded.TYPES)
def test_each_level_is_farther_from_the_photograph(kind):
    """As far as all types agree: each level changes the image more than no level, and the last most of all."""
    from skimage.data import astronaut

    image = astronaut()[100:292, 100:292].astype(np.float32) / 255
    away = [float(np.abs(degraded.degrade(image, kind, level, 3) - image).mean()) for level in range(6)]
    assert away[0] == 0 and away[1] > 0 and away[5] == max(away)


def test_library_photographs_need_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path))
    frame = load_table("degraded:library?types=pixelate&size=64&protocol=whole").split("test")
    assert set(frame["source"]) == {"astronaut", "coffee", "flower", "rocket", "chelsea", "china"}


@pytest.mark.parametrize(
    ("query", "error", "says"),
    [
        ("types=jpg", ConfigError, "jpeg"),
        ("each=0", UriError, "each=0"),
        ("least=0.5", UriError, "belongs to a table"),
        ("sise=64", UriError, "size"),
        ("size=a", UriError, "no whole number"),
    ],
)
def test_impossible_options(photographs, query, error, says):
    with pytest.raises(error, match=says):
        load_table(f"degraded:{photographs}?{query}")


def test_nothing_to_degrade(tmp_path, photographs):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(RaliZooError, match=path.name):
            load_table(f"degraded:{path}")
    with pytest.raises(ConfigError, match="at least 2"):
        load_table(f"degraded:{photographs}/scores.csv?least=2&mos_range=0,1")


def test_chains_without_pristine_images_and_with_equal_levels():
    frame = pd.DataFrame(
        {
            "content": ["a", "a", "a", "b", "", "a"],
            "distortion": ["blur", "blur", "blur", "blur", "blur", "jpeg"],
            "level": [3, 1, 3, 1, 2, 1],
        }
    )
    chains = chains_of(frame)
    assert [frame["level"].iloc[c].tolist() for c in chains] == [[1, 3]]


def test_an_unknown_degradation_or_level_is_refused():
    image = np.zeros((8, 8, 3), np.float32)
    with pytest.raises(RaliZooError, match="jpeg"):
        degraded.degrade(image, "jpge", 1)
    with pytest.raises(ConfigError, match="level 6"):
        degraded.degrade(image, "jpeg", 6)

"""The embedded synthetic data sets: sources, distortions, raters, build, reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from joblib import Parallel, delayed
from PIL import Image
from scipy.stats import spearmanr

from rali_zoo.data.synthetic import build, distortions, rater, reader, sources
from rali_zoo.errors import ConfigError, ScoreTableError, UnknownNameError, UriError

SIZE = 96


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))


def _window(content: str = "coffee", seed: int = 0) -> sources.Image3:
    return sources.window(content, SIZE, np.random.default_rng(seed))


@pytest.mark.parametrize("content", ["coffee", "camera", "retina", "leaves-00", "fractal-07", "shapes-19"])
def test_windows_are_rgb_in_range_sized_and_coloured(content):
    image = _window(content)
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.float32
    assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.02
    assert np.ptp(image, axis=2).max() > 0.02  # grey photographs were toned


def test_largest_window_fits_every_content():
    for photograph in sources.PHOTOGRAPHS:
        assert min(sources.canvas(photograph.name).size) >= sources.MAX_SIZE, photograph.name


def test_every_split_has_photographs_and_textures_and_none_is_shared():
    pools = {split: sources.contents(split) for split in ("train", "val", "test")}
    assert all(photographs and textures for photographs, textures in pools.values())
    contents = [c for pair in pools.values() for pool in pair for c in pool]
    assert len(contents) == len(set(contents)) == len(sources.PHOTOGRAPHS) + 3 * sources.TEXTURES_PER_KIND


@pytest.mark.parametrize("name", distortions.DISTORTIONS)
def test_distortions_get_worse_with_level(name):
    distances = []
    for content in ("coffee", "astronaut", "china", "leaves-03"):
        image = _window(content)
        damaged = [distortions.distort(image, name, k, np.random.default_rng(1)) for k in distortions.LEVELS]
        assert all(d.shape == image.shape and d.min() >= 0 and d.max() <= 1 for d in damaged)
        distances.append([rater.distance(image, d) for d in damaged])
    mean = np.mean(distances, axis=0)
    assert mean[0] > 0 and np.all(np.diff(mean) > 0), mean


def test_distort_leaves_its_input_alone_and_repeats():
    image = _window()
    before = image.copy()
    for name in distortions.DISTORTIONS:
        first, second = (distortions.distort(image, name, 3, np.random.default_rng(5)) for _ in range(2))
        assert np.array_equal(first, second), name
    assert np.array_equal(image, before)


def test_distort_refuses_unknown_names_and_levels():
    with pytest.raises(UnknownNameError, match="gaussian_blur"):
        distortions.distort(_window(), "gausian_blur", 1, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="level 6"):
        distortions.distort(_window(), "jpeg", 6, np.random.default_rng(0))


def test_types_are_those_of_the_kadid_reader():
    kadid = pytest.importorskip("rali_zoo.data.readers.kadid10k")
    assert distortions.KADID_TYPES == kadid.DISTORTIONS


def test_distance_agrees_with_ssim_on_what_ssim_can_see():
    from skimage.metrics import structural_similarity

    ours, theirs = [], []
    for content in ("coffee", "china", "leaves-01", "fractal-02"):
        image = _window(content)
        for name in ("gaussian_blur", "jpeg", "jpeg2000", "pixelate", "jitter", "denoise"):
            for level in distortions.LEVELS:
                damaged = distortions.distort(image, name, level, np.random.default_rng(0))
                ours.append(rater.distance(image, damaged))
                theirs.append(structural_similarity(image, damaged, channel_axis=-1, data_range=1))
    assert spearmanr(ours, theirs).statistic < -0.85
    assert rater.distance(image, image) == 0


def test_score_falls_with_distance_and_domains_disagree():
    lab, wild, phone = (rater.DOMAINS[name] for name in ("lab", "wild", "phone"))
    falling = [rater.score(d, [("jpeg", d)], lab) for d in (0.01, 0.1, 0.3, 1.0)]
    assert falling == sorted(falling, reverse=True) and lab.low < falling[-1] < falling[0] <= lab.high
    assert rater.score(0.0, [], lab) == lab.high

    def gap(domain: rater.Domain) -> float:  # how much worse blur is than noise, in parts of the scale
        scores = [rater.score(0.15, [(n, 0.15)], domain) for n in ("white_noise", "gaussian_blur")]
        return (scores[0] - scores[1]) / (domain.high - domain.low)

    assert gap(wild) > gap(lab) + 0.05 and gap(phone) < gap(lab) - 0.05


def test_votes_centre_on_the_score_and_stay_on_the_scale():
    for domain in rater.DOMAINS.values():
        middle = sum(domain.mos_range) / 2
        votes = [rater.vote(middle, domain, np.random.default_rng(i)) for i in range(200)]
        means, stds = zip(*votes, strict=True)
        span = domain.mos_range[1] - domain.mos_range[0]
        assert abs(np.mean(means) - middle) < 0.01 * span and 0.05 * span < np.mean(stds) < 0.3 * span
        assert min(means) >= domain.mos_range[0] and max(means) <= domain.mos_range[1]


def test_card_scale_is_the_raters_scale():
    assert set(reader.DOMAINS) == set(rater.DOMAINS)
    for name, (_, _, mos_range) in reader.DOMAINS.items():
        assert mos_range == rater.DOMAINS[name].mos_range
        card = reader.card(name)
        assert card.synthetic and card.domain == "synthetic" and "ynthetic" in card.title


@pytest.mark.parametrize("domain", ["lab", "wild", "phone"])
def test_open_gives_readable_images_and_content_disjoint_splits(domain):
    card, frame = reader.open(domain, {"n": "60", "size": str(SIZE), "workers": "1"})
    assert card.n_images == len(frame) == 60 and frame["id"].is_unique
    assert frame["mos"].between(*card.mos_range).all() and (frame["std"] > 0).all()
    assert frame.groupby("content")["split"].nunique().max() == 1
    assert all(frame["split"] == frame["content"].map(sources.split_of))
    assert frame["split"].value_counts().to_dict() == {"train": 42, "test": 12, "val": 6}
    counts = [
        len(d.split(";")) == len(v.split(";"))
        for d, v in zip(frame["distortion"], frame["levels"], strict=True)
    ]
    assert all(counts) and frame["rule"].str.contains("no human").all()
    with Image.open(frame["path"][7]) as image:
        assert image.size == (SIZE, SIZE) and image.mode == "RGB"


def test_lab_crosses_types_and_levels_and_labels_follow_the_pixels():
    _, frame = reader.open("lab", {"n": "250", "size": "64", "workers": "1"})
    train = frame[frame["split"] == "train"]
    assert set(train["distortion"]) == set(distortions.KADID_TYPES) and set(train["level"]) == {1, 2, 3, 4, 5}
    assert spearmanr(frame["mos"], frame["mos_expected"]).statistic > 0.95
    assert spearmanr(frame["mos"], frame["distance"]).statistic < -0.5


def _bytes(frame) -> list[bytes]:
    return [Path(path).read_bytes() for path in frame["path"]]


def test_same_seed_same_bytes_whatever_the_workers(tmp_path, monkeypatch):
    options = {"n": "50", "size": "64", "seed": "3"}
    _, one = reader.open("wild", {**options, "workers": "1"})
    first = _bytes(one)
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "other"))
    _, two = reader.open("wild", {**options, "workers": "2"})
    assert first == _bytes(two)
    places = ["path", "reference"]
    assert one.drop(columns=places).equals(two.drop(columns=places))
    _, other = reader.open("wild", {**options, "seed": "4", "workers": "1"})
    assert sum(a == b for a, b in zip(first, _bytes(other), strict=True)) == 0


def test_interrupted_build_leaves_nothing(monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    spec = build.Spec("wild", 50, 64, 0)
    monkeypatch.setattr(build, "render", stop)
    with pytest.raises(KeyboardInterrupt):
        build.build(spec)
    assert list(spec.folder().parent.iterdir()) == []


def test_concurrent_builders_agree():
    spec = build.Spec("phone", 50, 64, 0)
    folders = Parallel(n_jobs=2, backend="threading")(delayed(build.build)(spec) for _ in range(2))
    assert set(folders) == {spec.folder()}
    assert [p.name for p in spec.folder().parent.iterdir()] == [spec.folder().name]
    assert len(build.read(spec.folder())) == 50


def test_images_gone_from_the_cache_are_named():
    _, frame = reader.open("wild", {"n": "50", "size": "64", "workers": "1"})
    Path(frame["path"][9]).unlink()
    with pytest.raises(ScoreTableError, match="wild-000009.png.*delete"):
        reader.open("wild", {"n": "50", "size": "64"})


@pytest.mark.parametrize(
    ("path", "options", "error", "message"),
    [
        ("labb", {}, UnknownNameError, "'lab'"),
        ("lab", {"nn": "5"}, UriError, "'n'"),
        ("lab", {"n": "many"}, UriError, "whole number"),
        ("lab", {"n": "3"}, UriError, "50 to"),
        ("lab", {"size": "999"}, UriError, "64 to 288"),
    ],
)
def test_open_refuses_with_what_is_valid(path, options, error, message):
    with pytest.raises(error, match=message):
        reader.open(path, options)


def test_own_photographs_and_more_textures_are_training_contents_only(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (700, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "mine.png")
    (photos / "notes.txt").write_text("no image")
    plain, more = build.Spec("lab", 200, 64, 0), build.Spec("lab", 200, 64, 0, 150, str(photos))
    assert plain.folder() != more.folder()
    own = [p for p in build.plan(more) if p.content == "own:mine.png"]
    extra = [p for p in build.plan(more) if p.content.rsplit("-", 1)[-1] in {"120", "121", "149"}]
    assert own and extra and {p.split for p in own + extra} == {"train"}
    kept = {p.index: p.content for p in build.plan(plain) if p.split != "train"}
    assert kept == {p.index: p.content for p in build.plan(more) if p.split != "train"}
    assert sources.window("own:mine.png", 64, rng, str(photos)).shape == (64, 64, 3)
    before = more.folder()
    Image.fromarray(noise[:400]).save(photos / "mine.png")
    assert more.folder() != before  # other images, another data set
    assert min(sources._own(photos / "mine.png").size) == 400  # nothing to shrink away
    Image.fromarray(noise[:400]).save(photos / "mine.jpg")
    with pytest.raises(ConfigError, match="576 each way"):
        sources._own(photos / "mine.jpg")
    with pytest.raises(ConfigError, match="no image"):
        reader.open("lab", {"n": "50", "photos": str(tmp_path)})


def test_test_rows_come_with_their_pristine_image():
    _, frame = reader.open("lab", {"n": "60", "size": "64", "workers": "1"})
    has = frame["reference"] != ""
    assert (has == (frame["split"] == "test")).all()
    row = frame[has].iloc[0]
    pristine, damaged = (np.asarray(Image.open(row[c]), np.float32) / 255 for c in ("reference", "path"))
    assert rater.distance(pristine, damaged) == pytest.approx(row["distance"], abs=0.01)


def test_a_part_has_the_images_that_the_whole_has(tmp_path):
    whole = reader.open("wild", {"n": "60", "size": "64"})[1].query("split == 'test'").reset_index(drop=True)
    part = reader.open("wild", {"n": "60", "size": "64", "part": "test"})[1]
    assert len(part) == 12 and part.drop(columns=["path", "reference"]).equals(
        whole.drop(columns=["path", "reference"])
    )
    for column in ("path", "reference"):
        for a, b in zip(part[column], whole[column], strict=True):
            assert Path(a).read_bytes() == Path(b).read_bytes()
    with pytest.raises(ConfigError, match="test"):
        reader.open("wild", {"part": "tset"})

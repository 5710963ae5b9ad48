"""Descriptions tables and the captioners that fill them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rali_zoo.data import attributes, captioners, phrases
from rali_zoo.data.captioners import CAPTIONERS, describe
from rali_zoo.data.descriptions import COLUMNS, read_descriptions, texts_by_image, write_descriptions
from rali_zoo.data.synthetic import distortions, sources
from rali_zoo.errors import ConfigError, ImageDecodeError, ScoreTableError, UnknownNameError

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))


def _image(name: str | None = None, level: int = 4, content: str = "coffee") -> Image.Image:
    image = sources.window(content, 160, np.random.default_rng(0))
    if name:
        image = distortions.distort(image, name, level, np.random.default_rng(1))
    return Image.fromarray(np.round(image * 255).astype(np.uint8))


def _rows(**columns) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return pd.DataFrame(
        {"id": [f"p{i}" for i in range(n)], "path": [f"p{i}.png" for i in range(n)], **columns}
    )


def _every_label() -> pd.DataFrame:
    pairs = [(n, k) for n in distortions.DISTORTIONS for k in distortions.LEVELS]
    mixed = [("darken;sensor_noise;jpeg", "3;5;1"), ("jpeg;jpeg2000;denoise", "5;5;5"), ("pristine", "")]
    names = [n for n, _ in pairs] + [n for n, _ in mixed]
    return _rows(distortion=names, levels=[str(k) for _, k in pairs] + [k for _, k in mixed], split="train")


# ---- descriptions ------------------------------------------------------------------------------------------


def _descriptions() -> pd.DataFrame:
    row = {"dataset": "csv:ä.csv", "image_id": "007", "text": "Weich, körnig", "score": 2.5, "teacher": "t"}
    rows = [{**row, "revision": "1", "seed": s, "score": [2.5, np.nan][s]} for s in (0, 1)]
    return pd.DataFrame([*rows, {**rows[0], "image_id": "8"}])[list(COLUMNS)]


@pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
def test_descriptions_come_back_as_written(tmp_path, ending):
    frame, path = _descriptions(), tmp_path / f"texts{ending}"
    write_descriptions(frame, path)
    again = read_descriptions(path)
    pd.testing.assert_frame_equal(again, frame, check_dtype=False)
    assert texts_by_image(again)[("csv:ä.csv", "007")] == ["Weich, körnig"] * 2
    assert [p.name for p in tmp_path.glob("*.*")] == [path.name]  # no temporary file stays


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="seed"), "no column seed"),
        (lambda f: f.assign(text=["a", " ", "b"]), r"empty text in 1 rows, first \[1\]"),
        (lambda f: f.assign(score=[7, 1, 1]), r"outside \[1, 5\]"),
        (lambda f: f.assign(score=["x", 1, 1]), "no number"),
        (lambda f: f.assign(seed=[0, 0.5, 0]), "whole number"),
        (lambda f: f.assign(image_id="1", seed=0), "same dataset"),
    ],
)
def test_bad_descriptions_are_refused_with_rows(tmp_path, change, message):
    with pytest.raises(ScoreTableError, match=message):
        write_descriptions(change(_descriptions()), tmp_path / "t.parquet")
    assert not (tmp_path / "t.parquet").exists()


def test_unreadable_descriptions_are_refused(tmp_path):
    for name, content, message in (("t.csv", "", "must end in"), ("t.jsonl", "{", "cannot be read")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ScoreTableError, match=message):
            read_descriptions(tmp_path / name)
    (tmp_path / "t.parquet").write_bytes(b"PK")
    with pytest.raises(ScoreTableError, match="is no readable table"):
        read_descriptions(tmp_path / "t.parquet")
    with pytest.raises(ScoreTableError, match="do not exist"):
        read_descriptions(tmp_path / "absent.parquet")


# ---- labels ------------------------------------------------------------------------------------------------


def test_every_distortion_has_words():
    assert set(phrases.DISTORTIONS) == set(distortions.DISTORTIONS)


def test_labels_are_short_varied_by_seed_and_stable():
    frame = _every_label()
    table = describe("labels", frame, "d", seeds=3)
    assert list(table.columns) == list(COLUMNS) and len(table) == 3 * len(frame)
    assert table["text"].str.split().str.len().max() < 60
    assert table.groupby("image_id")["text"].nunique().mean() > 2.5
    assert table["score"].isna().all() and set(table["teacher"]) == {"labels"}
    some = describe("labels", frame.iloc[[17, 3]], "d", seeds=3)  # a text does not hang on the other rows
    merged = some.merge(table, on=["image_id", "seed"])
    assert len(merged) == 6 and (merged["text_x"] == merged["text_y"]).all()


def test_labels_say_type_and_strength():
    def text(name: str, levels: str) -> str:
        return describe("labels", _rows(distortion=[name], levels=[levels]), "d")["text"][0]

    faint, severe = text("jpeg", "1"), text("jpeg", "5")
    assert "JPEG" in faint and "JPEG" in severe
    assert any(w in faint.lower() for w in phrases.SEVERITY[1][0]) and "very good" in faint
    assert any(w in severe.lower() for w in phrases.SEVERITY[5][0]) and "very poor" in severe
    mixed = text("darken;sensor_noise", "2;5").lower()
    assert "noise" in mixed or "grain" in mixed
    assert any(mixed.startswith(w) for w in phrases.SEVERITY[5][0])  # the strongest comes first
    assert "excellent" in text("pristine", "")


def test_labels_work_on_other_tables():
    frame = _rows(distortion=["comfort_noise", "gaussian_blur"], level=[4, 0])
    first, second = describe("labels", frame, "tid2013")["text"]
    assert "comfort noise" in first and "poor" in first
    assert "quality" not in second  # level 0 is unknown: no strength, no rating


def test_labels_never_look_at_the_score():
    frame = _every_label()
    low, high = (describe("labels", frame.assign(mos=m, mos_native=m), "d")["text"] for m in (1.0, 5.0))
    assert low.equals(high)


def test_labels_need_distortions():
    with pytest.raises(ConfigError, match="use 'attributes'"):
        describe("labels", _rows(distortion=["", "jpeg"], level=[0, 1]), "koniq10k")


# ---- attributes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "measurement", "sign"),
    [
        ("gaussian_blur", "best_acuity", -1),
        ("gaussian_blur", "detail", -1),
        ("white_noise", "noise", 1),
        ("white_noise_color", "chroma_noise", 1),
        ("impulse_noise", "impulses", 1),
        ("jpeg", "blockiness", 1),
        ("pixelate", "flatness", 1),
        ("darken", "brightness", -1),
        ("brighten", "brightness", 1),
        ("color_saturation_1", "colourfulness", -1),
        ("color_saturation_2", "saturation", 1),
        ("overexposure", "blown", 1),
        ("motion_blur", "direction", 1),
        ("high_sharpen", "edge_strength", 1),
    ],
)
def test_measurements_follow_what_was_done(name, measurement, sign):
    changes = []
    for content in ("coffee", "china", "leaves-03"):
        before = attributes.measure(_image(content=content))
        after = attributes.measure(_image(name, 4, content))
        changes.append(sign * (after[measurement] - before[measurement]))
    assert np.mean(changes) > 0 and np.median(changes) > 0, changes


def test_noise_is_measured_in_pixel_units():
    rng = np.random.default_rng(0)
    for sigma in (0.01, 0.05, 0.1):
        gray = np.clip(0.5 + sigma * rng.standard_normal((256, 256)), 0, 1)
        image = Image.fromarray(np.round(gray * 255).astype(np.uint8)).convert("RGB")
        assert attributes.measure(image)["noise"] == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (2000, 17), (161, 159)])
def test_odd_sizes_are_measured(size):
    values = attributes.measure(Image.new("RGB", size, (10, 200, 30)))
    assert tuple(values) == attributes.NAMES and all(np.isfinite(v) for v in values.values())


def test_measuring_is_fast():
    image = _image().resize((512, 512))
    attributes.measure(image)
    start = time.process_time()
    for _ in range(10):
        attributes.measure(image)
    assert (time.process_time() - start) / 10 < 0.06  # about 0.012 on an idle core


def test_every_measurement_is_put_into_words():
    said = set(phrases.GRADES) | {name.lstrip("-") for name, _, _ in phrases.REMARKS}
    assert said | {"acuity", "saturation"} == set(attributes.NAMES)
    for limits, words in phrases.GRADES.values():
        assert len(words) == len(limits) + 1 and list(limits) == sorted(limits)


def _files(folder: Path, names: list[str | None]) -> pd.DataFrame:
    frame = _rows(split=["train"] * len(names), mos=[3.0] * len(names))
    frame["path"] = [str(folder / p) for p in frame["path"]]
    for path, name in zip(frame["path"], names, strict=True):
        _image(name, 5).save(path)
    return frame


def test_attributes_differ_by_image_and_are_remembered(tmp_path, monkeypatch):
    frame = _files(tmp_path, [None, "gaussian_blur", "white_noise", "jpeg", "darken"])
    table = describe("attributes", frame, "d", seeds=2)
    texts = table[table["seed"] == 0]["text"].str.lower().tolist()
    assert len(set(texts)) == 5 and max(len(t.split()) for t in texts) < 60
    assert any(w in texts[1] for w in ("blur", "unsharp", "focus"))
    assert any(w in texts[2] for w in ("noise", "grain"))
    assert any(w in texts[3] for w in ("block", "compression"))
    assert any(w in texts[4] for w in ("dark", "dim", "low", "black"))
    monkeypatch.setattr(captioners, "_measure", lambda path: pytest.fail(f"{path} was measured again"))
    assert describe("attributes", frame, "d", seeds=2).equals(table)


def test_attributes_measure_a_changed_file_again(tmp_path):
    frame = _files(tmp_path, [None])
    before = describe("attributes", frame, "d")["text"][0]
    _image("darken", 5).save(frame["path"][0])
    assert describe("attributes", frame, "d")["text"][0] != before


def test_attributes_name_an_image_that_cannot_be_read(tmp_path):
    frame = _files(tmp_path, [None, None])
    Path(frame["path"][1]).write_bytes(b"no image")
    with pytest.raises(ImageDecodeError, match="p1.png"):
        describe("attributes", frame, "d")


def test_attributes_on_photographs_with_human_scores():
    """The words alone say something about quality: a ridge on word counts beats chance by far."""
    table = SHARED / "data" / "biq2021" / "scores.csv"
    if not table.exists():
        pytest.skip("shared/data/biq2021 is not beside the repository")
    from scipy.stats import spearmanr
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import Ridge

    frame = pd.read_csv(table).groupby("split").head(150)
    frame = frame.assign(id=frame["image"], path=[str(table.parent / p) for p in frame["image"]])
    texts = describe("attributes", frame, "biq2021")["text"]
    words = CountVectorizer(ngram_range=(1, 2), binary=True).fit_transform(texts)
    train = (frame["split"] == "train").to_numpy()
    predicted = Ridge(20).fit(words[train], frame["mos"][train]).predict(words[~train])
    assert spearmanr(predicted, frame["mos"][~train]).statistic > 0.3


# ---- scores in texts ---------------------------------------------------------------------------------------


def test_mos_grades_are_thirteen_and_ordered():
    grades = [phrases.mos_grade(m) for m in np.linspace(1, 5, 400)]
    assert len(set(grades)) == 13 and grades[0] == "bad" and grades[-1] == "excellent"
    assert phrases.mos_grade(3.33) == "between fair and good, nearer fair"
    assert phrases.mos_grade(3.67) == "between fair and good, nearer good"


@pytest.mark.parametrize("name", ["labels", "attributes"])
def test_mos_words_for_training_rows(tmp_path, name):
    frame = _files(tmp_path, [None, "jpeg"]).assign(
        distortion=["pristine", "jpeg"], level=[0, 5], mos=[4.67, 1.3]
    )
    table = describe(name, frame, "d", mos_words=True)
    assert "between good and excellent, nearer excellent" in table["text"][0]
    assert "between bad and poor, nearer bad" in table["text"][1]
    assert table["score"].tolist() == [4.67, 1.3] and set(table["teacher"]) == {f"{name}+mos"}


@pytest.mark.parametrize("split", ["val", "test", "", None])
def test_mos_words_refuse_any_row_outside_training(split):
    frame = _rows(distortion=["jpeg", "jpeg"], level=[1, 2], mos=[2.0, 3.0], split=["train", split])
    with pytest.raises(ConfigError, match="1 of 2 rows are not of its training part"):
        describe("labels", frame, "d", mos_words=True)
    with pytest.raises(ConfigError, match="training part"):
        describe("labels", frame.drop(columns="split"), "d", mos_words=True)


def test_mos_words_need_scores_on_the_scale():
    frame = _rows(distortion=["jpeg"], level=[1], mos=[61.0], split=["train"])
    with pytest.raises(ConfigError, match=r"\[1, 5\]"):
        describe("labels", frame, "d", mos_words=True)


def test_describe_refuses_unknown_names_and_no_seeds():
    assert list(CAPTIONERS) == ["attributes", "labels"]
    with pytest.raises(UnknownNameError, match="'labels'"):
        describe("label", _every_label(), "d")
    with pytest.raises(ConfigError, match="at least 1"):
        describe("labels", _every_label(), "d", seeds=0)


@pytest.mark.parametrize("kind", phrases.DISTORTIONS)
def test_a_label_text_names_its_distortion(kind):
    frame = pd.DataFrame({"id": [f"{i}" for i in range(20)], "distortion": kind, "level": 3})
    texts = describe("labels", frame, "toy", seeds=1)["text"]
    assert {phrases.distortion_in(text) for text in texts} == {kind}


def test_texts_of_pristine_images_and_of_none():
    frame = pd.DataFrame({"id": [str(i) for i in range(9)], "distortion": "pristine", "level": 0})
    assert {phrases.distortion_in(t) for t in describe("labels", frame, "toy")["text"]} == {"pristine"}
    assert phrases.distortion_in("A fine image of a cat.") is None

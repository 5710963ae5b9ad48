"""A teacher's samples as a data set: means, stds, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rali_zoo.cli.main import main
from rali_zoo.data.descriptions import write_descriptions
from rali_zoo.data.ratings import teacher_ratings
from rali_zoo.data.tables import load_table
from rali_zoo.errors import ConfigError

SAMPLES = {"a.png": [2.0, 3.0, 4.0], "b.png": [4.5, 4.5], "c.png": [1.0], "d.png": [float("nan"), 2.0]}


@pytest.fixture
def described(tmp_path):
    for name in SAMPLES:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    lines = [
        f"{name},3,{split}" for name, split in zip(SAMPLES, ("train", "val", "test", "train"), strict=True)
    ]
    (tmp_path / "scores.csv").write_text("image,mos,split\n" + "\n".join(lines) + "\n")
    ref = f"csv:{tmp_path / 'scores.csv'}?mos_range=1,5"
    rows = [
        {"dataset": ref, "image_id": name, "text": "Blur.", "score": score, "teacher": "t", "revision": "1",
         "seed": seed}
        for name, scores in SAMPLES.items() for seed, score in enumerate(scores)
    ]  # fmt: skip
    write_descriptions(pd.DataFrame(rows), tmp_path / "texts.parquet")
    return ref, tmp_path


def test_mean_and_std_become_a_data_set_that_is_read(described, capsys):
    ref, folder = described
    target = folder / "teacher.csv"
    words = [str(folder / "texts.parquet"), "--data", ref, "--output", str(target)]
    assert main(["teacher-scores", *words]) == 0
    assert "2 images (2 left out)" in capsys.readouterr().out
    table = load_table(f"csv:{target}?mos_range=1,5").frame
    assert table["mos"].tolist() == [3.0, 4.5] and table["std"].tolist() == [1.0, 0.0]
    assert table["split"].tolist() == ["train", "val"] and table["samples"].astype(int).tolist() == [3, 2]
    assert table["path"].tolist() == [str(folder / "a.png"), str(folder / "b.png")]
    assert np.isfinite(table["std"]).all()


def test_two_teachers_too_few_samples_and_other_data_are_refused(described):
    ref, folder = described
    table, texts = load_table(ref), str(folder / "texts.parquet")
    with pytest.raises(ConfigError, match="has 9 samples"):
        teacher_ratings([texts], table, least=9)
    with pytest.raises(ConfigError, match="takes two samples"):
        teacher_ratings([texts], table, least=1)
    other = pd.read_parquet(texts).assign(teacher="u")
    write_descriptions(other, folder / "other.parquet")
    with pytest.raises(ConfigError, match="2 teachers or revisions .t, u."):
        teacher_ratings([texts, str(folder / "other.parquet")], table)
    write_descriptions(other.assign(dataset="koniq10k"), folder / "elsewhere.parquet")
    with pytest.raises(ConfigError, match="no image of"):
        teacher_ratings([str(folder / "elsewhere.parquet")], table)


def test_prompts_of_generated_images_reach_the_table(tmp_path):
    (tmp_path / "agiqa3k" / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "agiqa3k" / "images" / "x.jpg")
    (tmp_path / "agiqa3k" / "data.csv").write_text(
        "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align\n"
        "x.jpg,a cat,,,,2.5,0.5,4,0.25\n"
    )
    row = load_table("agiqa3k", tmp_path).frame.iloc[0]
    assert (row["prompt"], row["content"], row["mos_align"], row["std_align"]) == (
        "a cat",
        "a cat",
        4.0,
        0.25,
    )
    assert (row["mos"], row["std"]) == (3.0, pytest.approx(0.4))

"""An image smaller than all that a model was trained on is scored, and its row says so."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from rali_zoo import load_model
from rali_zoo.cli.main import main
from rali_zoo.models.files import load_checkpoint


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo) -> str:
    """A model trained on images of 64x48 pixels and more, with a folder of larger and smaller ones beside it."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for i in range(12):
        Image.fromarray(photo(48 + 8 * (i % 2), 64, seed=i)).save(f"{i}.png")
        rows.append({"image": f"{i}.png", "mos": 1 + i / 3, "split": "train"})
    pd.DataFrame(rows).to_csv("ratings.csv", index=False)
    (tmp_path / "shots").mkdir()
    for name, side in (("large", 64), ("small", 32)):
        Image.fromarray(photo(side, side, seed=99)).save(f"shots/{name}.jpg", quality=95)
    words = ["--model.class_path=Regression", "--model.init_args.backbone=rali:tiny?size=48&resize=squash"]
    words += ["--model.init_args.encoder_lr=0", "--data.train=csv:ratings.csv?mos_range=1,5&val_fraction=0"]
    words += ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--test_after_fit=false"]
    assert main(["fit", *words, "--trainer.default_root_dir=run"]) == 0
    return "ckpt:run/checkpoints/last.ckpt"


@pytest.mark.parametrize("decode", ["exact", "fast"])
def test_rows_say_so(trained, decode, capsys):
    assert load_checkpoint("run/checkpoints/last.ckpt").smallest == 48
    score = ["score", "shots", "--model", trained, "--decode", decode]
    for suffix, read in ((".parquet", pd.read_parquet), (".csv", pd.read_csv)):
        assert main([*score, "--output", f"scores{suffix}"]) == 0
        table = read(f"scores{suffix}").set_index("path")["warning"]
        assert pd.isna(table["shots/large.jpg"])
        assert table["shots/small.jpg"] == (
            "32x32 pixels: smaller than the images that the model was trained on (48 pixels and more)"
        )
    assert main([*score, "--output", "scores.jsonl"]) == 0
    rows = [json.loads(line) for line in Path("scores.jsonl").read_text().splitlines()]
    assert [("warning" in row, row["score"] is None) for row in rows] == [(False, False), (True, False)]
    capsys.readouterr()
    assert main(score) == 0
    assert capsys.readouterr().out.count("smaller than the") == 1


def test_scorer_files_carry_it(trained, tmp_path):
    assert main(["convert", "--model", trained, "--output", "small.safetensors"]) == 0
    scorer = load_model("local-dir:small.safetensors")
    large, small = scorer.score(["shots/large.jpg", "shots/small.jpg"])
    assert large.warning == "" and "32x32" in small.warning and small.score is not None
    assert not load_model("rali-tiny-synthetic").score("shots/small.jpg")[0].warning  # that does not know


def test_the_column_is_there_only_where_a_model_knows(trained):
    assert main(["score", "shots", "--model", "rali-tiny-synthetic", "--output", "s.parquet"]) == 0
    assert "warning" not in pd.read_parquet("s.parquet").columns

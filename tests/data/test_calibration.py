"""One scale for several data sets: the line is found, moves training rows only, and needs a model that sees."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from rali_zoo.cli.main import main
from rali_zoo.data.calibration import Scale, calibrated, fit_scale, read_calibration, write_calibration
from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.errors import ConfigError


def test_the_line_is_found_though_the_model_is_blurred():
    rng = np.random.default_rng(0)
    pred = rng.normal(3, 0.6, 20_000)  # what can be seen
    truth = pred + rng.normal(0, 0.5, pred.size)  # and what cannot
    theirs = (truth - 0.7) / 1.5  # a data set whose raters used two thirds of the scale
    found = fit_scale(pred, theirs)
    assert found.scale == pytest.approx(1.5, abs=0.03) and found.offset == pytest.approx(0.7, abs=0.06)
    assert found.plcc == pytest.approx(0.6 / math.hypot(0.6, 0.5), abs=0.01) and found.n == 20_000


@pytest.mark.parametrize("pred", [[1, 2, 3, 4], [3, 3, 3, 3], [1, 4, 1, 4]])
def test_a_model_that_sees_nothing_is_refused(pred):
    with pytest.raises(ConfigError, match="too little"):
        fit_scale(pred, [4, 3, 2, 1])


def test_rows_keep_inside_the_scale():
    frame = pd.DataFrame({"mos": [1.0, 3.0, 5.0], "std": [0.5, 0.5, math.nan], "id": list("abc")})
    found = calibrated(frame, Scale(2.0, -2.0))
    assert found["mos"].tolist() == [1.0, 4.0, 5.0] and found["std"].tolist()[:2] == [1.0, 1.0]
    assert frame["mos"].tolist() == [1.0, 3.0, 5.0], "the table itself stays"


def test_files(tmp_path):
    path = tmp_path / "c.json"
    scales = {"a": Scale(), "b": Scale(1.2, -0.3, 0.8, 50)}
    write_calibration(scales, "ckpt:x", path)
    found = read_calibration(path, ["a", "b"])
    assert found["b"] == scales["b"] and found["a"].scale == 1 and math.isnan(found["a"].plcc)
    with pytest.raises(ConfigError, match=r"\['c'\] are asked for"):
        read_calibration(path, ["a", "c"])
    path.write_text("{}")
    with pytest.raises(ConfigError, match="rali-zoo calibrate"):
        read_calibration(path, ["a"])


def test_only_training_rows_are_moved(tmp_path):
    from types import SimpleNamespace

    from rali_zoo.types import Preprocess

    ref = "synthetic:phone?n=60&size=64"
    write_calibration({ref: Scale(0.5, 1.0)}, "made up", tmp_path / "c.json")
    plain, moved = (
        IQADataModule(train=ref, calibration=c, cache_features=False, descriptions="labels?mos_words=true")
        for c in (None, str(tmp_path / "c.json"))
    )
    for data in (plain, moved):
        data.trainer = SimpleNamespace(
            lightning_module=SimpleNamespace(preprocess=Preprocess((64, 64))), world_size=1, global_rank=0
        )
        data.setup("fit")
    before, after = (d._sets["train"][0].mos for d in (plain, moved))
    np.testing.assert_allclose(after, 0.5 * before + 1.0, rtol=1e-5)
    assert plain._sets["val"][0].mos.tolist() == moved._sets["val"][0].mos.tolist()
    assert plain.texts != moved.texts, "ratings in words follow the scale"


def test_the_command(tmp_path, capsys, monkeypatch):
    """The shipped model as the reference model: its own data set keeps its scale, the other gets a line."""
    from rali_zoo.zoo import load_model

    (own, *_) = load_model("rali-tiny-synthetic").training_sets
    other, output = "synthetic:phone?n=60&size=160", tmp_path / "c.json"
    words = ["calibrate", own, other, "--model=rali-tiny-synthetic", f"--output={output}", "--limit=40"]
    assert main(words) == 0
    rows = json.loads(output.read_text())["datasets"]
    assert rows[own] == {"scale": 1.0, "offset": 0.0, "plcc": None, "n": 0}
    assert rows[other]["n"] == 40 and 0.2 < rows[other]["plcc"] <= 1 and rows[other]["scale"] > 0
    assert "the model was trained on it" in capsys.readouterr().out
    # the predictions are kept: a second time nothing is scored
    monkeypatch.setattr("rali_zoo.bench.predict.score_files", None)
    assert main(words) == 0 and json.loads(output.read_text())["datasets"] == rows


def test_what_the_model_says_little_of_is_refused_or_keeps_its_scale(tmp_path, capsys):
    other, output = "synthetic:phone?n=60&size=160", tmp_path / "c.json"
    words = ["calibrate", other, "--model=rali-tiny-synthetic", f"--output={output}", "--limit=40"]
    assert main([*words, "--least_plcc=0.999"]) == 1 and not output.exists()
    assert "--unrelated=keep" in capsys.readouterr().err
    assert main([*words, "--least_plcc=0.999", "--unrelated=keep"]) == 0
    assert json.loads(output.read_text())["datasets"][other] == {
        "scale": 1,
        "offset": 0,
        "plcc": None,
        "n": 0,
    }
    assert "keeps its scale: PLCC below 0.999" in capsys.readouterr().out
    assert main([*words, "--least_plcc=0"]) == 1

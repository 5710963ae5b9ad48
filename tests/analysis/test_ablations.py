"""Ablations: one fit for every config and seed, and a table of paired differences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rali_zoo.analysis import ablations
from rali_zoo.cli.analyze import _runs
from rali_zoo.cli.main import main
from rali_zoo.data.tables import load_table
from rali_zoo.errors import ConfigError, UnknownNameError
from rali_zoo.metrics import bootstrap_ci, paired_bootstrap, srcc

CONFIGS = Path(__file__).parents[2] / "configs" / "ablations"
REF = "synthetic:lab?n=60"


def made_up(seeds: int = 1) -> ablations.Tested:
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, 80)
    scores = mos + rng.normal(size=(3, seeds, 80)) * np.array([0.3, 0.3, 2.0])[:, None, None]
    scores[1] = scores[0]
    return ablations.Tested(scores, mos, [f"{i // 2}" for i in range(80)], True)


def test_one_seed_is_the_paired_bootstrap():
    part = made_up()
    found = ablations.table(["full", "same", "worse"], [0], {"set": part}, 300, 5)
    row = found["tests"]["set"]["variants"]
    alone = bootstrap_ci(part.scores[0, 0], part.mos, srcc, 300, 5, groups=part.content)
    assert row["full"]["srcc"] == pytest.approx({"value": alone.value, "low": alone.low, "high": alone.high})
    pair = paired_bootstrap(part.scores[2, 0], part.scores[0, 0], part.mos, srcc, 300, 5, groups=part.content)
    minus = row["worse"]["minus"]
    assert minus == pytest.approx(
        {"value": pair.difference, "low": pair.low, "high": pair.high, "p": pair.p_value}
    )
    assert minus["high"] < 0 and row["same"]["minus"]["p"] == 1 and "minus" not in row["full"]
    assert found["mean"]["worse"]["minus"]["p_holm"] == pytest.approx(2 * minus["p"])


def test_seeds_widen_the_interval():
    """Where seeds differ, the interval of their mean holds what training anew could give."""
    part = made_up(3)
    shaky = part.scores.copy()
    shaky[2, 0] = part.mos
    wide = ablations.Tested(shaky, part.mos, part.content, True)
    widths = []
    for tested in (part, wide):
        row = ablations.table(["full", "same", "worse"], [0, 1, 2], {"set": tested}, 300, 0)
        ends = row["mean"]["worse"]["srcc"]
        widths.append(ends["high"] - ends["low"])
        assert len(row["mean"]["worse"]["seeds"]) == 3
    assert widths[1] > 1.3 * widths[0]


def test_failed_images_are_left_out_for_all():
    part = made_up()
    part.scores[2, 0, :10] = np.nan
    found = ablations.table(["full", "same", "worse"], [0], {"set": part}, 50, 0)["tests"]["set"]
    assert found["n"] == 70 and found["variants"]["worse"]["failed"] == 10
    expected = srcc(part.scores[0, 0, 10:], part.mos[10:])
    assert found["variants"]["full"]["srcc"]["value"] == pytest.approx(expected)


def test_what_is_run(tmp_path):
    found = ablations.variants(CONFIGS, "full")
    assert list(found)[0] == "full" and len(found) == 6
    plan = _runs(found, [3, 4], ["--trainer.max_epochs=1"], tmp_path)
    assert len(plan.stages) == 12 and plan.stages[0].name == "full-3"
    words = plan.stages[-1].run
    assert {"--seed_everything=4", "--data.seed=4", "--trainer.max_epochs=1"} <= set(words)
    assert plan.stages[0].last_checkpoint == tmp_path / "runs" / "full-3" / "checkpoints" / "last.ckpt"
    with pytest.raises(UnknownNameError, match="full"):
        ablations.variants(CONFIGS, "ful")
    with pytest.raises(ConfigError, match="two or more"):
        ablations.variants(tmp_path, "full")
    with pytest.raises(ConfigError, match="--key=value"):
        _runs(found, [0], ["trainer.max_epochs=1"], tmp_path)
    with pytest.raises(ConfigError, match="each once"):
        _runs(found, [0, 0], [], tmp_path)


def test_the_command(tmp_path, monkeypatch, capsys):
    """From the runs' files to the table; the runs themselves are made up."""
    rows = load_table(REF).split("test")

    def run(runner) -> None:
        for stage in runner.recipe.stages:
            folder = Path(stage.outputs[0]).parent
            folder.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(len(folder.name)).normal(size=len(rows))
            spread = 3.0 if folder.name.startswith("worse") else 0.1
            table = pd.DataFrame({"id": rows["id"], "score": rows["mos"] + spread * noise, "error": ""})
            table.sample(frac=1, random_state=0).to_parquet(folder / "p.parquet")
            content = {"datasets": {REF: {"predictions": "p.parquet"}}}
            (folder / "results.json").write_text(json.dumps(content))

    monkeypatch.setattr("rali_zoo.pipeline.Runner.run", run)
    for name in ("full", "worse"):
        (tmp_path / f"{name}.yaml").write_text("model: {}\n")
    words = ["analyze", "ablations", f"--output={tmp_path / 'out'}", f"--configs={tmp_path}"]
    assert main([*words, "--seeds=[0,1]", "--resamples=50", "--format=png"]) == 0
    content = json.loads((tmp_path / "out" / "ablations.json").read_text())
    assert content["results"]["mean"]["worse"]["minus"]["value"] < -0.1
    assert content["results"]["seeds"] == [0, 1] and content["results"]["tests"][REF]["synthetic"]
    assert (tmp_path / "out" / "ablations.png").read_bytes().startswith(b"\x89PNG")
    assert "minus full" in capsys.readouterr().out

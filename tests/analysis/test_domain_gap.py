"""``rali-zoo domain-gap``: spaces of models and texts, before and after, and scores on one scale."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from rali_zoo.analysis import domains
from rali_zoo.cli.main import main
from rali_zoo.data.descriptions import COLUMNS
from rali_zoo.errors import ConfigError
from rali_zoo.models.files import save_scorer
from rali_zoo.rl.objective import Objective
from rali_zoo.trainers import RALI, Reasoner, Regression
from rali_zoo.types import Batch

REFS = ["synthetic:lab?n=60&size=64", "synthetic:phone?n=60&size=64"]


@pytest.fixture(scope="module")
def reasoner() -> Reasoner:
    torch.manual_seed(0)
    tiny = "rali:vlm-tiny?image_size=32&width=32&layers=1&grid=2"
    return Reasoner(tiny, grpo=Objective(max_completion_length=6)).eval()


@pytest.fixture(scope="module")
def frames() -> dict[str, pd.DataFrame]:
    return domains.sample(REFS, "test", 10, "data", 0)


def table(words: dict[str, str], frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    rows = [
        (ref, i, f"{words[ref]} number {k % 3}.{k}", 3.0, "t", "r", 0)
        for ref, frame in frames.items()
        for k, i in enumerate(frame["id"].astype(str))
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_the_sample_is_equal_and_repeatable(frames):
    assert [len(f) for f in frames.values()] == [10, 10]
    again = domains.sample(REFS, "test", 10, "data", 0)
    assert all(again[ref]["id"].tolist() == frames[ref]["id"].tolist() for ref in REFS)
    with pytest.raises(ConfigError, match="two or more"):
        domains.sample(REFS[:1], "test", 10, "data", 0)


def test_what_a_reasoner_is_shown(reasoner):
    """The vectors that replace the image's tokens are those of transformers' own projector."""
    image = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = domains.shown(reasoner, image)
        inputs = reasoner.vlm.ask(image, [reasoner.tasks.score] * 3).inputs
        output = reasoner.vlm.model.get_image_features(inputs["pixel_values"])
    per_image = getattr(output, "pooler_output", output)
    expected = torch.stack([tokens.mean(0) for tokens in per_image])
    torch.testing.assert_close(found, expected)


def test_a_scorer_gives_its_embedding(frames):
    torch.manual_seed(0)
    rali = RALI("rali:tiny", "rali:hash", prototypes=8, buckets=4, pca_dim=8).eval()
    few = {ref: frame.head(3) for ref, frame in frames.items()}
    space = domains.image_space(rali, few, 2)
    assert {ref: x.shape for ref, x in space.items()} == {ref: (3, rali.teacher.dim) for ref in REFS}
    module = Regression("rali:tiny").eval()
    space = domains.image_space(module, few, 2)
    (batch,) = domains._batches(module, few[REFS[0]], 3)
    assert isinstance(batch, dict) and set(Batch(**batch)) == {"image"}
    with torch.inference_mode():
        np.testing.assert_allclose(space[REFS[0]], module.encode(batch["image"]), atol=1e-5)


def test_texts_without_their_numbers(frames):
    same = table(dict.fromkeys(REFS, "sharp and clean"), frames)
    space, of = domains.text_space(same, frames, "rali:hash")
    assert of == "the sample"
    assert all(np.ptp(x, axis=0).max() == 0 for x in space.values()), "only the numbers differ"
    apart = table(dict(zip(REFS, ("noise", "blur"), strict=True)), frames)
    space, _ = domains.text_space(apart, frames, "rali:hash")
    assert not np.allclose(space[REFS[0]], space[REFS[1]])
    apart["image_id"] = "x" + apart["image_id"]
    space, of = domains.text_space(apart, frames, "rali:hash")
    assert of == "the described images" and [len(x) for x in space.values()] == [10, 10]
    with pytest.raises(ConfigError, match="no texts of"):
        domains.text_space(apart[apart["dataset"] == REFS[0]], frames, "rali:hash")


def test_gaps_know_near_from_far():
    rng = np.random.default_rng(0)
    near = {"a": rng.normal(size=(80, 6)), "b": rng.normal(size=(80, 6)), "c": rng.normal(size=(80, 6)) + 4}
    found = domains.gaps(near, permutations=99)
    row = {(p["a"], p["b"]): p for p in found["pairs"]}
    assert row["a", "c"]["p"] == pytest.approx(0.01) and row["a", "c"]["mmd2"] > 50 * row["a", "b"]["mmd2"]
    assert row["a", "c"]["classifier"] > 0.98 > 0.7 > row["a", "b"]["classifier"]
    assert found["chance"] == pytest.approx(1 / 3) and 0.5 < found["classifier"] < 0.9
    with pytest.raises(ConfigError, match="fewer than 5 folds"):
        domains.gaps({k: x[:3] for k, x in near.items()})


def test_the_command(tmp_path, reasoner, frames, capsys):
    model = f"local-dir:{save_scorer(reasoner, tmp_path / 'model.safetensors')}"
    rng = np.random.default_rng(0)
    listed = {}
    for k, (ref, frame) in enumerate(frames.items()):
        score = np.where(np.arange(len(frame)) == 0, np.nan, frame["mos"] - k)
        rows = pd.DataFrame({"id": frame["id"], "mos": frame["mos"], "score": score, "error": ""})
        rows.to_parquet(tmp_path / f"{k}.parquet")
        listed[ref] = {"predictions": f"{k}.parquet"}
    (tmp_path / "results.json").write_text(json.dumps({"datasets": listed}))
    texts = table(dict.fromkeys(REFS, "a"), frames)
    texts["text"] = [" ".join(rng.choice(["noise", "blur", "clean", "dark"], 3)) for _ in texts.index]
    texts.to_parquet(tmp_path / "t.parquet")
    words = [
        *("domain-gap", f"--data=[{','.join(REFS)}]", "--limit=10", "--permutations=20"),
        *(f"--models.before={model}", f"--models.after={model}", f"--texts.all={tmp_path / 't.parquet'}"),
        *(f"--results.run={tmp_path / 'results.json'}", "--text_encoder=rali:hash"),
    ]
    assert main([*words, f"--output={tmp_path / 'gap.json'}"]) == 0
    content = json.loads((tmp_path / "gap.json").read_text())
    kinds = [(s["space"], s["name"]) for s in content["spaces"]]
    assert kinds == [("vision", "before"), ("vision", "after"), ("text", "all")]
    assert content["change"][0]["cka"] == pytest.approx(dict.fromkeys(REFS, 1.0))
    run = content["scores"]["run"]
    assert run["each"] == pytest.approx(dict.fromkeys(REFS, 1.0)) and run["pooled"] < 1
    assert run["failed"] == dict.fromkeys(REFS, 1)
    assert "pooled" in capsys.readouterr().out
    assert main(["domain-gap", f"--data=[{','.join(REFS)}]"]) == 1
    assert main([*words[:2], "--results.run=none.json"]) == 1

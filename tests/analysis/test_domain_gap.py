"""``rali-zoo analyze domains``: spaces of models and texts, before and after, and scores on one scale."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from rali_zoo.analysis import domains
from rali_zoo.analysis.common import Settings, choose
from rali_zoo.cli.main import main
from rali_zoo.data.descriptions import COLUMNS
from rali_zoo.data.images import load_image
from rali_zoo.errors import ConfigError, ImageDecodeError
from rali_zoo.metrics.domains import mmd, separability
from rali_zoo.models.files import save_scorer
from rali_zoo.models.regression import RegressionNetwork
from rali_zoo.models.vlm import VLMNetwork
from rali_zoo.text import create_text_encoder

REFS = ["synthetic:lab?n=60&size=64", "synthetic:phone?n=60&size=64"]


SETTINGS = Settings(resamples=99)
HASH = create_text_encoder("rali:hash")


@pytest.fixture(scope="module")
def tiny() -> VLMNetwork:
    torch.manual_seed(0)
    return VLMNetwork("rali:vlm-tiny?image_size=32&width=32&layers=1&grid=2").eval()


@pytest.fixture(scope="module")
def frames() -> dict[str, pd.DataFrame]:
    return choose(REFS, Settings(limit=10))


def table(words: dict[str, str], frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    rows = [
        (ref, i, f"{words[ref]} number {k % 3}.{k}", 3.0, "t", "r", 0)
        for ref, frame in frames.items()
        for k, i in enumerate(frame["id"].astype(str))
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_what_a_reasoner_is_shown(tiny):
    """The vectors that replace the image's tokens are those of transformers' own projector."""
    image = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = domains.shown(tiny, image)
        inputs = tiny.vlm.ask(image, [tiny.asked] * 3).inputs
        output = tiny.vlm.model.get_image_features(inputs["pixel_values"])
    per_image = getattr(output, "pooler_output", output)
    expected = torch.stack([tokens.mean(0) for tokens in per_image])
    torch.testing.assert_close(found, expected)


def test_a_scorer_gives_its_embedding(frames):
    torch.manual_seed(0)
    few = {ref: frame.head(3) for ref, frame in frames.items()}
    network = RegressionNetwork("rali:tiny").eval()
    space = domains.image_space(network, few, 2)
    image = torch.stack([network.view(load_image(p), network.preprocess) for p in few[REFS[0]]["path"]])
    with torch.inference_mode():
        np.testing.assert_allclose(space[REFS[0]], network.encode(image), atol=1e-5)
    bad = {REFS[0]: few[REFS[0]].assign(path="none.png")}
    with pytest.raises(ImageDecodeError, match="none.png"):
        domains.image_space(network, bad, 2)


def test_texts_without_their_numbers(frames):
    same = table(dict.fromkeys(REFS, "sharp and clean"), frames)
    space, _, of = domains.text_space(same, frames, HASH)
    assert of == "the sample"
    assert all(np.ptp(x, axis=0).max() == 0 for x in space.values()), "only the numbers differ"
    apart = table(dict(zip(REFS, ("noise", "blur"), strict=True)), frames)
    space, _, _ = domains.text_space(apart, frames, HASH)
    assert not np.allclose(space[REFS[0]], space[REFS[1]])
    apart["image_id"] = "x" + apart["image_id"]
    space, _, of = domains.text_space(apart, frames, HASH)
    assert of == "the described images" and [len(x) for x in space.values()] == [10, 10]
    with pytest.raises(ConfigError, match="no texts of"):
        domains.text_space(apart[apart["dataset"] == REFS[0]], frames, HASH)


def test_near_and_far():
    rng = np.random.default_rng(0)
    space = {"a": rng.normal(size=(60, 4)), "b": rng.normal(size=(60, 4)), "c": rng.normal(size=(60, 4)) + 2}
    contents = {ref: [f"{ref}{i}" for i in range(60)] for ref in space}
    found = domains.gaps(space, contents, SETTINGS)
    pairs = {(p["a"], p["b"]): p for p in found["pairs"]}
    near, far = pairs["a", "b"], pairs["a", "c"]
    assert abs(near["mmd2"]["value"]) < far["mmd2"]["value"] / 50 and near["mmd2"]["p"] > 0.05
    assert far["mmd2"]["low"] > 0 and far["mmd2"]["p"] == pytest.approx(0.01)
    assert near["classifier"]["low"] < 0.5 and far["classifier"]["low"] > 0.9
    alone = separability([space["a"], space["c"]])
    assert far["classifier"]["value"] == pytest.approx(alone.accuracy, abs=0.03)
    assert far["mmd2"]["value"] == pytest.approx(mmd(space["a"], space["c"], permutations=1).squared)
    assert all(0 <= p["cka"]["low"] <= p["cka"]["value"] <= p["cka"]["high"] <= 1 for p in pairs.values())
    assert found["classifier"]["chance"] == pytest.approx(1 / 3)
    with pytest.raises(ConfigError, match="no gap can be measured"):
        domains.gaps({k: x[:3] for k, x in space.items()}, contents, SETTINGS)


def test_a_content_known_by_heart_is_no_gap():
    """Copies of a few images are told apart by heart where copies may stand on both sides of a fold."""
    rng = np.random.default_rng(0)
    space = {ref: np.repeat(rng.normal(size=(8, 30)), 6, axis=0) for ref in ("a", "b")}
    together = {ref: np.repeat([f"{ref}{i}" for i in range(8)], 6).tolist() for ref in space}
    apart = {ref: [f"{ref}{i}" for i in range(48)] for ref in space}
    found = [domains.classifier(list(space.values()), list(c.values()), SETTINGS) for c in (together, apart)]
    assert found[0]["value"] < 0.75 and found[1]["value"] == 1


def test_maps():
    rng = np.random.default_rng(0)
    space = {"a": rng.normal(size=(20, 5)), "b": rng.normal(size=(15, 5)) + 8}
    maps = domains.flattened({"space": space}, 0)["space"]
    for flat in maps.values():
        assert {ref: x.shape for ref, x in flat.items()} == {"a": (20, 2), "b": (15, 2)}
        middle = np.linalg.norm(flat["a"].mean(0) - flat["b"].mean(0))
        assert middle > flat["a"].std() and np.isfinite(flat["a"]).all()


def test_one_data_set_has_no_gap(frames):
    with pytest.raises(ConfigError, match="two or more"):
        domains.equally_many({REFS[0]: frames[REFS[0]]})


def test_texts_of_the_reasoner_itself(reasoner, settings):
    """Without tables, a reasoner writes; the same images stand in every space."""
    frames = choose(REFS, Settings(split="all", limit=12))
    found = domains.spaces({"r": reasoner}, {}, frames, HASH, settings)
    assert [s.title for s in found] == ["vision, r", "text, r"]
    assert all(len(x) == 12 for s in found for x in s.space.values())
    assert domains.changes(found) == []


def test_the_command(tmp_path, tiny, frames, capsys):
    model = f"local-dir:{save_scorer(tiny, tmp_path / 'model.safetensors')}"
    rng = np.random.default_rng(0)
    listed = {}
    better = max(frames, key=lambda ref: frames[ref]["mos"].mean())  # is scored below the other
    for k, (ref, frame) in enumerate(frames.items()):
        score = np.where(np.arange(len(frame)) == 0, np.nan, frame["mos"] - 9 * (ref == better))
        rows = pd.DataFrame({"id": frame["id"], "mos": frame["mos"], "score": score, "error": ""})
        rows.to_parquet(tmp_path / f"{k}.parquet")
        listed[ref] = {"predictions": f"{k}.parquet"}
    (tmp_path / "results.json").write_text(json.dumps({"datasets": listed}))
    texts = table(dict.fromkeys(REFS, "a"), frames)
    texts["text"] = [" ".join(rng.choice(["noise", "blur", "clean", "dark"], 3)) for _ in texts.index]
    texts.to_parquet(tmp_path / "t.parquet")
    words = [
        *("analyze", "domains", f"--data=[{','.join(REFS)}]", f"--output={tmp_path / 'gap'}", "--limit=10"),
        *("--resamples=20", "--text_encoder=rali:hash", f"--texts.all={tmp_path / 't.parquet'}"),
        *(
            f"--models.before={model}",
            f"--models.after={model}",
            f"--results.run={tmp_path / 'results.json'}",
        ),
    ]
    assert main(words) == 0
    content = json.loads((tmp_path / "gap" / "domains.json").read_text())["results"]
    assert list(content["spaces"]) == ["vision, before", "vision, after", "text, all"]
    assert content["change"][0]["cka"] == pytest.approx(dict.fromkeys(REFS, 1.0))
    run = content["scores"]["run"]
    assert run["each"] == pytest.approx(dict.fromkeys(REFS, 1.0)) and run["pooled"] < 1
    assert run["failed"] == dict.fromkeys(REFS, 1)
    assert "pooled" in capsys.readouterr().out and (tmp_path / "gap" / "domains.svg").is_file()
    assert main(words[:4]) == 1 and "nothing to measure" in capsys.readouterr().err
    assert main([*words[:4], "--results.run=none.json"]) == 1
    assert main(["domain-gap"]) == 2 and "analyze domains" in capsys.readouterr().err

"""Answers to handed reasonings, and the analyses made of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import REFS

from rali_zoo.analysis import interventions, texts
from rali_zoo.analysis.common import Settings, batches, choose, decodable, written
from rali_zoo.errors import ConfigError, UnknownNameError
from rali_zoo.zoo import load_reasoner


@pytest.fixture(scope="module")
def said(reasoner, frames, settings):
    return decodable(written(reasoner, REFS[0], frames[REFS[0]], settings), REFS[0])


def test_its_own_reasoning_leads_to_its_own_answer(reasoner, said, settings):
    """Handing the model what it wrote changes nothing; another text or a grey image may."""
    paths, reasoning = said["path"].tolist(), interventions.thoughts(said["text"])
    again = interventions.with_image(reasoner, paths, reasoning, settings)
    assert said["score"].notna().all()
    np.testing.assert_array_equal(again, said["score"])
    shuffled = interventions.with_image(reasoner, paths, reasoning[::-1], settings)
    assert np.abs(shuffled - said["score"][::-1]).mean() < np.abs(shuffled - said["score"]).mean()
    weighed = Settings(scoring="expectation", batch_size=5)
    soft = interventions.own(reasoner, paths, said["text"], said["score"], weighed)
    assert 0 < np.abs(soft - again).mean() < 0.3 and len(set(soft)) > len(set(again))


def test_grey_images_are_grey(reasoner, said, monkeypatch, settings):
    seen = []
    ask = type(reasoner.vlm).ask

    def record(self, image, asked):
        seen.append(image)
        return ask(self, image, asked)

    monkeypatch.setattr(type(reasoner.vlm), "ask", record)
    interventions.with_image(reasoner, said["path"].tolist()[:3], ["a"] * 3, settings, "grey")
    assert seen[0].shape[0] == 3 and bool((seen[0] == 0.5).all())


def test_texts_are_kept(reasoner, frames, settings, monkeypatch):
    first = written(reasoner, REFS[0], frames[REFS[0]], settings)
    monkeypatch.setattr(reasoner, "write", lambda *a: pytest.fail("written again"))
    pd.testing.assert_frame_equal(written(reasoner, REFS[0], frames[REFS[0]], settings), first)


def test_text_vs_image(reasoner, frames, settings):
    row = texts.text_vs_image(reasoner, {REFS[0]: frames[REFS[0]]}, settings)[REFS[0]]
    assert row["undecodable"] == 0
    assert all(s["n"] + s["failed"] == 24 for s in row["scores"].values())
    own, alone = (row["scores"][way]["srcc"]["value"] for way in (texts.OWN, texts.NO_IMAGE))
    assert own > 0.5 and alone > 0.5
    gap = row["differences"][f"{texts.NO_IMAGE} - {texts.OWN}"]["srcc"]
    assert gap["value"] == pytest.approx(alone - own) and gap["low"] <= gap["high"]
    # what the shipped model writes decides its answer, not what it is shown then
    assert row["conflict"]["text"]["value"] > row["conflict"]["image"]["value"] + 0.3


def test_no_reasoning(reasoner, frames, settings):
    found = texts.no_reasoning(reasoner, {REFS[0]: frames[REFS[0]]}, settings)[REFS[0]]
    assert found["distinct"][texts.OWN] > 3
    assert found["scores"][texts.EMPTY]["srcc"]["value"] != found["scores"][texts.OWN]["srcc"]["value"]


def test_swap(reasoner, frames, settings):
    """A reader that cannot write gives no score, and that is counted; linear probes are swapped between data sets."""
    mute = load_reasoner("rali:vlm-tiny?image_size=32&width=32&layers=1&grid=2", "score-short", None)
    few = {REFS[0]: frames[REFS[0]].head(12), REFS[1]: frames[REFS[1]].head(12)}
    both = {"a": reasoner, "b": load_reasoner("reasoner-tiny-synthetic", "score", None)}
    found = texts.swap(both, few, settings)
    row = found[REFS[0]]["a"]
    assert row["differences"]["read by b - read by a"]["srcc"]["value"] == 0
    for kind in ("text", "image"):
        assert f"{kind}, linear probe of {REFS[1]} - {kind}, linear probe of {REFS[0]}" in row["differences"]
    assert set(found[REFS[1]]) == {"a", "b"}
    alone = interventions.without_image(mute, ["<think>blur</think>"] * 2, settings)
    assert np.isnan(alone).all()


def test_transfer_reads_words():
    known = ["strong noise everywhere", "slight noise", "strong blur", "slight blur"] * 5
    mos = np.array([1.0, 4.0, 1.2, 4.2] * 5)
    told = interventions.text_transfer(known, mos, ["strong haze", "slight haze", "nothing known"])
    assert told[0] < told[2] < told[1]
    assert np.isnan(interventions.text_transfer(["", ""], mos[:2], ["a"])).all()


def test_linear_probes_of_vectors():
    """The regression of another data set is scikit-learn's; contents stay on one side of a fold."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(40, 3)) * [1, 10, 1], rng.normal(size=(5, 3))
    mos = x @ [1.0, 0.1, 0.0]
    np.testing.assert_allclose(interventions.transfer(x, mos, z), z @ [1.0, 0.1, 0.0], atol=0.1)
    noise = np.repeat(rng.normal(size=(10, 30)), 4, axis=0)  # known by heart, and nothing else to be known
    labels = np.repeat(rng.normal(size=10), 4)
    together = interventions.linear_probe(noise, labels, np.repeat(list("abcdefghij"), 4).tolist())
    apart = interventions.linear_probe(noise, labels, [str(i) for i in range(40)])
    assert np.corrcoef(apart, labels)[0, 1] > 0.95 > 0.5 > np.corrcoef(together, labels)[0, 1]


def test_the_last_sentence():
    text = "Strong noise of 3.5 levels. Dark! The image is poor."
    assert interventions.less_last_sentence(text) == "Strong noise of 3.5 levels. Dark!"
    assert interventions.less_last_sentence("Poor.") == ""


def test_everyone_gets_another_image():
    other = texts.another(50, 0)
    assert sorted(other) == list(range(50)) and all(i != j for i, j in enumerate(other))


def test_a_broken_image_is_a_row(reasoner, photo_folder, tmp_path, settings):
    paths = photo_folder(12)
    paths[3].write_bytes(b"no image")
    table = pd.DataFrame({"image": [p.name for p in paths], "mos": range(12), "split": "test"})
    table.to_csv(tmp_path / "photos" / "scores.csv", index=False)
    ref = f"csv:{tmp_path / 'photos' / 'scores.csv'}?mos_range=0,12"
    frame = choose([ref], settings)[ref]
    said = written(reasoner, ref, frame, settings)
    assert said["error"].str.len().gt(0).tolist() == [i == 3 for i in range(12)]
    assert texts.no_reasoning(reasoner, {ref: frame}, settings)[ref]["undecodable"] == 1
    bad: dict[int, str] = {}
    sizes = [len(places) for places, _ in batches(reasoner, [str(p) for p in paths], 5, bad)]
    assert sum(sizes) == 11 and list(bad) == [3]
    with pytest.raises(ConfigError, match="too few"):
        decodable(said.head(6), ref)


def test_what_cannot_be_analysed():
    with pytest.raises(UnknownNameError, match="reasoner-tiny-synthetic"):
        load_reasoner("reasoner-tiny", "score", None)
    with pytest.raises(ConfigError, match="gives scores only"):
        load_reasoner("rali-tiny-synthetic", "score", None)
    with pytest.raises(ConfigError, match="each once"):
        choose([REFS[0], REFS[0]], Settings())
    with pytest.raises(ConfigError, match="at least 10"):
        Settings(limit=3)

"""Level words as scores, against the probabilities that transformers alone gives for the same texts."""

from __future__ import annotations

from urllib.parse import quote

import pytest
import torch
from vlm_families import build, tokenizer

import rali_zoo
from rali_zoo.bench.suite import Entry, check_model
from rali_zoo.errors import ConfigError, RaliZooError, UriError
from rali_zoo.models.levels import ANSWER, QUESTION, WORDS, LevelRater

LEVELS = WORDS.split(",")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of a tiny model, by family and by whether its tokenizer has the words as single tokens."""
    made = {}

    def get(kind: str, whole_words: bool):
        if (kind, whole_words) not in made:
            place = tmp_path_factory.mktemp("levels") / kind
            build(kind, place)
            if whole_words:  # its embedding has rows to spare, as Qwen's
                words = tokenizer()
                assert words.add_tokens([f" {word}" for word in LEVELS]) == 5
                words.save_pretrained(place)
            made[kind, whole_words] = place
        return made[kind, whole_words]

    return get


@torch.no_grad()
def reference(place, image, words=LEVELS) -> torch.Tensor:
    """Probabilities by transformers' own classes: one conversation a word, written out in full."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(place)
    model = AutoModelForImageTextToText.from_pretrained(place).eval()
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
    start = processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False) + ANSWER
    before = processor(text=[start], images=[image], return_tensors="pt")["input_ids"].shape[1]
    logps = []
    for word in words:
        inputs = processor(text=[f"{start} {word}"], images=[image], return_tensors="pt")
        spoken = inputs["input_ids"][0, before:]
        found = model(**inputs).logits[0].log_softmax(dim=-1)[before - 1 : -1]
        logps.append(found[torch.arange(len(spoken)), spoken].sum())
    return torch.stack(logps).softmax(dim=0)


@pytest.mark.parametrize("whole_words", [True, False])
@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl"])
def test_scores_are_the_expected_level(folder, kind, whole_words, photo_folder):
    place = folder(kind, whole_words)
    scorer = rali_zoo.load_model(f"levels:hf:local-dir:{place}")
    assert all(len(tail) == 1 for tail in scorer.network.tails) == whole_words
    from rali_zoo.data.images import load_image

    paths = photo_folder(2)
    for path, found in zip(paths, scorer.score(paths), strict=True):
        p = reference(place, load_image(path))
        mean = sum(level * float(q) for level, q in zip((5, 4, 3, 2, 1), p, strict=True))
        spread = (
            sum((level - mean) ** 2 * float(q) for level, q in zip((5, 4, 3, 2, 1), p, strict=True)) ** 0.5
        )
        assert found.score == pytest.approx(mean, abs=1e-4) and found.std == pytest.approx(spread, abs=1e-4)
        assert 1 < found.score < 5 and p.max() - p.min() > 1e-3


def test_a_scorer_like_the_others(folder, photo_folder, tmp_path):
    """Bad images are rows, batches change nothing, and what is asked is part of the revision."""
    ref = f"levels:hf:local-dir:{folder('llava', True)}"
    scorer, paths = rali_zoo.load_model(ref), [*photo_folder(3), tmp_path / "gone.jpg"]
    found = scorer.score(paths, batch_size=4)
    assert [s.error is None for s in found] == [True, True, True, False]
    alone = [scorer.score(path)[0].score for path in paths[:3]]
    assert [s.score for s in found[:3]] == pytest.approx(alone, abs=1e-4)
    assert scorer.training_sets is None and scorer.name == ref
    turned = rali_zoo.load_model(f"{ref}?words={','.join(reversed(LEVELS))}")
    assert [6 - s.score for s in turned.score(paths[:3])] == pytest.approx(alone, abs=1e-4)
    asked = rali_zoo.load_model(f"{ref}?question={quote('Is it sharp?')}&words=yes,no")
    assert asked.network.asked.question == "Is it sharp?" and asked.network.words == ["yes", "no"]
    assert len({scorer.revision, turned.revision, asked.revision}) == 3
    assert 1 < asked.score(paths[0])[0].score < 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("good", "at least two"),
        ("good,good", "at least two"),
        ("good,", "at least two"),
        ("good,goodness", "begins"),
    ],
)
def test_words_that_are_no_scale(folder, words, said):
    with pytest.raises(ConfigError, match=said):
        LevelRater(f"hf:local-dir:{folder('llava', False)}", words=words)


def test_references(folder, tmp_path):
    with pytest.raises(UriError, match="Did you mean 'words'"):
        rali_zoo.load_model(f"levels:hf:local-dir:{folder('llava', True)}?wrods=a,b")
    with pytest.raises(ConfigError, match="bfloat16"):
        rali_zoo.load_model(f"levels:hf:local-dir:{folder('llava', True)}?precision=bf16")
    with pytest.raises(RaliZooError):
        rali_zoo.load_model(f"levels:hf:local-dir:{tmp_path / 'nothing'}")
    for ref in ("levels:hf:ORG/MODEL", "onnx:a.onnx?threads=2", "openvino:a.xml"):
        check_model(ref)  # a suite may name it
    assert (
        Entry(ref="levels:hf:ORG/MODEL").source == "levels" and Entry(ref="onnx:a.onnx").source == "rali_zoo"
    )


def test_code_of_strangers_is_not_run(folder, tmp_path):
    """Q-Align's own checkpoint brings its network as Python; such a folder is refused."""
    import json
    import shutil

    place = shutil.copytree(folder("llava", True), tmp_path / "remote")
    config = json.loads((place / "config.json").read_text())
    config |= {"model_type": "mplug_owl2", "auto_map": {
        "AutoConfig": "configuration_theirs.Theirs", "AutoModelForImageTextToText": "modeling_theirs.Theirs",
    }}  # fmt: skip
    (place / "config.json").write_text(json.dumps(config))
    touched = tmp_path / "run"
    for name in ("configuration_theirs", "modeling_theirs"):
        (place / f"{name}.py").write_text(f"open({str(touched)!r}, 'w')\n")
    with pytest.raises(RaliZooError):
        rali_zoo.load_model(f"levels:hf:local-dir:{place}")
    assert not touched.exists()

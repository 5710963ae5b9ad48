"""``rali-zoo describe``: by captioners and by a reasoner; killed and resumed; filtered."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from rali_zoo.cli import describe
from rali_zoo.cli.main import main
from rali_zoo.data.descriptions import COLUMNS, read_descriptions
from rali_zoo.models.files import save_scorer
from rali_zoo.models.regression import RegressionNetwork
from rali_zoo.models.vlm import VLMNetwork
from rali_zoo.vlm.parsing import parse

MODEL = "rali:vlm-tiny?image_size=32&width=32&layers=1&grid=2"
WRITES = [
    '<think>Sharp and clean.</think><answer>{"rating": 4.10}</answer>',
    "<think>Strong noise.</think><answer>very bad</answer>",
    '<think></think><answer>{"rating": 2.00}</answer>',
]


@pytest.fixture
def photos(photo_folder, tmp_path) -> str:
    """Reference of 7 images, one of which cannot be read."""
    files = photo_folder(7)
    files[3].write_bytes(b"no image")
    rows = {"image": [f.name for f in files], "mos": range(7), "split": ["val"] + ["train"] * 6}
    pd.DataFrame(rows).to_csv(files[0].parent / "scores.csv", index=False)
    return f"csv:{files[0].parent / 'scores.csv'}?mos_range=0,10"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    module = VLMNetwork(MODEL, max_completion_length=6)
    path = save_scorer(module, tmp_path_factory.mktemp("m") / "model.safetensors")
    return f"local-dir:{path}"


@pytest.fixture
def scripted(monkeypatch):
    """A reasoner that writes :data:`WRITES` in turn, and how often it was asked."""
    asked: list[int] = []

    def write(self, image, asked_for=None, n=1, temperature=0.0, seed=0):
        texts = [WRITES[(seed + i) % len(WRITES)] for i in range(len(image))]
        asked.append(len(texts))

        class Done:
            parsed = [parse(text) for text in texts]
            truncated = [False] * len(texts)

        return Done()

    monkeypatch.setattr(VLMNetwork, "write", write)
    return asked


def run(model: str, data: str, output: Path, *words: str) -> int:
    return main(["describe", f"--model={model}", f"--data={data}", f"--output={output}", *words])


def test_captioners_are_models_too(tmp_path, blurred_rows):
    target = tmp_path / "texts.parquet"
    assert run("attributes?mos_words=true", blurred_rows, target, "--seeds=2") == 0
    table = read_descriptions(target)
    assert len(table) == 8 and set(table["seed"]) == {0, 1} and set(table["teacher"]) == {"attributes+mos"}


@pytest.fixture
def blurred_rows(photo_folder) -> str:
    files = photo_folder(6)
    split = ["train"] * 4 + ["val", "test"]
    rows = {"image": [f.name for f in files], "mos": range(6), "split": split}
    pd.DataFrame(rows).to_csv(files[0].parent / "s.csv", index=False)
    return f"csv:{files[0].parent / 's.csv'}?mos_range=0,10"


def test_every_text_is_a_row_or_an_error(model, photos, scripted, tmp_path, capsys):
    target = tmp_path / "texts.parquet"
    assert run(model, photos, target, "--split=all", "--seeds=2", "--batch_size=4") == 0
    table, errors = read_descriptions(target), pd.read_csv(tmp_path / "texts.errors.csv")
    assert list(table.columns) == list(COLUMNS)
    keys = [
        *zip(table["image_id"], table["seed"], strict=True),
        *zip(errors["image_id"], errors["seed"], strict=True),
    ]
    assert sorted(keys) == sorted((f"photo{i:03d}.png", seed) for i in range(7) for seed in (0, 1))
    assert set(errors.loc[errors["image_id"] == "photo003.png", "seed"]) == {0, 1}
    assert "think-empty" in set(errors["error"])
    # a verdict that cannot be read does not spoil the description
    noisy = table[table["text"] == "Strong noise."]
    assert len(noisy) and noisy["score"].isna().all()
    assert set(table.loc[table["text"] != "Strong noise.", "score"]) == {4.1}
    assert set(table["teacher"]) == {model} and table["revision"].nunique() == 1
    assert not (tmp_path / "texts.parquet.parts").exists()
    assert f"{len(errors)} texts left out" in capsys.readouterr().err


def test_a_killed_run_goes_on_with_nothing_lost_or_doubled(model, photos, tmp_path, monkeypatch, capsys):
    """The real model, so that what is written after the kill is what would have been."""
    monkeypatch.setattr(describe, "PART", 3)
    monkeypatch.setattr(describe, "_read", lambda parsed, cut: (parsed.answer or "nothing", 3.0, ""))
    words = (model, photos)
    options = ("--split=all", "--seeds=2", "--batch_size=2")
    assert run(*words, tmp_path / "whole.parquet", *options) == 0
    write, calls = VLMNetwork.write, []

    def dies(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt  # a kill -9 leaves the same files: parts are renamed into place
        return write(self, *args, **kwargs)

    monkeypatch.setattr(VLMNetwork, "write", dies)
    assert run(*words, tmp_path / "part.parquet", *options) == 130
    assert not (tmp_path / "part.parquet").exists()
    parts = sorted(p.name for p in (tmp_path / "part.parquet.parts").glob("*.parquet"))
    assert parts == ["000000.parquet", "000001.parquet"]
    monkeypatch.setattr(VLMNetwork, "write", write)
    assert run(model, photos, tmp_path / "part.parquet", "--split=all", "--seeds=3") == 1
    assert "seeds: 2 before, 3 now" in capsys.readouterr().err
    assert run(*words, tmp_path / "part.parquet", *options) == 0
    assert "6 of 14 texts are there" in capsys.readouterr().err
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "part.parquet"), pd.read_parquet(tmp_path / "whole.parquet")
    )
    assert len(pd.read_parquet(tmp_path / "whole.parquet")) == 12


def test_texts_that_do_not_tell_their_score_are_left_out():
    rows = [
        {"dataset": "d", "image_id": str(i), "text": "very noisy" if i % 2 else "very sharp",
         "score": 1.5 if i % 2 else 4.5, "error": ""}
        for i in range(20)
    ]  # fmt: skip
    rows[4]["score"] = 1.0
    rows[5]["score"] = float("nan")
    kept = describe.drop_inconsistent(pd.DataFrame(rows), tolerance=1.5)
    assert kept.index[kept["error"] != ""].tolist() == [4, 5]
    assert "tell a score" in kept.loc[4, "error"] and "no score" in kept.loc[5, "error"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model=lables", "--output=x.parquet"], "Did you mean 'labels'"),
        (["--model=labels", "--output=x.csv"], ".parquet or .jsonl"),
        (["--model=labels", "--output=x.jsonl"], "use 'attributes'"),
        (["--model=labels", "--output=x.jsonl", "--temperature=0", "--seeds=2"], "the same text"),
    ],
)
def test_errors_say_what_to_type(words, says, blurred_rows, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["describe", f"--data={blurred_rows}", *words]) == 1
    assert says in capsys.readouterr().err


def test_scorers_without_words_and_finished_tables_are_refused(blurred_rows, tmp_path, capsys):
    scorer = save_scorer(RegressionNetwork("rali:tiny"), tmp_path / "model.safetensors")
    assert run(f"local-dir:{scorer}", blurred_rows, tmp_path / "x.parquet") == 1
    assert "gives scores only" in capsys.readouterr().err
    (tmp_path / "y.parquet").write_bytes(b"")
    assert run("labels", blurred_rows, tmp_path / "y.parquet") == 1
    assert "is there already" in capsys.readouterr().err

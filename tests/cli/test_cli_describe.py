"""``rali-zoo describe``: by captioners and by a reasoner; killed and resumed; filtered."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

import rali_zoo
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
    # a score that cannot be parsed does not spoil the description
    noisy = table[table["text"] == "Strong noise."]
    assert len(noisy) and noisy["score"].isna().all()
    assert set(table.loc[table["text"] != "Strong noise.", "score"]) == {4.1}
    assert set(table["teacher"]) == {model} and table["revision"].nunique() == 1
    assert not (tmp_path / "texts.parquet.parts").exists()
    assert f"{len(errors)} texts left out" in capsys.readouterr().err


def test_what_an_image_was_made_from_is_part_of_the_question(photos, tmp_path, monkeypatch, capsys):
    """A column ``prompt`` of any table; a text that was asked for with another prompt is not taken up."""
    path = Path(photos.removeprefix("csv:").partition("?")[0])
    rows = pd.read_csv(path).assign(prompt=["a red cat", *[""] * 6])
    rows.to_csv(path, index=False)
    questions: list[str] = []

    def write(self, image, asked, n=1, temperature=0.0, seed=0):
        questions.extend(one.text() for one in asked)
        raise ValueError("enough")

    monkeypatch.setattr(VLMNetwork, "write", write)
    module = VLMNetwork(MODEL, "score-generated-short", max_completion_length=6)
    told = f"local-dir:{save_scorer(module, tmp_path / 'told.safetensors')}"
    assert run(told, photos, tmp_path / "texts.parquet", "--split=val") == 1
    assert set(questions) == {'Made from "a red cat". Rate the quality.'}
    questions.clear()
    assert run(told, photos, tmp_path / "others.parquet", "--split=train") == 1
    assert set(questions) == {"Rate the quality."}
    rows.assign(prompt="a blue dog").to_csv(path, index=False)
    questions.clear()
    assert run(told, photos, tmp_path / "texts.parquet", "--split=val") == 1
    assert not questions and "texts.parquet" in capsys.readouterr().err.splitlines()[-1]


def test_a_killed_run_goes_on_with_nothing_lost_or_doubled(model, photos, tmp_path, monkeypatch, capsys):
    """The real model, so that what is written after the kill is what would have been."""
    monkeypatch.setattr(describe, "PART", 3)
    monkeypatch.setattr(describe, "read", lambda parsed, cut: describe.Text(parsed.answer or "nothing", 3.0))
    words = (model, photos)
    options = ("--split=all", "--seeds=2", "--batch_size=2")
    assert run(*words, tmp_path / "whole.parquet", *options) == 0
    write, calls = VLMNetwork.write, []

    def dies(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 6:
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


def test_texts_whose_words_predict_another_score_are_left_out():
    rows = [
        {"dataset": "d", "image_id": str(i), "text": "very noisy" if i % 2 else "very sharp",
         "score": 1.5 if i % 2 else 4.5, "error": ""}
        for i in range(20)
    ]  # fmt: skip
    rows[4]["score"] = 1.0
    rows[5]["score"] = float("nan")
    kept = describe.drop_inconsistent(pd.DataFrame(rows), tolerance=1.5)
    assert kept.index[kept["error"] != ""].tolist() == [4, 5]
    assert "predict a score" in kept.loc[4, "error"] and "no score" in kept.loc[5, "error"]


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


def test_tags_inside_a_description_are_an_error():
    """It could not be imitated between tags."""
    answer = '<answer>{"rating": 2.00}</answer>'
    assert describe.read(parse(f"<think>Strong noise.</think>{answer}"), False) == describe.Text(
        "Strong noise.", 2.0
    )
    assert (
        "think-has-tags" in describe.read(parse(f"<think>Strong <think>noise.</think>{answer}"), False).error
    )


# ---- own photographs ----


@pytest.fixture
def own(photo_folder, tmp_path) -> list[str]:
    """A photograph, and a folder with two more of other sizes and a damaged one."""
    photo_folder(1, tmp_path / "one", height=40, width=64)
    photo_folder(2, tmp_path / "more" / "deep", height=48, width=40)
    (tmp_path / "more" / "bad.jpg").write_bytes(b"no image")
    return [str(tmp_path / "one" / "photo000.png"), str(tmp_path / "more")]


def test_own_photographs_are_described_without_a_table_of_scores(model, own, scripted, capsys):
    assert main(["describe", *own, f"--model={model}"]) == 0
    seen = capsys.readouterr()
    assert seen.out.count("photo00") == 3 and "4.10 of 5\n  Sharp and clean." in seen.out
    assert "bad.jpg: no score" in seen.out and "left out" in seen.err


def test_own_photographs_make_a_table_too(model, own, scripted, tmp_path):
    target = tmp_path / "t.jsonl"
    assert main(["describe", *own, f"--model={model}", f"--output={target}", "--batch_size=2"]) == 0
    table, errors = read_descriptions(target), pd.read_csv(tmp_path / "t.errors.csv")
    assert len(table) + len(errors) == 4 and set(table["dataset"]) == {"images"}
    assert own[0] in set(table["image_id"]) | set(errors["image_id"])


def test_the_shipped_reasoner_describes_by_default(own, capsys):
    assert main(["describe", own[0]]) == 0
    first = capsys.readouterr().out
    assert "of 5\n  " in first
    assert main(["describe", own[0]]) == 0
    assert capsys.readouterr().out == first  # greedy


def test_a_score_is_explained_by_its_text(own, capsys):
    assert main(["score", own[0], "--model=reasoner-tiny-synthetic", "--explain"]) == 0
    text = rali_zoo.load_model("reasoner-tiny-synthetic").score(own[0])[0].text
    assert text and text.split("</think>")[0][:40] in " ".join(capsys.readouterr().out.split())


def test_images_or_data_not_both_and_not_neither(model, own, photos, capsys):
    for words in ([], [own[0], f"--data={photos}"]):
        assert main(["describe", *words, f"--model={model}"]) == 1
        assert "either images or --data" in capsys.readouterr().err


def test_an_image_that_a_processor_refuses_is_one_error(model, own, monkeypatch, tmp_path):
    """Qwen refuses aspect ratios above 200; the others of the batch are described."""
    write = VLMNetwork.write

    def picky(self, image, *rest):
        if any(x.shape[-1] == 64 for x in image):
            raise ValueError("absolute aspect ratio must be smaller than 200")
        return write(self, image, *rest)

    monkeypatch.setattr(VLMNetwork, "write", picky)
    monkeypatch.setattr(describe, "read", lambda parsed, cut: describe.Text("text", 3.0))
    assert main(["describe", *own, f"--model={model}", f"--output={tmp_path / 't.jsonl'}"]) == 0
    errors = pd.read_csv(tmp_path / "t.errors.csv").set_index("image_id")["error"]
    assert "64x40 pixels: absolute aspect" in errors[own[0]] and len(errors) == 2


# ---- one owner of the output ----


def test_two_at_once_and_files_of_others(model, photos, scripted, tmp_path, capsys):
    target = tmp_path / "t.parquet"
    parts = tmp_path / "t.parquet.parts"
    parts.mkdir()
    with FileLock(parts / "lock"):
        assert run(model, photos, target) == 1
        assert "another process is writing" in capsys.readouterr().err
    foreign = parts / "000000.parquet"
    foreign.write_bytes(b"somebody's")
    assert run(model, photos, target) == 1
    assert "no job.json that can be read" in capsys.readouterr().err and foreign.read_bytes() == b"somebody's"
    foreign.unlink()
    (tmp_path / "t.errors.csv").write_text("mine")
    assert run(model, photos, target) == 1
    assert "t.errors.csv is there already" in capsys.readouterr().err
    assert (tmp_path / "t.errors.csv").read_text() == "mine" and not target.exists()


def killed(model, photos, target, monkeypatch, *words: str) -> None:
    """A run that ends after its first part."""
    write, calls = VLMNetwork.write, []

    def dies(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(VLMNetwork, "write", dies)
        assert run(model, photos, target, "--batch_size=2", *words) == 130


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(describe, "PART", 3)
    monkeypatch.setattr(describe, "read", lambda parsed, cut: describe.Text(parsed.answer or "nothing", 3.0))


def test_another_batch_size_and_another_table_are_refused_on_resuming(
    model, photos, small_parts, tmp_path, monkeypatch, capsys
):
    target = tmp_path / "t.parquet"
    killed(model, photos, target, monkeypatch)
    assert run(model, photos, target, "--batch_size=3") == 1
    assert "batch_size: 2 before, 3 now" in capsys.readouterr().err
    assert run("attributes", photos, target) == 1
    assert "parts of another run" in capsys.readouterr().err
    target.write_bytes(b"somebody's")  # written by another program meanwhile
    assert run(model, photos, target, "--batch_size=2") == 1
    assert "written by something else" in capsys.readouterr().err and target.read_bytes() == b"somebody's"
    assert (tmp_path / "t.parquet.parts" / "000000.parquet").exists()
    target.unlink()
    assert run(model, photos, target, "--batch_size=2") == 0


@pytest.mark.parametrize("content", [b"", b"PAR1 nonsense", None])
def test_a_damaged_part_is_written_again(content, model, photos, small_parts, tmp_path, monkeypatch):
    assert run(model, photos, tmp_path / "whole.parquet", "--batch_size=2") == 0
    killed(model, photos, tmp_path / "t.parquet", monkeypatch)
    part = tmp_path / "t.parquet.parts" / "000000.parquet"
    if content is None:
        pd.read_parquet(part).iloc[:1].to_parquet(part)
    else:
        part.write_bytes(content)
    assert run(model, photos, tmp_path / "t.parquet", "--batch_size=2") == 0
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "t.parquet"), pd.read_parquet(tmp_path / "whole.parquet")
    )


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"job": 3}'])
def test_a_damaged_state_is_one_error(content, model, photos, small_parts, tmp_path, monkeypatch, capsys):
    killed(model, photos, tmp_path / "t.parquet", monkeypatch)
    (tmp_path / "t.parquet.parts" / "job.json").write_bytes(content)
    capsys.readouterr()
    assert run(model, photos, tmp_path / "t.parquet", "--batch_size=2") == 1
    seen = capsys.readouterr().err
    assert "job.json" in seen and "remove the folder" in seen and "Traceback" not in seen


def test_a_run_killed_between_table_and_clearing_up_is_complete(
    model, photos, small_parts, tmp_path, monkeypatch, capsys
):
    target = tmp_path / "t.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(describe.Output, "clear", lambda self: None)
        assert run(model, photos, target, "--batch_size=2") == 0
    written = target.read_bytes()
    assert run(model, photos, target, "--batch_size=2") == 0
    assert "complete already" in capsys.readouterr().out
    assert target.read_bytes() == written and not (tmp_path / "t.parquet.parts").exists()

"""``rali-zoo score`` on a folder with good and bad images."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import statistics
import subprocess
import sys

import pytest
import torch

from rali_zoo.cli.main import main
from rali_zoo.models.files import save_scorer
from rali_zoo.models.regression import RegressionNetwork


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    torch.manual_seed(0)
    path = save_scorer(RegressionNetwork("rali:tiny"), tmp_path_factory.mktemp("m") / "model.safetensors")
    return f"local-dir:{path}"


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_has_one_row_an_image_errors_included(model, photo_folder, tmp_path, capsys):
    good = photo_folder(3)
    folder = good[0].parent
    (folder / "sub" / "dir.jpg").mkdir(parents=True)
    (folder / "sub" / "ünïcode ☂.png").write_bytes(good[0].read_bytes())
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "notes.md").write_text("no image, and not looked at")
    (folder / "loop").symlink_to(folder)
    target = tmp_path / "out" / "scores.csv"
    words = ["score", str(good[1]), str(folder), f"--model={model}", f"--output={target}", "--batch_size=2"]
    assert main(words) == 0
    rows = read(target)
    assert list(rows[0]) == ["path", "score", "std", "error", "model"]
    names = [r["path"] for r in rows]
    assert names[0] == str(good[1]) and len(names) == len(set(names)) == 6
    bad = {r["path"].rpartition("/")[2] for r in rows if r["error"]}
    assert bad == {"zero.jpg", "dir.jpg"}
    assert all((r["score"] == "") == bool(r["error"]) for r in rows)
    assert all(1 <= float(r["score"]) <= 5 for r in rows if r["score"])
    assert "6 rows (2 with an error)" in capsys.readouterr().out
    assert list(target.parent.iterdir()) == [target]
    assert main(words) == 1
    assert "is there already" in capsys.readouterr().err


def test_parquet_says_the_same_and_what_made_it(model, photo_folder, tmp_path):
    import pyarrow.parquet as pq

    folder = photo_folder(3)[0].parent
    (folder / "zero.jpg").write_bytes(b"")
    common = ["score", str(folder), f"--model={model}"]
    assert main([*common, f"--output={tmp_path / 's.csv'}"]) == 0
    assert main([*common, f"--output={tmp_path / 's.parquet'}"]) == 0
    table = pq.read_table(tmp_path / "s.parquet")
    for row, text in zip(table.to_pylist(), read(tmp_path / "s.csv"), strict=True):
        assert row["path"] == text["path"] and (row["error"] or "") == text["error"]
        assert text["score"] == ("" if row["score"] is None else f"{row['score']:.6f}")
    job = json.loads(table.schema.metadata[b"rali_zoo"])
    assert job["model"] == model and job["images"] == 4 and len(job["revision"]) > 8


def test_shares_of_two_jobs_are_the_whole(model, photo_folder, tmp_path):
    folder = photo_folder(8)[0].parent
    for k in (1, 2):
        words = [f"--model={model}", f"--output={tmp_path / f'{k}.csv'}", f"--shard={k}/2"]
        assert main(["score", str(folder), *words]) == 0
    shares = [[row["path"] for row in read(tmp_path / f"{k}.csv")] for k in (1, 2)]
    assert all(shares) and sorted(sum(shares, [])) == sorted(str(p) for p in folder.iterdir())


def test_a_share_without_an_image_is_an_empty_table(model, photo_folder, tmp_path, capsys):
    folder, out = photo_folder(1)[0].parent, tmp_path / "out"
    out.mkdir()
    for k in (1, 2, 3):
        words = [f"--output={out / f'{k}.csv'}", f"--shard={k}/3", "--sort=worst"]
        assert main(["score", str(folder), f"--model={model}", *words]) == 0
        assert main(["score", str(folder), f"--model={model}", f"--shard={k}/3"]) == 0
    assert capsys.readouterr().err.count("holds none of the images") == 4
    assert sorted(len(read(path)) for path in out.iterdir()) == [0, 0, 1]


def test_table_on_the_terminal(model, photo_folder, capsys):
    good = photo_folder(2)
    assert main(["score", str(good[0].parent), f"--model={model}", "--explain"]) == 0
    out = capsys.readouterr().out
    assert "photo000.png" in out.replace("\n", "") and "keeps no prototypes" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.jpg", "--model=ckpt:x.ckpt"], "does not exist"),
        ([".", "--model=ckpt:x.ckpt"], "no image below"),
        (["*.tif", "--model=ckpt:x.ckpt"], "no image below"),
        (["photo000.png", "--model=ckpt:x.ckpt"], "no checkpoint at x.ckpt"),
        (["photo000.png", "--model=cpkt:x.ckpt"], "Did you mean 'ckpt'"),
        (["photo000.png", "--model=ckpt:x.ckpt", "--output=scores.txt"], ".parquet, .csv, .jsonl"),
        (["photo000.png", "--model=ckpt:x.ckpt", "--shard=3/2"], "K/N"),
        (["photo000.png", "--model=ckpt:x.ckpt", "--batch_size=0"], "at least 1"),
        (["photo000.png", "--model=rali-tiny-synthetic", "--device=gpu"], "this machine has cpu"),
        (["photo000.png", "--model=rali-tiny-synthetic", "--threads=0"], "at least 1"),
        (["photo000.png", "--model=rali-tiny-synthetic", "--workers=0"], "at least 1"),
        (["photo000.png", "--model=ckpt:x.ckpt", "--engine=ray"], "give --output"),
        (["photo000.png", "--model=ckpt:x.ckpt", "--explain", "--output=a.csv"], "leave out --output"),
    ],
)
def test_errors_say_what_to_do(words, says, photo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if words[0].startswith("photo"):
        photo_folder(1, tmp_path)
    assert main(["score", *words]) == 1
    assert says in capsys.readouterr().err
    assert not list(tmp_path.glob("*.parts"))


def test_options_that_are_none(model, photo_folder, capsys):
    (path,) = photo_folder(1)
    with pytest.raises(SystemExit) as stop:
        main(["score", str(path), f"--model={model}", "--decode=fsat"])
    assert stop.value.code == 2 and "exact" in capsys.readouterr().err


def test_rows_for_programs(model, photo_folder, tmp_path, capsys, monkeypatch):
    import io

    good = photo_folder(3)
    names = [str(path) for path in good]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(names).encode())))
    assert (
        main(["score", "-", str(tmp_path / "gone.jpg"), f"--model={model}", "--output=-", "--sort=best"]) == 0
    )
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert sorted(r["path"] for r in rows[:3]) == sorted(names) and "no such file" in rows[3]["error"]
    assert [r["score"] for r in rows[:3]] == sorted((r["score"] for r in rows[:3]), reverse=True)
    assert "1 of 4 images have no score" in err
    target = tmp_path / "a.csv"
    for words in ([], ["--overwrite"]):
        assert main(["score", *names, f"--model={model}", f"--output={target}", *words]) == 0
    path = model.partition(":")[2]
    assert main(["score", names[0], f"--model={path}"]) == 0


def test_nothing_scored_is_a_failure(model, tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "notes.xmp").write_bytes(b"")
    for words in ([], ["--output=-"], [f"--output={tmp_path / 'a.csv'}"]):
        assert main(["score", str(tmp_path), f"--model={model}", *words]) == 1
        err = capsys.readouterr().err
        assert "none of 1 images could be scored" in err and "1 .xmp" in err


def test_a_model_of_the_synthetic_world_is_said_to_be_no_judge_of_photographs(photo_folder, capsys):
    """The default is one."""
    (image,) = photo_folder(1)
    for model, warned in ([], False), (["--model=rali-tiny-synthetic"], True):
        assert main(["score", str(image), *model]) == 0
        assert ("trained on synthetic labels and is no judge" in capsys.readouterr().err) == warned


def test_names_do_no_harm_on_a_terminal(model, photo_folder, tmp_path, capsys):
    import os

    data = photo_folder(1)[0].read_bytes()
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in (b"\x1b[31m.png", b"\xff.png", b"a\nb.png"):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(data)
    assert main(["score", str(folder), f"--model={model}", "--explain"]) == 0
    out = capsys.readouterr().out
    assert r"\x1b[31m.png" in out and r"\xff.png" in out and r"a\nb.png" in out and "\x1b" not in out


SCORE = ["-m", "rali_zoo", "score", "x.jpg", "--model", "rali-tiny-synthetic"]
#: What training and evaluation need, and no score.
NOT_TO_SCORE = r"(lightning|torchmetrics|transformers|torchvision|sklearn|scipy\.stats|matplotlib)(\.|$)"


@pytest.fixture
def one(photo_folder):
    """A folder with one photograph, x.jpg."""
    path = photo_folder(1)[0]
    return path.rename(path.with_name("x.jpg")).parent


def test_a_score_imports_nothing_of_training(one):
    words = [sys.executable, "-X", "importtime", *SCORE]
    done = subprocess.run(words, cwd=one, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE)
    assert "torch" in imported and [m for m in imported if re.match(NOT_TO_SCORE, m)] == []


def cpu_seconds(words, folder) -> float:
    """Processor time of a process of Python."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *words], cwd=folder, env=dict(os.environ), check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
def test_a_score_starts_almost_as_fast_as_torch(one):
    """At most 1.6 times the processor time of importing what it cannot do without, in turns."""
    least = ["-c", "import torch, numpy, PIL"]
    both = [(cpu_seconds(SCORE, one), cpu_seconds(least, one)) for _ in range(6)][
        1:
    ]  # the first fills caches
    score, bare = (statistics.median(times) for times in zip(*both, strict=True))
    print(f"score {score:.2f} s, import torch, numpy, PIL {bare:.2f} s, {score / bare:.2f} times")
    assert score <= 1.6 * bare

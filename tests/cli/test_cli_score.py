"""``rali-zoo score`` on a folder with good and bad pictures."""

from __future__ import annotations

import csv

import pytest
import torch

from rali_zoo.cli.main import main
from rali_zoo.cli.score import find_pictures
from rali_zoo.errors import ConfigError
from rali_zoo.models import Regression
from rali_zoo.models.files import save_scorer


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    torch.manual_seed(0)
    path = save_scorer(Regression("rali:tiny"), tmp_path_factory.mktemp("m") / "model.safetensors")
    return f"local-dir:{path}"


def test_csv_has_one_row_a_picture_errors_included(model, photo_folder, tmp_path, capsys):
    good = photo_folder(3)
    folder = good[0].parent
    (folder / "sub" / "dir.jpg").mkdir(parents=True)
    (folder / "sub" / "ünïcode ☂.png").write_bytes(good[0].read_bytes())
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture, and not looked at")
    (folder / "loop").symlink_to(folder)
    target = tmp_path / "out" / "scores.csv"
    assert (
        main(["score", str(good[1]), str(folder), f"--model={model}", f"--output={target}", "--batch_size=2"])
        == 0
    )
    with target.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "score", "std", "error", "model"]
    names = [r["path"] for r in rows]
    assert names[0] == str(good[1]) and len(names) == len(set(names)) == 6
    bad = {r["path"].rpartition("/")[2] for r in rows if r["error"]}
    assert bad == {"zero.jpg", "dir.jpg"}
    assert all((r["score"] == "") == bool(r["error"]) for r in rows)
    assert all(1 <= float(r["score"]) <= 5 for r in rows if r["score"])
    assert "6 rows (2 with an error)" in capsys.readouterr().out


def test_table_on_the_terminal(model, photo_folder, capsys):
    good = photo_folder(2)
    assert main(["score", str(good[0].parent), f"--model={model}", "--explain"]) == 0
    out = capsys.readouterr().out
    assert "photo000.png" in out.replace("\n", "") and "keeps no prototypes" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.jpg", "--model=ckpt:x.ckpt"], "does not exist"),
        ([".", "--model=ckpt:x.ckpt"], "no picture below"),
        (["photo000.png", "--model=ckpt:x.ckpt"], "no checkpoint at x.ckpt"),
        (["photo000.png", "--model=cpkt:x.ckpt"], "Did you mean 'ckpt'"),
    ],
)
def test_errors_say_what_to_do(words, says, photo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if words[0].startswith("photo"):
        photo_folder(1, tmp_path)
    assert main(["score", *words]) == 1
    assert says in capsys.readouterr().err


def test_a_named_file_is_scored_whatever_its_suffix(tmp_path, photo_folder):
    (path,) = photo_folder(1)
    renamed = path.rename(tmp_path / "no_suffix")
    assert find_pictures([str(renamed)]) == [str(renamed)]
    with pytest.raises(ConfigError):
        find_pictures([str(tmp_path / "gone")])

"""Why: what is measured beside a score, with the words for it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image, ImageFilter

from rali_zoo.cli.main import main
from rali_zoo.data.attributes import SHOWN, measure, shown

NAMES = ["sharpness", "noise", "blockiness", "contrast", "colourfulness", "exposure"]


def test_numbers_and_words_move_with_the_damage(photo):
    image = Image.fromarray(photo(240, 320, seed=1))
    grain = np.random.default_rng(0).normal(0, 30, (240, 320, 3))
    damages = {
        "sharpness": (image.filter(ImageFilter.GaussianBlur(4)), -1, "blurred"),
        "noise": (Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8)), 1, "noise"),
        "exposure": (image.point(lambda v: v * 0.15), -1, "black exposure"),
        "colourfulness": (image.convert("L").convert("RGB"), -1, "no colours"),
        "contrast": (image.point(lambda v: 100 + v * 0.05), -1, "almost no contrast"),
    }
    before, _ = shown(measure(image))
    assert list(before) == NAMES == list(SHOWN)
    for name, (damaged, sign, word) in damages.items():
        after, words = shown(measure(damaged))
        assert sign * (after[name] - before[name]) > 0 and word in words, (name, words)


def test_the_table_has_them_in_every_format(model, photo_folder, tmp_path, capsys):
    import pyarrow.parquet as pq

    paths = photo_folder(3, height=96, width=96)
    (paths[0].parent / "bad.jpg").write_bytes(b"")
    words = ["score", str(paths[0].parent), f"--model={model}", "--attributes"]
    assert main([*words, "--output=-"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for suffix in ("parquet", "csv", "jsonl"):
        assert main([*words, f"--output={tmp_path / f's.{suffix}'}"]) == 0
    with (tmp_path / "s.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    parquet = pq.read_table(tmp_path / "s.parquet").to_pylist()
    jsonl = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert list(table[0]) == ["path", "score", "std", "error", "model", *NAMES, "words"] == list(parquet[0])
    for line, row, other, third in zip(lines, table, parquet, jsonl, strict=True):
        assert line == third
        if line["error"]:
            assert "words" not in line and row["words"] == "" and other["sharpness"] is None
            continue
        want, said = shown(measure(Image.open(line["path"]).convert("RGB")))
        assert said == line["words"] == row["words"] == other["words"]
        for name in NAMES:
            assert float(row[name]) == pytest.approx(want[name], abs=1e-6)
            assert other[name] == line[name] == want[name]


def test_they_are_part_of_the_job_and_shown(model, photo_folder, tmp_path, capsys):
    (path,) = photo_folder(1, height=96, width=96)
    words = ["score", str(path), f"--model={model}", "--attributes"]
    assert main([*words, f"--sheet={tmp_path / 's.html'}"]) == 0
    out = capsys.readouterr().out
    assert "sharpness 0." in out and "exposure" in out and "exposure" in (tmp_path / "s.html").read_text()
    assert main([*words, "--engine=ray", "--output=a.csv"]) == 1
    assert "leave out --engine ray" in capsys.readouterr().err

"""``rali-zoo analyze``: every analysis from one command, the same numbers twice, errors that help."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rali_zoo.cli.analyze import ANALYSES
from rali_zoo.cli.main import main

SETS = "synthetic:lab?n=60,synthetic:phone?n=60"
NAMES = sorted(set(ANALYSES) - {"all", "ablations"})


def numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [x for part in value.values() for x in numbers(part)]
    if isinstance(value, list):
        return [x for part in value for x in numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


def read(folder: Path) -> dict[str, dict]:
    return {p.stem: json.loads(p.read_text()) for p in folder.glob("*.json")}


def test_all_analyses(tmp_path, capsys):
    """Everything in one command; an analysis by its own command gives the same numbers and image."""
    common = [f"--data=[{SETS}]", "--split=all", "--limit=12", "--resamples=30", "--batch_size=12"]
    words, students = "--text_encoder=rali:hash", "--students=[rali-tiny-synthetic]"
    images = tmp_path / "images"
    assert (
        main(["analyze", "all", *common, words, students, f"--output={tmp_path / 'a'}", f"--images={images}"])
        == 0
    )
    found = read(tmp_path / "a")
    assert sorted(found) == NAMES
    for name, content in found.items():
        first = content["data"][SETS.split(",")[0]]
        assert content["settings"]["limit"] == first["chosen"] == 12
        assert first["of"] == 60 and first["synthetic"] is True
        assert content["models"]["reasoner-tiny-synthetic"] and content["versions"]["transformers"]
        values = numbers(content["results"])
        assert len(values) > 10 and all(map(math.isfinite, values))
        assert (images / f"{name}.svg").stat().st_size < 100_000
    told = capsys.readouterr().out
    assert all(name in told for name in NAMES)
    again = [*common, f"--output={tmp_path / 'b'}"]
    models = [f"--models.{name}={name}" for name in ("reasoner-tiny-synthetic", "rali-tiny-synthetic")]
    assert main(["analyze", "domains", *again, *models, words]) == 0
    assert main(["analyze", "attention", *again, "--model=reasoner-tiny-synthetic"]) == 0
    for name, content in read(tmp_path / "b").items():
        assert content["results"] == found[name]["results"]
        assert (tmp_path / "b" / f"{name}.svg").read_bytes() == (images / f"{name}.svg").read_bytes()


def test_names_and_near_misses(capsys, tmp_path):
    assert main(["analyze", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in ANALYSES)
    with pytest.raises(SystemExit) as stop:
        main(["analyze", "atention"])
    assert stop.value.code == 2 and "'attention'" in capsys.readouterr().err
    common = ["--data=[synthetic:lab?n=60]", f"--output={tmp_path}"]
    assert main(["analyze", "attention", "--model=rali-tiny-synthetic", *common]) == 1
    assert "needs a Reasoner" in capsys.readouterr().err
    assert main(["analyze", "swap", "--models=[reasoner-tiny-synthetic]", *common]) == 1
    assert "nothing to swap" in capsys.readouterr().err
    sets = ["--data=[synthetic:lab?n=60,synthetic:phone?n=60]", f"--output={tmp_path}"]
    assert main(["analyze", "domains", "--models.a=piq:psnr", *sets]) == 1
    assert "somebody else's metric" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ANALYSES)
def test_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["analyze", name, "--help"])
    assert stop.value.code in (0, None)
    told = capsys.readouterr().out
    assert f"rali-zoo analyze {name}" in told and "--output" in told
    lacking = [line for line in told.splitlines() if line.strip().startswith("--") and "None" in line]
    assert not lacking


def test_without_matplotlib_it_says_so_at_once(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    common = ["--model=reasoner-tiny-synthetic", "--data=[synthetic:lab?n=60]", f"--output={tmp_path}"]
    assert main(["analyze", "compression", *common]) == 1
    assert "pip install 'rali-zoo[analysis]'" in capsys.readouterr().err

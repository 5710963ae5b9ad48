"""``run_function``, ``list`` and ``show``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from rali_zoo.cli import run_function
from rali_zoo.cli.main import main
from rali_zoo.data.registry import list_cards

GOT: list[tuple[object, ...]] = []


def command(paths: list[str], /, kind: Literal["a", "b"] = "a", size: int = 3) -> None:
    """Do something.

    Args:
        paths: many paths at 100%.
        kind: a choice.
        size: a number.
    """
    GOT.append((paths, kind, size))


def test_run_function(tmp_path: Path) -> None:
    GOT.clear()
    run_function(command, ["do", "x", "y", "--size", "4"])
    (tmp_path / "c.yaml").write_text("kind: b\nsize: 7\n")
    run_function(command, ["do", "x", "--config", str(tmp_path / "c.yaml")])
    assert GOT == [(["x", "y"], "a", 4), (["x"], "b", 7)]


def test_run_function_help_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for words, status in ((["--help"], 0), ([], 2), (["x", "--kind=c"], 2), (["x", "--sise=4"], 2)):
        with pytest.raises(SystemExit) as stop:
            run_function(command, ["do", *words])
        assert stop.value.code == status
    out = capsys.readouterr()
    assert "Do something." in out.out and "many paths at 100%." in out.out
    assert "--sise=4" in out.err


def test_list_shows_every_data_set_and_labels_the_synthetic(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "datasets"]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    for card in list_cards():
        assert f"{card.n_images:,}" in lines[card.name]
        assert f"licence: {card.licence}\n" in out  # whole, at any width
        assert ("synthetic" in lines[card.name].split()[2]) == card.synthetic


def test_show_of_a_path_to_scores_names_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "mine/scores.csv"]) == 1
    assert "'csv:mine/scores.csv'" in capsys.readouterr().err


def test_list_with_a_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "datasets", "--pattern", "ka*"]) == 0
    out = capsys.readouterr().out
    assert "kadid10k" in out and "koniq10k" not in out
    assert main(["list", "backbones", "--pattern", "rali:t*"]) == 0
    out = capsys.readouterr().out
    assert "rali:tiny" in out and "rali:small" not in out
    assert main(["list", "backbones", "--pattern", "rali:nothing*"]) == 0
    assert "no backbone matches" in capsys.readouterr().out


def test_list_all_names_every_scheme(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(f"{scheme}:…" in out for scheme in ("timm", "open_clip", "hf", "rali", "st"))


def test_show_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "koniq10k"]) == 0
    out = capsys.readouterr().out
    assert "10,073" in out and "1024x768/*.jpg" in out and "SYNTHETIC" not in out
    assert main(["show", "synthetic:lab"]) == 0
    assert "SYNTHETIC" in capsys.readouterr().out


def test_show_table_of_scores(
    tmp_path: Path, photo_folder: object, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = photo_folder(6)  # type: ignore[operator]
    rows = "".join(f"{path},{i * 20}\n" for i, path in enumerate(paths))
    (tmp_path / "scores.csv").write_text("image,mos\n" + rows)
    assert main(["show", f"csv:{tmp_path}/scores.csv?mos_range=0,100"]) == 0
    out = capsys.readouterr().out
    assert "6" in out and "mean 3.00" in out


def test_show_backbone_and_text_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    from rali_zoo.backbones import create_backbone

    backbone = create_backbone("rali:tiny", pretrained=False)
    assert main(["show", "rali:tiny"]) == 0
    assert f"{backbone.dim} features" in capsys.readouterr().out
    assert main(["show", "rali:hash"]) == 0
    assert "text encoder  rali:hash" in capsys.readouterr().out


def test_show_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "koniq10"]) == 1
    assert "Did you mean 'koniq10k'?" in capsys.readouterr().err
    assert main(["show", "ckpt:nowhere.ckpt"]) == 1
    assert "nowhere.ckpt" in capsys.readouterr().err


def test_long_names_of_data_sets_are_not_folded(capsys, monkeypatch):
    from rali_zoo.cli import report

    monkeypatch.setenv("COLUMNS", "80")
    name = "csv:folder/of/my/photographs/ratings.csv?image=filename&mos=score&sep=;&split=group"
    report.show({name: {"n": 10.0, "failed": 0.0, "srcc": 0.5, "plcc": 0.5}}, [name])
    assert f"{name} (synthetic)" in capsys.readouterr().out

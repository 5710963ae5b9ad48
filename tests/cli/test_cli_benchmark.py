"""``rali-zoo benchmark`` and ``check-results`` as they are typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rali_zoo.cli.main import main


@pytest.fixture
def suite(photo_folder, tmp_path) -> Path:
    """A suite of two csv entries on ten photographs, in the test's folder."""
    paths = photo_folder(10, tmp_path / "data")
    mos = np.linspace(1.5, 4.5, 10)
    names = [p.name for p in paths]
    frame = pd.DataFrame({"image": names, "mos": mos, "split": "test"})
    frame.to_csv(tmp_path / "data" / "scores.csv", index=False)
    for name, sign in (("good", 1), ("bad", -1)):
        scores = sign * mos + np.random.default_rng(0).normal(0, 0.3, 10)
        pd.DataFrame({"id": names, "score": scores}).to_csv(tmp_path / f"{name}.csv", index=False)
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"models:\n  - {{ref: 'csv:{tmp_path}/good.csv', name: good, licence: CC0-1.0}}\n"
        f"  - {{ref: 'csv:{tmp_path}/bad.csv', name: bad}}\n"
        f"datasets:\n  - {{ref: 'csv:{tmp_path}/data/scores.csv?mos_range=1,5', publish: true}}\n"
        "resamples: 50\n"
    )
    return file


def test_run_twice_then_check(suite, tmp_path, capsys):
    output = tmp_path / "results"
    assert main(["benchmark", str(suite), f"--output={output}"]) == 0
    told = capsys.readouterr()
    assert "good" in told.out and "2 cells (2 made now)" in told.out
    assert "good on csv:" in told.err
    (good,) = (p for p in output.glob("good/*/*.json") if not p.name.endswith(".cost.json"))
    cell = json.loads(good.read_text())
    assert cell["model"]["licence"] == "CC0-1.0" and cell["statistics"]["srcc"]["value"] > 0.8
    assert main(["benchmark", str(suite), f"--output={output}"]) == 0
    assert "2 cells (0 made now)" in capsys.readouterr().out
    assert main(["check-results", str(output)]) == 0
    assert "2 results files are right" in capsys.readouterr().out
    assert main(["check-results", str(output / "good")]) == 0  # one model, as CONTRIBUTING has it
    assert "1 results files are right" in capsys.readouterr().out
    cell["statistics"]["srcc"]["value"] = 1.0
    good.write_text(json.dumps(cell))
    assert main(["check-results", str(good)]) == 1
    assert "computed again from the scores" in capsys.readouterr().err
    assert main(["check-results", str(tmp_path / "data")]) == 1
    assert "no results file" in capsys.readouterr().err


def test_a_wrong_name_ends_it_before_anything_runs(suite, tmp_path, capsys):
    suite.write_text(suite.read_text() + "split: tset\n")
    assert main(["benchmark", str(suite), f"--output={tmp_path / 'r'}"]) == 1
    assert "Did you mean 'test'" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("command", ["benchmark", "check-results"])
def test_help_needs_no_torch(command):
    code = (
        "import sys\nfrom rali_zoo.cli.main import main\n"
        f"try:\n    main(['{command}', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert command in done.stdout

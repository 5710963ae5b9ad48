"""The table of statistics, and how numbers and names go into files."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from rali_zoo import metrics, report

RNG = np.random.default_rng(0)
MOS = RNG.uniform(1, 5, 60)
PRED = MOS + RNG.normal(0, 0.5, 60)


@pytest.mark.parametrize("name", report.STATISTICS)
def test_a_row_is_the_function_of_its_name(name):
    row = report.STATISTICS[name]
    assert row.name == name and row(PRED, MOS) == getattr(metrics, name)(PRED, MOS)
    assert row.low <= row(PRED, MOS) <= row.high
    worse = row(PRED + RNG.normal(0, 2, 60), MOS)
    assert (worse < row(PRED, MOS)) == row.higher_is_better


def test_rmse_is_on_the_scale_of_mos_and_rmse_mapped_after_the_logistic():
    rmse, mapped = report.STATISTICS["rmse"], report.STATISTICS["rmse_mapped"]
    assert rmse(MOS + 1, MOS) == pytest.approx(1) and mapped(MOS + 1, MOS) == pytest.approx(0, abs=1e-3)


def test_nothing_heavy_is_imported():
    heavy = "{'torch', 'pandas', 'scipy', 'numpy'} & set(sys.modules)"
    code = f"import sys, rali_zoo.report; print({heavy})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_names_of_files_differ_where_references_do():
    assert report.slug("rali-tiny-synthetic") == "rali-tiny-synthetic"
    assert report.slug("csv:a.csv") != report.slug("csv/a.csv") and "/" not in report.slug("ckpt:../../x")


@dataclass
class _Point:
    x: float
    where: Path


def test_json_holds_what_numpy_and_nan_are(tmp_path):
    value = {1: np.float32(0.5), "a": [math.nan, np.int64(3), (True, None)], "p": _Point(1 / 3, Path("a/b"))}
    assert report.to_json(value, 3) == {
        "1": 0.5,
        "a": [None, 3, [True, None]],
        "p": {"x": 0.333, "where": "a/b"},
    }
    assert report.to_json(np.array([[1.0, np.inf]])) == [[1.0, None]]
    with pytest.raises(TypeError, match="object is no value"):
        report.to_json({"a": object()})
    path = tmp_path / "new" / "x.json"
    report.write_json(path, {"scores": [1.0, 2.0], "rows": [{"a": 1}], "none": {}, "text": "ü"})
    assert json.loads(path.read_text()) == {"scores": [1.0, 2.0], "rows": [{"a": 1}], "none": {}, "text": "ü"}
    assert ' "scores": [1.0, 2.0],\n' in path.read_text()  # a difference can be read line by line
    with pytest.raises(TypeError):
        report.write_json(path, {"a": object()})
    assert json.loads(path.read_text())["text"] == "ü" and len(list(path.parent.iterdir())) == 1


def test_provenance_says_seed_configuration_versions_and_machine():
    found = report.provenance({"seed_everything": 3})
    assert found["seed"] == 3 and len(found["config_sha256"]) == 64 and found["versions"]["torch"]
    assert found["hardware"]["torch_threads"] >= 1 and report.provenance(seed=4)["seed"] == 4

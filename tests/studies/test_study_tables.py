"""The page on what goes beyond the paper shows what its results file holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "studies"))
    import tables

    return tables


def test_a_part_that_was_not_run_is_said_and_one_that_was_is_shown(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    fusion = tables.TABLES["beyond_fusion"]
    assert "Not measured yet" in fusion()
    row = {"n": 9, "dimensions": 4, "srcc": 0.5, "srcc_low": 0.1, "srcc_high": 0.8}
    other = {**row, "srcc": 0.6, "minus a": {"difference": 0.1, "low": -0.1, "high": 0.3, "p": 0.2}}
    content = {
        "data": "D", "head": "RidgeCV", "trained on": 20, "variants": {"a": row, "b": other},
        "hardware": {"processor": "P", "cpus": 2, "torch_threads": 1},
        "versions": {"torch": "2", "rali-zoo": "0"},
        "written": "2026-01-01T00:00:00",
    }  # fmt: skip
    (tmp_path / "beyond.json").write_text(json.dumps({"fusion": content}))
    assert "| b | 4 | 0.600 (0.100 to 0.800) | +0.100 (-0.100 to +0.300) |" in fusion()
    assert "9 test images" in fusion()

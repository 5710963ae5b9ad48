"""The example of docs/scale_out.md, in one process and in two, against the plain scorer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rali_zoo

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale_out.md"


def run(folder: Path, devices: str) -> dict[str, float]:
    """Run the page's example in a folder; scores by path, and that each path is there once."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "devices=1" in code
    (folder / "predict.py").write_text(code.replace("devices=1", devices), encoding="utf-8")
    subprocess.run([sys.executable, "predict.py"], cwd=folder, check=True, capture_output=True, timeout=300)
    parts = [pq.read_table(file) for file in sorted(folder.glob("part-*.parquet"))]
    assert len(parts) == (2 if "2" in devices else 1) and all(len(part) for part in parts)
    rows = pa.concat_tables(parts).to_pylist()
    assert len(rows) == len({row["path"] for row in rows}) == 7
    return {row["path"]: row["score"] for row in rows}


@pytest.mark.parametrize(
    "devices", ["devices=1", pytest.param('devices=2, strategy="ddp"', marks=pytest.mark.slow)]
)
def test_predict_inside_lightning(tmp_path, devices):
    found = run(tmp_path, devices)
    scorer = rali_zoo.load_model("rali-tiny-synthetic")
    paths = sorted(found)
    expected = [score.score for score in scorer.score([tmp_path / path for path in paths])]
    assert [found[path] for path in paths] == pytest.approx(expected, abs=1e-5)

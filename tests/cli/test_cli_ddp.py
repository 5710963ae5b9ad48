"""Two processes train and test as one does: every image is counted once."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest


@pytest.mark.slow
def test_two_processes_count_every_image_once(photo_folder, tmp_path):
    paths = photo_folder(47, tmp_path / "photos", 40, 40)
    split = ["train"] * 25 + ["val"] * 11 + ["test"] * 11  # odd, so that a distributed sampler has to pad
    frame = pd.DataFrame({"image": [p.name for p in paths], "mos": range(47), "split": split})
    frame.to_csv(tmp_path / "photos" / "s.csv", index=False)
    ref = "csv:photos/s.csv?mos_range=0,50"
    texts = pd.DataFrame({"image_id": frame["image"], "text": [f"score {i // 8}" for i in range(47)]})
    texts.assign(dataset=ref, score=3.0, teacher="t", revision="1", seed=0).to_parquet(tmp_path / "t.parquet")
    words = [
        *("fit", "--model=RALI", "--model.backbone=rali:tiny?size=40", "--model.text_encoder=rali:hash"),
        *("--model.align_epochs=1", "--model.prototypes=6", "--model.buckets=4", "--model.pca_dim=8"),
        *(f"--data.train={ref}", "--data.descriptions=t.parquet", "--data.batch_size=8"),
        *("--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.devices=2"),
        *("--trainer.strategy=ddp", "--trainer.default_root_dir=run", "--trainer.enable_progress_bar=false"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "rali_zoo", *words], cwd=tmp_path, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    result = json.loads((tmp_path / "run" / "results.json").read_text())["datasets"][ref]
    assert (result["n"], result["failed"]) == (11, 0)
    table = pd.read_parquet(tmp_path / "run" / result["predictions"])
    assert sorted(table["id"]) == sorted(frame["image"][36:])

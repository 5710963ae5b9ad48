"""Two processes end a fit with one model: every parameter and every buffer is the same."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import rali_zoo

SCRIPT = """
import sys
import lightning as L
import torch
from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.trainers import RALI, DistributionRegression, Regression

ref, texts, name = sys.argv[1:]
ENCODER = "timm:mobilenetv2_035?pretrained=false&size=40"  # batch normalisation: statistics of its own a process
make = {
    "regression": lambda: Regression(ENCODER),
    "distribution": lambda: DistributionRegression(ENCODER),
    "rali": lambda: RALI(
        ENCODER, "rali:hash", align_epochs=1, prototypes=6, buckets=4, pca_dim=8, projector="mlp", hidden=16,
        finetune_projector_lr=1e-3, finetune_encoder_lr=1e-3,
    ),
    "rali, frozen": lambda: RALI(
        ENCODER, "rali:hash", align_epochs=1, prototypes=6, buckets=4, pca_dim=8, encoder_lr=0.0
    ),
}
L.seed_everything(0)
module = make[name]()
options = dict(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
trainer = L.Trainer(
    max_epochs=3, devices=2, strategy="ddp", enable_checkpointing=False, limit_val_batches=1, **options
)
trainer.fit(module, IQADataModule(train=ref, batch_size=8, descriptions=[texts]))
torch.save(module.state_dict(), f"rank{trainer.global_rank}.pt")
trainer.test(module, IQADataModule(train=ref, batch_size=8), verbose=False)
if trainer.is_global_zero:
    module.test_tables[ref].to_parquet("table.parquet")
    from rali_zoo.models.files import save_scorer
    save_scorer(module, "model.safetensors")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["regression", "distribution", "rali", "rali, frozen"])
def test_two_processes_end_with_the_same_model_and_its_scores(name, blurred, texts, tmp_path):
    (tmp_path / "run.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "run.py", blurred, texts, name], capture_output=True, timeout=300, cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    first, second = (torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in range(2))
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    table = pd.read_parquet(tmp_path / "table.parquet").set_index("id")
    folder = os.path.dirname(blurred.removeprefix("csv:").split("?")[0])
    scorer = rali_zoo.load_model(f"local-dir:{tmp_path}")
    alone = [s.score for s in scorer.score([os.path.join(folder, i) for i in table.index])]
    np.testing.assert_allclose(table["score"], alone, atol=1e-5)
    assert len(table) == 16

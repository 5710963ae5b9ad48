"""Training in reduced precision, past every change of stage."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from blurred_set import quiet_trainer

from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.trainers import RALI, DistributionRegression, Regression

SETTINGS = {"text_encoder": "rali:hash", "align_epochs": 1, "prototypes": 6, "buckets": 4, "pca_dim": 8}
MAKE = {
    "rali": lambda: RALI("rali:tiny?size=40", **SETTINGS, fidelity_weight=1.0, plcc_weight=0.5),
    "rali, tuned": lambda: RALI(
        "rali:tiny?size=40",
        **SETTINGS,
        projector="mlp",
        hidden=16,
        finetune_projector_lr=1e-3,
        finetune_encoder_lr=1e-4,
    ),
    "regression": lambda: Regression("rali:tiny?size=40", fidelity_weight=1.0, plcc_weight=0.5),
    "distribution": lambda: DistributionRegression("rali:tiny?size=40", plcc_weight=0.5),
}


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true"])
@pytest.mark.parametrize("name", list(MAKE))
def test_reduced_precision_trains_validates_and_tests(name, precision, blurred, texts, tmp_path):
    L.seed_everything(0)
    module = MAKE[name]()
    source = IQADataModule(train=[blurred], batch_size=16, descriptions=[texts])
    trainer = quiet_trainer(tmp_path, 3, precision=precision)
    trainer.fit(module, source)
    (metrics,) = trainer.test(module, source, verbose=False)
    assert metrics[f"test/{blurred}/failed"] == 0
    assert metrics[f"test/{blurred}/n"] == 16
    table = module.test_tables[blurred]
    assert table["score"].between(1, 5).all()
    source.setup("test")
    labels = {row["id"]: float(row["mos"]) for row in map(source._sets["test"][0].__getitem__, range(16))}
    assert table["mos"].tolist() == [labels[name] for name in table["id"]]  # not rounded with the images
    assert all(torch.isfinite(p).all() for p in module.parameters())

"""What a module freezes stays: no parameter and no buffer moves, in any trainer, precision or mode."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from blurred_set import quiet_trainer
from torch import nn

from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.trainers import RALI, DistributionRegression, Regression
from rali_zoo.trainers.base import move

# with batch normalisation and stochastic depth: what moves or is random in training mode
ENCODER = "timm:mobilenetv2_100?pretrained=false&size=40&drop_path_rate=0.5&drop_rate=0.5"


def rali(**options):
    settings = {"text_encoder": "rali:hash", "align_epochs": 1, "prototypes": 6, "buckets": 4, "pca_dim": 8}
    return RALI(ENCODER, **{**settings, "encoder_lr": 0.0, **options})


MAKE = {
    "regression": lambda: Regression(ENCODER, encoder_lr=0.0),
    "distribution": lambda: DistributionRegression(ENCODER, encoder_lr=0.0),
    "rali": rali,
    "rali, perceptron": lambda: rali(projector="mlp", hidden=16, dropout=0.5),
}


def fit(module, source, folder, **options):
    L.seed_everything(0)
    quiet_trainer(folder, 3, **options).fit(module, source)


def state(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def moved(module, before):
    return [k for k, v in module.state_dict().items() if not torch.equal(v, before[k])]


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", list(MAKE))
def test_a_frozen_encoder_stays(name, precision, cached, blurred, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))
    module = MAKE[name]()
    assert not any(part.training for part in module.backbone.modules())
    before = state(module.backbone)
    source = IQADataModule(train=[blurred], batch_size=16, cache_features=cached, descriptions=[texts])
    fit(module, source, tmp_path, precision=precision)
    assert moved(module.backbone, before) == []
    head = module.network.projector if isinstance(module, RALI) else module.network.head
    assert int(head.layers[0].num_batches_tracked) > 0  # and the rest has learned


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_parts_frozen_in_the_last_stage_stay(precision, blurred, texts, tmp_path):
    """The paper's last stage trains prototypes only; the encoder has learned in the first."""
    module = rali(encoder_lr=1e-3, projector="mlp", hidden=16, dropout=0.5)
    seen = {}

    class Watch(L.Callback):
        def on_train_epoch_start(self, trainer, watched):
            if trainer.current_epoch == 1:
                seen.update(before=state(watched.backbone), projector=state(watched.network.projector))

    source = IQADataModule(train=[blurred], batch_size=16, descriptions=[texts])
    fit(module, source, tmp_path, precision=precision, callbacks=[Watch()])
    assert moved(module.backbone, seen["before"]) == []
    assert moved(module.network.projector, seen["projector"]) == []
    assert bool(module.network.ready)


def test_an_encoder_that_learns_moves(blurred, tmp_path):
    module = Regression(ENCODER, encoder_lr=1e-3)
    before = state(module.backbone)
    fit(module, IQADataModule(train=[blurred], batch_size=16), tmp_path)
    moves = moved(module.backbone, before)
    assert "net.bn1.running_mean" in moves and "net.conv_stem.weight" in moves


def test_a_frozen_text_encoder_stays_and_scores_alike(blurred, texts, tmp_path):
    module = rali(text_encoder="rali:hash")
    before = state(module.teacher.encoder)
    fit(module, IQADataModule(train=[blurred], batch_size=16, descriptions=[texts]), tmp_path)
    assert moved(module.teacher.encoder, before) == []
    assert not module.teacher.encoder.training


def test_what_is_moved_while_features_are_cached_learns():
    """Lightning moves weights after the data are set up; a move in inference mode made tensors that cannot learn."""
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    with torch.inference_mode():
        move(module, torch.float64)
    assert not any(t.is_inference() for t in (*module.parameters(), *module.buffers()))
    module(torch.rand(4, 3, dtype=torch.float64)).sum().backward()
    module.load_state_dict({k: v.clone() for k, v in module.state_dict().items()})

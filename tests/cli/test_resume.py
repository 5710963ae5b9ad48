"""A fit that was stopped and resumed equals one that was not, to the bit on a CPU."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import yaml

from rali_zoo.cli import trainer
from rali_zoo.trainers.base import IQAModule

DATA = {
    "train": "synthetic:lab?n=50&size=64",
    "test": "synthetic:lab?n=50&size=64",
    "batch_size": 6,
    "train_view": {"kind": "random_crop", "size": 32, "flip": True},
    "cache_features": False,
}
MODELS = {
    "Regression": {"backbone": "rali:tiny", "encoder_lr": 1e-3, "dropout": 0.5},
    "RALI": {
        "backbone": "rali:tiny", "text_encoder": "rali:hash", "projector": "mlp", "hidden": 8, "dropout": 0.5,
        "align_epochs": 1, "encoder_lr": 1e-3, "finetune_encoder_lr": 1e-3, "finetune_projector_lr": 1e-3,
        "buckets": 4, "prototypes": 4, "pca_dim": 4,
    },
}  # fmt: skip


def fit(*words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.main(["fit", *words])


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_fit_equals_an_undisturbed_one(
    model: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {**DATA, "num_workers": workers, **({"descriptions": "labels"} if model == "RALI" else {})}
    config = {
        "model": {"class_path": model, "init_args": MODELS[model]},
        "data": data,
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
        "test_after_fit": False,
    }
    Path("c.yaml").write_text(yaml.safe_dump(config))
    fit("--config", "c.yaml", "--run=whole")
    steps = []

    def stop(module: IQAModule, batch: object, index: int) -> None:
        steps.append(index)
        if module.current_epoch == 2 and index == 1:
            raise RuntimeError("the power fails")

    with monkeypatch.context() as patch:
        patch.setattr(IQAModule, "on_train_batch_start", stop)
        with pytest.raises(RuntimeError, match="the power fails"):
            fit("--config", "c.yaml", "--run=cut")
    torch.manual_seed(99)  # another process has drawn something else until then
    fit("--ckpt_path", "runs/cut/checkpoints/last.ckpt")
    one, other = (
        torch.load(f"runs/{run}/checkpoints/last.ckpt", weights_only=True) for run in ("whole", "cut")
    )
    assert one["epoch"] == other["epoch"] == 2 and len(steps) > 8
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name

"""A fit that was stopped and resumed equals one that was not, to the bit on a CPU."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import yaml

from rali_zoo.cli import trainer
from rali_zoo.cli.main import main
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


def test_a_fit_that_a_full_disk_ended_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk takes a part of the second checkpoint; the first one stays whole, and nothing is lost but an epoch."""
    resource = pytest.importorskip("resource")
    monkeypatch.chdir(tmp_path)
    config = {
        "model": {"class_path": "Regression", "init_args": MODELS["Regression"]},
        "data": DATA,
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
        "test_after_fit": False,
    }
    Path("c.yaml").write_text(yaml.safe_dump(config))
    fit("--config", "c.yaml", "--run=whole")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(module: IQAModule, batch: object, index: int) -> None:
        if module.current_epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(IQAModule, "on_train_batch_start", fill)
        try:
            code = main(["fit", "--config", "c.yaml", "--run=full"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 1 and last.startswith("rali-zoo fit: error: ")
    assert last.endswith("last.ckpt cannot be written: File too large")
    fit("--ckpt_path", "runs/full/checkpoints/last.ckpt")
    one, other = (
        torch.load(f"runs/{run}/checkpoints/last.ckpt", weights_only=True) for run in ("whole", "full")
    )
    assert one["epoch"] == other["epoch"] == 1
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name

"""Small trainers, data and models that the tests of the reasoner share."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch

from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.rl.grpo import Sampling
from rali_zoo.rl.objective import Objective
from rali_zoo.trainers import Reasoner
from rali_zoo.trainers.reasoner import Schedule

TINY = "rali:vlm-tiny?image_size=40&width=32&layers=1&grid=2"
SHORT = Objective(max_completion_length=12)


def trainer(folder: Path, **options) -> L.Trainer:
    settings = {
        "max_epochs": 1, "limit_val_batches": 0, "enable_checkpointing": False, "num_sanity_val_steps": 0,
        "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    return L.Trainer(default_root_dir=folder, accelerator="cpu", devices=1, **{**settings, **options})


def data(ref: str, **options) -> IQADataModule:
    return IQADataModule(train=ref, batch_size=4, **options)


def grpo(start: str | tuple[Path, list[float]], **options) -> Reasoner:
    """Reinforcement of a new model, or of one that can already write."""
    settings = {
        "vlm": TINY, "grpo": SHORT, "sampling": Sampling(rollouts=3), "schedule": Schedule(lr=3e-3),
        "rewards": {"format": 1.0, "score_gaussian": 1.0},
    }  # fmt: skip
    if isinstance(start, str):
        settings["vlm"] = start
    else:
        settings |= {"init_from": str(start[0]), "grpo": Objective(beta=0.01, max_completion_length=40)}
    return Reasoner(objective="grpo", **{**settings, **options})


def images(n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, 40, 40, generator=torch.Generator().manual_seed(0))

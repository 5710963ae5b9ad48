"""The smallest module and data module that the training command line takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class ToyModule(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.backbone = nn.Linear(4, 1)
        self.test_tables: dict[str, pd.DataFrame] = {}
        self.interrupt = False

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        if self.interrupt:
            raise KeyboardInterrupt
        return (self.backbone(batch["x"]).squeeze(1) - batch["mos"]).square().mean()

    def validation_step(self, batch: dict[str, Any], index: int, dataloader_idx: int = 0) -> None:
        self.log("val/srcc", torch.tensor(0.5))

    def test_step(self, batch: dict[str, Any], index: int, dataloader_idx: int = 0) -> None:
        ref = batch["dataset"][0]
        score = self.backbone(batch["x"]).squeeze(1)
        self.test_tables[ref] = pd.DataFrame(
            {"id": batch["id"], "mos": batch["mos"], "score": score, "error": ""}
        )
        for metric, value in {"n": 4.0, "failed": 1.0, "srcc": 0.25, "plcc": float("nan")}.items():
            self.log(f"test/{ref}/{metric}", value, add_dataloader_idx=False)

    def predict_step(self, batch: dict[str, Any], index: int, dataloader_idx: int = 0) -> dict[str, Any]:
        score = self.backbone(batch["x"]).squeeze(1)
        return {"dataset": batch["dataset"], "id": batch["id"], "score": score, "std": None}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rali_zoo"] = {"class": type(self).__name__}


class LinearToy(ToyModule):
    """A linear toy.

    Args:
        gain: a number.
        loss: a choice.
        optimizer: how it learns.
    """

    def __init__(
        self,
        gain: float = 1.0,
        loss: Literal["mse", "mae"] = "mse",
        width: int = 0,
        optimizer: OptimizerCallable = torch.optim.SGD,
    ) -> None:
        super().__init__()
        self.gain, self.optimizer = gain, optimizer
        self.extra = nn.Linear(width, 1) if width else None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters())


class DeepToy(LinearToy):
    def __init__(self, gain: float = 1.0, depth: int = 2) -> None:
        super().__init__(gain)
        self.depth = depth


class InterruptedToy(LinearToy):
    def __init__(self) -> None:
        super().__init__()
        self.interrupt = True


class Rows(Dataset[dict[str, Any]]):
    def __init__(self, ref: str) -> None:
        self.ref = ref

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"x": torch.full((4,), float(i)), "mos": float(i + 1), "id": f"{i}.png", "dataset": self.ref}


class ToyData(pl.LightningDataModule):
    """Toy data.

    Args:
        train: references.
        test: references.
        predict: references.
        size: a number.
    """

    def __init__(
        self,
        train: list[str] | None = None,
        test: list[str] | None = None,
        predict: list[str] | None = None,
        size: int = 8,
    ) -> None:
        super().__init__()
        self.train_refs, self.test_refs, self.predict_refs = train or [], test or [], predict or []
        self.size = size
        self.left_out = {("predict", "lab"): pd.DataFrame({"id": ["bad.png"], "reason": ["truncated"]})}

    def table(self, ref: str) -> SimpleNamespace:
        frame = pd.DataFrame({"id": [f"{i}.png" for i in range(4)], "content": list("abcd")})
        return SimpleNamespace(frame=frame, card=SimpleNamespace(synthetic=ref.startswith("synthetic:")))

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        return DataLoader(Rows(self.train_refs[0]), batch_size=4)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return DataLoader(Rows(self.train_refs[0]), batch_size=4)

    def test_dataloader(self) -> list[DataLoader[dict[str, Any]]]:
        return [DataLoader(Rows(ref), batch_size=4) for ref in self.test_refs]

    def predict_dataloader(self) -> list[DataLoader[dict[str, Any]]]:
        return [DataLoader(Rows(ref), batch_size=4) for ref in self.predict_refs]

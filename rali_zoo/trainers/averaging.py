"""Exponential moving average of weights: what is validated and kept is the average, not the last step."""

from __future__ import annotations

from typing import cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rali_zoo.errors import ConfigError


class AverageWeights(WeightAveraging):
    """Average the weights and the statistics over the steps, each with its share of ``1 - decay``.

    Lightning's own average of equal values differs from them in the last bit, so that a frozen encoder would move
    and its cached features be made again; this one leaves equal values as they are.

    Args:
        decay: in (0, 1); the average reaches back about ``1 / (1 - decay)`` steps.

    Raises:
        ConfigError: another decay.
    """

    def __init__(self, decay: float = 0.995) -> None:
        if not 0 < decay < 1:
            raise ConfigError(f"decay={decay!r} of AverageWeights lies above 0 and below 1, e.g. 0.995")
        super().__init__(multi_avg_fn=self._average)
        self._of_moving = get_ema_multi_avg_fn(decay)
        #: by address, frozen parameters that their average equals: most of a model whose head alone learns
        self._still: dict[int, Tensor] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for what stays as it is."""
        average = cast(AveragedModel, self._average_model)
        pairs = zip(average.module.parameters(), pl_module.parameters(), strict=True)
        fixed = [(a, p) for a, p in pairs if not p.requires_grad]
        self._still = {p.data_ptr(): p for a, p in fixed if torch.equal(a, p.to(a.device))}

    def _average(self, averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        def moves(value: Tensor) -> bool:
            still = self._still.get(value.data_ptr())
            return still is None or still.requires_grad

        rows = [(a, c) for a, c in zip(averaged, current, strict=True) if moves(c)]
        if rows:
            self._of_moving([a for a, _ in rows], [c for _, c in rows], count)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, object]
    ) -> None:
        """Take up the average where training goes on; a test of a checkpoint is one of its averaged weights.

        Lightning's own would put the weights of the last step in their place after a ``fit`` in the same process.
        """
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

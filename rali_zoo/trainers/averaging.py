"""Exponential moving average of weights: what is validated and kept is the average, not the last step."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim.swa_utils import get_ema_multi_avg_fn

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
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, object]
    ) -> None:
        """Take up the average where training goes on; a test of a checkpoint is one of its averaged weights.

        Lightning's own would put the weights of the last step in their place after a ``fit`` in the same process.
        """
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

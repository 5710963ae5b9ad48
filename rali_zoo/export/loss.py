"""A scorer as a loss or a reward: gradients reach the pixels through resizing, cropping and the network."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from rali_zoo.errors import ConfigError
from rali_zoo.export.graph import exportable
from rali_zoo.export.tensors import cut
from rali_zoo.models.scorer import NetworkScorer
from rali_zoo.types import MOS_RANGE, Batch
from rali_zoo.zoo import load_ours

Reduction = Literal["mean", "sum", "none"]


class QualityLoss(nn.Module):
    """How far images are from the best quality: 0 for a score of 5, 1 for a score of 1.

    Its network is frozen and stays in evaluation mode, whatever it is a part of. Scores agree with those of
    files up to the rounding of resized pixels (:func:`~rali_zoo.export.tensors.cut`). Like every network, it
    can be fooled: an optimiser that sees only this loss finds images that it likes and people do not.

    Args:
        model: reference of a scorer with gradients (``ckpt:``, ``local-dir:``, ``hf-hub:`` or a zoo name), or
            the scorer, which is copied.
        reduction: over the images of a batch.
        device: where to compute; the CPU by default.

    Raises:
        ConfigError: an unknown reduction, or a scorer without gradients.
    """

    def __init__(
        self, model: str | NetworkScorer, reduction: Reduction = "mean", device: str | None = None
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ConfigError(f"reduction={reduction!r}; it is one of mean, sum, none")
        scorer = load_ours(model) if isinstance(model, str) else model
        network = exportable(scorer)
        self.name, self.reduction = scorer.name, reduction
        self.network = network if isinstance(model, str) else copy.deepcopy(network)
        self.network.requires_grad_(False)
        self.eval()
        if device is not None:
            self.to(device)

    def train(self, mode: bool = True) -> QualityLoss:
        """Stay in evaluation mode."""
        return super().train(False)

    def score(self, image: Tensor) -> Tensor:
        """Scores of images: a reward.

        Args:
            image: (B, 3, H, W) floating point in [0, 1], RGB; values outside are taken as they are.

        Returns:
            (B,) in [1, 5], higher is better; differentiable.

        Raises:
            ConfigError: another shape or type.
        """
        batch = Batch(image=cut(image, self.network.view, self.network.preprocess))
        return self.network.predict_batch(batch).score

    def forward(self, image: Tensor) -> Tensor:
        """(5 - score) / 4 of images (B, 3, H, W), reduced: a scalar, or (B,) for ``none``."""
        low, high = MOS_RANGE
        loss = (high - self.score(image)) / (high - low)
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()


def quality_loss(
    model: str | NetworkScorer, reduction: Reduction = "mean", device: str | torch.device | None = None
) -> QualityLoss:
    """A scorer as a loss in [0, 1]; ``.score`` is the reward in [1, 5]. See :class:`QualityLoss`."""
    return QualityLoss(model, reduction, None if device is None else str(device))

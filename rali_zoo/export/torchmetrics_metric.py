"""A scorer as a ``torchmetrics.Metric``."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from rali_zoo.errors import ConfigError
from rali_zoo.export.tensors import exact_scores
from rali_zoo.models.scorer import NetworkScorer
from rali_zoo.zoo import load_ours


class RALIScore(Metric):
    """Mean quality of images, or the quality of each.

    The scores are those that ``rali-zoo score`` gives the same images as files; without gradients (see
    :func:`rali_zoo.quality_loss` for those). The network is no part of the metric's state.

    Args:
        model: reference of a scorer, as :func:`rali_zoo.load_model` takes it, or the scorer.
        reduction: ``mean``, or ``none`` for one score an image in the order of the updates.
        device: where the network computes; the CPU by default.

    Raises:
        ConfigError: an unknown reduction.

    Example:
        >>> import torch
        >>> from rali_zoo import RALIScore
        >>> metric = RALIScore("rali-tiny-synthetic")
        >>> metric.update(torch.zeros(2, 3, 160, 160))
        >>> 1 <= float(metric.compute()) <= 5
        True
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 1.0
    plot_upper_bound = 5.0
    total: Tensor
    count: Tensor
    scores: list[Tensor]

    def __init__(
        self,
        model: str | NetworkScorer,
        reduction: Literal["mean", "none"] = "mean",
        device: str | None = None,
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "none"):
            raise ConfigError(f"reduction={reduction!r}; it is one of mean, none")
        self.scorer = load_ours(model, device) if isinstance(model, str) else model
        self.reduction = reduction
        if reduction == "none":
            self.add_state("scores", default=[], dist_reduce_fx="cat")
        else:
            self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, image: Tensor) -> None:
        """Score one batch.

        Args:
            image: (B, 3, H, W), uint8, or floats in [0, 1]; RGB.

        Raises:
            ConfigError: another shape, values outside the range, or an image that cannot be scored.
        """
        scores = exact_scores(self.scorer, image)
        if self.reduction == "none":
            self.scores.append(scores)
        else:
            self.total += scores.double().sum()
            self.count += len(scores)

    def compute(self) -> Tensor:
        """Scalar in [1, 5], NaN before any image; or (N,) scores for ``reduction="none"``."""
        if self.reduction == "none":
            return dim_zero_cat(self.scores) if len(self.scores) else torch.empty(0, device=self.device)
        return (self.total / self.count).float()

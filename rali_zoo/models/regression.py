"""Backbone and head to MOS: the reference everyone compares with, and the shortest network to copy."""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from rali_zoo.errors import ConfigError
from rali_zoo.models.base import BackboneNetwork, Neck, Prediction
from rali_zoo.types import MOS_RANGE, Batch

Head = Literal["linear", "mlp"]
#: Levels whose quantiles are kept; an interval takes the next one up.
LEVELS = tuple(round(0.01 * k, 2) for k in range(1, 100))
_SMALLEST = 0.02  # of a standard deviation in MOS: below, one image would decide a batch


def bounded(value: Tensor) -> Tensor:
    """(B,) outputs of a head to scores in [1, 5], by a sigmoid."""
    low, high = MOS_RANGE
    return low + (high - low) * torch.sigmoid(value)


class RegressionNetwork(BackboneNetwork):
    """MOS from pooled features.

    Args:
        backbone: image encoder by URI.
        head: ``linear`` or ``mlp``, on standardised features.
        hidden: width of the perceptron's hidden layer.
        dropout: share in [0, 1) of inputs and hidden units dropped while training.
        feature_limit: standard deviations at which standardised features are cut; 0 leaves them.
    """

    def __init__(
        self,
        backbone: str = "rali:tiny",
        head: Head = "mlp",
        hidden: int = 256,
        dropout: float = 0.1,
        feature_limit: float = 0.0,
    ) -> None:
        super().__init__(backbone)
        self.head = Neck(head, self.backbone.dim, 1, hidden, dropout, feature_limit)

    def predict_features(self, features: Tensor) -> Prediction:
        """(B, D) features to scores in [1, 5]."""
        return Prediction(bounded(self.head(features)[:, 0]))


class DistributionNetwork(BackboneNetwork):
    """Mean and calibrated standard deviation of the MOS from pooled features (Nix and Weigend 1994).

    Args:
        backbone: image encoder by URI.
        head: ``linear`` or ``mlp``, on standardised features.
        hidden: width of the perceptron's hidden layer.
        dropout: share in [0, 1) of inputs and hidden units dropped while training.
    """

    infinite = ("quantiles",)  # of levels that few calibration images cannot promise
    scale: Tensor  #: () factor from the head's standard deviation to the calibrated one
    quantiles: Tensor  #: (99,) half widths of the intervals of LEVELS, in calibrated standard deviations
    calibrated_on: Tensor  #: () validation rows behind both; 0 = not calibrated

    def __init__(
        self, backbone: str = "rali:tiny", head: Head = "mlp", hidden: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__(backbone)
        self.head = Neck(head, self.backbone.dim, 2, hidden, dropout)
        normal = torch.special.ndtri((1 + torch.tensor(LEVELS, dtype=torch.float64)) / 2)
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("quantiles", normal.float())
        self.register_buffer("calibrated_on", torch.tensor(0))

    def predict_features(self, features: Tensor) -> Prediction:
        """(B, D) features to scores in [1, 5] and standard deviations before calibration."""
        mean, width = self.head(features).unbind(dim=1)
        return Prediction(bounded(mean), _SMALLEST + F.softplus(width))

    def predict_raw(self, batch: Batch) -> Prediction:
        """Scores of a batch with standard deviations before calibration."""
        return super().predict_batch(batch)

    def predict_batch(self, batch: Batch) -> Prediction:
        """Scores of a batch with calibrated standard deviations (68 % of the errors are smaller)."""
        raw = self.predict_raw(batch)
        return raw._replace(std=cast(Tensor, raw.std) * self.scale)

    def half_width(self, level: float) -> float:
        """Half of an interval, in calibrated standard deviations.

        Args:
            level: of confidence, from 0.01 to 0.99; rounded up to a hundredth.

        Raises:
            ConfigError: another level.
        """
        if not LEVELS[0] <= level <= LEVELS[-1]:
            raise ConfigError(f"level={level}: intervals are kept for {LEVELS[0]} to {LEVELS[-1]}")
        return float(self.quantiles[math.ceil(round(100 * level, 6)) - 1])

    def interval(self, score: Tensor, std: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Lower and upper ends, (B,) each in [1, 5], of intervals that hold the MOS at a confidence level.

        Args:
            score: (B,) of :meth:`predict_batch`.
            std: (B,) of :meth:`predict_batch`.
            level: from 0.01 to 0.99; rounded up to a hundredth.

        Raises:
            ConfigError: another level.
        """
        half = std * self.half_width(level)
        return (score - half).clamp(*MOS_RANGE), (score + half).clamp(*MOS_RANGE)

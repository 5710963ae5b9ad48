"""Regression of a distribution: a score, and a calibrated uncertainty, for every image.

The head gives a mean and a standard deviation (Nix and Weigend 1994). What the deviation means depends on
what it is trained against: the error of the score (``mos``), or the spread of opinions (``opinions``), of
people or of a teacher that was asked several times (Z-Reward, arXiv 2606.09076, distils that distribution).
Either way it is calibrated on the validation rows by split conformal prediction, after every validation, so
that a checkpoint carries the calibration of its own weights.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from rali_zoo.errors import ConfigError
from rali_zoo.metrics.intervals import ONE_SIGMA, conformal_quantile, interval_coverage
from rali_zoo.trainers.base import Neck, Prediction
from rali_zoo.trainers.losses import score_loss
from rali_zoo.trainers.regression import Regression
from rali_zoo.types import MOS_RANGE, Batch

Target = Literal["mos", "opinions"]

#: Levels whose quantiles a checkpoint keeps; an interval takes the next one up.
LEVELS = tuple(round(0.01 * k, 2) for k in range(1, 100))
#: Levels that a test run reports.
REPORTED = (0.5, 0.8, 0.95)
_SMALLEST = 0.02  # of a standard deviation in MOS: below, one image would decide a batch


def distribution_loss(
    score: Tensor, std: Tensor, mos: Tensor, opinions: Tensor | None = None, beta: float = 0.5
) -> Tensor:
    """Negative log-likelihood of a normal distribution, weighted by its variance to the power ``beta``.

    With ``opinions`` this is the Kullback-Leibler divergence from N(mos, opinions²) to N(score, std²), up to
    a constant. The weight keeps images that are hard from being given up (Seitzer et al., "On the pitfalls
    of heteroscedastic uncertainty estimation", ICLR 2022); it carries no gradient.

    Args:
        score: (B,) predicted means on [1, 5].
        std: (B,) predicted standard deviations, above 0.
        mos: (B,) MOS on [1, 5].
        opinions: (B,) standard deviations of the opinions, at least 0.
        beta: 0 is the plain likelihood; with 1 the mean is learned as by the mean square error.
    """
    variance = std.square()
    second = (mos - score).square()
    if opinions is not None:
        second = second + opinions.square()
    loss = (second / variance + variance.log()) / 2
    return (loss * variance.detach().pow(beta)).mean()


class DistributionRegression(Regression):
    """Mean and standard deviation of the quality of an image on pooled features.

    Args:
        backbone: image encoder by URI.
        head: ``linear`` or ``mlp``, on standardised features.
        hidden: width of the perceptron's hidden layer.
        dropout: share in [0, 1) of inputs and hidden units dropped while training.
        lr: learning rate of the head.
        encoder_lr: learning rate of the backbone; 0 freezes it and lets its features be cached.
        weight_decay: of AdamW.
        target: what the standard deviation is trained to be: ``mos`` = of the score's error;
            ``opinions`` = of single opinions, which needs data sets with ``std`` (or the table of a teacher's
            samples that 'rali-zoo teacher-scores' writes).
        beta: weight of hard images, see :func:`distribution_loss`.
        plcc_weight: weight of the PLCC loss inside each data set of a batch.
    """

    scale: Tensor  #: () factor from the head's standard deviation to the calibrated one
    quantiles: Tensor  #: (99,) half widths of the intervals of LEVELS, in calibrated standard deviations
    calibrated_on: Tensor  #: () validation rows behind both; 0 = not calibrated

    def __init__(
        self,
        backbone: str = "rali:tiny",
        head: Literal["linear", "mlp"] = "mlp",
        hidden: int = 256,
        dropout: float = 0.1,
        lr: float = 1e-3,
        encoder_lr: float = 1e-3,
        weight_decay: float = 0.05,
        target: Target = "mos",
        beta: float = 0.5,
        plcc_weight: float = 0.0,
    ) -> None:
        super().__init__(backbone, head, hidden, dropout, lr, encoder_lr, weight_decay, "mse", plcc_weight)
        self.save_hyperparameters()
        for inherited in ("loss", "fidelity_weight"):  # settings of the parent that this class does not have
            self.hparams.pop(inherited, None)
        self.head = Neck(head, self.backbone.dim, 2, hidden, dropout)
        self.target, self.beta = target, beta
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer(
            "quantiles", torch.tensor([stats.norm.ppf((1 + level) / 2) for level in LEVELS]).float()
        )
        self.register_buffer("calibrated_on", torch.tensor(0))

    # ---- scoring ------------------------------------------------------------------------------

    def predict_features(self, features: Tensor) -> Prediction:
        """(B, D) features to scores, bounded to [1, 5], and standard deviations before calibration."""
        low, high = MOS_RANGE
        mean, spread = self.head(features).unbind(dim=1)
        return Prediction(low + (high - low) * torch.sigmoid(mean), _SMALLEST + F.softplus(spread))

    def predict_batch(self, batch: Batch) -> Prediction:
        """Scores of a batch with calibrated standard deviations (68 % of the errors are smaller)."""
        raw = super().predict_batch(batch)
        return raw._replace(std=cast(Tensor, raw.std) * self.scale)

    def interval(self, score: Tensor, std: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Lower and upper ends, (B,) each in [1, 5], of intervals that hold the MOS at a confidence level.

        Args:
            score: (B,) of :meth:`predict_batch`.
            std: (B,) of :meth:`predict_batch`.
            level: from 0.01 to 0.99; rounded up to a hundredth.

        Raises:
            ConfigError: another level.
        """
        if not LEVELS[0] <= level <= LEVELS[-1]:
            raise ConfigError(f"level={level}: intervals are kept for {LEVELS[0]} to {LEVELS[-1]}")
        half = std * self.quantiles[math.ceil(round(100 * level, 6)) - 1]
        return (score - half).clamp(*MOS_RANGE), (score + half).clamp(*MOS_RANGE)

    # ---- training -----------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Scalar loss of a batch of images with a MOS, and of ``opinions`` with its deviation.

        Raises:
            ConfigError: target ``opinions`` and an image whose deviation is unknown.
        """
        out = super().predict_batch(batch)
        opinions = batch["std"] if self.target == "opinions" else None
        if opinions is not None and not bool(torch.isfinite(opinions).all()):
            lacking = next(
                d for d, s in zip(batch["dataset"], opinions.tolist(), strict=True) if math.isnan(s)
            )
            raise ConfigError(
                f"model.target=opinions learns the spread of opinions, which {lacking!r} does not tell of "
                "every image; use target=mos, or the table that 'rali-zoo teacher-scores' makes of a "
                "teacher's samples"
            )
        value = distribution_loss(out.score, cast(Tensor, out.std), batch["mos"], opinions, self.beta)
        value = value + score_loss(
            out.score, batch["mos"], batch["std"], batch["dataset"], "mse", (0.0, self.weights[1], 0.0)
        )
        self.log("train/loss", value, prog_bar=True, batch_size=len(out.score))
        return value

    def on_validation_epoch_end(self) -> None:
        """Log SRCC and PLCC, then calibrate on the validation rows."""
        super().on_validation_epoch_end()
        if self.trainer.sanity_checking:
            return
        frames = [self.evaluation._frame(loader) for loader in range(len(self.datamodule.val_refs))]
        rows = [f[f["mos"].notna()] for f in frames]
        error = torch.cat([torch.tensor((f["mos"] - f["score"]).abs().to_numpy()) for f in rows])
        std = torch.cat([torch.tensor(f["std"].to_numpy()) for f in rows])
        self.calibrate(error, std / float(self.scale))

    def calibrate(self, error: Tensor, std: Tensor) -> None:
        """Set the scale of the standard deviation and the quantiles of the intervals.

        Args:
            error: (N,) absolute errors of images not trained on.
            std: (N,) standard deviations before calibration.

        Raises:
            ConfigError: fewer than two images, or one with a NaN.
        """
        if len(error) < 2 or not bool(torch.isfinite(error / std).all()):
            raise ConfigError(
                f"calibration needs 2 validation images with finite scores or more, not {len(error)}"
            )
        ratio = (error / std).double().cpu().numpy()
        one = conformal_quantile(ratio, ONE_SIGMA)
        one = float(ratio.max()) if math.isinf(one) else one  # two images cannot promise 68 %
        self.scale.fill_(max(one, 1e-6))
        self.quantiles.copy_(torch.tensor([conformal_quantile(ratio, q) for q in LEVELS]) / self.scale.cpu())
        self.calibrated_on.fill_(len(error))

    def on_test_epoch_end(self) -> None:
        """Log every metric, and of intervals the coverage and width: ``test/<reference>/coverage_95``."""
        super().on_test_epoch_end()
        for ref, table in self.test_tables.items():
            rows = table[(table["error"] == "") & table["mos"].notna()]
            for level in REPORTED:
                half = rows["std"].to_numpy() * float(self.quantiles[round(100 * level) - 1])
                found = interval_coverage(rows["mos"], rows["score"], half, level)
                for name, value in (("coverage", found.coverage), ("width", found.width)):
                    self.log(
                        f"test/{ref}/{name}_{100 * level:.0f}",
                        value,
                        add_dataloader_idx=False,
                        sync_dist=True,
                    )

"""Regression of the MOS: the reference everyone compares with, and the shortest trainer to copy."""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import Tensor

from rali_zoo.errors import ConfigError
from rali_zoo.metrics.intervals import ONE_SIGMA, conformal_quantile, interval_coverage
from rali_zoo.models.base import loading_weights
from rali_zoo.models.regression import LEVELS, DistributionNetwork, Head, RegressionNetwork
from rali_zoo.trainers.base import BackboneModule, check_settings, split_chains
from rali_zoo.trainers.losses import RegressionLoss, score_loss
from rali_zoo.types import Batch

Target = Literal["mos", "opinions"]
#: Levels that a test run reports.
REPORTED = (0.5, 0.8, 0.95)


class Regression(BackboneModule):
    """MOS regression on pooled features.

    Args:
        backbone: image encoder by URI.
        head: ``linear`` or ``mlp``, on standardised features.
        hidden: width of the perceptron's hidden layer.
        dropout: share in [0, 1) of inputs and hidden units dropped while training.
        lr: learning rate of the head.
        encoder_lr: learning rate of the backbone; 0 freezes it and lets its features be cached.
        weight_decay: of AdamW.
        loss: pointwise loss on the MOS scale.
        plcc_weight: weight of the PLCC loss inside each data set of a batch.
        fidelity_weight: weight of the Thurstone fidelity ranking loss inside each data set of a batch.
        rank_weight: weight of the loss of images whose order is known (``data.ranks``).
        feature_limit: standard deviations at which standardised features are cut; 0 leaves them.
        frozen_stages: of a backbone that is trained, how many of its first stages stay as they are.
        window: share in (0, 1] of the map behind the frozen stages that a training step sees, at random.
        init_from: scorer whose weights are the start: one that the package carries (``photo``), a scorer file or a
            checkpoint, with the same backbone and head.
    """

    def __init__(
        self,
        backbone: str = "rali:tiny",
        head: Head = "mlp",
        hidden: int = 256,
        dropout: float = 0.1,
        lr: float = 1e-3,
        encoder_lr: float = 1e-3,
        weight_decay: float = 0.05,
        loss: RegressionLoss = "mse",
        plcc_weight: float = 0.0,
        fidelity_weight: float = 0.0,
        rank_weight: float = 0.1,
        feature_limit: float = 0.0,
        frozen_stages: int = 0,
        window: float = 1.0,
        init_from: str | None = None,
    ) -> None:
        check_settings(locals())
        network = RegressionNetwork(backbone, head, hidden, dropout, feature_limit)
        super().__init__(
            network,
            lr,
            encoder_lr,
            weight_decay,
            loss,
            plcc_weight,
            fidelity_weight,
            rank_weight,
            frozen_stages,
            window,
        )
        self.save_hyperparameters()
        if init_from is not None and not loading_weights():
            self.start_from(init_from)


def distribution_loss(
    score: Tensor, std: Tensor, mos: Tensor, ratings: Tensor | None = None, beta: float = 0.5
) -> Tensor:
    """Negative log-likelihood of a normal distribution, weighted by its variance to the power ``beta``.

    With ``ratings`` this is the Kullback-Leibler divergence from N(mos, ratings²) to N(score, std²), up to
    a constant. The weight keeps images that are hard from being given up (Seitzer et al., "On the pitfalls
    of heteroscedastic uncertainty estimation", ICLR 2022); it carries no gradient.

    Args:
        score: (B,) predicted means on [1, 5].
        std: (B,) predicted standard deviations, above 0.
        mos: (B,) MOS on [1, 5].
        ratings: (B,) standard deviations of the individual ratings, at least 0.
        beta: 0 is the plain likelihood; with 1 the mean is learned as by the mean square error.
    """
    variance = std.square()
    second = (mos - score).square()
    if ratings is not None:
        second = second + ratings.square()
    loss = (second / variance + variance.log()) / 2
    return (loss * variance.detach().pow(beta)).mean()


class DistributionRegression(BackboneModule):
    """Mean and standard deviation of the quality of an image on pooled features.

    What the deviation means depends on what it is trained against: the error of the score, or the deviation of
    individual ratings, of people or of a teacher that was asked several times (Z-Reward, arXiv 2606.09076, distils
    that distribution). Either way it is calibrated on the validation rows by split conformal prediction, after
    every validation, so that a checkpoint carries the calibration of its own weights.

    Args:
        backbone: image encoder by URI.
        head: ``linear`` or ``mlp``, on standardised features.
        hidden: width of the perceptron's hidden layer.
        dropout: share in [0, 1) of inputs and hidden units dropped while training.
        lr: learning rate of the head.
        encoder_lr: learning rate of the backbone; 0 freezes it and lets its features be cached.
        weight_decay: of AdamW.
        target: what the standard deviation is trained to be: ``mos`` = of the score's error;
            ``opinions`` = of individual ratings, which needs data sets with ``std`` (or the table of a
            teacher's samples that 'rali-zoo teacher-scores' writes).
        beta: weight of hard images, see :func:`distribution_loss`.
        plcc_weight: weight of the PLCC loss inside each data set of a batch.
        rank_weight: weight of the loss of images whose order is known (``data.ranks``).
    """

    network: DistributionNetwork

    def __init__(
        self,
        backbone: str = "rali:tiny",
        head: Head = "mlp",
        hidden: int = 256,
        dropout: float = 0.1,
        lr: float = 1e-3,
        encoder_lr: float = 1e-3,
        weight_decay: float = 0.05,
        target: Target = "mos",
        beta: float = 0.5,
        plcc_weight: float = 0.0,
        rank_weight: float = 0.1,
    ) -> None:
        check_settings(locals())
        network = DistributionNetwork(backbone, head, hidden, dropout)
        super().__init__(
            network, lr, encoder_lr, weight_decay, plcc_weight=plcc_weight, rank_weight=rank_weight
        )
        self.save_hyperparameters()
        self.target, self.beta = target, beta

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Scalar loss of a batch of images with a MOS, and of ``opinions`` with its deviation.

        Raises:
            ConfigError: target ``opinions`` and an image whose deviation is unknown.
        """
        batch, ranked = split_chains(batch)
        out = self.network.predict_raw(batch)
        ratings = batch["std"] if self.target == "opinions" else None
        if ratings is not None and not bool(torch.isfinite(ratings).all()):
            missing = next(
                d for d, s in zip(batch["dataset"], ratings.tolist(), strict=True) if math.isnan(s)
            )
            raise ConfigError(
                f"model.target=opinions learns the deviation of individual ratings, which {missing!r} does not "
                "state for every image; use target=mos, or the table that 'rali-zoo teacher-scores' makes of a "
                "teacher's samples"
            )
        value = distribution_loss(out.score, cast(Tensor, out.std), batch["mos"], ratings, self.beta)
        correlation = (0.0, self.plcc_weight, 0.0)
        value = value + score_loss(
            out.score, batch["mos"], batch["std"], batch["dataset"], "mse", correlation
        )
        value = value + self.rank_loss(ranked)
        self.log_step("train/loss", value, len(out.score))
        return value

    def on_validation_epoch_end(self) -> None:
        """Log SRCC and PLCC, then calibrate on the validation rows."""
        super().on_validation_epoch_end()
        if self.trainer.sanity_checking:
            return
        frames = [self.evaluation.frame(loader) for loader in range(len(self.datamodule.val_refs))]
        rows = [f[f["mos"].notna()] for f in frames]
        error = torch.cat([torch.tensor((f["mos"] - f["score"]).abs().to_numpy()) for f in rows])
        std = torch.cat([torch.tensor(f["std"].to_numpy()) for f in rows])
        self.calibrate(error, std / float(self.network.scale))

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
        network = self.network
        network.scale.fill_(max(one, 1e-6))
        quantiles = torch.tensor([conformal_quantile(ratio, q) for q in LEVELS])
        network.quantiles.copy_(quantiles / network.scale.cpu())
        network.calibrated_on.fill_(len(error))

    def on_test_epoch_end(self) -> None:
        """Log every metric, and of intervals the coverage and width: ``test/<reference>/coverage_95``."""
        super().on_test_epoch_end()
        for ref, table in self.test_tables.items():
            rows = table[(table["error"] == "") & table["mos"].notna()]
            for level in REPORTED:
                half = rows["std"].to_numpy() * self.network.half_width(level)
                found = interval_coverage(rows["mos"], rows["score"], half, level)
                for name, value in (("coverage", found.coverage), ("width", found.width)):
                    key = f"test/{ref}/{name}_{100 * level:.0f}"
                    self.log(key, value, add_dataloader_idx=False, sync_dist=True)

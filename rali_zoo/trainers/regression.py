"""Backbone and head to MOS: the reference everyone compares with, and the shortest module to copy."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rali_zoo.trainers.base import BackboneModule, Neck, Prediction
from rali_zoo.trainers.losses import RegressionLoss, score_loss
from rali_zoo.types import MOS_RANGE, Batch


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
    """

    def __init__(
        self,
        backbone: str = "rali:tiny",
        head: Literal["linear", "mlp"] = "mlp",
        hidden: int = 256,
        dropout: float = 0.1,
        lr: float = 1e-3,
        encoder_lr: float = 1e-3,
        weight_decay: float = 0.05,
        loss: RegressionLoss = "mse",
        plcc_weight: float = 0.0,
        fidelity_weight: float = 0.0,
    ) -> None:
        super().__init__(backbone, encoder_lr)
        self.save_hyperparameters()
        self.head = Neck(head, self.backbone.dim, 1, hidden, dropout)
        self.loss, self.weights = loss, (1.0, plcc_weight, fidelity_weight)
        self.lr, self.encoder_lr, self.weight_decay = lr, encoder_lr, weight_decay

    def predict_features(self, features: Tensor) -> Prediction:
        """(B, D) features to scores, bounded to [1, 5] by a sigmoid."""
        low, high = MOS_RANGE
        return Prediction(low + (high - low) * torch.sigmoid(self.head(features)[:, 0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Scalar loss of a batch of images with a MOS."""
        score = self.predict_batch(batch).score
        value = score_loss(score, batch["mos"], batch["std"], batch["dataset"], self.loss, self.weights)
        self.log("train/loss", value, prog_bar=True, batch_size=len(score))
        return value

    def configure_optimizers(self) -> Any:
        """AdamW with a learning rate for the head and one for the backbone; warm-up, then cosine."""
        groups = [{"params": list(self.head.parameters()), "lr": self.lr}]
        if not self.encoder_is_frozen:
            groups.append({"params": list(self.backbone.parameters()), "lr": self.encoder_lr})
        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        total = self.total_steps
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.warmup_cosine(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

"""The statistics of this package as a ``torchmetrics.Metric``, for ``self.log`` and for DDP.

For a LightningModule of your own: ``iqa_metrics("val/")`` in its constructor, ``update`` with every batch.
Our own trainers keep a row an image instead, since their reports need them.
Every pair is kept (float64) and gathered across ranks before computing, since a rank correlation is no
mean of the batches' ones. An undefined correlation is NaN, with a warning that says why.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat, rank_zero_warn

from rali_zoo.errors import UnknownNameError
from rali_zoo.metrics.correlation import explain_undefined
from rali_zoo.report import STATISTICS


class Agreement(Metric):
    """One statistic over all batches.

    Args:
        statistic: a name of :data:`rali_zoo.report.STATISTICS`.

    Raises:
        UnknownNameError: there is no such statistic.
    """

    is_differentiable = False
    full_state_update = False
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, statistic: str) -> None:
        super().__init__()
        if statistic not in STATISTICS:
            raise UnknownNameError("statistic", statistic, STATISTICS)
        self.statistic = STATISTICS[statistic]
        self.set_dtype(torch.float64)  # also the type of the empty state of a rank that saw no batch
        self.add_state("preds", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """The direction of the statistic."""
        return self.statistic.higher_is_better

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: (B,) or (B, 1) predictions, finite.
            target: (B,) or (B, 1) mean opinion scores, finite.

        Raises:
            ValueError: different numbers of values, or one that is NaN or infinite.
        """
        if preds.numel() != target.numel():
            raise ValueError(f"preds {tuple(preds.shape)} and target {tuple(target.shape)} do not pair up")
        for name, values in (("preds", preds), ("target", target)):
            if not bool(torch.isfinite(values).all()):
                raise ValueError(f"{name} has a NaN or infinite value; leave that image out and count it")
        self.preds.append(_kept(preds))
        self.target.append(_kept(target))

    def compute(self) -> Tensor:
        """Scalar float64 tensor; NaN if undefined."""
        if not isinstance(self.preds, Tensor) and not self.preds:
            pred = mos = np.empty(0)
        else:
            pred, mos = (dim_zero_cat(state).cpu().numpy() for state in (self.preds, self.target))
        value = self.statistic(pred, mos)
        if np.isnan(value):
            reason = explain_undefined(pred, mos) or f"{pred.size} pairs are too few"
            rank_zero_warn(f"{self.statistic.label} is undefined: {reason}")
        # Apple's GPUs have no float64.
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        return torch.tensor(value, dtype=dtype, device=self.device)


def _kept(values: Tensor) -> Tensor:
    values = values.detach().flatten()
    return (values.cpu() if values.device.type == "mps" else values).to(torch.float64)


def iqa_metrics(prefix: str = "") -> MetricCollection:
    """Every statistic of :data:`rali_zoo.report.STATISTICS`.

    Args:
        prefix: put before every name, such as ``"val/koniq10k/"``.
    """
    metrics: dict[str, Metric | MetricCollection] = {name: Agreement(name) for name in STATISTICS}
    return MetricCollection(metrics, prefix=prefix)

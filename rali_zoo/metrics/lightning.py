"""The metrics of this package as ``torchmetrics.Metric`` classes, for ``self.log`` and for DDP.

Every pair is kept (float64) and gathered across ranks before computing, since a rank correlation is no
mean of the batches' ones. An undefined correlation is NaN, with a warning that says why.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat, rank_zero_warn

from rali_zoo.metrics import correlation, logistic


class _PairMetric(Metric):
    """Collects (pred, target) pairs; subclasses turn all of them into one number."""

    is_differentiable = False
    full_state_update = False
    preds: list[Tensor]
    target: list[Tensor]
    needs = 2  #: pairs below which the value is undefined

    def __init__(self) -> None:
        super().__init__()
        self.set_dtype(torch.float64)  # also the type of the empty state of a rank that saw no batch
        self.add_state("preds", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

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
        self.preds.append(self._keep(preds))
        self.target.append(self._keep(target))

    def compute(self) -> Tensor:
        """Scalar float64 tensor; NaN if undefined."""
        if not isinstance(self.preds, Tensor) and not self.preds:
            pred = mos = np.empty(0)
        else:
            pred, mos = (dim_zero_cat(state).cpu().numpy() for state in (self.preds, self.target))
        if reason := self._undefined(pred, mos):
            rank_zero_warn(f"{type(self).__name__} is undefined: {reason}")
        value = self._value(pred, mos)
        # Apple's GPUs have no float64.
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        return torch.tensor(value, dtype=dtype, device=self.device)

    @staticmethod
    def _keep(values: Tensor) -> Tensor:
        values = values.detach().flatten()
        return (values.cpu() if values.device.type == "mps" else values).to(torch.float64)

    def _undefined(self, pred: np.ndarray, mos: np.ndarray) -> str | None:
        return correlation.explain_undefined(pred, mos, at_least=self.needs)

    def _value(self, pred: np.ndarray, mos: np.ndarray) -> float:
        raise NotImplementedError


class SRCC(_PairMetric):
    """Spearman's rank correlation over all batches; see :func:`rali_zoo.metrics.srcc`."""

    higher_is_better = True

    def _value(self, pred: np.ndarray, mos: np.ndarray) -> float:
        return correlation.srcc(pred, mos)


class PLCC(_PairMetric):
    """Pearson's correlation without mapping; see :func:`rali_zoo.metrics.plcc`."""

    higher_is_better = True

    def _value(self, pred: np.ndarray, mos: np.ndarray) -> float:
        return correlation.plcc(pred, mos)


class PLCCMapped(_PairMetric):
    """Pearson's correlation after the logistic mapping; see :func:`rali_zoo.metrics.plcc_mapped`.

    Args:
        parameters: of the logistic, 4 or 5.
    """

    higher_is_better = True

    def __init__(self, parameters: Literal[4, 5] = 4) -> None:
        super().__init__()
        self.order: Literal[4, 5] = parameters  # nn.Module owns the name `parameters`
        self.needs = parameters + 1

    def _value(self, pred: np.ndarray, mos: np.ndarray) -> float:
        return logistic.plcc_mapped(pred, mos, self.order)


class KRCC(_PairMetric):
    """Kendall's tau-b over all batches; see :func:`rali_zoo.metrics.krcc`."""

    higher_is_better = True

    def _value(self, pred: np.ndarray, mos: np.ndarray) -> float:
        return correlation.krcc(pred, mos)


class RMSE(_PairMetric):
    """Root mean squared error over all batches; see :func:`rali_zoo.metrics.rmse`."""

    higher_is_better = False

    def _undefined(self, pred: np.ndarray, mos: np.ndarray) -> str | None:
        return None if pred.size else "no pairs"

    def _value(self, pred: np.ndarray, mos: np.ndarray) -> float:
        return correlation.rmse(pred, mos)


def iqa_metrics(prefix: str = "") -> MetricCollection:
    """The five numbers this field reports: ``srcc``, ``plcc``, ``plcc_mapped``, ``krcc``, ``rmse``.

    Args:
        prefix: put before every name, such as ``"val/koniq10k/"``.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "srcc": SRCC(),
        "plcc": PLCC(),
        "plcc_mapped": PLCCMapped(),
        "krcc": KRCC(),
        "rmse": RMSE(),
    }
    return MetricCollection(metrics, prefix=prefix)

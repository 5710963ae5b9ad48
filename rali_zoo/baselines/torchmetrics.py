"""``torchmetrics:NAME``: image metrics of torchmetrics, one image at a time, under their classes' names."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from rali_zoo.baselines.base import Frozen, MetricScorer, Row, networks_in, row_of
from rali_zoo.baselines.fetching import fetching
from rali_zoo.uri import Uri

_UNIT = (0.0, 1.0)


METRICS = {
    "PeakSignalNoiseRatio": Row(options={"data_range": 1.0}),
    "StructuralSimilarityIndexMeasure": Row(value_range=_UNIT, options={"data_range": 1.0}),
    "MultiScaleStructuralSimilarityIndexMeasure": Row(value_range=_UNIT, options={"data_range": 1.0}),
    "UniversalImageQualityIndex": Row(value_range=_UNIT),
    "VisualInformationFidelity": Row(),
    "SpatialCorrelationCoefficient": Row(),
    "SpectralAngleMapper": Row(lower_better=True, value_range=_UNIT),
    "ErrorRelativeGlobalDimensionlessSynthesis": Row(lower_better=True),
    "RelativeAverageSpectralError": Row(lower_better=True),
    "RootMeanSquaredErrorUsingSlidingWindow": Row(lower_better=True),
    "LearnedPerceptualImagePatchSimilarity": Row(
        lower_better=True,
        value_range=_UNIT,
        options={"normalize": True},
        training_sets=("bapps",),
        weights=True,
    ),
    "ARNIQA": Row(
        value_range=_UNIT,
        needs_reference=False,
        options={"regressor_dataset": "koniq10k"},
        training_sets=("koniq10k",),
        weights=True,
    ),
}


def load(uri: Uri, device: str | None = None) -> MetricScorer:
    """Load a metric of torchmetrics, with its default settings for images in [0, 1].

    Args:
        uri: ``torchmetrics:NAME``, the name of a class.
        device: where to compute; the CPU by default.

    Raises:
        UnknownNameError: no such metric.
        WeightsUnavailableError: its weights are neither on this machine nor to be had.
    """
    row = row_of(uri, METRICS, "metric of torchmetrics")
    import torchmetrics
    from torchmetrics import image
    from torchmetrics.image import arniqa

    ref, where = f"{uri.scheme}:{uri.id}", torch.device(device or "cpu")
    # Each process of a distributed run has its own images: nothing is to be summed over them.
    options = {**row.options, "sync_on_compute": False}
    with warnings.catch_warnings(), fetching(ref, "torchmetrics") if row.weights else nullcontext():
        warnings.simplefilter("ignore")  # "will save all targets": it is reset before each image
        kind: Any = arniqa.ARNIQA if uri.id == "ARNIQA" else getattr(image, uri.id)
        metric = kind(**options).to(where)

    def compute(distorted: Tensor, reference: Tensor | None) -> Tensor:
        metric.reset()
        metric.update(distorted) if reference is None else metric.update(distorted, reference)
        return metric.compute()

    facts = row.facts(uri, f"torchmetrics-{torchmetrics.__version__}")
    return MetricScorer(facts, compute, where, networks_in(Frozen(metric)))


def list_metrics(offline: bool = False) -> list[str]:
    """Names of the metrics; ``offline``: of those that need no weights."""
    return sorted(name for name, row in METRICS.items() if not (offline and row.weights))

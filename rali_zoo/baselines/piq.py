"""``piq:NAME``: the functions and classes of piq (PyTorch Image Quality), under piq's own names."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from inspect import isclass
from typing import Any

import torch

from rali_zoo.baselines.base import Facts, Frozen, MetricScorer, networks_in
from rali_zoo.baselines.fetching import fetching
from rali_zoo.errors import MissingExtraError, UnknownNameError
from rali_zoo.uri import Uri

_UNIT = (0.0, 1.0)
_PROBE = 96  # pixels; enough for the windows and scales of every metric with weights


@dataclass(frozen=True)
class Row:
    """What piq's documentation says of a metric.

    Attributes:
        lower_better: whether a smaller value means better quality.
        value_range: nominal range; ``None`` where an end is open.
        needs_reference: whether it compares two images.
        training_sets: rated data sets that it was fitted to.
        weights: whether it fetches a file.
    """

    lower_better: bool = False
    value_range: tuple[float, float] | None = _UNIT
    needs_reference: bool = True
    training_sets: tuple[str, ...] = ()
    weights: bool = False


METRICS = {
    "psnr": Row(value_range=None),
    "ssim": Row(),
    "multi_scale_ssim": Row(),
    "information_weighted_ssim": Row(),
    "vif_p": Row(value_range=None),
    "fsim": Row(),
    "vsi": Row(),
    "srsim": Row(),
    "haarpsi": Row(),
    "dss": Row(),
    "gmsd": Row(lower_better=True, value_range=None),
    "multi_scale_gmsd": Row(lower_better=True, value_range=None),
    "mdsi": Row(lower_better=True, value_range=None),
    "LPIPS": Row(lower_better=True, value_range=None, training_sets=("bapps",), weights=True),
    "DISTS": Row(lower_better=True, training_sets=("kadid10k",), weights=True),
    "PieAPP": Row(lower_better=True, value_range=None, training_sets=("pieapp",), weights=True),
    "brisque": Row(
        lower_better=True, value_range=None, needs_reference=False, training_sets=("live",), weights=True
    ),
    "CLIPIQA": Row(needs_reference=False, weights=True),
}


def load(uri: Uri, device: str | None = None) -> MetricScorer:
    """Load a metric of piq, with piq's default settings.

    Args:
        uri: ``piq:NAME``.
        device: where to compute; the CPU by default.

    Raises:
        MissingExtraError: piq is not installed.
        UnknownNameError: no such metric.
        WeightsUnavailableError: its weights are neither on this machine nor to be had.
    """
    uri.take(())
    row = METRICS.get(uri.id)
    if row is None:
        raise UnknownNameError("metric of piq", uri.id, METRICS)
    try:
        import piq
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "piq", "piq") from error
    ref, where = f"{uri.scheme}:{uri.id}", torch.device(device or "cpu")
    made: Any = getattr(piq, uri.id)
    if row.weights:
        with fetching(ref, "piq"):
            if isclass(made):
                made = Frozen(getattr(piq, uri.id)().to(where))
            # brisque looks for its file only when it is called.
            made(*[torch.rand(1, 3, _PROBE, _PROBE, device=where)] * (1 + row.needs_reference))
    facts = Facts(
        name=ref,
        version=f"piq-{version('piq')}",
        licence="Apache-2.0",
        needs_reference=row.needs_reference,
        lower_better=row.lower_better,
        value_range=row.value_range,
        training_sets=row.training_sets,
    )
    compute = made if row.needs_reference else lambda image, _: made(image)
    return MetricScorer(facts, compute, where, networks_in(made))


def list_metrics(offline: bool = False) -> list[str]:
    """Names of the metrics; ``offline``: of those that need no weights."""
    return sorted(name for name, row in METRICS.items() if not (offline and row.weights))

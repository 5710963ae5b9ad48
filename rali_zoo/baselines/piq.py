"""``piq:NAME``: the functions and classes of piq (PyTorch Image Quality), under piq's own names."""

from __future__ import annotations

from importlib.metadata import version
from inspect import isclass
from typing import Any

import torch

from rali_zoo.baselines.base import Frozen, MetricScorer, Row, networks_in, row_of
from rali_zoo.baselines.fetching import fetching
from rali_zoo.errors import MissingExtraError
from rali_zoo.uri import Uri

_UNIT = (0.0, 1.0)
_PROBE = 96  # pixels; enough for the windows and scales of every metric with weights


#: Under piq's own names, with what its documentation says.
METRICS = {
    "psnr": Row(),
    **{
        name: Row(value_range=_UNIT)
        for name in (
            *("ssim", "multi_scale_ssim", "information_weighted_ssim"),
            *("fsim", "vsi", "srsim", "haarpsi", "dss"),
        )
    },
    "vif_p": Row(),
    **{name: Row(lower_better=True) for name in ("gmsd", "multi_scale_gmsd", "mdsi")},
    "LPIPS": Row(lower_better=True, training_sets=("bapps",), weights=True),
    "DISTS": Row(lower_better=True, value_range=_UNIT, training_sets=("kadid10k",), weights=True),
    "PieAPP": Row(lower_better=True, training_sets=("pieapp",), weights=True),
    "brisque": Row(lower_better=True, needs_reference=False, training_sets=("live",), weights=True),
    "CLIPIQA": Row(value_range=_UNIT, needs_reference=False, weights=True),
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
    row = row_of(uri, METRICS, "metric of piq")
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
    facts = row.facts(uri, f"piq-{version('piq')}")
    compute = made if row.needs_reference else lambda image, _: made(image)
    return MetricScorer(facts, compute, where, networks_in(made))


def list_metrics(offline: bool = False) -> list[str]:
    """Names of the metrics; ``offline``: of those that need no weights."""
    return sorted(name for name, row in METRICS.items() if not (offline and row.weights))

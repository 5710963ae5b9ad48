"""Many statistics of many scorers on the same resamples, drawn once.

:func:`rali_zoo.metrics.bootstrap_ci` is for one statistic; a benchmark cell has six, and sixty scorers have
1,770 pairs.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rali_zoo.metrics.bootstrap import _constant, _pearson, _ranks, _resamples
from rali_zoo.metrics.correlation import FloatArray

Resampled = Literal["srcc", "plcc", "krcc", "rmse"]

#: Images above which Kendall's correlation is not resampled: its time grows with their square.
MOST_KENDALL = 20_000
_BLOCK = 2048  # rows of the sign matrix at a time; bounds memory at 2048 x n numbers


def units_of(rows: int, content: Sequence[Hashable] | None) -> tuple[Literal["image", "content"], int]:
    """What is resampled, and how many there are: contents where they are fewer than the images."""
    contents = len(set(content)) if content is not None else rows
    return ("content", contents) if contents < rows else ("image", rows)


def draw(
    rows: int, resamples: int, seed: int, content: Sequence[Hashable] | None = None
) -> Iterator[FloatArray]:
    """Chunks of shape (≤ 256, rows): how often each row was drawn; the same as of ``bootstrap_ci``.

    Args:
        rows: how many there are.
        resamples: how often to draw.
        seed: of the draws.
        content: of each row, for draws of whole contents; ``None`` = rows are drawn.
    """
    unit, _ = units_of(rows, content)
    return _resamples(rows, resamples, seed, 0.95, content if unit == "content" else None)


def resampled_srcc(
    preds: Sequence[FloatArray], mos: FloatArray, chunks: Iterator[FloatArray]
) -> NDArray[np.float64]:
    """SRCC of several scorers in each resample.

    Args:
        preds: of each scorer (n,) finite predictions.
        mos: (n,) mean opinion scores.
        chunks: of shape (b, n), how often each row was drawn.

    Returns:
        (scorers, resamples); NaN where it is undefined.
    """
    parts = []
    for counts in chunks:
        target = _ranks(mos, counts)
        parts.append(np.stack([_pearson(_ranks(x, counts), target, counts) for x in preds]))
    return np.concatenate(parts, axis=1)


def resampled(
    wanted: Mapping[str, tuple[Resampled, FloatArray]], mos: FloatArray, chunks: Iterator[FloatArray]
) -> dict[str, FloatArray]:
    """Several statistics in each resample.

    Args:
        wanted: a name of your choice to (statistic, (n,) finite predictions).
        mos: (n,) mean opinion scores.
        chunks: of shape (b, n), how often each row was drawn.

    Returns:
        Name to (resamples,) values; NaN where one is undefined.
    """
    parts: dict[str, list[FloatArray]] = {name: [] for name in wanted}
    for counts in chunks:
        for name, (statistic, x) in wanted.items():
            parts[name].append(_values(statistic, x, mos, counts))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _values(statistic: Resampled, x: FloatArray, y: FloatArray, counts: FloatArray) -> FloatArray:
    if statistic == "srcc":
        return _pearson(_ranks(x, counts), _ranks(y, counts), counts)
    if statistic == "krcc":
        return resampled_krcc(x, y, counts)
    if statistic == "rmse":
        return np.sqrt(counts @ np.square(x - y) / counts.sum(axis=1))
    wide = np.broadcast_to(x, counts.shape), np.broadcast_to(y, counts.shape)
    return np.where(_constant(x, counts) | _constant(y, counts), np.nan, _pearson(*wide, counts))


def resampled_krcc(x: FloatArray, y: FloatArray, counts: FloatArray) -> FloatArray:
    """(b,) Kendall's tau-b of (n,) pairs that were drawn (b, n) ``counts`` times; NaN where undefined.

    The concordance of a resample is ``c' S c / 2`` with the signs ``S`` of all pairs of rows, so that all
    resamples are one product of matrices.
    """
    order = np.argsort(x, kind="stable")
    x, y, counts = x[order], y[order], counts[:, order]
    narrow = counts.astype(np.float32)  # sums of at most n small integers stay exact
    balance = np.zeros(len(counts))
    for start in range(0, x.size, _BLOCK):
        stop = start + _BLOCK
        # Rows are sorted by x, so those before a block's end cover every pair with it once.
        later = np.s_[start:stop]
        signs = np.sign(y[None, later] - y[:stop, None]).astype(np.float32)
        signs *= x[None, later] > x[:stop, None]
        balance += np.einsum("bn,bn->b", narrow[:, :stop] @ signs, counts[:, later])
    size = counts.sum(axis=1)
    pairs = size * (size - 1) / 2
    spread = (pairs - _tied(x, counts)) * (pairs - _tied(y, counts))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 0, balance / np.sqrt(spread), np.nan)


def _tied(x: FloatArray, counts: FloatArray) -> FloatArray:
    """(b,) pairs of draws with equal values."""
    _, code = np.unique(x, return_inverse=True)
    order = np.argsort(code, kind="stable")
    first = np.flatnonzero(np.diff(code[order], prepend=-1))
    drawn = np.add.reduceat(counts[:, order], first, axis=1)
    return (drawn * (drawn - 1) / 2).sum(axis=1)


def expanded_interval(values: FloatArray, units: int, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval, widened for few units as Student's t widens the normal one.

    The plain percentile interval is too narrow by ``sqrt((n - 1) / n)`` and by the normal quantile in place
    of t's (Hesterberg, The American Statistician 2015).

    Args:
        values: (resamples,) values of the statistic; NaN are left out.
        units: number of images or contents that were drawn from, at least 2.
        level: confidence level in (0, 1).

    Returns:
        Lower and upper end; NaN if no value is defined.
    """
    defined = values[~np.isnan(values)]
    if defined.size == 0:
        return math.nan, math.nan
    wide = math.sqrt(units / (units - 1)) * stats.t.isf((1 - level) / 2, units - 1)
    tail = float(stats.norm.sf(wide))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)

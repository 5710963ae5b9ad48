"""Percentile bootstrap of a statistic, and of the difference between two scorers on the same images.

A resample is held as how often each image was drawn, not as a list of rows: ranks, ties and moments of a
resample follow from those counts and one sort of the data, so SRCC of 2,000 resamples takes a second or two.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rali_zoo.metrics.correlation import FloatArray, as_pairs, mae, plcc, rmse, srcc

Statistic = Callable[[FloatArray, FloatArray], float]

_CHUNK = 256  # resamples at a time; bounds memory at 256 x n numbers


@dataclass(frozen=True)
class BootstrapResult:
    """A statistic with its confidence interval.

    Attributes:
        value: the statistic of the data.
        low: lower end of the percentile interval; NaN if it was undefined in every resample.
        high: upper end.
        level: confidence level of the interval, in (0, 1).
        resamples: how many resamples were drawn.
        undefined: in how many of them the statistic was NaN; those are left out.
    """

    value: float
    low: float
    high: float
    level: float
    resamples: int
    undefined: int


@dataclass(frozen=True)
class PairedResult:
    """The difference of a statistic between two scorers (a minus b) on the same images.

    Attributes:
        difference: of the data.
        low: lower end of the percentile interval of the difference.
        high: upper end.
        p_value: two-sided, of no difference; from the same resamples, so it is below ``1 - level`` only
            when the interval leaves out zero.
        level: confidence level of the interval, in (0, 1).
        resamples: how many resamples were drawn.
        undefined: in how many of them the difference was NaN; those are left out.
    """

    difference: float
    low: float
    high: float
    p_value: float
    level: float
    resamples: int
    undefined: int


def bootstrap_ci(
    pred: ArrayLike,
    mos: ArrayLike,
    statistic: Statistic = srcc,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    groups: Sequence[Hashable] | None = None,
) -> BootstrapResult:
    """Percentile confidence interval of a statistic.

    Args:
        pred: (m,) predictions.
        mos: (m,) mean opinion scores.
        statistic: ``f(pred, mos)``; ``srcc``, ``plcc``, ``rmse`` and ``mae`` take a fast path.
        n: number of resamples.
        seed: of the resampling; the same seed draws the same resamples for every scorer.
        level: confidence level in (0, 1).
        groups: (m,) labels, such as the reference image of a distorted one; whole groups are then
            drawn, since images of one content are not independent. ``None`` draws images.

    Raises:
        ValueError: rows that do not pair up, a level outside (0, 1), no resample, fewer than two groups.
    """
    x, y = as_pairs(pred, mos)
    values = np.concatenate(
        [_statistic(statistic, x, y, w) for w in _resamples(x.size, n, seed, level, groups)]
    )
    low, high = _interval(values, level)
    return BootstrapResult(float(statistic(x, y)), low, high, level, n, int(np.isnan(values).sum()))


def paired_bootstrap(
    pred_a: ArrayLike,
    pred_b: ArrayLike,
    mos: ArrayLike,
    statistic: Statistic = srcc,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    groups: Sequence[Hashable] | None = None,
) -> PairedResult:
    """Difference of a statistic between two scorers, both measured on the same resamples.

    Args:
        pred_a: (m,) predictions of the first scorer.
        pred_b: (m,) predictions of the second, same images in the same order.
        mos: (m,) mean opinion scores.
        statistic: as in :func:`bootstrap_ci`.
        n: number of resamples.
        seed: of the resampling.
        level: confidence level in (0, 1).
        groups: as in :func:`bootstrap_ci`.

    Raises:
        ValueError: as in :func:`bootstrap_ci`.
    """
    a, y = as_pairs(pred_a, mos)
    b, _ = as_pairs(pred_b, mos)
    parts = [
        _statistic(statistic, a, y, w) - _statistic(statistic, b, y, w)
        for w in _resamples(y.size, n, seed, level, groups)
    ]
    values = np.concatenate(parts)
    low, high = _interval(values, level)
    defined = values[~np.isnan(values)]
    # One is added to both counts: a p-value of 0 would claim more than n resamples can show.
    tail = min(np.sum(defined <= 0), np.sum(defined >= 0)) + 1
    p_value = min(1.0, 2.0 * float(tail) / (defined.size + 1)) if defined.size else float("nan")
    difference = float(statistic(a, y) - statistic(b, y))
    return PairedResult(difference, low, high, p_value, level, n, int(values.size - defined.size))


def _resamples(
    rows: int, n: int, seed: int, level: float, groups: Sequence[Hashable] | None
) -> Iterator[FloatArray]:
    """Chunks of shape (≤ 256, rows): how often each row was drawn."""
    if not 0 < level < 1:
        raise ValueError(f"level={level}: the confidence level lies between 0 and 1, such as 0.95")
    if n < 1:
        raise ValueError(f"n={n}: at least one resample is needed")
    if groups is None:
        member, units, unit = np.arange(rows), rows, "images"
    else:
        if len(groups) != rows:
            raise ValueError(f"groups has {len(groups)} labels for {rows} images")
        numbers: dict[Hashable, int] = {}
        member = np.array([numbers.setdefault(label, len(numbers)) for label in groups], dtype=np.intp)
        units, unit = len(numbers), "groups"
    if units < 2:
        raise ValueError(f"{units} {unit} to draw from; a resample needs at least two")
    rng = np.random.default_rng(seed)
    equal = np.full(units, 1.0 / units)
    for done in range(0, n, _CHUNK):
        drawn = rng.multinomial(units, equal, size=min(_CHUNK, n - done))
        yield drawn[:, member].astype(np.float64)


def _statistic(statistic: Statistic, x: FloatArray, y: FloatArray, counts: FloatArray) -> FloatArray:
    """(B,) values of the statistic, one a resample; NaN where it is undefined."""
    if statistic is srcc:
        return _pearson(_ranks(x, counts), _ranks(y, counts), counts)
    if statistic is plcc:
        result = _pearson(np.broadcast_to(x, counts.shape), np.broadcast_to(y, counts.shape), counts)
        return np.where(_constant(x, counts) | _constant(y, counts), np.nan, result)
    if statistic is mae:
        return counts @ np.abs(x - y) / counts.sum(axis=1)
    if statistic is rmse:
        return np.sqrt(counts @ np.square(x - y) / counts.sum(axis=1))
    times = counts.astype(np.intp)
    return np.array([statistic(np.repeat(x, row), np.repeat(y, row)) for row in times], dtype=np.float64)


def _ranks(x: FloatArray, counts: FloatArray) -> FloatArray:
    """(B, n) mean ranks that the rows of ``x`` have in each resample."""
    _, code = np.unique(x, return_inverse=True)
    order = np.argsort(code, kind="stable")
    first = np.flatnonzero(np.diff(code[order], prepend=-1))
    drawn = np.add.reduceat(counts[:, order], first, axis=1)  # how often each distinct value was drawn
    mean_rank = np.cumsum(drawn, axis=1) - drawn + (drawn + 1) / 2
    return mean_rank[:, code]


def _pearson(x: FloatArray, y: FloatArray, counts: FloatArray) -> FloatArray:
    """(B,) correlations of (B, n) values that were each drawn ``counts`` times."""
    size = counts.sum(axis=1, keepdims=True)
    dx = x - np.einsum("bn,bn->b", counts, x)[:, None] / size
    dy = y - np.einsum("bn,bn->b", counts, y)[:, None] / size
    weighted = counts * dx
    across = np.einsum("bn,bn->b", weighted, dy)
    spread = np.einsum("bn,bn->b", weighted, dx) * np.einsum("bn,bn,bn->b", counts, dy, dy)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 0, np.clip(across / np.sqrt(spread), -1.0, 1.0), np.nan)


def _constant(x: FloatArray, counts: FloatArray) -> np.ndarray:
    """(B,) whether every value drawn is the same; rounding hides it from a variance."""
    drawn = counts > 0
    return np.where(drawn, x, np.inf).min(axis=1) == np.where(drawn, x, -np.inf).max(axis=1)


def _interval(values: FloatArray, level: float) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if defined.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

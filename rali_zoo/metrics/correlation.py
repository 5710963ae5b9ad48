"""Correlations and errors between predictions and MOS: signed, float64, with ties as SciPy counts them.

No absolute value is taken: a scorer that runs backwards gets a negative number. A correlation that is
not defined is NaN, and :func:`explain_undefined` says why.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FloatArray = NDArray[np.float64]


def as_pairs(pred: ArrayLike, mos: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both as float64 vectors of one length.

    Args:
        pred: (n,) predictions, finite.
        mos: (n,) mean opinion scores, finite.

    Raises:
        ValueError: other than one dimension, different lengths, or a value that is NaN or infinite.
            Failed images are for the caller to leave out and to count.
    """
    arrays = []
    for name, values in (("pred", pred), ("mos", mos)):
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 1:
            raise ValueError(f"{name} has shape {array.shape}; give one number an image, shape (n,)")
        bad = np.flatnonzero(~np.isfinite(array))
        if bad.size:
            raise ValueError(
                f"{name} has {bad.size} of {array.size} values NaN or infinite (first: row {bad[0]}); "
                "leave those rows out of both and report how many they were"
            )
        arrays.append(array)
    if arrays[0].size != arrays[1].size:
        raise ValueError(
            f"pred has {arrays[0].size} values and mos has {arrays[1].size}; they pair up row by row"
        )
    return arrays[0], arrays[1]


def explain_undefined(pred: ArrayLike, mos: ArrayLike, at_least: int = 2) -> str | None:
    """Why a correlation of these pairs is not defined; ``None`` when it is.

    Args:
        pred: (n,) predictions.
        mos: (n,) mean opinion scores.
        at_least: how many pairs the statistic needs.
    """
    x, y = as_pairs(pred, mos)
    if x.size < at_least:
        return f"{x.size} pairs, at least {at_least} are needed"
    if x.min() == x.max():
        return f"all {x.size} predictions are {x[0]:g}"
    if y.min() == y.max():
        return f"all {y.size} MOS are {y[0]:g}"
    return None


def srcc(pred: ArrayLike, mos: ArrayLike) -> float:
    """Spearman's rank correlation in [-1, 1] of (n,) pairs; ties get their mean rank; NaN if undefined."""
    x, y = as_pairs(pred, mos)
    if explain_undefined(x, y):
        return float("nan")
    # as stats.spearmanr, without what that does for tables, p-values and other libraries' arrays
    a, b = _ranks(x), _ranks(y)
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def _ranks(x: FloatArray) -> FloatArray:
    """Ranks about their mean; ties get their mean rank."""
    _, place, count = np.unique(x, return_inverse=True, return_counts=True)
    return (count.cumsum() - (count + x.size) / 2)[place]


def plcc(pred: ArrayLike, mos: ArrayLike) -> float:
    """Pearson's linear correlation in [-1, 1] of (n,) pairs, without any mapping; NaN if undefined."""
    x, y = as_pairs(pred, mos)
    if explain_undefined(x, y):
        return float("nan")
    return float(stats.pearsonr(x, y).statistic)


def krcc(pred: ArrayLike, mos: ArrayLike) -> float:
    """Kendall's tau-b in [-1, 1] of (n,) pairs; NaN if undefined."""
    x, y = as_pairs(pred, mos)
    if explain_undefined(x, y):
        return float("nan")
    return float(stats.kendalltau(x, y).statistic)


def rmse(pred: ArrayLike, mos: ArrayLike) -> float:
    """Root mean squared error of (n,) pairs on the scale of ``mos``; NaN without pairs."""
    x, y = as_pairs(pred, mos)
    return float(np.sqrt(np.mean(np.square(x - y)))) if x.size else float("nan")


def mae(pred: ArrayLike, mos: ArrayLike) -> float:
    """Mean absolute error of (n,) pairs on the scale of ``mos``; NaN without pairs."""
    x, y = as_pairs(pred, mos)
    return float(np.mean(np.abs(x - y))) if x.size else float("nan")

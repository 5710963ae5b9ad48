"""SRCC that a scorer cannot improve by failing: every failed image gets the score that hurts it most."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rali_zoo.metrics.correlation import FloatArray, as_pairs, explain_undefined, srcc


def fill_worst(pred: ArrayLike, mos: ArrayLike) -> FloatArray:
    """Scores with those of failed images replaced by the ones that make SRCC smallest.

    A failed image goes below all others if its MOS ranks above the mean of the scored ones, else above all
    others, and failed images stand in the opposite order of their MOS. Giving all of them the lowest
    score would not do: a scorer that fails on bad images would be right about them.

    Args:
        pred: (n,) predictions; NaN and infinite ones are the failed.
        mos: (n,) mean opinion scores, finite.

    Returns:
        (n,) finite scores; ``pred`` itself where nothing failed. Where their SRCC is positive, no other way
        to fill in the failed images, ties included, gives a smaller one.

    Raises:
        ValueError: no image was scored, or rows that do not pair up.
    """
    x = np.asarray(pred, dtype=np.float64)
    scored = np.isfinite(x)
    filled, y = as_pairs(np.where(scored, x, 0.0), mos)
    if scored.all():
        return filled
    if not scored.any():
        raise ValueError(f"none of {x.size} images was scored")
    rank = stats.rankdata(y)
    low = ~scored & (rank > rank[scored].mean())
    high = ~scored & ~low
    filled[scored] = stats.rankdata(x[scored], method="dense")
    for rows, lowest in ((low, -float(low.sum())), (high, filled[scored].max() + 1)):
        filled[rows] = lowest + np.argsort(np.argsort(-y[rows], kind="stable"), kind="stable")
    return filled


def srcc_failures_worst(pred: ArrayLike, mos: ArrayLike) -> float:
    """SRCC in [-1, 1] after :func:`fill_worst`; what a ranking of scorers should sort by.

    It is never above the SRCC the scorer would have had with any answers for its failed images, as long as
    it is positive. NaN where the SRCC of the scored images is undefined.

    Args:
        pred: (n,) predictions; NaN and infinite ones are the failed.
        mos: (n,) mean opinion scores, finite.
    """
    x, y = np.asarray(pred, dtype=np.float64), np.asarray(mos, dtype=np.float64)
    scored = np.isfinite(x)
    if x.shape != y.shape or explain_undefined(x[scored], y[scored]):
        as_pairs(np.where(scored, x, 0.0), y)  # says what does not pair up
        return math.nan
    return srcc(x if scored.all() else fill_worst(x, y), y)

"""D-test and L-test: what a scorer must get right without a single human score.

Ma et al., "Waterloo Exploration Database: New challenges for image quality assessment models", IEEE TIP 2017.
The third of their tests, P, is :func:`rali_zoo.metrics.p_test`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rali_zoo.metrics.correlation import srcc

_LEVELS = 3  # of two levels a rank correlation could only be 1 or -1


def d_test(pred: ArrayLike, pristine: ArrayLike) -> float:
    """Discriminability of pristine and distorted images (D-test).

    Args:
        pred: (n,) scores, higher is better, finite.
        pristine: (n,) whether an image is undistorted.

    Returns:
        Mean of the two shares put on the right side of the best threshold, in [0.5, 1]; a scorer that runs
        backwards gets 0.5. NaN unless there are images of both kinds.
    """
    x, good = np.asarray(pred, dtype=np.float64), np.asarray(pristine, dtype=bool)
    if not good.any() or good.all():
        return math.nan
    order = np.argsort(x, kind="stable")
    last = np.flatnonzero(np.diff(x[order], append=math.inf) > 0)  # thresholds lie between distinct scores
    bad_below = np.cumsum(~good[order])[last] / (~good).sum()
    good_below = np.cumsum(good[order])[last] / good.sum()
    return float(max(0.5, np.max((bad_below + 1 - good_below) / 2)))


@dataclass(frozen=True)
class LTest:
    """Result of :func:`l_test`.

    Attributes:
        value: mean over the series of SRCC between score and falling level, in [-1, 1]; NaN without series.
        series: how many there were.
        constant: in how many all scores were equal; they enter as 0.
    """

    value: float
    series: int
    constant: int


def l_test(pred: ArrayLike, series: Sequence[Hashable], level: ArrayLike) -> LTest:
    """Listwise ranking consistency: more of a distortion gives a lower score (L-test).

    Args:
        pred: (n,) scores, higher is better, finite.
        series: (n,) labels of what differs by level only: one image under one distortion. ``None`` = the
            image belongs to no series. Series with fewer than three levels are left out.
        level: (n,) severity, higher is worse.

    Raises:
        ValueError: vectors of different lengths.
    """
    x, severity = np.asarray(pred, dtype=np.float64), np.asarray(level, dtype=np.float64)
    if not len(series) == x.size == severity.size:
        raise ValueError(f"{x.size} scores, {len(series)} series and {severity.size} levels do not pair up")
    members: dict[Hashable, list[int]] = {}
    for row, label in enumerate(series):
        if label is not None:
            members.setdefault(label, []).append(row)
    long = [rows for rows in members.values() if np.unique(severity[rows]).size >= _LEVELS]
    found = np.array([srcc(x[rows], -severity[rows]) for rows in long])
    constant = int(np.isnan(found).sum())
    value = float(np.nan_to_num(found).mean()) if found.size else math.nan
    return LTest(value, len(long), constant)

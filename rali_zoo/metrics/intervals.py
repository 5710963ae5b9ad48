"""Intervals around scores: split-conformal quantiles, coverage and width; NumPy and SciPy only, no torch.

Split conformal prediction (Vovk, Gammerman and Shafer 2005; scaled residuals as in Lei et al.,
"Distribution-free predictive inference for regression", JASA 2018): residuals of rows that were not trained
on tell how wide an interval has to be, whatever their distribution, as long as new rows come from the same
source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rali_zoo.types import MOS_RANGE

#: Share of a normal distribution within one standard deviation of its mean.
ONE_SIGMA = math.erf(1 / math.sqrt(2))


@dataclass(frozen=True)
class Coverage:
    """How often intervals of a level hold the truth, and how wide they are.

    Attributes:
        level: that was asked for, in (0, 1).
        coverage: share of rows inside, in [0, 1].
        low: lower end of its 95 % interval (Wilson).
        high: upper end.
        width: mean width in MOS, after cutting at the ends of the scale.
        n: rows.
    """

    level: float
    coverage: float
    low: float
    high: float
    width: float
    n: int


def conformal_quantile(residuals: ArrayLike, level: float) -> float:
    """The residual that a new one stays below with probability ``level`` at least.

    Args:
        residuals: (n,) absolute residuals, perhaps divided by a predicted std; of rows not trained on.
        level: in (0, 1).

    Returns:
        The ceil((n + 1) level)-th smallest; infinite where n is too small to promise the level.

    Raises:
        ValueError: no residual, one that is no number, or a level outside (0, 1).
    """
    values = np.sort(np.asarray(residuals, dtype=np.float64).ravel())
    if values.size == 0 or np.isnan(values).any():
        raise ValueError(
            f"{values.size} residuals, {int(np.isnan(values).sum())} of them NaN: give finite ones"
        )
    if not 0 < level < 1:
        raise ValueError(f"level={level}: it lies between 0 and 1, such as 0.95")
    rank = math.ceil((values.size + 1) * level - 1e-9)  # 20 * 0.95 is 19, not 19.000000000000004
    return float(values[rank - 1]) if rank <= values.size else math.inf


def interval_coverage(mos: ArrayLike, score: ArrayLike, half: ArrayLike, level: float) -> Coverage:
    """Coverage and width of the intervals ``score ± half``, cut at the ends of the MOS scale.

    Args:
        mos: (n,) MOS in [1, 5].
        score: (n,) scores in [1, 5].
        half: (n,) half widths, or one for all; infinite is the whole scale.
        level: that the intervals were made for.

    Raises:
        ValueError: vectors that do not pair up, or none.
    """
    y, x = np.asarray(mos, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if y.shape != x.shape or y.ndim != 1 or y.size == 0:
        raise ValueError(f"mos {y.shape} and score {x.shape} must be (n,) and pair up row by row")
    reach = np.broadcast_to(np.asarray(half, dtype=np.float64), x.shape)
    low, high = np.clip(x - reach, *MOS_RANGE), np.clip(x + reach, *MOS_RANGE)
    inside = (y >= low) & (y <= high)
    bounds = stats.binomtest(int(inside.sum()), y.size).proportion_ci(method="wilson")
    return Coverage(
        level, float(inside.mean()), float(bounds.low), float(bounds.high), float((high - low).mean()), y.size
    )

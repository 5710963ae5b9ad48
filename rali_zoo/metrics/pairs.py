"""What pairs of images show of a scorer: preference (P-test), and Krasula's two analyses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rali_zoo.metrics.correlation import FloatArray, as_pairs

IntArray = NDArray[np.intp]

MOST_PAIRS = 500_000  # of 1,000 images all are kept; the standard error of a share is then below 0.001


@lru_cache(maxsize=2)  # the entries of a data set share their pairs
def image_pairs(n: int, most: int = MOST_PAIRS, seed: int = 0) -> tuple[IntArray, IntArray]:
    """Rows of all pairs of ``n`` images, or of a random sample of them where there are more than ``most``.

    Returns:
        (m,) first and (m,) second rows, different from each other in every pair.
    """
    if n * (n - 1) // 2 <= most:
        first, second = np.triu_indices(n, k=1)
        return first, second
    rng = np.random.default_rng(seed)
    first = rng.integers(n, size=most)
    second = (first + rng.integers(1, n, size=most)) % n
    return first, second


def discriminable_pairs(
    qualities: ArrayLike, margin: float, most: int = MOST_PAIRS, seed: int = 0
) -> tuple[IntArray, IntArray]:
    """Pairs that every judge orders alike, by more than a margin: the pairs of the P-test.

    Ma et al. (IEEE TIP 2017) take full-reference metrics for judges, mapped to one scale; MOS is a judge too.

    Args:
        qualities: (n,) or (judges, n), finite, higher is better, on one scale: MOS, or full-reference scores.
        margin: the difference that every judge must see, above 0.
        most: pairs looked at; more images than give that many are sampled.
        seed: of the sample.

    Returns:
        (m,) rows of the better and (m,) rows of the worse image.

    Raises:
        ValueError: a margin that is not positive, or qualities that are not finite.
    """
    judged = np.atleast_2d(np.asarray(qualities, dtype=np.float64))
    if not margin > 0 or judged.ndim != 2 or not np.isfinite(judged).all():
        raise ValueError(
            f"margin={margin} must be positive, qualities {judged.shape} (judges, n) and finite numbers"
        )
    first, second = image_pairs(judged.shape[1], most, seed)
    gap = judged[:, first] - judged[:, second]
    up, down = (gap > margin).all(axis=0), (gap < -margin).all(axis=0)
    return np.concatenate([first[up], second[down]]), np.concatenate([second[up], first[down]])


def p_test(pred: ArrayLike, better: ArrayLike, worse: ArrayLike) -> float:
    """Pairwise preference consistency (P-test; Ma et al., IEEE TIP 2017).

    Args:
        pred: (n,) scores, higher is better, finite.
        better: (m,) rows of the better images, as :func:`discriminable_pairs` gives them.
        worse: (m,) rows of the worse ones.

    Returns:
        Share of pairs in [0, 1] with the better image scored strictly higher; NaN without pairs.
    """
    x = np.asarray(pred, dtype=np.float64)
    high, low = np.asarray(better, dtype=np.intp), np.asarray(worse, dtype=np.intp)
    return float(np.mean(x[high] > x[low])) if high.size else math.nan


@dataclass(frozen=True)
class Krasula:
    """Krasula, Fliegel, Le Callet, Klima (QoMEX 2016): what differences of scores say of significant ones.

    Attributes:
        auc_different: area under the ROC curve, in [0, 1], of telling pairs with a significant difference
            from pairs without one by the size of the difference of scores; NaN if there is only one kind.
        auc_better: the same of telling which image of a significantly different pair is the better one, by
            the signed difference, each pair taken both ways; below 0.5 for a scorer that runs backwards.
        correct: share of the significantly different pairs that the scorer puts in the right order; a tie
            is half right.
        different: number of significantly different pairs.
        similar: number of the others.
    """

    auc_different: float
    auc_better: float
    correct: float
    different: int
    similar: int


def krasula(
    pred: ArrayLike,
    mos: ArrayLike,
    std: ArrayLike,
    raters: float | None = None,
    alpha: float = 0.05,
    most: int = MOST_PAIRS,
    seed: int = 0,
) -> Krasula:
    """Different-or-similar and better-or-worse analysis of a scorer, without any mapping of its scores.

    Two MOS differ significantly if ``(m1 - m2) / sqrt((s1^2 + s2^2) / raters)`` is beyond the two-sided
    ``alpha`` of the normal distribution: raters are taken as independent between images.

    Args:
        pred: (n,) scores, higher is better, finite.
        mos: (n,) mean opinion scores, finite.
        std: (n,) standard deviations of the ratings, on the scale of MOS, finite and not negative.
        raters: number of ratings behind each MOS. ``None`` = not known: each ``std`` is then taken for the
            uncertainty of its MOS itself, as if one person had rated, which calls fewer pairs different.
        alpha: level of that test.
        most: pairs looked at; more images than give that many are sampled.
        seed: of the sample.

    Raises:
        ValueError: rows that do not pair up, a negative or unknown ``std``, or fewer than one rater.
    """
    x, y = as_pairs(pred, mos)
    _, s = as_pairs(mos, std)
    if (s < 0).any() or (raters is not None and raters < 1):
        raise ValueError(f"std must not be negative (least: {s.min()}), and raters={raters} at least 1")
    first, second = image_pairs(x.size, most, seed)
    gap, delta = y[first] - y[second], x[first] - x[second]
    limit = stats.norm.isf(alpha / 2) * np.sqrt((s[first] ** 2 + s[second] ** 2) / (raters or 1.0))
    different = np.abs(gap) > limit
    towards = delta[different] * np.sign(gap[different])
    return Krasula(
        auc_different=_auc(np.abs(delta[different]), np.abs(delta[~different])),
        auc_better=_auc(towards, -towards),
        correct=float(np.mean((towards > 0) + 0.5 * (towards == 0))) if towards.size else math.nan,
        different=int(different.sum()),
        similar=int(different.size - different.sum()),
    )


def _auc(positive: FloatArray, negative: FloatArray) -> float:
    """Share of (positive, negative) pairs in which the positive is larger, ties half; NaN without pairs."""
    if not positive.size or not negative.size:
        return math.nan
    # Mann and Whitney's statistic without its p-value, which would take most of the time.
    positive, negative = np.sort(positive), np.sort(negative)
    below, up_to = (np.searchsorted(negative, positive, side) for side in ("left", "right"))
    return float((below.sum() + up_to.sum()) / 2 / (positive.size * negative.size))

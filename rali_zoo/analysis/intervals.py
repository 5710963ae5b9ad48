"""Numbers with 95 % intervals; images of one content are drawn, or left out, together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from rali_zoo.metrics import bootstrap_ci, paired_bootstrap, plcc, srcc
from rali_zoo.metrics.bootstrap import Resamples, Statistic, percentile_interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_LEAST = 5  # contents below which no interval is given
_GROUPS = 20  # of the jackknife

#: ``value, low, high``, and ``p`` where two are compared; NaN where not defined
Interval = dict[str, float]


class Difference(TypedDict):
    """How two ways of scoring differ on ``n`` images."""

    n: int
    srcc: Interval
    plcc: Interval


class Agreement(Difference):
    """How a way of scoring agrees with the MOS on ``n`` images, beside those that it ``failed`` on."""

    failed: int


def agreement(
    pred: ArrayLike, mos: ArrayLike, content: Sequence[str], resamples: int, seed: int
) -> Agreement:
    """SRCC and PLCC of predictions with percentile bootstrap intervals.

    Args:
        pred: (n,) predictions; NaN where there is none.
        mos: (n,) mean opinion scores.
        content: n names; whole contents are drawn.
        resamples: of the bootstrap.
        seed: of the resampling.

    Returns:
        ``n`` predictions that there are, ``failed`` that there are not, and for ``srcc`` and ``plcc`` a dict
        of ``value, low, high``, NaN where not defined.
    """
    x, y = np.asarray(pred, float), np.asarray(mos, float)
    there = np.isfinite(x)
    names = np.asarray(content, dtype=str)[there].tolist()

    def interval(statistic: Statistic) -> Interval:
        if len(set(names)) < _LEAST:
            return dict.fromkeys(("value", "low", "high"), math.nan)
        ci = bootstrap_ci(x[there], y[there], statistic, resamples, seed, groups=names)
        return {"value": ci.value, "low": ci.low, "high": ci.high}

    n, failed = int(there.sum()), int((~there).sum())
    return {"n": n, "failed": failed, "srcc": interval(srcc), "plcc": interval(plcc)}


def difference(
    a: ArrayLike, b: ArrayLike, mos: ArrayLike, content: Sequence[str], resamples: int, seed: int
) -> Difference:
    """How much better ``a`` agrees than ``b``, on the images that both have: paired bootstrap.

    Args:
        a: (n,) scores; NaN where there is none.
        b: (n,) scores of the other.
        mos: (n,) mean opinion scores.
        content: (n,) names; images of one content are drawn together.
        resamples: how often to draw.
        seed: of the draws.

    Returns:
        ``n`` of those images, and for ``srcc`` and ``plcc`` a dict of ``value, low, high, p`` (two-sided).
    """
    x, z, y = (np.asarray(v, float) for v in (a, b, mos))
    there = np.isfinite(x) & np.isfinite(z)
    names = np.asarray(content, dtype=str)[there].tolist()

    def interval(statistic: Statistic) -> Interval:
        if len(set(names)) < _LEAST:
            return dict.fromkeys(("value", "low", "high", "p"), math.nan)
        r = paired_bootstrap(x[there], z[there], y[there], statistic, resamples, seed, groups=names)
        return {"value": r.difference, "low": r.low, "high": r.high, "p": r.p_value}

    return {"n": int(there.sum()), "srcc": interval(srcc), "plcc": interval(plcc)}


def mean_interval(values: ArrayLike, content: Sequence[str], resamples: int, seed: int) -> Interval:
    """Mean of (n,) values with a percentile bootstrap interval over contents; ``value, low, high``.

    Args:
        values: (n,) numbers.
        content: (n,) names; values of one content are drawn together.
        resamples: how often to draw.
        seed: of the draws.
    """
    x = np.asarray(values, float)
    order = np.argsort(names := np.asarray(content, dtype=str), kind="stable")
    if np.unique(names).size < _LEAST:
        return {"value": float(x.mean()), "low": math.nan, "high": math.nan}
    drawn = Resamples(x.size, resamples, seed, names[order].tolist())
    low, high = percentile_interval(drawn.mean(x[order]))
    return {"value": float(x.mean()), "low": low, "high": high}


def jackknife(
    statistic: Callable[[list[NDArray[np.float64]]], float],
    parts: Sequence[NDArray[np.float64]],
    contents: Sequence[Sequence[str]],
    seed: int,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """A smooth statistic of several samples with a delete-a-group jackknife interval.

    A bootstrap would not do for MMD and CKA, which see an image that is drawn twice as a very near pair. The
    contents of each sample are split into 20 groups (fewer where there are fewer), and the statistic is taken
    without each (Shao, Tu, The Jackknife and Bootstrap, 1995, section 5.5).

    Args:
        statistic: of the samples.
        parts: (n_i, d) samples.
        contents: for each sample n_i names that stay together.
        seed: of the dealing.
        bounds: between which the statistic lies, and so its interval.

    Returns:
        ``value, low, high`` with Student's t; NaN ends where a sample has fewer than 5 contents.
    """
    from scipy import stats

    value = float(statistic(list(parts)))
    codes = [np.unique(np.asarray(names, dtype=str), return_inverse=True)[1] for names in contents]
    units = min(int(code.max()) + 1 for code in codes)
    if units < _LEAST:
        return {"value": value, "low": math.nan, "high": math.nan}
    groups, rng = min(_GROUPS, units), np.random.default_rng(seed)
    memberships = [(rng.permutation(int(code.max()) + 1) % groups)[code] for code in codes]
    without = np.array(
        [
            statistic([part[of != g] for part, of in zip(parts, memberships, strict=True)])
            for g in range(groups)
        ]
    )
    deviation = math.sqrt((groups - 1) / groups * np.square(without - without.mean()).sum())
    wide = float(stats.t.isf(0.025, groups - 1)) * deviation
    return {"value": value, "low": max(bounds[0], value - wide), "high": min(bounds[1], value + wide)}

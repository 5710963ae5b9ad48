"""Are two scorers different? A test of dependent correlations, Holm's correction, groups by letters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rali_zoo.metrics.correlation import FloatArray

#: Correlations nearer than this are equal: two scorers with the same ranks differ by as much when rounded.
ROUNDING = 1e-12


@dataclass(frozen=True)
class DependentTest:
    """Test of two correlations with the same MOS.

    Attributes:
        z: standard normal where the correlations are equal; positive where the first is larger.
        p_value: two-sided.
    """

    z: float
    p_value: float


def meng_rosenthal_rubin(
    r_a: float, r_b: float, r_ab: float, n: int, kind: Literal["pearson", "spearman"] = "spearman"
) -> DependentTest:
    """Meng, Rosenthal, Rubin (Psychological Bulletin 1992), equations 1 to 3: z of dependent correlations.

    The test is of Pearson's correlations. Fisher's z of a Spearman correlation has about ``1 + r^2 / 2``
    times the variance (Bonett, Wright, Psychometrika 2000), and so ``kind="spearman"`` divides it out;
    without that, 7 to 8 % of equal scorers were found different in our simulations, and 4 % with it.

    Images are taken as independent: with several images of one content the p-value is too small.

    Args:
        r_a: correlation of the first scorer with MOS, in [-1, 1].
        r_b: correlation of the second scorer with MOS.
        r_ab: correlation between the two scorers.
        n: number of images.
        kind: what the three correlations are.

    Returns:
        NaN for fewer than four images, or where a correlation is NaN.

    Raises:
        ValueError: a correlation outside [-1, 1], or another word for ``kind``.
    """
    if kind not in ("pearson", "spearman"):
        raise ValueError(f"kind={kind!r}: the correlations are 'pearson' or 'spearman'")
    for name, value in (("r_a", r_a), ("r_b", r_b), ("r_ab", r_ab)):
        if abs(value) > 1 + 1e-9:
            raise ValueError(f"{name}={value}: a correlation lies in [-1, 1]")
    z = float(dependent_z(np.array(r_a), np.array(r_b), np.array(r_ab), n, kind == "spearman"))
    return DependentTest(z, float(2 * stats.norm.sf(abs(z))))


def dependent_z(r_a: FloatArray, r_b: FloatArray, r_ab: FloatArray, n: int, spearman: bool) -> FloatArray:
    """z of :func:`meng_rosenthal_rubin`, many pairs at once.

    Args:
        r_a: (P,) or (), correlations of the first scorers with MOS, in [-1, 1].
        r_b: of the second ones.
        r_ab: between the two.
        n: number of images.
        spearman: whether the correlations are Spearman's.

    Returns:
        Of the same shape; NaN as there.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_square = (r_a**2 + r_b**2) / 2
        f = np.minimum(1.0, (1 - r_ab) / (2 * (1 - mean_square)))
        h = (1 - f * mean_square) / (1 - mean_square)
        wider = 1 + mean_square / 2 if spearman else 1.0
        z = (np.arctanh(r_a) - np.arctanh(r_b)) * np.sqrt((n - 3) / (2 * (1 - r_ab) * h * wider))
    certain = (np.maximum(np.abs(r_a), np.abs(r_b)) >= 1) | (r_ab >= 1)
    z = np.where(certain, np.copysign(np.inf, r_a - r_b), z)
    z = np.where(np.abs(r_a - r_b) < ROUNDING, 0.0, z)
    return np.where((n < 4) | np.isnan(r_a + r_b + r_ab), np.nan, z)


def holm(p_values: ArrayLike) -> FloatArray:
    """Holm's step-down correction (Scandinavian Journal of Statistics 1979) for many tests at once.

    Args:
        p_values: (m,) of the single tests; a NaN is no test, stays NaN and does not count as one.

    Returns:
        (m,) adjusted p-values: those below alpha hold together with error at most alpha.

    Raises:
        ValueError: a p-value outside [0, 1], or other than one dimension.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1:
        raise ValueError(f"p_values has shape {p.shape}; give one p-value a test, shape (m,)")
    tested = np.flatnonzero(~np.isnan(p))
    if ((p[tested] < 0) | (p[tested] > 1)).any():
        raise ValueError("a p-value lies in [0, 1]")
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = np.arange(order.size, 0, -1)
    adjusted = np.full(p.shape, math.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps * p[order]))
    return adjusted


@dataclass(frozen=True)
class Groups:
    """Which scorers cannot be told apart.

    Attributes:
        best: the scorer with the highest value first, then those not told apart from it, best first.
        letters: scorer to its letters, in the order of the values; two scorers that share a letter were not
            told apart, two that share none were. ``a`` holds the best; after ``z`` comes ``aa``.
    """

    best: tuple[str, ...]
    letters: dict[str, tuple[str, ...]]


def groups(
    values: Mapping[str, float], p_values: Mapping[tuple[str, str], float], alpha: float = 0.05
) -> Groups:
    """Compact letter display (Piepho, J. Computational and Graphical Statistics 2004: insert and absorb).

    Args:
        values: scorer to what it is ordered by, higher is better, finite.
        p_values: (one, other) to the corrected p-value of that pair, in either order; a pair that is missing
            or NaN was not told apart.
        alpha: pairs with a p-value below it are told apart.

    Raises:
        ValueError: a value that is not finite, or a pair with a name that has no value.
    """
    if wrong := [name for name, value in values.items() if not math.isfinite(value)]:
        raise ValueError(f"no finite value for {wrong}; leave undefined scorers out of the groups")
    if unknown := {name for pair in p_values for name in pair} - set(values):
        raise ValueError(f"p-values of {sorted(unknown)}, which have no value to be ordered by")
    names = sorted(values, key=lambda name: (-values[name], name))
    index = {name: i for i, name in enumerate(names)}
    apart = {frozenset((index[a], index[b])) for (a, b), p in p_values.items() if p < alpha and a != b}
    columns = _columns(len(names), apart)
    letters = {
        name: tuple(_label(k) for k, column in enumerate(columns) if column >> i & 1)
        for name, i in index.items()
    }
    best = tuple(name for name, i in index.items() if frozenset((0, i)) not in apart)
    return Groups(best, letters)


def _columns(count: int, apart: set[frozenset[int]]) -> list[int]:
    """Largest sets without a pair that is apart, as bit masks, those of the best scorers first."""
    columns = [(1 << count) - 1] if count else []
    for i, j in combinations(range(count), 2):
        if frozenset((i, j)) not in apart:
            continue
        both = 1 << i | 1 << j
        split = [c for c in columns if c & both == both]
        columns = [c for c in columns if c & both != both]
        for new in (c & ~(1 << k) for c in split for k in (i, j)):
            if not any(new & ~c == 0 for c in columns):
                columns = [c for c in columns if c & ~new] + [new]
    return sorted(columns, key=lambda c: [i for i in range(count) if c >> i & 1])


def _label(k: int) -> str:
    """``a`` to ``z``, then ``aa``, ``ab``, …"""
    letters = ""
    k += 1
    while k:
        k, rest = divmod(k - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters

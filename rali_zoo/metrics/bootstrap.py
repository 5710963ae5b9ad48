"""The bootstrap: every statistic of every scorer on the same resamples, drawn once.

A resample is held as how often each image was drawn, not as a list of rows: ranks, ties and moments of a
resample follow from those counts and one sort of the data, so that SRCC, KRCC, PLCC and RMSE of 5,000 images
in 1,000 resamples take less than half a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rali_zoo.metrics.correlation import FloatArray, as_pairs, krcc, mae, plcc, rmse, srcc

Statistic = Callable[[FloatArray, FloatArray], float]
IntArray = NDArray[np.intp]

_CHUNK = 128  # resamples at a time; bounds memory at a few times 128 x n numbers
_KEPT = 10_000_000  # images x resamples up to which what all scorers share is kept between them
_BLOCK = 64  # rows of a block of :func:`_cumulate`


class Resamples:
    """Which images each of many resamples holds; whole contents are drawn where images share one.

    Args:
        rows: number of images, n.
        resamples: how often to draw.
        seed: of the draws; the same seed draws the same resamples for every scorer.
        content: (n,) what an image shows, since images of one content are not independent; ``None`` = every
            image its own.

    Attributes:
        unit: what is drawn: ``content`` where there are fewer of them than images, else ``image``.
        units: how many there are.
        resamples: how often they were drawn.

    Raises:
        ValueError: no resample, fewer than two units, or labels that do not pair up with the images.
    """

    def __init__(
        self, rows: int, resamples: int, seed: int = 0, content: Sequence[Hashable] | None = None
    ) -> None:
        if resamples < 1:
            raise ValueError(f"resamples={resamples}: at least one is needed")
        if content is not None and len(content) != rows:
            raise ValueError(f"{len(content)} contents for {rows} images")
        numbers: dict[Hashable, int] = {}
        labels: Sequence[Hashable] = range(rows) if content is None else content
        self._member = np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.intp)
        self.units, self.resamples = len(numbers), resamples
        self.unit: Literal["image", "content"] = "content" if self.units < rows else "image"
        if self.units < 2:
            raise ValueError(f"{self.units} {self.unit} to draw from; a resample needs at least two")
        self._drawn = _draw(self.units, resamples, seed)
        self._kept: list[NDArray[np.int32]] = []
        self._target: tuple[bytes, list[tuple[FloatArray, FloatArray]]] = b"", []

    @classmethod
    @lru_cache(maxsize=2)  # the entries of a data set come one after the other
    def shared(cls, rows: int, resamples: int, seed: int, content: tuple[Hashable, ...]) -> Resamples:
        """The same object for the same arguments, so that scorers of one data set share its work."""
        return cls(rows, resamples, seed, content)

    def only(self, rows: NDArray[np.bool_]) -> Resamples:
        """The same resamples of the images of a mask of shape (n,); what was drawn of others is left out."""
        part = object.__new__(Resamples)
        part.__dict__.update(self.__dict__, _member=self._member[rows], _kept=[], _target=(b"", []))
        return part

    def _counts(self) -> Iterator[NDArray[np.int32]]:
        """Chunks (n, ≤ 128): how often each image was drawn."""
        made = (
            self._drawn[:, start : start + _CHUNK].astype(np.int32)[self._member]
            for start in range(0, self.resamples, _CHUNK)
        )
        if self._member.size * self.resamples > _KEPT:
            return made
        if not self._kept:
            self._kept = list(made)
        return iter(self._kept)

    def _weighted_ranks(self, mos: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Chunks (n, b): ranks of MOS less their mean, times how often each was drawn; (b,) their squares."""
        if self._target[0] == mos.tobytes():
            return iter(self._target[1])
        order = _Order(mos)

        def make() -> Iterator[tuple[FloatArray, FloatArray]]:
            for counts in self._counts():
                ranks, squares = order.centred_ranks(counts)
                ranks *= counts
                yield ranks, squares

        if self._member.size * self.resamples > _KEPT:
            return make()
        self._target = mos.tobytes(), list(make())
        return iter(self._target[1])

    def values(self, statistic: Statistic, pred: FloatArray, mos: FloatArray) -> FloatArray:
        """A statistic in each resample.

        Args:
            statistic: ``f(pred, mos)``; ``srcc``, ``krcc``, ``plcc``, ``rmse`` and ``mae`` take a fast path,
                any other is called once a resample on the rows written out.
            pred: (n,) predictions, finite.
            mos: (n,) mean opinion scores, finite.

        Returns:
            (resamples,) values; NaN where one is undefined.
        """
        if statistic is srcc:
            return self.srcc([pred], mos)[0]
        if statistic is krcc:
            return self._krcc(pred, mos)
        if statistic is plcc:
            return self._plcc(pred, mos)
        if statistic is rmse:
            return np.sqrt(self.mean(np.square(pred - mos)))
        if statistic is mae:
            return self.mean(np.abs(pred - mos))
        drawn = (np.repeat(np.arange(mos.size), row) for counts in self._counts() for row in counts.T)
        return np.array([statistic(pred[rows], mos[rows]) for rows in drawn], dtype=np.float64)

    def mean(self, values: FloatArray) -> FloatArray:
        """(resamples,) means of (n,) values; NaN of a resample without any of these images."""
        with np.errstate(invalid="ignore"):
            return np.concatenate([(values @ counts) / counts.sum(axis=0) for counts in self._counts()])

    def srcc(self, preds: Sequence[FloatArray], mos: FloatArray) -> FloatArray:
        """SRCC of several scorers.

        Args:
            preds: of each scorer (n,) finite predictions.
            mos: (n,) mean opinion scores.

        Returns:
            (scorers, resamples); NaN where it is undefined.
        """
        orders, parts = [_Order(x) for x in preds], []
        for counts, (weighted, variance) in zip(self._counts(), self._weighted_ranks(mos), strict=True):
            rows = []
            for order in orders:
                ranks, own = order.centred_ranks(counts)
                rows.append(_ratio(np.einsum("nb,nb->b", ranks, weighted), own * variance))
            parts.append(np.stack(rows))
        return np.concatenate(parts, axis=1)

    def _plcc(self, x: FloatArray, y: FloatArray) -> FloatArray:
        u, v = x - x.mean(), y - y.mean()
        moments = np.stack([u, v, u * u, v * v, u * v])
        parts = []
        for counts in self._counts():
            mu, mv, uu, vv, uv = moments @ counts / counts.sum(axis=0)
            variances = (uu - mu * mu) * (vv - mv * mv)
            # Rounding hides from a variance that every value drawn is the same: look where it is near 0.
            doubtful = np.flatnonzero(variances < 1e-9 * u.var() * v.var())
            for b in doubtful:
                drawn = counts[:, b] > 0
                if not drawn.any() or np.ptp(x[drawn]) == 0 or np.ptp(y[drawn]) == 0:
                    variances[b] = 0.0
            parts.append(_ratio(uv - mu * mv, variances))
        return np.concatenate(parts)

    def _krcc(self, x: FloatArray, y: FloatArray) -> FloatArray:
        one, other, both = _Order(x), _Order(y), _Order(_codes(x) * y.size + _codes(y))
        inversions, parts = _Inversions(x, y), []
        for counts in self._counts():
            size = counts.sum(axis=0, dtype=np.int64)
            pairs = size * (size - 1) // 2
            repeats = _pairs(counts)
            tied_x, tied_y, tied = (o.tied(counts) if o.repeats else repeats for o in (one, other, both))
            balance = pairs - tied_x - tied_y + tied - 2 * inversions.count(counts)
            parts.append(_ratio(balance, (pairs - tied_x) * (pairs - tied_y).astype(np.float64)))
        return np.concatenate(parts)


def _ratio(above: NDArray[np.float64] | NDArray[np.int64], below_squared: FloatArray) -> FloatArray:
    """(b,) correlations in [-1, 1]; NaN where one side is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.clip(above / np.sqrt(below_squared), -1.0, 1.0)
    return np.where(below_squared > 0, found, np.nan)


@lru_cache(maxsize=2)  # the entries of a data set come one after the other
def _draw(units: int, resamples: int, seed: int) -> NDArray[np.uint16]:
    """(units, resamples) how often each was drawn."""
    rng, equal = np.random.default_rng(seed), np.full(units, 1.0 / units)
    found = np.empty((units, resamples), np.uint16)
    for start in range(0, resamples, _CHUNK):
        stop = min(start + _CHUNK, resamples)
        found[:, start:stop] = rng.multinomial(units, equal, size=stop - start).T
    found.flags.writeable = False
    return found


def _codes(x: FloatArray) -> IntArray:
    """(n,) each value's place among the distinct ones, from 0."""
    return np.unique(x, return_inverse=True)[1].astype(np.intp)


Number = TypeVar("Number", np.float64, np.int32)


def _cumulate(values: NDArray[Number]) -> NDArray[Number]:
    """Cumulative sums of (n, b) values over the rows, in place; several times faster than ``np.cumsum``."""
    n, b = values.shape
    whole = n // _BLOCK * _BLOCK
    blocks = values[:whole].reshape(-1, _BLOCK, b)
    if len(blocks):
        for row in range(1, _BLOCK):
            blocks[:, row] += blocks[:, row - 1]
        for block in range(1, len(blocks)):
            blocks[block] += blocks[block - 1, -1]
    for row in range(max(whole, 1), n):
        values[row] += values[row - 1]
    return values


class _Order:
    """The order of (n,) values, from which ranks and ties of every resample follow."""

    def __init__(self, x: ArrayLike) -> None:
        self._code = _codes(np.asarray(x))
        self._rows = np.argsort(self._code, kind="stable")
        self._first = np.flatnonzero(np.diff(self._code[self._rows], prepend=-1))
        self.repeats = self._first.size < self._code.size

    def _drawn(self, counts: NDArray[np.int32]) -> NDArray[np.int32]:
        """(k, b) how often each distinct value was drawn."""
        ordered = counts[self._rows]
        return np.add.reduceat(ordered, self._first, axis=0) if self.repeats else ordered

    def centred_ranks(self, counts: NDArray[np.int32]) -> tuple[FloatArray, FloatArray]:
        """(n, b) mean ranks of the rows less their mean, and (b,) the sum of their squares over the draws."""
        drawn = self._drawn(counts).astype(np.float64)
        size = drawn.sum(axis=0)
        ranks = _cumulate(drawn.copy())
        ranks -= drawn / 2
        ranks -= size / 2
        return ranks[self._code], (size**3 - np.einsum("kb,kb,kb->b", drawn, drawn, drawn)) / 12

    def tied(self, counts: NDArray[np.int32]) -> NDArray[np.int64]:
        """(b,) pairs of draws with equal values."""
        return _pairs(self._drawn(counts))


def _pairs(drawn: NDArray[np.int32]) -> NDArray[np.int64]:
    """(b,) pairs of the same value among (k, b) times that each was drawn."""
    return (_sum_of_products(drawn, drawn) - drawn.sum(axis=0)) // 2


def _sum_of_products(a: NDArray[np.int32], b: NDArray[np.int32]) -> NDArray[np.int64]:
    """(b,) sums over the rows; 32 bits hold the pairs of 60,000 rows, and are much faster."""
    wide = None if len(a) < 60_000 else np.int64
    return np.einsum("nb,nb->b", a, b, dtype=wide).astype(np.int64)


class _Inversions:
    """Pairs of rows that two vectors order differently, counted for every resample at once.

    Rows stand in the order of ``x``; bit by bit of the rank of ``y``, from the highest, each group of equal
    higher bits gives the pairs in which the one with the bit set comes first.
    """

    def __init__(self, x: FloatArray, y: FloatArray) -> None:
        order = np.lexsort((y, x))
        code = _codes(y)[order]
        self._levels: list[tuple[IntArray, IntArray, IntArray, IntArray]] = []
        for bit in reversed(range(int(code.max()).bit_length())):
            place = np.argsort(code >> (bit + 1), kind="stable")
            group, one = code[place] >> (bit + 1), (code[place] >> bit) & 1 == 1
            before = np.cumsum(one)
            first = np.flatnonzero(np.diff(group, prepend=-1))
            sizes = np.diff(np.append(first, code.size))
            start = np.repeat((before - one)[first], sizes)
            zero = np.flatnonzero(~one & (before > start))
            if zero.size:
                ones, zeros = order[place[one]], order[place[zero]]
                self._levels.append((ones, zeros, before[zero], start[zero]))

    def count(self, counts: NDArray[np.int32]) -> NDArray[np.int64]:
        """(b,) inversions among the draws of (n, b) counts."""
        total = np.zeros(counts.shape[1], np.int64)
        for ones, zeros, before, start in self._levels:
            sums = np.zeros((ones.size + 1, counts.shape[1]), np.int32)
            np.take(counts, ones, axis=0, out=sums[1:])
            _cumulate(sums)
            larger = sums[before]
            larger -= sums[start]
            total += _sum_of_products(larger, counts[zeros])
        return total


# ---- intervals ----


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
        statistic: ``f(pred, mos)``; see :meth:`Resamples.values` for those that are fast.
        n: number of resamples.
        seed: of the resampling; the same seed draws the same resamples for every scorer.
        level: confidence level in (0, 1).
        groups: (m,) labels, such as the reference image of a distorted one; whole groups are then
            drawn, since images of one content are not independent. ``None`` draws images.

    Raises:
        ValueError: rows that do not pair up, a level outside (0, 1), no resample, fewer than two groups.
    """
    x, y = as_pairs(pred, mos)
    values = Resamples(x.size, n, seed, groups).values(statistic, x, y)
    low, high = percentile_interval(values, level)
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
    drawn = Resamples(y.size, n, seed, groups)
    values = drawn.values(statistic, a, y) - drawn.values(statistic, b, y)
    low, high = percentile_interval(values, level)
    difference = float(statistic(a, y) - statistic(b, y))
    return PairedResult(
        difference, low, high, p_of_no_difference(values), level, n, int(np.isnan(values).sum())
    )


def p_of_no_difference(differences: FloatArray) -> float:
    """Two-sided p-value from (resamples,) differences; NaN of them are left out, NaN if all are.

    One is added to both counts: a p-value of 0 would claim more than the resamples can show.
    """
    defined = differences[~np.isnan(differences)]
    tail = min(np.sum(defined <= 0), np.sum(defined >= 0)) + 1
    return min(1.0, 2.0 * float(tail) / (defined.size + 1)) if defined.size else math.nan


def percentile_interval(
    values: FloatArray, level: float = 0.95, units: int | None = None
) -> tuple[float, float]:
    """Percentile interval of resampled values.

    The plain percentile interval is too narrow by ``sqrt((n - 1) / n)`` and by the normal quantile in place
    of Student's t (Hesterberg, The American Statistician 2015); with ``units`` it is widened by both.

    Args:
        values: (resamples,) values of the statistic; NaN are left out.
        level: confidence level in (0, 1).
        units: number of images or contents that were drawn from, at least 2; ``None`` = do not widen.

    Returns:
        Lower and upper end; NaN if no value is defined.

    Raises:
        ValueError: a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level}: the confidence level lies between 0 and 1, such as 0.95")
    defined = values[~np.isnan(values)]
    if defined.size == 0:
        return math.nan, math.nan
    tail = (1 - level) / 2
    if units is not None:
        wide = math.sqrt(units / (units - 1)) * stats.t.isf(tail, units - 1)
        tail = float(stats.norm.sf(wide))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)

"""Ways to sum up SRCC: by group of images, over repeated splits, over data sets."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rali_zoo.metrics.correlation import FloatArray, explain_undefined, srcc
from rali_zoo.metrics.failures import srcc_failures_worst


@dataclass(frozen=True)
class GroupResult:
    """SRCC inside one group of images.

    Attributes:
        n: images of the group.
        failed: those without a score.
        srcc: of the scored ones, in [-1, 1]; NaN if undefined.
    """

    n: int
    failed: int
    srcc: float


def breakdown(
    pred: ArrayLike, mos: ArrayLike, labels: Sequence[Sequence[Hashable]]
) -> dict[Hashable, GroupResult]:
    """SRCC inside each group of images, such as those of one distortion, or of one (distortion, level).

    Args:
        pred: (n,) predictions; NaN and infinite ones are the failed.
        mos: (n,) mean opinion scores, finite.
        labels: (n,) the groups of every image, any number of them.

    Returns:
        Group to its result, in the order of first appearance.

    Raises:
        ValueError: vectors of different lengths.
    """
    x, y = np.asarray(pred, dtype=np.float64), np.asarray(mos, dtype=np.float64)
    if not x.size == y.size == len(labels):
        raise ValueError(f"{x.size} scores, {y.size} MOS and {len(labels)} labels do not pair up")
    members: dict[Hashable, list[int]] = {}
    for row, names in enumerate(labels):
        for name in names:
            members.setdefault(name, []).append(row)
    return {name: _group(x[rows], y[rows]) for name, rows in members.items()}


def _group(x: FloatArray, y: FloatArray) -> GroupResult:
    scored = np.isfinite(x)
    return GroupResult(x.size, int((~scored).sum()), srcc(x[scored], y[scored]))


@dataclass(frozen=True)
class KSplit:
    """SRCC over repeated random parts of a data set.

    Attributes:
        median: of the defined values, the field's usual number; NaN if none is defined.
        low: smallest of them.
        high: largest of them.
        repeats: how many parts were drawn.
        undefined: in how many of them SRCC was not defined.
        share: of the contents in one part.
    """

    median: float
    low: float
    high: float
    repeats: int
    undefined: int
    share: float


def ksplit(
    pred: ArrayLike,
    mos: ArrayLike,
    content: Sequence[Hashable] | None = None,
    repeats: int = 10,
    share: float = 0.2,
    seed: int = 0,
) -> KSplit:
    """Median SRCC over repeated test parts, as with 80/20 splits; whole contents are drawn.

    For a scorer that was trained anew on each of the other 80 %, call it on every part's own predictions
    instead; here the predictions are the same in each repeat.

    Args:
        pred: (n,) predictions, finite.
        mos: (n,) mean opinion scores, finite.
        content: (n,) labels of what an image shows; ``None`` = every image its own.
        repeats: number of parts.
        share: of the contents in one part, in (0, 1).
        seed: of the draws.

    Raises:
        ValueError: no repeat, a share outside (0, 1), or vectors of different lengths.
    """
    x, y = np.asarray(pred, dtype=np.float64), np.asarray(mos, dtype=np.float64)
    labels: Sequence[Hashable] = range(x.size) if content is None else content
    if repeats < 1 or not 0 < share < 1:
        raise ValueError(f"repeats={repeats}, share={share}: give at least one repeat and a share in (0, 1)")
    if not x.size == y.size == len(labels):
        raise ValueError(f"{x.size} scores, {y.size} MOS and {len(labels)} contents do not pair up")
    numbers: dict[Hashable, int] = {}
    member = np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.intp)
    rng, size = np.random.default_rng(seed), math.ceil(share * len(numbers))
    values = []
    for _ in range(repeats):
        rows = np.isin(member, rng.permutation(len(numbers))[:size])
        values.append(srcc(x[rows], y[rows]))
    defined = [v for v in values if not math.isnan(v)]
    median, low, high = (
        (float(np.median(defined)), min(defined), max(defined)) if defined else (math.nan,) * 3
    )
    return KSplit(median, low, high, repeats, repeats - len(defined), share)


@dataclass(frozen=True)
class Average:
    """Mean over data sets.

    Attributes:
        unweighted: every data set counts the same; ``None`` when one has no value, since a mean over other
            sets is another number.
        weighted: every image counts the same; ``None`` likewise.
        missing: the data sets without a value.
    """

    unweighted: float | None
    weighted: float | None
    missing: tuple[str, ...]


def average(values: Mapping[str, float | None], sizes: Mapping[str, int]) -> Average:
    """Unweighted and image-weighted mean of a statistic over data sets.

    Args:
        values: data set to its value; ``None`` or NaN = it has none.
        sizes: data set to its number of images, at least 1.

    Raises:
        ValueError: no data set, or one without a size.
    """
    if not values or any(sizes.get(name, 0) < 1 for name in values):
        raise ValueError(f"give at least one data set, and the size of each: {dict(values)}, {dict(sizes)}")
    present = {name: v for name, v in values.items() if v is not None and not math.isnan(v)}
    missing = tuple(name for name in values if name not in present)
    if missing:
        return Average(None, None, missing)
    numbers = list(present.values())
    weighted = float(np.average(numbers, weights=[sizes[name] for name in present]))
    return Average(float(np.mean(numbers)), weighted, ())


@dataclass(frozen=True)
class Pooled:
    """SRCC over the images of all data sets together, on the common MOS scale.

    Attributes:
        srcc: of the scored images, in [-1, 1]; NaN if undefined.
        srcc_failures_worst: see :func:`rali_zoo.metrics.srcc_failures_worst`.
        n: images.
        failed: those without a score.
        reason: why ``srcc`` is undefined; empty where it is not.
    """

    srcc: float
    srcc_failures_worst: float
    n: int
    failed: int
    reason: str


def pooled_srcc(sets: Sequence[tuple[ArrayLike, ArrayLike]]) -> Pooled:
    """Cross-set SRCC: does one score mean the same quality in every data set?

    MOS of different data sets share their end points here, not their raters, so that a perfect scorer need
    not reach 1.

    Args:
        sets: (predictions, MOS) of every data set, each (n,), MOS on [1, 5]; NaN predictions are the failed.

    Raises:
        ValueError: no data set, or one whose vectors do not pair up.
    """
    if not sets:
        raise ValueError("give at least one data set")
    preds = [np.asarray(pred, dtype=np.float64) for pred, _ in sets]
    targets = [np.asarray(mos, dtype=np.float64) for _, mos in sets]
    for k, (pred, mos) in enumerate(zip(preds, targets, strict=True)):
        if pred.shape != mos.shape:
            raise ValueError(
                f"data set {k} has scores {pred.shape} and MOS {mos.shape}; they pair up row by row"
            )
    x, y = np.concatenate(preds), np.concatenate(targets)
    scored = np.isfinite(x)
    reason = explain_undefined(x[scored], y[scored]) or ""
    worst = srcc_failures_worst(x, y)
    of_scored = worst if scored.all() else srcc(x[scored], y[scored])
    return Pooled(of_scored, worst, x.size, int((~scored).sum()), reason)

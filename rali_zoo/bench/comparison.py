"""Which scorers of one data set cannot be told apart: every pair, on the same images and resamples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rali_zoo import metrics
from rali_zoo.metrics.bootstrap import Resamples
from rali_zoo.metrics.correlation import FloatArray
from rali_zoo.metrics.significance import ROUNDING

Failures = Literal["left_out", "worst"]
LEVEL = 0.95
_FEWEST = 4  # images that the test of dependent correlations needs


@dataclass(frozen=True)
class Pair:
    """Difference in SRCC of two scorers, ``a`` minus ``b``; NaN where there is none.

    Attributes:
        a: name of one scorer.
        b: name of the other.
        n: images they were compared on.
        srcc_a: SRCC of ``a`` on those images.
        srcc_b: SRCC of ``b`` on them.
        difference: the first minus the second.
        low: lower end of its 95 % interval.
        high: upper end.
        p_mrr: Meng, Rosenthal, Rubin's test for Spearman correlations; takes images as independent.
        p_bootstrap: t-test of the difference by its standard error over paired resamples (of contents where
            they repeat); unlike a count of resamples it can be small enough to survive Holm's correction.
        p_value: the larger of the two: a pair is told apart when both tests say so.
        p_holm: that, corrected for all pairs of the comparison.
        reason: why there is no test; empty where there is one.
    """

    a: str
    b: str
    n: int
    srcc_a: float = math.nan
    srcc_b: float = math.nan
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p_mrr: float = math.nan
    p_bootstrap: float = math.nan
    p_value: float = math.nan
    p_holm: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """All pairs of scorers on one data set.

    Attributes:
        values: scorer to ``srcc_failures_worst``, best first.
        undefined: scorer without one, to its reason; it is in no pair and in no group.
        best: scorers that are not told apart from the best one, which stands first.
        letters: scorer to its letters; scorers that share one were not told apart.
        pairs: every pair of scorers, the better by ``values`` first.
        failures: what was done with failed images.
        unit: what was resampled.
        units: how many there were.
        resamples: how often.
        alpha: pairs with ``p_holm`` below it are told apart.
    """

    values: dict[str, float]
    undefined: dict[str, str]
    best: tuple[str, ...]
    letters: dict[str, tuple[str, ...]]
    pairs: tuple[Pair, ...]
    failures: Failures
    unit: Literal["image", "content"]
    units: int
    resamples: int
    alpha: float


def compare(
    mos: ArrayLike,
    scores: Mapping[str, ArrayLike],
    content: Sequence[str] | None = None,
    seed: int = 0,
    *,
    failures: Failures = "left_out",
    resamples: int = 1000,
    alpha: float = 0.05,
) -> Comparison:
    """Compare every two scorers on the same images, and group those that cannot be told apart.

    Args:
        mos: (n,) mean opinion scores, finite.
        scores: scorer to its (n,) scores, higher is better; NaN or infinite = the image failed.
        content: (n,) what an image shows; resamples draw contents where they repeat.
        seed: of the resamples, which all scorers share.
        failures: ``left_out`` compares on the images that both scored; ``worst`` compares
            ``srcc_failures_worst``, the number that rankings sort by, on all images.
        resamples: number of bootstrap resamples.
        alpha: error over all pairs together.

    Raises:
        ValueError: vectors of different lengths, MOS that are not finite, another word for ``failures``, or
            images of a single content.
    """
    if failures not in ("left_out", "worst"):
        raise ValueError(f"failures={failures!r}: give 'left_out' or 'worst'")
    y = np.asarray(mos, dtype=np.float64)
    if y.ndim != 1 or not np.isfinite(y).all():
        raise ValueError(f"mos {y.shape} must be (n,) finite numbers; leave images without MOS out")
    table, undefined = _defined(y, scores)
    values = {name: metrics.srcc_failures_worst(x, y) for name, x in table.items()}
    order = sorted(table, key=lambda name: (-values[name], name))
    if failures == "worst":
        table = {name: metrics.fill_worst(x, y) for name, x in table.items()}
    drawn = Resamples(y.size, resamples, seed, content)
    pairs = _holm(_pairs(y, {name: table[name] for name in order}, drawn), order)
    groups = metrics.groups(values, {(p.a, p.b): p.p_holm for p in pairs}, alpha)
    ranked = {name: values[name] for name in order}
    return Comparison(
        ranked,
        undefined,
        groups.best,
        groups.letters,
        pairs,
        failures,
        drawn.unit,
        drawn.units,
        resamples,
        alpha,
    )


def _defined(
    mos: FloatArray, scores: Mapping[str, ArrayLike]
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Scorers with a correlation, and the reasons of the others."""
    table, undefined = {}, {}
    for name, given in scores.items():
        x = np.asarray(given, dtype=np.float64)
        if x.shape != mos.shape:
            raise ValueError(
                f"scorer {name!r} has scores {x.shape} and mos {mos.shape}; they pair up row by row"
            )
        ok = np.isfinite(x)
        reason = metrics.explain_undefined(x[ok], mos[ok], at_least=_FEWEST)
        if reason:
            undefined[name] = reason
        else:
            table[name] = x
    return table, undefined


def _pairs(mos: FloatArray, table: Mapping[str, FloatArray], drawn: Resamples) -> Iterator[Pair]:
    """Every pair; those that share the same scored images are worked out together."""
    scored = {name: np.isfinite(x) for name, x in table.items()}
    together: dict[bytes, list[tuple[str, str]]] = {}
    for a, b in combinations(table, 2):
        together.setdefault((scored[a] & scored[b]).tobytes(), []).append((a, b))
    for key, pairs in together.items():
        rows = np.frombuffer(key, dtype=bool)
        here = {name: table[name][rows] for pair in pairs for name in pair}
        yield from _on_rows(mos[rows], here, pairs, drawn.only(rows))


def _on_rows(
    mos: FloatArray, table: Mapping[str, FloatArray], pairs: Sequence[tuple[str, str]], drawn: Resamples
) -> Iterator[Pair]:
    """Pairs of scorers that all scored every image of ``mos``."""
    reasons = {name: metrics.explain_undefined(x, mos, at_least=_FEWEST) for name, x in table.items()}
    names = [name for name in table if reasons[name] is None]
    if names:
        ranks = np.stack([stats.rankdata(v) for v in (mos, *(table[name] for name in names))])
        r = np.clip(np.corrcoef(ranks), -1.0, 1.0)
        boot = drawn.srcc([table[name] for name in names], mos)
    at = {name: i for i, name in enumerate(names)}
    for a, b in pairs:
        if a not in at or b not in at:
            yield Pair(a, b, mos.size, reason=reasons[a] or reasons[b] or "")
            continue
        i, j = at[a], at[b]
        mrr = metrics.meng_rosenthal_rubin(r[0, i + 1], r[0, j + 1], r[i + 1, j + 1], mos.size)
        yield _tested(a, b, mos.size, (r[0, i + 1], r[0, j + 1]), boot[i] - boot[j], mrr.p_value, drawn.units)


def _tested(
    a: str, b: str, n: int, srcc: tuple[float, float], boot: FloatArray, p_mrr: float, units: int
) -> Pair:
    difference = float(srcc[0] - srcc[1])
    if abs(difference) < ROUNDING:
        difference = 0.0
    defined = boot[~np.isnan(boot)]
    if defined.size < 2:
        return Pair(a, b, n, reason="SRCC is undefined in the resamples")
    error = float(defined.std(ddof=1))
    reach = float(stats.t.isf((1 - LEVEL) / 2, units - 1)) * error
    if difference == 0:
        p_bootstrap = 1.0
    else:
        p_bootstrap = float(2 * stats.t.sf(abs(difference) / error, units - 1)) if error > 0 else 0.0
    return Pair(
        a,
        b,
        n,
        srcc_a=float(srcc[0]),
        srcc_b=float(srcc[1]),
        difference=difference,
        low=difference - reach,
        high=difference + reach,
        p_mrr=p_mrr,
        p_bootstrap=p_bootstrap,
        p_value=max(p_mrr, p_bootstrap),
    )


def _holm(found: Iterator[Pair], order: Sequence[str]) -> tuple[Pair, ...]:
    """The pairs in the order of ranking, with corrected p-values."""
    by_name = {(pair.a, pair.b): pair for pair in found}
    pairs = [by_name[pair] for pair in combinations(order, 2)]
    corrected = metrics.holm([pair.p_value for pair in pairs])
    return tuple(replace(pair, p_holm=float(p)) for pair, p in zip(pairs, corrected, strict=True))

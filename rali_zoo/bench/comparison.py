"""Which scorers of one data set cannot be told apart: every pair, on the same images and resamples."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rali_zoo import metrics
from rali_zoo.metrics.bootstrap import Resamples
from rali_zoo.metrics.correlation import FloatArray
from rali_zoo.metrics.significance import ROUNDING, dependent_z
from rali_zoo.paths import atomic_path

Failures = Literal["left_out", "worst"]
LEVEL = 0.95
_FEWEST = 4  # images that the test of dependent correlations needs
_RULES = 1  # raised whenever the numbers of a pair are computed otherwise
_AT_ONCE = 512  # pairs whose resamples are subtracted together


class Pair(NamedTuple):
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
    memory: Path | None = None,
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
        memory: folder where the numbers of the pairs are kept by all that they depend on; ``None`` = nowhere.

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
    table = {name: table[name] for name in order}
    kept = None
    if memory is not None:
        facts = [_RULES, np.__version__, seed, resamples, failures, content, list(table)]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for x in (y, *table.values()):
            digest.update(x.tobytes())
        kept = memory / f"{digest.hexdigest()[:32]}.npz"
    pairs = _pairs(y, table, drawn, kept)
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


def _pairs(
    mos: FloatArray, table: Mapping[str, FloatArray], drawn: Resamples, kept: Path | None
) -> tuple[Pair, ...]:
    """Every pair, in the order of the table; from a file of an earlier run, where it is whole."""
    pairs = list(combinations(table, 2))
    try:
        with np.load(kept or "") as file:
            n, found, reasons = (file[name] for name in ("n", "found", "reasons"))
    except (OSError, ValueError, KeyError, BadZipFile):
        n, found, reasons = _numbers(mos, table, pairs, drawn)
        if kept is not None:
            with atomic_path(kept) as temporary, temporary.open("wb") as target:
                np.savez(target, n=n, found=found, reasons=reasons)
    columns = [n.tolist(), *found.tolist(), metrics.holm(found[-1]).tolist(), reasons.tolist()]
    return tuple(Pair(*names, *numbers) for names, *numbers in zip(pairs, *columns, strict=True))


def _numbers(
    mos: FloatArray, table: Mapping[str, FloatArray], pairs: Sequence[tuple[str, str]], drawn: Resamples
) -> tuple[NDArray[np.intp], FloatArray, NDArray[np.str_]]:
    """Images, numbers and reasons of P pairs; those that share the same scored images are worked out together."""
    scored = {name: np.isfinite(x) for name, x in table.items()}
    together: dict[bytes, list[int]] = {}
    for k, (a, b) in enumerate(pairs):
        together.setdefault((scored[a] & scored[b]).tobytes(), []).append(k)
    n, found, reasons = np.zeros(len(pairs), np.intp), np.full((8, len(pairs)), math.nan), [""] * len(pairs)
    for key, places in together.items():
        rows = np.frombuffer(key, dtype=bool)
        chosen = [pairs[k] for k in places]
        here = {name: table[name][rows] for pair in chosen for name in pair}
        n[places] = rows.sum()
        found[:, places], why = _on_rows(mos[rows], here, chosen, drawn.only(rows))
        for k, reason in zip(places, why, strict=True):
            reasons[k] = reason
    return n, found, np.array(reasons, dtype=str)


def _on_rows(
    mos: FloatArray, table: Mapping[str, FloatArray], pairs: Sequence[tuple[str, str]], drawn: Resamples
) -> tuple[FloatArray, list[str]]:
    """The eight numbers of :class:`Pair` from ``srcc_a`` to ``p_value``, (8, P), and P reasons why there are none.

    All scorers scored every image of ``mos``.
    """
    undefined = {name: metrics.explain_undefined(x, mos, at_least=_FEWEST) or "" for name, x in table.items()}
    reasons = [undefined[a] or undefined[b] for a, b in pairs]
    found = np.full((8, len(pairs)), math.nan)
    at = {name: i for i, name in enumerate(name for name in table if not undefined[name])}
    tested = np.array([k for k, reason in enumerate(reasons) if not reason], dtype=np.intp)
    if not tested.size:
        return found, reasons
    ranks = np.stack([stats.rankdata(v) for v in (mos, *(table[name] for name in at))])
    r = np.clip(np.corrcoef(ranks), -1.0, 1.0)
    i, j = np.array([[at[name] for name in pairs[k]] for k in tested]).T
    error = _errors(drawn.srcc([table[name] for name in at], mos), i, j)
    for k in tested[np.isnan(error)]:
        reasons[k] = "SRCC is undefined in the resamples"
    r_a, r_b = r[0, i + 1], r[0, j + 1]
    difference = np.where(np.abs(r_a - r_b) < ROUNDING, 0.0, r_a - r_b)
    reach = stats.t.isf((1 - LEVEL) / 2, drawn.units - 1) * error
    p_mrr = 2 * stats.norm.sf(np.abs(dependent_z(r_a, r_b, r[i + 1, j + 1], mos.size, spearman=True)))
    with np.errstate(divide="ignore", invalid="ignore"):
        p_bootstrap = 2 * stats.t.sf(np.abs(difference) / error, drawn.units - 1)
    p_bootstrap = np.where(difference == 0, 1.0, p_bootstrap)
    numbers = [r_a, r_b, difference, difference - reach, difference + reach, p_mrr, p_bootstrap]
    found[:, tested] = np.where(np.isnan(error), math.nan, [*numbers, np.maximum(p_mrr, p_bootstrap)])
    return found, reasons


def _errors(boot: FloatArray, i: NDArray[np.intp], j: NDArray[np.intp]) -> FloatArray:
    """(P,) standard deviations of the differences of (m, resamples) SRCC; NaN where fewer than two are defined."""
    parts = []
    for start in range(0, len(i), _AT_ONCE):
        away = boot[i[start : start + _AT_ONCE]] - boot[j[start : start + _AT_ONCE]]
        defined = np.isfinite(away)
        count = defined.sum(axis=1)
        away[~defined] = 0.0
        away -= (away.sum(axis=1) / np.maximum(count, 1))[:, None]
        away[~defined] = 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = np.einsum("pb,pb->p", away, away) / (count - 1)
        parts.append(np.where(count > 1, np.sqrt(variance), math.nan))
    return np.concatenate(parts)

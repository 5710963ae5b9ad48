"""The numbers of one benchmark cell: one scorer on one data set, as a pure function of its scores.

Everything is computed on the images that have a score, and failed ones are counted beside it; a ranking
sorts by ``srcc_failures_worst``, which a scorer cannot raise by failing. Comparisons of several scorers are
in :mod:`rali_zoo.bench.comparison`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rali_zoo import metrics
from rali_zoo.bench.results import Statistics
from rali_zoo.metrics.bootstrap import Resamples, percentile_interval
from rali_zoo.metrics.correlation import FloatArray
from rali_zoo.report import STATISTICS, JsonDict, Statistic, to_json

LEVEL = 0.95
#: An image is plainly better than another if people put it a whole category of the five higher (P-test).
MARGIN = 1.0
_MAPPABLE = 5  # pairs that a logistic of four parameters needs


@dataclass(frozen=True)
class _Columns:
    """What is known of each image; NaN, empty and 0 where it is not."""

    mos: FloatArray
    scores: FloatArray
    std: FloatArray
    content: NDArray[np.str_]
    distortion: NDArray[np.str_]
    level: FloatArray

    def __len__(self) -> int:
        return self.mos.size

    def only(self, rows: NDArray[np.bool_]) -> _Columns:
        """The images of a boolean mask."""
        return _Columns(*(column[rows] for column in vars(self).values()))


def cell_statistics(
    mos: ArrayLike,
    scores: ArrayLike,
    *,
    std: ArrayLike | None = None,
    raters: float | None = None,
    content: Sequence[str] | None = None,
    distortion: Sequence[str] | None = None,
    level: ArrayLike | None = None,
    on_mos_scale: bool = False,
    seed: int = 0,
    resamples: int = 1000,
) -> Statistics:
    """Every statistic of one scorer on one data set; numbers have six significant digits.

    Args:
        mos: (n,) mean opinion scores in [1, 5], finite.
        scores: (n,) of the scorer, higher is better; NaN or infinite = the image failed.
        std: (n,) standard deviations of the ratings on the scale of MOS, NaN where unknown.
        raters: ratings behind each MOS, if known; see :func:`rali_zoo.metrics.krasula`.
        content: (n,) what an image shows; intervals resample contents where they repeat.
        distortion: (n,) classes, several joined by ``;``, empty where unknown, ``pristine`` for none.
        level: (n,) severity, higher is worse, 0 where unknown.
        on_mos_scale: whether the scores are MOS, so that an error without mapping means something.
        seed: of all resampling.
        resamples: number of bootstrap resamples.

    Raises:
        ValueError: vectors of different lengths, or MOS that are not finite.
    """
    table = _columns(mos, scores, std, content, distortion, level)
    ok = np.isfinite(table.scores)
    scored, failed = table.only(ok), int((~ok).sum())
    reason = metrics.explain_undefined(scored.scores, scored.mos) or ""
    found: dict[str, Any] = {
        "n": len(table),
        "failed": failed,
        "status": "undefined" if reason else "ok",
        "reason": f"{failed} of {len(table)} images failed; {reason}" if reason and failed else reason,
        **({name: {} for name in STATISTICS} if reason else {}),
        "by_distortion": _breakdown(table, [_classes(d) for d in table.distortion]),
        "by_level": _breakdown(table, [[f"{v:g}"] if v > 0 else [] for v in table.level]),
    }
    if not reason:
        found["srcc_failures_worst"] = metrics.srcc_failures_worst(table.scores, table.mos)
        found |= _measured(scored, raters, on_mos_scale, seed, resamples)
    return Statistics.model_validate(to_json(found, digits=6))


def _measured(
    scored: _Columns, raters: float | None, on_mos_scale: bool, seed: int, resamples: int
) -> dict[str, Any]:
    """All that the scored images show."""
    fit = metrics.fit_logistic(scored.scores, scored.mos) if len(scored) >= _MAPPABLE else None
    _, counts = np.unique(scored.scores, return_counts=True)
    return {
        **_estimates(scored, fit, on_mos_scale, seed, resamples),
        "ties": float(counts[counts > 1].sum() / len(scored)),
        "distinct": int(counts.size),
        "fit": _fit_report(fit, len(scored)),
        "ksplit": asdict(metrics.ksplit(scored.scores, scored.mos, scored.content.tolist(), seed=seed)),
        "tests": {
            "d_test": _d_test(scored),
            "l_test": _l_test(scored),
            "p_test": _p_test(scored, seed),
            "krasula": _krasula(scored, raters, seed),
        },
    }


def _columns(
    mos: ArrayLike,
    scores: ArrayLike,
    std: ArrayLike | None,
    content: Sequence[str] | None,
    distortion: Sequence[str] | None,
    level: ArrayLike | None,
) -> _Columns:
    target = np.asarray(mos, dtype=np.float64)
    if target.ndim != 1 or not np.isfinite(target).all():
        raise ValueError(f"mos {target.shape} must be (n,) finite numbers; leave images without MOS out")
    n = target.size
    table = _Columns(
        target,
        np.asarray(scores, dtype=np.float64),
        np.full(n, math.nan) if std is None else np.asarray(std, dtype=np.float64),
        np.asarray(range(n) if content is None else content, dtype=str),
        np.asarray([""] * n if distortion is None else distortion, dtype=str),
        np.zeros(n) if level is None else np.asarray(level, dtype=np.float64),
    )
    for name, column in vars(table).items():
        if len(column) != n:
            raise ValueError(f"{name} has {len(column)} rows and mos {n}; they pair up row by row")
    return table


def _classes(distortion: str) -> list[str]:
    return list(dict.fromkeys(part for part in distortion.split(";") if part))


def _breakdown(table: _Columns, labels: list[list[str]]) -> dict[str, object]:
    found = metrics.breakdown(table.scores, table.mos, labels)
    return {str(name): asdict(result) for name, result in sorted(found.items(), key=lambda i: str(i[0]))}


# ---- the table of statistics ----


def _estimates(
    table: _Columns, fit: metrics.LogisticFit | None, on_mos_scale: bool, seed: int, resamples: int
) -> dict[str, Any]:
    """Values and intervals by name, and how the intervals were made."""
    drawn, how = _resamples(table, seed, resamples)
    found: dict[str, Any] = {}
    for row in STATISTICS.values():
        if row.on_mos_scale and not on_mos_scale:
            found[row.name] = {}
            continue
        value, values = _value(row, table, fit, drawn)
        low, high = (None, None)
        if values is not None and drawn is not None:
            low, high = percentile_interval(values, LEVEL, drawn.units)
            if row.name == "srcc":
                how["undefined"] = int(np.isnan(values).sum())
        found[row.name] = {"value": value, "low": low, "high": high}
    return {**found, "interval": how}


def _resamples(table: _Columns, seed: int, resamples: int) -> tuple[Resamples | None, JsonDict]:
    n = len(table)
    if len(set(table.content)) < 2:
        return None, {"reason": f"all {n} images show one content, so there is nothing to resample"}
    drawn = Resamples.shared(n, resamples, seed, tuple(table.content.tolist()))
    return drawn, {"level": LEVEL, "unit": drawn.unit, "units": drawn.units, "resamples": resamples}


def _value(
    row: Statistic, table: _Columns, fit: metrics.LogisticFit | None, drawn: Resamples | None
) -> tuple[float, FloatArray | None]:
    """A statistic of the data and of the resamples; one of mapped scores holds the mapping fixed there."""
    x, y = table.scores, table.mos
    module, _, name = (row.of_mapped or row.formula).partition(":")
    formula = getattr(import_module(module), name)
    if row.of_mapped:
        if fit is None:
            return math.nan, None
        x = fit.fitted
        if math.isnan(value := formula(x, y)):  # no relation to MOS at all: mapped to one value
            return row(table.scores, y), None
    else:
        value = formula(x, y)
    return value, None if drawn is None else drawn.values(formula, x, y)


def _fit_report(fit: metrics.LogisticFit | None, n: int) -> dict[str, object]:
    if fit is None:
        return {"reason": f"{n} scored images; a logistic of four parameters needs {_MAPPABLE}"}
    return {
        "form": fit.form,
        "parameters": list(fit.parameters),
        "converged": fit.converged,
        "start": fit.start,
        "starts": fit.starts,
        "linear_cost_ratio": fit.cost / fit.linear_cost if fit.linear_cost > 0 else 1.0,
    }


# ---- the D-, L- and P-test and Krasula's analysis, each where the data allow it ----


def _p_test(table: _Columns, seed: int) -> dict[str, object]:
    better, worse = metrics.discriminable_pairs(table.mos, MARGIN, seed=seed)
    if not better.size:
        return {"value": None, "pairs": 0, "reason": f"no two images differ by more than {MARGIN:g} MOS"}
    return {"value": metrics.p_test(table.scores, better, worse), "pairs": better.size, "margin": MARGIN}


def _d_test(table: _Columns) -> dict[str, object]:
    pristine = table.distortion == "pristine"
    counts = {"pristine": int(pristine.sum()), "distorted": int((~pristine).sum())}
    if 0 in counts.values():
        return {"value": None, **counts, "reason": "it needs pristine and distorted images"}
    return {"value": metrics.d_test(table.scores, pristine), **counts}


def _l_test(table: _Columns) -> dict[str, object]:
    series = [
        (content, classes[0]) if len(classes := _classes(kinds)) == 1 and level > 0 else None
        for content, kinds, level in zip(table.content, table.distortion, table.level, strict=True)
    ]
    found = metrics.l_test(table.scores, series, table.level)
    if found.series:
        return asdict(found)
    return {"value": None, "series": 0, "reason": "no content is there in three levels of one distortion"}


def _krasula(table: _Columns, raters: float | None, seed: int) -> dict[str, object]:
    if unknown := int((~np.isfinite(table.std)).sum()):
        return {"reason": f"the standard deviation of the ratings is unknown for {unknown} images"}
    found = asdict(metrics.krasula(table.scores, table.mos, table.std, raters, seed=seed))
    return {**found, "raters": raters, "assumed": "" if raters else "std is the uncertainty of the MOS"}

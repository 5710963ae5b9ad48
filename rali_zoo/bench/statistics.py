"""The numbers of one benchmark cell: one scorer on one data set, as a pure function of its scores.

Everything is computed on the images that have a score, and failed ones are counted beside it; a ranking
sorts by ``srcc_failures_worst``, which a scorer cannot raise by failing. Comparisons of several scorers are
in :mod:`rali_zoo.bench.comparison` and importable from here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rali_zoo import metrics
from rali_zoo.bench.comparison import Comparison, Pair, compare
from rali_zoo.bench.plain import JsonDict, plain
from rali_zoo.metrics import resampling
from rali_zoo.metrics.correlation import FloatArray

__all__ = ["CellStatistics", "Comparison", "Estimate", "Pair", "cell_statistics", "compare"]

LEVEL = 0.95
#: An image is plainly better than another if people put it a whole category of the five higher (P-test).
MARGIN = 1.0


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % bootstrap interval; ``None`` where something is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


_NOTHING = Estimate(None)


@dataclass(frozen=True)
class CellStatistics:
    """Statistics of one scorer on one data set; :meth:`as_dict` gives them as JSON.

    Attributes:
        n: images of the cell.
        failed: those without a finite score.
        status: ``undefined`` if the scored images allow no correlation, with the reason.
        reason: empty for ``ok``.
        srcc_failures_worst: SRCC with every failed image ranked where it hurts most; rankings sort by it.
        srcc: signed, in [-1, 1]; negative for a scorer that runs backwards.
        krcc: tau-b, signed.
        plcc: without mapping, signed.
        plcc_mapped: after the logistic mapping, in [0, 1]; its interval holds the mapping fixed.
        rmse: after the logistic mapping, on the scale of MOS; its interval holds the mapping fixed.
        rmse_raw: without mapping; only for scorers whose scores are MOS.
        ties: share of the scored images whose score another image has too.
        distinct: number of different scores.
        fit: of the logistic mapping: ``form``, ``parameters``, ``converged``, ``start``, ``starts``, and
            ``linear_cost_ratio`` = residual sum of squares over that of the best line; or ``reason``.
        interval: ``level``, ``unit`` (what was resampled: ``image`` or ``content``), ``units``,
            ``resamples``, and ``undefined`` = resamples without an SRCC; or the ``reason`` there is none.
        ksplit: SRCC over ten random parts with 20 % of the contents: ``median``, ``low``, ``high``, …
        by_distortion: class to ``n``, ``failed``, ``srcc``; an image with several classes is in each.
        by_level: severity to the same; images of unknown level are in none.
        tests: ``d_test``, ``l_test``, ``p_test``, ``krasula``; each has ``reason`` where the data do not
            allow it.
    """

    n: int
    failed: int
    status: Literal["ok", "undefined"]
    reason: str
    srcc_failures_worst: float | None = None
    srcc: Estimate = _NOTHING
    krcc: Estimate = _NOTHING
    plcc: Estimate = _NOTHING
    plcc_mapped: Estimate = _NOTHING
    rmse: Estimate = _NOTHING
    rmse_raw: Estimate = _NOTHING
    ties: float | None = None
    distinct: int = 0
    fit: JsonDict = field(default_factory=dict)
    interval: JsonDict = field(default_factory=dict)
    ksplit: JsonDict = field(default_factory=dict)
    by_distortion: JsonDict = field(default_factory=dict)
    by_level: JsonDict = field(default_factory=dict)
    tests: JsonDict = field(default_factory=dict)

    def as_dict(self) -> JsonDict:
        """All of it for JSON: numbers with six significant digits, ``None`` for what is undefined."""
        found = plain(asdict(self))
        if not isinstance(found, dict):
            raise TypeError(f"a cell is a dictionary, not {type(found).__name__}")
        return found


@dataclass(frozen=True)
class _Columns:
    """What is known of each image; NaN, empty and 0 where it is not."""

    mos: FloatArray
    scores: FloatArray
    std: FloatArray
    content: list[str]
    distortion: list[str]
    level: FloatArray

    def __len__(self) -> int:
        return self.mos.size

    def only(self, rows: np.ndarray) -> _Columns:
        """The images of a boolean mask."""
        content, distortion = (
            [v for v, keep in zip(values, rows, strict=True) if keep]
            for values in (self.content, self.distortion)
        )
        return _Columns(
            self.mos[rows], self.scores[rows], self.std[rows], content, distortion, self.level[rows]
        )


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
) -> CellStatistics:
    """Every statistic of one scorer on one data set.

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
    counted = CellStatistics(
        n=len(table),
        failed=failed,
        status="undefined",
        reason=metrics.explain_undefined(scored.scores, scored.mos) or "",
        by_distortion=_breakdown(table, [_classes(d) for d in table.distortion]),
        by_level=_breakdown(table, [[f"{v:g}"] if v > 0 else [] for v in table.level]),
    )
    if counted.reason:
        lost = f"{failed} of {len(table)} images failed; " if failed else ""
        return replace(counted, reason=lost + counted.reason)
    return _measured(counted, table, scored, raters, on_mos_scale, seed, resamples)


_MAPPABLE = 5  # pairs that a logistic of four parameters needs


def _measured(
    counted: CellStatistics,
    table: _Columns,
    scored: _Columns,
    raters: float | None,
    on_mos_scale: bool,
    seed: int,
    resamples: int,
) -> CellStatistics:
    """The counts of a cell, completed by all that its scored images tell."""
    fit = metrics.fit_logistic(scored.scores, scored.mos) if len(scored) >= _MAPPABLE else None
    estimates, interval = _estimates(scored, fit, on_mos_scale, seed, resamples)
    _, counts = np.unique(scored.scores, return_counts=True)
    return replace(
        counted,
        status="ok",
        srcc_failures_worst=metrics.srcc_failures_worst(table.scores, table.mos),
        srcc=estimates["srcc"],
        krcc=estimates["krcc"],
        plcc=estimates["plcc"],
        plcc_mapped=estimates.get("plcc_mapped", _NOTHING),
        rmse=estimates.get("rmse", _NOTHING),
        rmse_raw=estimates.get("rmse_raw", _NOTHING),
        ties=float(counts[counts > 1].sum() / len(scored)),
        distinct=int(counts.size),
        fit=_fit_report(fit, len(scored)),
        interval=interval,
        ksplit=_as_json(metrics.ksplit(scored.scores, scored.mos, scored.content, seed=seed)),
        tests=_tests(scored, raters, seed),
    )


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
        [str(i) for i in range(n)] if content is None else list(content),
        [""] * n if distortion is None else list(distortion),
        np.zeros(n) if level is None else np.asarray(level, dtype=np.float64),
    )
    for name in ("scores", "std", "content", "distortion", "level"):
        if len(getattr(table, name)) != n:
            raise ValueError(
                f"{name} has {len(getattr(table, name))} rows and mos {n}; they pair up row by row"
            )
    return table


def _classes(distortion: str) -> list[str]:
    return list(dict.fromkeys(part for part in distortion.split(";") if part))


def _breakdown(table: _Columns, labels: list[list[str]]) -> JsonDict:
    found = metrics.breakdown(table.scores, table.mos, labels)
    return {
        str(name): _as_json(result) for name, result in sorted(found.items(), key=lambda item: str(item[0]))
    }


def _as_json(result: metrics.GroupResult | metrics.KSplit | metrics.Krasula | metrics.LTest) -> JsonDict:
    return {str(name): value for name, value in asdict(result).items()}


def _estimates(
    table: _Columns, fit: metrics.LogisticFit | None, on_mos_scale: bool, seed: int, resamples: int
) -> tuple[dict[str, Estimate], JsonDict]:
    """Values and intervals by field name, and how the intervals were made."""
    x, y, n = table.scores, table.mos, len(table)
    values = {"srcc": metrics.srcc(x, y), "krcc": metrics.krcc(x, y), "plcc": metrics.plcc(x, y)}
    wanted: dict[str, tuple[resampling.Resampled, FloatArray]] = {"srcc": ("srcc", x), "plcc": ("plcc", x)}
    if n <= resampling.MOST_KENDALL:
        wanted["krcc"] = ("krcc", x)
    if fit is not None:
        # Scores without any relation to MOS map to one value: no correlation, not an undefined one.
        flat = metrics.explain_undefined(fit.fitted, y) is not None
        values["plcc_mapped"] = 0.0 if flat else metrics.plcc(fit.fitted, y)
        values["rmse"] = metrics.rmse(fit.fitted, y)
        wanted["rmse"] = "rmse", fit.fitted
        if not flat:
            wanted["plcc_mapped"] = "plcc", fit.fitted
    if on_mos_scale:
        values["rmse_raw"], wanted["rmse_raw"] = metrics.rmse(x, y), ("rmse", x)
    unit, units = resampling.units_of(n, table.content)
    if units < 2:
        return {name: Estimate(v) for name, v in values.items()}, {
            "reason": f"all {n} images show one content, so there is nothing to resample"
        }
    drawn = resampling.resampled(wanted, y, resampling.draw(n, resamples, seed, table.content))
    ends = {name: resampling.expanded_interval(v, units, LEVEL) for name, v in drawn.items()}
    undefined = int(np.isnan(drawn["srcc"]).sum())
    how: JsonDict = {
        "level": LEVEL,
        "unit": unit,
        "units": units,
        "resamples": resamples,
        "undefined": undefined,
    }
    return {name: Estimate(v, *ends.get(name, (None, None))) for name, v in values.items()}, how


def _fit_report(fit: metrics.LogisticFit | None, n: int) -> JsonDict:
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


def _tests(table: _Columns, raters: float | None, seed: int) -> JsonDict:
    """The D-, L- and P-test and Krasula's analysis of scored images, each where the data allow it."""
    pristine = np.array([d == "pristine" for d in table.distortion])
    return {
        "d_test": _d_test(table, pristine),
        "l_test": _l_test(table),
        "p_test": _p_test(table, seed),
        "krasula": _krasula(table, raters, seed),
    }


def _p_test(table: _Columns, seed: int) -> JsonDict:
    better, worse = metrics.discriminable_pairs(table.mos, MARGIN, seed=seed)
    if not better.size:
        return {"value": None, "pairs": 0, "reason": f"no two images differ by more than {MARGIN:g} MOS"}
    return {"value": metrics.p_test(table.scores, better, worse), "pairs": better.size, "margin": MARGIN}


def _d_test(table: _Columns, pristine: np.ndarray) -> JsonDict:
    counts: Mapping[str, int] = {"pristine": int(pristine.sum()), "distorted": int((~pristine).sum())}
    if 0 in counts.values():
        return {"value": None, **counts, "reason": "it needs pristine and distorted images"}
    return {"value": metrics.d_test(table.scores, pristine), **counts}


def _l_test(table: _Columns) -> JsonDict:
    series = [
        (content, classes[0]) if len(classes := _classes(kinds)) == 1 and level > 0 else None
        for content, kinds, level in zip(table.content, table.distortion, table.level, strict=True)
    ]
    found = metrics.l_test(table.scores, series, table.level)
    if found.series:
        return _as_json(found)
    return {"value": None, "series": 0, "reason": "no content is there in three levels of one distortion"}


def _krasula(table: _Columns, raters: float | None, seed: int) -> JsonDict:
    if not np.isfinite(table.std).all():
        unknown = int((~np.isfinite(table.std)).sum())
        return {"reason": f"the standard deviation of the ratings is unknown for {unknown} images"}
    found = _as_json(metrics.krasula(table.scores, table.mos, table.std, raters, seed=seed))
    return {**found, "raters": raters, "assumed": "" if raters else "std is the uncertainty of the MOS"}

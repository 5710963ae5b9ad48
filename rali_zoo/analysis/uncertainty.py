"""Is a scorer's std honest? Coverage and width of its intervals, calibrated on validation rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rali_zoo.metrics import bootstrap_ci
from rali_zoo.metrics.intervals import Coverage, conformal_quantile, interval_coverage

LEVELS = (0.5, 0.8, 0.95)


class CoverageReport(TypedDict):
    """Intervals on ``n`` test rows, calibrated on ``n_val``: by level and kind, and whether std and error agree."""

    n_val: int
    n: int
    levels: dict[str, dict[str, Coverage]]
    error_srcc: float
    error_srcc_low: float
    error_srcc_high: float


def coverage_report(
    mos_val: ArrayLike,
    score_val: ArrayLike,
    std_val: ArrayLike,
    mos: ArrayLike,
    score: ArrayLike,
    std: ArrayLike,
    levels: Sequence[float] = LEVELS,
    content: Sequence[str] | None = None,
) -> CoverageReport:
    """Coverage and mean width of three kinds of intervals around the scores of the test rows.

    ``normal`` takes the std for a normal distribution's, ``conformal`` scales it by the residuals of
    the validation rows, ``constant`` gives every image the same width by the same residuals. A std that
    separates hard images from easy ones makes ``conformal`` narrower than ``constant`` at the same coverage.

    Args:
        mos_val: (m,) MOS of the validation rows, in [1, 5].
        score_val: (m,) their scores.
        std_val: (m,) their stds, above 0.
        mos: (n,) MOS of the test rows.
        score: (n,) their scores.
        std: (n,) their stds, above 0.
        levels: in (0, 1).
        content: (n,) what each test image shows, for the interval of ``error_srcc``.

    Returns:
        ``levels`` (level to the three kinds, each a :class:`~rali_zoo.metrics.intervals.Coverage`), and
        ``error_srcc`` with ``low`` and ``high``: SRCC of std and absolute error on the test rows.
    """
    y, x, s = (np.asarray(v, dtype=np.float64) for v in (mos_val, score_val, std_val))
    mos, score, std = (np.asarray(v, dtype=np.float64) for v in (mos, score, std))
    error = np.abs(y - x)
    found: dict[str, dict[str, Coverage]] = {}
    for level in levels:
        halves = {
            "normal": std * float(stats.norm.ppf((1 + level) / 2)),
            "conformal": std * conformal_quantile(error / s, level),
            "constant": np.full(std.shape, conformal_quantile(error, level)),
        }
        found[f"{level:g}"] = {
            kind: interval_coverage(mos, score, half, level) for kind, half in halves.items()
        }
    agrees = bootstrap_ci(std, np.abs(mos - score), groups=content)
    return {
        "n_val": int(y.size),
        "n": int(mos.size),
        "levels": found,
        "error_srcc": agrees.value,
        "error_srcc_low": agrees.low,
        "error_srcc_high": agrees.high,
    }

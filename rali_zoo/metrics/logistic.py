"""The monotone logistic that maps predictions to MOS before PLCC and RMSE.

Sheikh, Sabir, Bovik, "A statistical evaluation of recent full reference image quality assessment
algorithms", IEEE TIP 2006 (five parameters); VQEG FR-TV Phase I (four parameters). An unbounded fit from
one starting point often does not converge, so this one standardises both variables, turns the predictions
so that they rise with MOS, bounds every parameter and starts from several points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult, least_squares
from scipy.special import expit

from rali_zoo.metrics.correlation import FloatArray, as_pairs, explain_undefined, plcc, rmse, srcc

Parameters = Literal[4, 5]

_STEEPEST, _FLATTEST = 1e-3, 1e2  # width of the logistic, in standard deviations of the predictions
_LARGEST = 1e3  # amplitude, in standard deviations of MOS; lets the flattest logistic be a straight line


@dataclass(frozen=True)
class LogisticFit:
    """A fitted mapping from predictions to MOS; call it with new predictions of shape (m,).

    Attributes:
        form: ``logistic4``: ``b2 + (b1 - b2) / (1 + exp(-(x - b3) / b4))``;
            ``logistic5``: ``b1 * (1/2 - 1 / (1 + exp(b2 * (x - b3)))) + b4 * x + b5``;
            ``linear``: ``b1 * x + b2``, the limit of both, taken when no start did better than it.
        parameters: ``b1, b2, …`` of that form, for predictions and MOS on their own scales.
        fitted: (n,) mapped predictions, on the scale of MOS.
        cost: residual sum of squares, on the scale of MOS.
        linear_cost: the same of the best straight line; ``cost`` is never larger.
        converged: whether the best start met a tolerance before the evaluation limit; true for ``linear``,
            which has a closed form.
        start: index of the start that won; -1 for ``linear``.
        starts: how many starts were tried.
    """

    form: Literal["logistic4", "logistic5", "linear"]
    parameters: tuple[float, ...]
    fitted: FloatArray
    cost: float
    linear_cost: float
    converged: bool
    start: int
    starts: int

    def __call__(self, pred: ArrayLike) -> FloatArray:
        """Map (m,) predictions to (m,) values on the scale of MOS."""
        x = np.asarray(pred, dtype=np.float64)
        b = self.parameters
        if self.form == "linear":
            return b[0] * x + b[1]
        if self.form == "logistic4":
            return b[1] + (b[0] - b[1]) * expit((x - b[2]) / b[3])
        return b[0] * (expit(b[1] * (x - b[2])) - 0.5) + b[3] * x + b[4]


def _model(p: FloatArray, z: FloatArray) -> FloatArray:
    """``p`` = offset, amplitude, log width, centre[, slope] on standardised variables."""
    curve = p[0] + p[1] * (expit((z - p[3]) / np.exp(p[2])) - 0.5)
    return curve + p[4] * z if p.size == 5 else curve


def _jacobian(p: FloatArray, z: FloatArray) -> FloatArray:
    width = np.exp(p[2])
    t = (z - p[3]) / width
    s = expit(t)
    slope = p[1] * s * (1 - s)
    columns = [np.ones_like(z), s - 0.5, -slope * t, -slope / width]
    return np.stack([*columns, z] if p.size == 5 else columns, axis=1)


def _starts(z: FloatArray, line: float, parameters: Parameters) -> list[FloatArray]:
    """Twelve curves over centre and width, and one that is nearly the straight line of slope ``line``."""
    low, high = np.quantile(z, [0.25, 0.75])
    # A skewed scorer has most of its values in a narrow band: measure widths there, not by the deviation.
    width = float(np.clip(high - low, 10 * _STEEPEST, 1.0))
    grid = product(np.quantile(z, [0.1, 0.5, 0.9]), (0.1 * width, 0.4 * width, width, 1.5))
    extra = [0.0] * (parameters - 4)
    curves = [[0.0, 2.0, np.log(width), centre, *extra] for centre, width in grid]
    curves.append([0.0, 40.0 * line, np.log(10.0), 0.0, *extra])
    return [np.array(curve) for curve in curves]


def _solve(z: FloatArray, y: FloatArray, parameters: Parameters) -> tuple[OptimizeResult, int, int]:
    """The best of all starts, its index, and their number."""
    low = [-_LARGEST, 0.0, np.log(_STEEPEST), z.min() - 1.0, 0.0][:parameters]
    high = [_LARGEST, _LARGEST, np.log(_FLATTEST), z.max() + 1.0, _LARGEST][:parameters]
    line = max(float(np.mean(z * y)), 0.0)
    starts = _starts(z, line, parameters)
    best, index = None, -1
    for i, start in enumerate(starts):
        found = least_squares(
            lambda p: _model(p, z) - y,
            np.clip(start, low, high),
            jac=lambda p: _jacobian(p, z),
            bounds=(low, high),
            x_scale="jac",
            max_nfev=200,
        )
        if best is None or found.cost < best.cost:
            best, index = found, i
    return best, index, len(starts)


def _signs(x: FloatArray, y: FloatArray) -> list[float]:
    """Which ways to turn the predictions: both only when rank and linear correlation disagree."""
    return sorted({1.0 if r >= 0 else -1.0 for r in (srcc(x, y), plcc(x, y))}, reverse=True)


def _native(
    p: FloatArray, sign: float, x_scale: tuple[float, float], y_scale: tuple[float, float]
) -> tuple[float, ...]:
    """Parameters of the published formula, from those on standardised variables; scales are (mean, std)."""
    (x_mean, x_std), (y_mean, y_std) = x_scale, y_scale
    width, middle = sign * x_std * np.exp(p[2]), x_mean + sign * x_std * p[3]
    if p.size == 4:
        return y_mean + y_std * (p[0] + p[1] / 2), y_mean + y_std * (p[0] - p[1] / 2), middle, width
    line = y_std * sign * p[4] / x_std
    return y_std * p[1], 1.0 / width, middle, line, y_mean + y_std * p[0] - line * x_mean


def fit_logistic(pred: ArrayLike, mos: ArrayLike, parameters: Parameters = 4) -> LogisticFit:
    """Least-squares monotone logistic from predictions to MOS.

    Args:
        pred: (n,) predictions on any scale; lower-is-better ones are turned.
        mos: (n,) mean opinion scores.
        parameters: 4 (VQEG) or 5 (Sheikh et al. 2006, kept monotone).

    Raises:
        ValueError: fewer than ``parameters + 1`` pairs, or predictions or MOS that are all equal.
    """
    if parameters not in (4, 5):
        raise ValueError(f"parameters={parameters}: the logistic has 4 or 5 of them")
    x, y = as_pairs(pred, mos)
    if reason := explain_undefined(x, y, at_least=parameters + 1):
        raise ValueError(f"no logistic can be fitted: {reason}")
    x_mean, x_std, y_mean, y_std = x.mean(), x.std(), y.mean(), y.std()
    z, target = (x - x_mean) / x_std, (y - y_mean) / y_std
    solved = [(_solve(sign * z, target, parameters), sign) for sign in _signs(x, y)]
    (best, start, count), sign = min(solved, key=lambda item: item[0][0].cost)
    r = float(np.mean(z * target))
    linear_cost = float(np.sum(np.square(target - r * z)))
    form: Literal["logistic4", "logistic5", "linear"]
    values: tuple[float, ...]
    if 2.0 * best.cost > linear_cost:
        form, start, cost, curve = "linear", -1, linear_cost, r * z
        values = (r * y_std / x_std, y_mean - r * y_std / x_std * x_mean)
    else:
        form = "logistic4" if parameters == 4 else "logistic5"
        cost, curve = 2.0 * best.cost, _model(best.x, sign * z)
        values = _native(best.x, sign, (x_mean, x_std), (y_mean, y_std))
    return LogisticFit(
        form=form,
        parameters=tuple(float(v) for v in values),
        fitted=y_mean + y_std * curve,
        cost=float(cost * y_std**2),
        linear_cost=float(linear_cost * y_std**2),
        converged=bool(best.success) or form == "linear",
        start=start,
        starts=count * len(solved),
    )


def plcc_mapped(pred: ArrayLike, mos: ArrayLike, parameters: Parameters = 4) -> float:
    """PLCC of (n,) pairs after :func:`fit_logistic`, in [0, 1]; NaN if undefined.

    The mapping turns a scorer that runs backwards, so the sign is lost: read SRCC beside it.
    """
    x, y = as_pairs(pred, mos)
    if explain_undefined(x, y, at_least=parameters + 1):
        return float("nan")
    fitted = _fitted(x.tobytes(), y.tobytes(), parameters)
    # Predictions without any relation to MOS map to one value: no correlation, not an undefined one.
    return 0.0 if explain_undefined(fitted, y) else plcc(fitted, y)


def rmse_mapped(pred: ArrayLike, mos: ArrayLike, parameters: Parameters = 4) -> float:
    """RMSE of (n,) pairs after :func:`fit_logistic`, on the scale of ``mos``; NaN if undefined."""
    x, y = as_pairs(pred, mos)
    if explain_undefined(x, y, at_least=parameters + 1):
        return float("nan")
    return rmse(_fitted(x.tobytes(), y.tobytes(), parameters), y)


@lru_cache(maxsize=2)  # who asks for the one statistic of some scores asks for the other next
def _fitted(pred: bytes, mos: bytes, parameters: Parameters) -> FloatArray:
    """:attr:`LogisticFit.fitted` of the same pairs, once."""
    return fit_logistic(np.frombuffer(pred), np.frombuffer(mos), parameters).fitted

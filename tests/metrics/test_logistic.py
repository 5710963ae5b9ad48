"""The logistic mapping: recovers known curves, never below a straight line, whatever the scale."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rali_zoo.metrics import fit_logistic, plcc, plcc_mapped, rmse_mapped, srcc


def _noisy(seed, n=120, noise=0.3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return x, np.clip(3 + x + noise * rng.normal(size=n), 1, 5)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scale,offset", [(1.0, 0.0), (100.0, 50.0), (1e-4, 3.0)])
def test_four_parameters_are_recovered(sign, scale, offset):
    x = np.linspace(-3, 3, 200)
    y = 1.2 + (4.8 - 1.2) / (1 + np.exp(-(x - 0.4) / 0.6))
    fit = fit_logistic(offset + scale * sign * x, y)
    assert fit.form == "logistic4" and fit.converged
    b1, b2, b3, b4 = fit.parameters
    assert (b1, b2) == pytest.approx((4.8, 1.2), abs=1e-3)
    assert b3 == pytest.approx(offset + scale * sign * 0.4, abs=1e-3 * scale)
    assert b4 == pytest.approx(scale * sign * 0.6, rel=1e-3)
    assert np.allclose(fit.fitted, y, atol=1e-4)


def test_five_parameters_follow_a_curve_with_a_slope():
    x = np.linspace(-3, 3, 200)
    y = 2.0 * (0.5 - 1 / (1 + np.exp(4.0 * (x - 0.5)))) + 0.3 * x + 3
    fit = fit_logistic(x, y, parameters=5)
    assert fit.form == "logistic5"
    assert np.allclose(fit.fitted, y, atol=1e-3)
    assert fit.parameters == pytest.approx((2.0, 4.0, 0.5, 0.3, 3.0), abs=0.02)


@pytest.mark.parametrize("parameters", [4, 5])
@pytest.mark.parametrize("warp", [lambda x: x, lambda x: -np.exp(2 * x), lambda x: 1e6 + x, lambda x: x**3])
def test_calling_the_fit_gives_the_fitted_values(parameters, warp):
    x, y = _noisy(0)
    fit = fit_logistic(warp(x), y, parameters)
    assert np.allclose(fit(warp(x)), fit.fitted, atol=1e-6)
    assert np.sum((fit.fitted - y) ** 2) == pytest.approx(fit.cost, rel=1e-6)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([4, 5]),
    st.integers(8, 60),
    st.sampled_from(
        [np.exp, lambda x: -x, np.tanh, lambda x: 100 * x, lambda x: np.round(x), lambda x: np.exp(-3 * x)]
    ),
)
def test_never_worse_than_the_straight_line_and_monotone(seed, parameters, n, warp):
    x, y = _noisy(seed, n, noise=1.0)
    pred = warp(x)
    if len(set(pred)) == 1:
        return
    fit = fit_logistic(pred, y, parameters)
    assert fit.starts >= 12
    assert fit.cost <= fit.linear_cost * (1 + 1e-12)
    assert plcc_mapped(pred, y, parameters) >= abs(plcc(pred, y)) - 1e-7
    steps = np.diff(fit.fitted[np.argsort(pred)])
    assert (steps >= -1e-9).all() or (steps <= 1e-9).all()


def test_a_skewed_scorer_gains_what_its_ranks_promise():
    x, y = _noisy(1, 400)
    skewed = np.exp(2.5 * x)
    assert plcc(skewed, y) < 0.5
    assert plcc_mapped(skewed, y) > 0.85


def test_a_straight_line_is_named_one():
    y = np.linspace(1, 5, 50)
    fit = fit_logistic(10 - 2 * y, y)
    assert fit.form == "linear" and fit.start == -1
    assert fit.parameters == pytest.approx((-0.5, 5.0))
    assert plcc_mapped(10 - 2 * y, y) == pytest.approx(1.0)
    assert rmse_mapped(10 - 2 * y, y) == pytest.approx(0.0, abs=1e-9)


def test_opposite_rank_and_linear_correlation():
    """One outlier turns PLCC; the fit follows whichever way explains MOS better."""
    y = np.linspace(1, 5, 40)
    x = y.copy()
    x[0] = 400.0
    assert srcc(x, y) > 0.8 and plcc(x, y) < 0
    assert plcc_mapped(x, y) > 0.85 > 0.5 > abs(plcc(x, y))


def test_undefined_fits():
    assert math.isnan(plcc_mapped([1, 2, 3, 4], [1, 2, 3, 4]))
    assert math.isnan(rmse_mapped([2] * 9, range(9)))
    with pytest.raises(ValueError, match="at least 6"):
        fit_logistic([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], parameters=5)
    with pytest.raises(ValueError, match="4 or 5"):
        fit_logistic(range(9), range(9), parameters=3)

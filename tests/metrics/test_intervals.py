"""Split-conformal quantiles against a simulation and by hand; coverage and width of known intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rali_zoo.metrics.intervals import ONE_SIGMA, conformal_quantile, interval_coverage


def test_the_quantile_is_the_residual_of_the_rank_that_the_theorem_names():
    residuals = np.arange(1, 20)  # 19 of them: (19 + 1) * 0.95 = 19
    assert conformal_quantile(residuals, 0.95) == 19
    assert conformal_quantile(residuals, 0.5) == 10
    assert conformal_quantile(residuals[::-1], 0.96) == math.inf  # 19 rows cannot promise it
    assert pytest.approx(0.682689, abs=1e-6) == ONE_SIGMA


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_new_residuals_of_any_distribution_stay_below_it_as_often_as_promised(level):
    rng = np.random.default_rng(0)
    draws = rng.gamma(0.7, 1.0, size=(2000, 41))  # skewed, on purpose
    inside = [draw[-1] <= conformal_quantile(draw[:-1], level) for draw in draws]
    # The theorem: between level and level + 1 / (n + 1), here give or take the simulation's error.
    error = 3 * math.sqrt(level * (1 - level) / len(inside))
    assert level - error <= np.mean(inside) <= level + 1 / 41 + error


def test_coverage_and_width_are_cut_at_the_ends_of_the_scale():
    found = interval_coverage([1.0, 3.0, 5.0, 3.0], [1.5, 3.0, 4.0, 1.0], [1.0, 0.5, 0.5, 0.5], 0.8)
    assert (found.coverage, found.n, found.level) == (0.5, 4, 0.8)
    assert found.width == pytest.approx((1.5 + 1.0 + 1.0 + 0.5) / 4)
    assert found.low < 0.5 < found.high
    whole = interval_coverage([1.0, 5.0], [3.0, 3.0], math.inf, 0.99)
    assert (whole.coverage, whole.width) == (1.0, 4.0)


@pytest.mark.parametrize("residuals,level", [([], 0.5), ([1.0, math.nan], 0.5), ([1.0, 2.0], 1.0)])
def test_what_has_no_quantile_is_refused(residuals, level):
    with pytest.raises(ValueError):
        conformal_quantile(residuals, level)


def test_rows_that_do_not_pair_up_are_refused():
    with pytest.raises(ValueError, match="pair up"):
        interval_coverage([1.0, 2.0], [1.0], 0.5, 0.5)

"""D-test against all thresholds, L-test against one SciPy correlation a series."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from rali_zoo.metrics import d_test, l_test


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=20).filter(
        lambda rows: len({r[1] for r in rows}) == 2
    )
)
def test_d_test_tries_every_threshold(rows):
    pred, pristine = np.array([r[0] for r in rows], dtype=float), np.array([r[1] for r in rows])
    best = max(balanced_accuracy_score(pristine, pred > t) for t in np.arange(-0.5, 7))
    assert d_test(pred, pristine) == pytest.approx(best)
    assert d_test(np.exp(pred), pristine) == pytest.approx(best)


def test_d_test_edges():
    assert d_test([1, 2, 3, 4], [False, False, True, True]) == 1
    assert d_test([4, 3, 2, 1], [False, False, True, True]) == 0.5
    assert math.isnan(d_test([1, 2], [True, True])) and math.isnan(d_test([1, 2], [False, False]))


def test_l_test_is_the_mean_over_series():
    rng = np.random.default_rng(0)
    series = [(f"c{k % 6}", f"d{k % 2}") for k in range(60)]
    level = np.array([1 + k // 12 for k in range(60)], dtype=float)
    pred = -level + 2 * rng.normal(size=60)
    wanted = []
    for label in dict.fromkeys(series):
        rows = [k for k in range(60) if series[k] == label]
        wanted.append(stats.spearmanr(pred[rows], -level[rows]).statistic)
    found = l_test(pred, series, level)
    assert found.value == pytest.approx(np.mean(wanted)) and found.series == 6 and found.constant == 0
    assert l_test(-level, series, level).value == 1 and l_test(level, series, level).value == -1


def test_short_and_constant_series():
    short = l_test([3, 2, 1, 5], ["a", "a", None, "b"], [1, 2, 3, 1])
    assert short.series == 0 and math.isnan(short.value)
    half = l_test([3, 2, 1, 7, 7, 7], ["a"] * 3 + ["b"] * 3, [1, 2, 3, 1, 2, 3])
    assert (half.value, half.series, half.constant) == (0.5, 2, 1)
    with pytest.raises(ValueError, match="pair up"):
        l_test([1, 2], ["a"], [1, 2])

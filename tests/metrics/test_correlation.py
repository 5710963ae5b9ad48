"""Correlations against SciPy, with ties, constants, tiny samples and large offsets."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rali_zoo.metrics import explain_undefined, krcc, mae, plcc, rmse, srcc

PAIRS = st.lists(st.tuples(st.integers(-4, 4), st.integers(1, 5)), min_size=2, max_size=40)
ALL = (srcc, plcc, krcc, rmse, mae)


@given(PAIRS, st.sampled_from([0.0, 1e6, -1e9]))
def test_correlations_equal_scipy_with_ties_and_offsets(pairs, offset):
    x, y = np.array(pairs, dtype=float).T
    x = x + offset
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert all(math.isnan(f(x, y)) for f in (srcc, plcc, krcc))
        assert "all " in explain_undefined(x, y)
        return
    assert explain_undefined(x, y) is None
    assert srcc(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert krcc(x, y) == pytest.approx(stats.kendalltau(x, y, variant="b").statistic, abs=1e-12)
    assert plcc(x, y) == pytest.approx(np.corrcoef(x - offset, y)[0, 1], abs=1e-6)


def test_ties_by_hand():
    # ranks of x: 1.5 1.5 3 4, of y: 1 2 3 4
    assert srcc([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    # five concordant pairs, none discordant, one tie in x: 5 / sqrt(5 * 6)
    assert krcc([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(5 / math.sqrt(30))


def test_the_sign_is_kept():
    x = [1.0, 2.0, 3.0, 5.0]
    for f in (srcc, krcc):
        assert f([-v for v in x], x) == pytest.approx(-1.0)
    assert plcc([-v for v in x], x) == pytest.approx(-1.0)


def test_float64_survives_a_large_offset():
    """A float32 rank sees only ties here."""
    x = 1e9 + np.arange(50) * 1e-3
    assert srcc(x, np.arange(50)) == pytest.approx(1.0)
    assert len(np.unique(x.astype(np.float32))) == 1


def test_errors_by_hand():
    assert rmse([1, 2], [1, 4]) == pytest.approx(math.sqrt(2))
    assert mae([1, 2], [1, 4]) == pytest.approx(1.0)
    assert rmse([3], [1]) == mae([3], [1]) == 2.0


@pytest.mark.parametrize(
    "pred,mos,word",
    [([], [], "0 pairs"), ([1], [2], "1 pairs"), ([3, 3], [1, 2], "3"), ([1, 2], [4, 4], "MOS")],
)
def test_undefined_is_nan_and_explained(pred, mos, word):
    assert all(math.isnan(f(pred, mos)) for f in (srcc, plcc, krcc))
    assert word in explain_undefined(pred, mos)


def test_no_pairs_have_no_error():
    assert math.isnan(rmse([], [])) and math.isnan(mae([], []))


@pytest.mark.parametrize("f", ALL)
def test_bad_input_is_refused(f):
    with pytest.raises(ValueError, match="1 of 3 values NaN or infinite"):
        f([1, float("nan"), 2], [1, 2, 3])
    with pytest.raises(ValueError, match="NaN or infinite"):
        f([1, 2, 3], [1, float("inf"), 3])
    with pytest.raises(ValueError, match="pair up"):
        f([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="shape"):
        f([[1, 2, 3]], [1, 2, 3])
